"""The two halves of mmcv's masked convolution, which computes only some outputs; mmcv has no CPU kernel for them."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from internvl_dense.openmmlab.ext_ops.computing import operator


@operator
def masked_im2col_forward(
    im: torch.Tensor,
    mask_h_idx: torch.Tensor,
    mask_w_idx: torch.Tensor,
    col: torch.Tensor,
    kernel_h: int,
    kernel_w: int,
    pad_h: int,
    pad_w: int,
) -> None:
    """Fills `col` with the windows under the kernel at some places.

    Args:
        im: (1, C, H, W), zero outside.
        mask_h_idx, mask_w_idx: (N,), rows and columns of the outputs that are wanted.
        col: (C * kernel_h * kernel_w, N), filled.
        kernel_h, kernel_w, pad_h, pad_w: Of the convolution, whose stride is 1.
    """
    padded = F.pad(im[0], (pad_w, pad_w, pad_h, pad_h))
    rows = mask_h_idx + torch.arange(kernel_h, device=im.device)[:, None]
    columns = mask_w_idx + torch.arange(kernel_w, device=im.device)[:, None]
    col.copy_(padded[:, rows[:, None], columns[None]].reshape(col.shape))


@operator
def masked_col2im_forward(
    col: torch.Tensor,
    mask_h_idx: torch.Tensor,
    mask_w_idx: torch.Tensor,
    im: torch.Tensor,
    height: int,
    width: int,
    channels: int,
) -> None:
    """Writes the columns of `col`, (channels, N), to some places of `im`, (1, channels, height, width)."""
    im[0, :, mask_h_idx, mask_w_idx] = col.to(im.dtype)
