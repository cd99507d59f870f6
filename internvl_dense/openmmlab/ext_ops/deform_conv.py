"""Deformable convolution (Dai et al., 2017) and its modulated form (Zhu et al., 2019)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import torch

from internvl_dense.openmmlab.ext_ops.bilinear import corners
from internvl_dense.openmmlab.ext_ops.computing import operator, pieces, widened
from internvl_dense.openmmlab.ext_ops.weighted_rows import weighted_rows

POINT_BYTES = 200  # of a sampling point's four pixels, their shares and the temporaries they are made of
Pair = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Convolution:
    """Steps and groups of a layer; pairs are vertical, horizontal."""

    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int
    offset_groups: int


@operator
def deform_conv_forward(
    input: torch.Tensor,
    weight: torch.Tensor,
    offset: torch.Tensor,
    output: torch.Tensor,
    columns: torch.Tensor,
    ones: torch.Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Fills `output` with a convolution that reads each tap where its offset says.

    Args:
        input: (B, C, H, W), zero outside.
        weight: (O, C / group, kH, kW).
        offset: (B, deformable_group * kH * kW * 2, h, w): for each tap down, then right, in pixels.
        output: (B, O, h, w), filled.
        columns, ones: Work space of the compiled operator; not used.
        kW, kH, dW, dH, padW, padH, dilationW, dilationH: Size of the kernel, stride, padding, dilation.
        group: Of the convolution.
        deformable_group: Groups of input channels with offsets of their own.
        im2col_step: Not used: memory is bounded in another way.
    """
    layer = Convolution((dH, dW), (padH, padW), (dilationH, dilationW), group, deformable_group)
    for part in _parts(input, weight, offset):
        output[part] = _convolve(
            widened(input[part]), widened(offset[part]), None, widened(weight), layer).to(output.dtype)


