"""The table of backbone variants: a row states what differs and where the figures come from."""

from __future__ import annotations

from internvl_dense.backbones.spec import BackboneSpec, WeightsInfo
from internvl_dense.registry import Registry

VARIANTS: Registry[BackboneSpec] = Registry('backbone', hint='See list_backbones().')

# Beside the trunk, published files carry the contrastive projector and the classification heads.
TRUNK_EXTRAS = ('clip_projector.*', 'attn_pooling.*', 'norm.*', 'head.*')
SOURCE = 'OpenGVLab/InternVL-MMDetSeg, mmsegmentation/README.md and configs; model cards on the hub'
MULTIMODAL_NOTE = 'card: the V2.5 series suits multimodal language models better than traditional vision tasks'


def _weights(stem: str, repo: str, size_gb: float, file_depth: int | None = None, note: str = '') -> WeightsInfo:
    return WeightsInfo(
        file=f'{stem}.pth', hf_repo=f'OpenGVLab/{repo}', licence='MIT', source=SOURCE, size_gb=size_gb,
        file_depth=file_depth, known_extras=TRUNK_EXTRAS, note=note,
    )


# Linear probing reads block 44 in every 6B family: the last one of the 45-block versions and the same block of
# the 48-block version, in the original numbering.
_6B_224 = BackboneSpec(
    name='internvit_6b_224px', embed_dim=3200, depth=48, num_heads=25, image_size=224, probe_index=44,
    weights=_weights('intern_vit_6b_224px', 'InternViT-6B-224px', 12),
)
_6B_448 = _6B_224.replace(
    name='internvit_6b_448px_v1_2', depth=45, image_size=448,
    weights=_weights('intern_vit_6b_448px_v1_2', 'InternViT-6B-448px-V1-2', 11),
)
_ROWS = (
    _6B_224,
    # The V1-0 file has 48 blocks; its dense configs build 45.
    _6B_448.replace(
        name='internvit_6b_448px_v1_0',
        weights=_weights('intern_vit_6b_448px_v1_0', 'InternViT-6B-448px-V1-0', 12, file_depth=48),
    ),
    _6B_448,
    _6B_448.replace(
        name='internvit_6b_448px_v1_5',
        weights=_weights('intern_vit_6b_448px_v1_5', 'InternViT-6B-448px-V1-5', 11),
    ),
    _6B_448.replace(
        name='internvit_6b_448px_v2_5',
        weights=_weights('intern_vit_6b_448px_v2_5', 'InternViT-6B-448px-V2_5', 11, note=MULTIMODAL_NOTE),
    ),
    BackboneSpec(
        name='internvit_300m_448px', embed_dim=1024, depth=24, num_heads=16, image_size=448,
        qkv_bias=True, qk_norm=False, norm='layer',
        weights=WeightsInfo(
            file=None, hf_repo='OpenGVLab/InternViT-300M-448px', licence='MIT', size_gb=0.6,
            source='model card: InternVisionModel of width 1024, 24 layers, 16 heads, bf16',
            known_extras=TRUNK_EXTRAS,
        ),
    ),
    # Every switch of the 6B kind at a size that trains on a CPU in minutes (0.9 M parameters).
    BackboneSpec(name='internvit_debug', embed_dim=128, depth=4, num_heads=4, image_size=140, probe_index=3),
)
for _row in _ROWS:
    VARIANTS.register(_row.name, _row)
