"""The door to detection: importing this module registers detectors beside everything for segmentation.

A config says `custom_imports = dict(imports=['internvl_dense.openmmlab.det'], allow_failed_imports=False)`. It is apart
because mmdet takes seconds to import, which no segmentation run should pay. Mask2Former's head for segmentation is
made of mmdet's parts and needs it too.
"""

import contextlib
import importlib
import io

from internvl_dense.openmmlab import ops_fallback  # first: mmdet looks operators up while it is imported

ops_fallback.require_detection()
with contextlib.redirect_stdout(io.StringIO()):  # mmdet prints here that an optional package is absent
    for _name in ('datasets', 'models', 'visualization'):
        importlib.import_module(f'mmdet.{_name}')

from internvl_dense.openmmlab import coco_metric, detectors, mmseg_heads, simple_pyramid  # noqa: E402, F401

detectors.register()
simple_pyramid.register()
mmseg_heads.restore()
