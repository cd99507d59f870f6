from collections import OrderedDict

import torch

from internvl_dense import create_backbone
from internvl_dense.dense.pyramid import ViTFeaturePyramid


class Maps(torch.nn.Module):
    def __init__(self, variant: str, out_channels: int = 256, **options) -> None:
        super().__init__()
        self.trunk = create_backbone(variant, **options)
        channels = self.trunk.feature_info.channels
        self.pyramid = ViTFeaturePyramid(channels[0])
        self.lateral = torch.nn.ModuleList(torch.nn.Conv2d(count, out_channels, 1) for count in channels)
        self.out_channels = out_channels  # torchvision asks for it

    def forward(self, images: torch.Tensor) -> OrderedDict[str, torch.Tensor]:
        maps = self.pyramid(self.trunk(images))
        return OrderedDict((str(i), lateral(x)) for i, (lateral, x) in enumerate(zip(self.lateral, maps, strict=True)))
