import torch
from maps import Maps  # the class above
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign

names = ['0', '1', '2', '3']
detector = FasterRCNN(
    Maps('internvit_debug', out_channels=32), num_classes=7,
    rpn_anchor_generator=AnchorGenerator(((16,), (32,), (64,), (128,)), ((0.5, 1.0, 2.0),) * 4),
    box_roi_pool=MultiScaleRoIAlign(names, output_size=7, sampling_ratio=2),
    min_size=140, max_size=140, size_divisible=28)
target = {'boxes': torch.tensor([[10.0, 20.0, 90.0, 100.0]]), 'labels': torch.tensor([3])}
losses = detector([torch.rand(3, 140, 140)], [target])
sum(losses.values()).backward()
