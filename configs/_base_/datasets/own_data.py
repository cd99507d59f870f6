# Your images in images/{train,val}, labels in annotations/{train,val}, class names in classes.txt, one a line.
_base_ = ['ade20k_504.py']
data_root = 'data/mine'  # the one line to edit; or say --data-root FOLDER
num_classes = data_root + '/classes.txt'  # as many as the file has lines
train_dataloader = dict(
    dataset=dict(
        type='FolderDataset', data_root=data_root, metainfo=dict(classes=num_classes),
        data_prefix=dict(img_path='images/train', seg_map_path='annotations/train')))
val_dataloader = dict(
    dataset=dict(
        type='FolderDataset', data_root=data_root, metainfo=dict(classes=num_classes),
        data_prefix=dict(img_path='images/val', seg_map_path='annotations/val')))
test_dataloader = val_dataloader
