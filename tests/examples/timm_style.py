import torch

from internvl_dense.backbones.timm_door import InternViTFeatures

features = InternViTFeatures.from_variant('internvit_debug', out_indices=(1, 3))
channels, strides = features.feature_info.channels(), features.feature_info.reduction()
mean, std = (torch.tensor(features.pretrained_cfg[key]).view(3, 1, 1) for key in ('mean', 'std'))

images = torch.rand(2, 3, 140, 112)  # RGB, 0..1
maps = features((images - mean) / std)
