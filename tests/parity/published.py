"""Our modules for the constructor arguments of the published classes."""

from __future__ import annotations

from typing import Any

from internvl_dense.backbones.create import create_backbone
from internvl_dense.backbones.internvit import InternViT
from internvl_dense.dense import InternViTAdapter

ATOL = 2e-5  # fp32 on a CPU


def build_backbone(config: dict[str, Any], attention: str = 'eager', **kwargs: Any) -> InternViT:
    """The backbone for the arguments of the published segmentation class."""
    return create_backbone(
        'internvit_debug', patch_size=config['patch_size'], image_size=config['img_size'],
        out_indices=config['out_indices'], attention=attention, embed_dim=config['embed_dim'], depth=config['depth'],
        num_heads=config['num_heads'], mlp_ratio=config['mlp_ratio'], qkv_bias=config['qkv_bias'],
        qk_norm=config['qk_normalization'], drop_path_rate=config.get('drop_path_rate', 0.0), **kwargs,
    )


def build_detector_backbone(config: dict[str, Any], attention: str = 'eager', **kwargs: Any) -> InternViT:
    """The backbone for the arguments of the published detection class; it has no class token."""
    blocks = range(config['depth'])
    windowed, sizes = (
        value if isinstance(value, list) else [value for _ in blocks]
        for value in (config['window_attn'], config['window_size'])
    )
    windows = [size if flag else None for flag, size in zip(windowed, sizes, strict=True)]
    return build_backbone(config, attention, **{
        'cls_token': False, 'window_size': windows, 'window_padding': 'zeros', **kwargs})


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


def build_adapter(config: dict[str, Any], published: bool, **kwargs: Any) -> InternViTAdapter:
    """The adapter for the arguments of the published class; where not `published`, without class token and its slot."""
    trunk = create_backbone(
        'internvit_debug', patch_size=config['patch_size'], image_size=config['img_size'], attention='eager',
        embed_dim=config['embed_dim'], depth=config['depth'], num_heads=config['num_heads'],
        mlp_ratio=config['mlp_ratio'], qkv_bias=config['qkv_bias'], qk_norm=config['qk_normalization'],
        drop_path_rate=config['drop_path_rate'], frozen=config['freeze_vit'], cls_token=published,
    )
    names = ('interaction_indexes', 'conv_inplane', 'n_points', 'deform_num_heads', 'deform_ratio', 'cffn_ratio',
             'init_values', 'use_final_norm')
    return InternViTAdapter(trunk, published=published, **{name: config[name] for name in names}, **kwargs)
