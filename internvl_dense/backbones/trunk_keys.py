"""Which keys of a backbone belong to its trunk.

A backbone may carry more than the trunk that published weights fill, such as the parts of an adapter. Those are trained
here, so weights of the trunk neither hold nor replace them, and checkpoints keep them also where the trunk is left out.
"""

from __future__ import annotations

from torch import nn

# Parameters and modules of `InternViT` itself.
TRUNK_PARTS = ('pos_embed', 'cls_token', 'register_tokens', 'patch_embed', 'blocks', 'norm')


def is_trunk_key(key: str) -> bool:
    """Whether a key of a backbone, as in 'blocks.0.ls1.gamma', belongs to the trunk."""
    return key.partition('.')[0] in TRUNK_PARTS


def trunk_parameters(backbone: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of the trunk by name."""
    return {name: parameter for name, parameter in backbone.named_parameters() if is_trunk_key(name)}
