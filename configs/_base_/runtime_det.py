# The runtime of detection: boxes and masks are drawn, the best checkpoint is that of the best box AP.
_base_ = ['./runtime.py']
default_scope = 'mmdet'
custom_imports = dict(imports=['internvl_dense.openmmlab.det'], allow_failed_imports=False)
default_hooks = dict(
    checkpoint=dict(save_best='coco/bbox_mAP'), visualization=dict(_delete_=True, type='DetVisualizationHook'))
visualizer = dict(type='DetLocalVisualizer')
tta_model = None