@operator
def deform_conv_backward_input(
    input: torch.Tensor,
    offset: torch.Tensor,
    gradOutput: torch.Tensor,
    gradInput: torch.Tensor,
    gradOffset: torch.Tensor,
    weight: torch.Tensor,
    columns: torch.Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Adds to the gradients of input and offsets; arguments as in `deform_conv_forward`."""
    layer = Convolution((dH, dW), (padH, padW), (dilationH, dilationW), group, deformable_group)
    for part in _parts(input, weight, offset):
        leaves = _leaves(input[part], offset[part])
        with torch.enable_grad():
            result = _convolve(leaves[0], leaves[1], None, widened(weight), layer)
        _add([gradInput[part], gradOffset[part]], result, leaves, gradOutput[part])


@operator
def deform_conv_backward_parameters(
    input: torch.Tensor,
    offset: torch.Tensor,
    gradOutput: torch.Tensor,
    gradWeight: torch.Tensor,
    columns: torch.Tensor,
    ones: torch.Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    scale: float,
    im2col_step: int,
) -> None:
    """Adds `scale` times the gradient of the weight; arguments as in `deform_conv_forward`."""
    layer = Convolution((dH, dW), (padH, padW), (dilationH, dilationW), group, deformable_group)
    total = torch.zeros_like(widened(gradWeight))
    for part in _parts(input, gradWeight, offset):
        leaf = torch.zeros_like(total).requires_grad_()  # the convolution is linear in it
        with torch.enable_grad():
            result = _convolve(widened(input[part]), widened(offset[part]), None, leaf, layer)
        _add([total], result, [leaf], gradOutput[part])
    gradWeight += scale * total


@operator
def modulated_deform_conv_forward(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    ones: torch.Tensor,
    offset: torch.Tensor,
    mask: torch.Tensor,
    output: torch.Tensor,
    columns: torch.Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Fills `output` with a deformable convolution whose taps have factors.

    Args:
        input, weight, offset, output, ones, columns: As in `deform_conv_forward`.
        bias: (O,), used if `with_bias`.
        mask: (B, deformable_group * kernel_h * kernel_w, h, w), the factors.
        kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w: As their names say, in pixels.
        group, deformable_group: As in `deform_conv_forward`.
        with_bias: Whether `bias` is added.
    """
    layer = Convolution((stride_h, stride_w), (pad_h, pad_w), (dilation_h, dilation_w), group, deformable_group)
    for part in _parts(input, weight, offset):
        result = _convolve(
            widened(input[part]), widened(offset[part]), widened(mask[part]), widened(weight), layer)
        if with_bias:
            result += widened(bias)[:, None, None]
        output[part] = result.to(output.dtype)


@operator
def modulated_deform_conv_backward(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    ones: torch.Tensor,
    offset: torch.Tensor,
    mask: torch.Tensor,
    columns: torch.Tensor,
    grad_input: torch.Tensor,
    grad_weight: torch.Tensor,
    grad_bias: torch.Tensor,
    grad_offset: torch.Tensor,
    grad_mask: torch.Tensor,
    grad_output: torch.Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Adds to the five gradients, each shaped like its namesake; see `modulated_deform_conv_forward`."""
    layer = Convolution((stride_h, stride_w), (pad_h, pad_w), (dilation_h, dilation_w), group, deformable_group)
    of_weight = torch.zeros_like(widened(grad_weight))
    for part in _parts(input, weight, offset):
        leaves = _leaves(input[part], offset[part], mask[part], weight)
        with torch.enable_grad():
            result = _convolve(leaves[0], leaves[1], leaves[2], leaves[3], layer)
        targets = [grad_input[part], grad_offset[part], grad_mask[part], of_weight]
        _add(targets, result, leaves, grad_output[part])
    grad_weight += of_weight
    if with_bias:
        grad_bias += widened(grad_output).sum((0, 2, 3))


def _parts(input: torch.Tensor, weight: torch.Tensor, offset: torch.Tensor) -> Iterator[slice]:
    """Images in pieces of bounded memory."""
    points = offset.shape[1] // 2 * POINT_BYTES
    columns = math.prod(weight.shape[2:]) * input.shape[1] * widened(input[:0]).element_size()
    starts = pieces(len(input), math.prod(offset.shape[2:]) * (points + columns))
    for start in starts:
        yield slice(start, start + starts.step)


def _leaves(*tensors: torch.Tensor) -> list[torch.Tensor]:
    return [widened(tensor).detach().clone().requires_grad_() for tensor in tensors]


def _add(targets: list[torch.Tensor], result: torch.Tensor, leaves: list[torch.Tensor], grad: torch.Tensor) -> None:
    for target, found in zip(targets, torch.autograd.grad(result, leaves, widened(grad)), strict=True):
        target += found


def _convolve(
    input: torch.Tensor, offset: torch.Tensor, mask: torch.Tensor | None, weight: torch.Tensor, layer: Convolution
) -> torch.Tensor:
    """The output, (B, O, h, w), with gradients for every tensor; shapes as in `deform_conv_forward`."""
    batch, channels, height, width = input.shape
    parts, (out_h, out_w) = layer.offset_groups, offset.shape[2:]
    table = input.reshape(batch * parts, channels // parts, -1).transpose(1, 2).reshape(-1, channels // parts)
    y, x = _places(offset, weight, layer)
    pixels, shares = corners(y, x, height, width)  # (B, groups, taps, h, w, 4)
    if mask is not None:
        shares = shares * mask.reshape(y.shape)[..., None]
    plane = torch.arange(batch * parts, device=input.device).view(batch, parts, 1, 1, 1, 1)
    rows, shares = (x.permute(0, 3, 4, 2, 1, 5).reshape(-1, 4) for x in (pixels + plane * height * width, shares))
    columns = weighted_rows(table, rows, shares)  # (B * h * w * taps * groups, C / groups)
    columns = columns.view(batch * out_h * out_w, -1, layer.groups, channels // layer.groups)
    kernel = weight.view(layer.groups, -1, *weight.shape[1:]).flatten(3)  # (G, O / G, C / G, taps)
    result = torch.einsum('ptgc,goct->gop', columns, kernel)
    return result.reshape(-1, batch, out_h, out_w).transpose(0, 1)


def _places(offset: torch.Tensor, weight: torch.Tensor, layer: Convolution) -> tuple[torch.Tensor, torch.Tensor]:
    """Where each tap reads, down and right, both (B, offset groups, taps, h, w)."""
    offset = offset.unflatten(1, (layer.offset_groups, weight.shape[2], weight.shape[3], 2))
    places = []
    for axis in range(2):
        out = torch.arange(offset.shape[5 + axis], device=offset.device) * layer.stride[axis] - layer.padding[axis]
        tap = torch.arange(weight.shape[2 + axis], device=offset.device) * layer.dilation[axis]
        base = (out[:, None], tap[:, None, None, None]) if axis == 0 else (out, tap[:, None, None])
        places.append((base[0] + base[1] + offset[:, :, :, :, axis]).flatten(2, 3))
    return places[0], places[1]
