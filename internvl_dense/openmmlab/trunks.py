"""The InternViT inside a model."""

from __future__ import annotations

from torch import nn

from internvl_dense.backbones.internvit import InternViT


def find_trunks(model: nn.Module) -> list[tuple[str, InternViT]]:
    """Every InternViT of a model with the prefix of its keys, as in 'backbone.'; '' where the model is one itself."""
    return [
        (f'{name}.' if name else '', module) for name, module in model.named_modules() if isinstance(module, InternViT)
    ]


def find_trunk(model: nn.Module) -> tuple[str, InternViT] | None:
    """The first of them, or None."""
    return next(iter(find_trunks(model)), None)
