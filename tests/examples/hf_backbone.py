import torch

from internvl_dense.backbones.hf_door import InternViTHFBackbone

backbone = InternViTHFBackbone.from_variant('internvit_debug', out_features=['stage2', 'stage4'])
outputs = backbone(torch.randn(1, 3, 140, 112), output_hidden_states=True)
