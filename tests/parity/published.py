"""Our modules for the constructor arguments of the published classes."""

from __future__ import annotations

from typing import Any

from internvl_dense.backbones.create import create_backbone
from internvl_dense.backbones.internvit import InternViT

ATOL = 2e-5  # fp32 on a CPU


def build_backbone(config: dict[str, Any], attention: str = 'eager', **kwargs: Any) -> InternViT:
    """The backbone for the arguments of the published segmentation class."""
    return create_backbone(
        'internvit_debug', patch_size=config['patch_size'], image_size=config['img_size'],
        out_indices=config['out_indices'], attention=attention, embed_dim=config['embed_dim'], depth=config['depth'],
        num_heads=config['num_heads'], mlp_ratio=config['mlp_ratio'], qkv_bias=config['qkv_bias'],
        qk_norm=config['qk_normalization'], drop_path_rate=config.get('drop_path_rate', 0.0), **kwargs,
    )


def build_hf_backbone(config: dict[str, Any], attention: str = 'eager', **kwargs: Any) -> InternViT:
    """The backbone for the configuration of the published Hugging Face class."""
    assert config['hidden_act'] == 'gelu'
    return create_backbone(
        'internvit_debug', patch_size=config['patch_size'], image_size=config['image_size'], attention=attention,
        embed_dim=config['hidden_size'], depth=config['num_hidden_layers'], num_heads=config['num_attention_heads'],
        mlp_ratio=config['intermediate_size'] / config['hidden_size'], qkv_bias=config['qkv_bias'],
        qk_norm=config['qk_normalization'], norm={'rms_norm': 'rms', 'layer_norm': 'layer'}[config['norm_type']],
        norm_eps=config['layer_norm_eps'], **kwargs,
    )
