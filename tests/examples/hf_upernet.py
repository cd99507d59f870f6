import torch
import transformers

from internvl_dense.backbones import hf_register

InternViTConfig = hf_register.register(transformers)  # once, also before from_pretrained
config = transformers.UperNetConfig(
    backbone_config=InternViTConfig(variant='internvit_debug', options={'frozen': True}), num_labels=6, hidden_size=32)
model = transformers.UperNetForSemanticSegmentation(config)
outputs = model(torch.randn(2, 3, 140, 140), labels=torch.randint(0, 6, (2, 140, 140)))
outputs.loss.backward()
