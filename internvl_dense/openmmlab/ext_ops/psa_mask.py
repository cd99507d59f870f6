"""The mask of point-wise spatial attention (Zhao et al., PSANet, 2018): relative places to absolute ones."""

from __future__ import annotations

import torch

from internvl_dense.openmmlab.ext_ops.computing import operator

COLLECT = 0  # mmcv's psa_type; 1 is "distribute"


@operator
def psamask_forward(
    input: torch.Tensor,
    output: torch.Tensor,
    psa_type: int,
    num_: int,
    h_feature: int,
    w_feature: int,
    h_mask: int,
    w_mask: int,
    half_h_mask: int,
    half_w_mask: int,
) -> None:
    """Fills `output` with each pixel's attention to each other pixel.

    Args:
        input: (B, h_mask * w_mask, h, w): attention of a pixel to those around it.
        output: (B, h * w, h, w). Distributing, a row belongs to the pixel that attends; collecting, to the one that is
            attended to. What lies outside the mask stays as it is.
        psa_type: 0 to collect, 1 to distribute.
        num_: B.
        h_feature, w_feature: h and w.
        h_mask, w_mask: Size of the mask.
        half_h_mask, half_w_mask: Its middle.
    """
    index, exists = _mask_places(h_feature, w_feature, h_mask, w_mask, half_h_mask, half_w_mask, input.device)
    own = input.flatten(2).transpose(1, 2).gather(2, index.expand(num_, -1, -1))
    target = output.view(num_, h_feature * w_feature, -1)
    pairs = target.transpose(1, 2) if psa_type == COLLECT else target
    pairs.copy_(torch.where(exists, own, pairs))


@operator
def psamask_backward(
    grad_output: torch.Tensor,
    grad_input: torch.Tensor,
    psa_type: int,
    num_: int,
    h_feature: int,
    w_feature: int,
    h_mask: int,
    w_mask: int,
    half_h_mask: int,
    half_w_mask: int,
) -> None:
    """Adds to `grad_input`; arguments as in `psamask_forward`."""
    index, exists = _mask_places(h_feature, w_feature, h_mask, w_mask, half_h_mask, half_w_mask, grad_input.device)
    pairs = grad_output.reshape(num_, h_feature * w_feature, -1)
    pairs = pairs.transpose(1, 2) if psa_type == COLLECT else pairs
    places = grad_input.flatten(2).transpose(1, 2)
    total = torch.zeros_like(places).scatter_add_(2, index.expand(num_, -1, -1), torch.where(exists, pairs, 0))
    grad_input += total.transpose(1, 2).view(grad_input.shape)


def _mask_places(
    height: int, width: int, h_mask: int, w_mask: int, half_h: int, half_w: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """For each pair of pixels, where the mask of the first holds the second, and whether it does, both (hw, hw)."""
    y, x = torch.arange(height, device=device), torch.arange(width, device=device)
    down, right = y - y[:, None] + half_h, x - x[:, None] + half_w  # (from, to)
    exists = ((down >= 0) & (down < h_mask))[:, None, :, None] & ((right >= 0) & (right < w_mask))[None, :, None, :]
    index = down[:, None, :, None] * w_mask + right[None, :, None, :]
    size = (height * width, height * width)
    return torch.where(exists, index, 0).reshape(size), exists.reshape(size)
