"""Focal loss (Lin et al., 2017) as mmcv's CUDA kernels define it; mmcv has no CPU kernel for it.

Loss and gradient are written with p and 1 - p each from its own sigmoid. The kernels subtract in float32, so that
from logits around 17 on 1 - p is 0 and their loss of a confident mistake stops growing; the values here go on.
"""

from __future__ import annotations

import torch

from internvl_dense.errors import UserError
from internvl_dense.openmmlab.ext_ops.computing import operator, widened

LEAST = torch.finfo(torch.float32).tiny  # what the kernels keep logarithms above: FLT_MIN of C


@operator
def sigmoid_focal_loss_forward(
    input: torch.Tensor, target: torch.Tensor, weight: torch.Tensor, output: torch.Tensor, gamma: float, alpha: float
) -> None:
    """Fills `output` with the loss of each class: alpha (1-p)^gamma * -log p for the target, mirrored for the others.

    Args:
        input: (N, C), logits.
        target: (N,), int64; a number that is no class, such as C, stands for "none of them".
        weight: (C,), factors by target, or empty.
        output: (N, C).
        gamma: Exponent of the error.
        alpha: Factor of the target's loss; the others have 1 - alpha.

    Raises:
        UserError: There are weights, and a target is no class: it has none.
    """
    is_target, right, wrong = _probabilities(input, target)
    loss = wrong.pow_(gamma).mul_(right.clamp_(min=LEAST).log_()).mul_(_balance(is_target, -alpha, alpha - 1, right))
    output.copy_(_weighted(loss, weight, target))


@operator
def sigmoid_focal_loss_backward(
    input: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor,
    grad_input: torch.Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Fills `grad_input` (N, C) with the derivative of each loss; arguments as in `sigmoid_focal_loss_forward`."""
    is_target, right, wrong = _probabilities(input, target)
    slope = wrong - gamma * right * right.clamp(min=LEAST).log_()
    slope.mul_(wrong.pow_(gamma)).mul_(_balance(is_target, -alpha, 1 - alpha, right))
    grad_input.copy_(_weighted(slope, weight, target))


@operator
def softmax_focal_loss_forward(
    softmax: torch.Tensor, target: torch.Tensor, weight: torch.Tensor, output: torch.Tensor, gamma: float, alpha: float
) -> None:
    """Fills `output` (N,) with alpha (1-p)^gamma * -log p of the target's probability; 0 where the target is negative.

    Args:
        softmax: (N, C), probabilities.
        target: (N,), int64, a class or negative.
        weight: (C,), factors by target, or empty.
        output: (N,).
        gamma: Exponent of the error.
        alpha: Factor of every loss.
    """
    right = _of_target(softmax, target)
    loss = -alpha * (1 - right) ** gamma * right.clamp(min=LEAST).log()
    output.copy_(_for_targets(loss, weight, target))


@operator
def softmax_focal_loss_backward(
    softmax: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor,
    buff: torch.Tensor,
    grad_input: torch.Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Fills `grad_input` (N, C) with the derivative by the logits, and `buff` (N,) with the part common to all classes.

    Other arguments as in `softmax_focal_loss_forward`.
    """
    right = _of_target(softmax, target)
    wrong = 1 - right
    decay = gamma * wrong.clamp(min=LEAST) ** (gamma - 1) * right * right.clamp(min=LEAST).log()
    common = _for_targets(alpha * (decay - wrong ** gamma), weight, target)
    is_target = target[:, None] == torch.arange(softmax.shape[1], device=target.device)
    buff.copy_(common)
    grad_input.copy_(common[:, None] * (is_target.to(right.dtype) - widened(softmax)))


def _probabilities(logits: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Whether a class is the target, and how likely the right and the wrong answer are, all (N, C)."""
    is_target = target[:, None] == torch.arange(logits.shape[1], device=target.device)
    signed = torch.where(is_target, widened(logits), -widened(logits))
    return is_target, signed.sigmoid(), signed.neg_().sigmoid_()


def _balance(is_target: torch.Tensor, of_target: float, of_others: float, like: torch.Tensor) -> torch.Tensor:
    return torch.where(is_target, like.new_tensor(of_target), like.new_tensor(of_others))


def _weighted(values_NC: torch.Tensor, weight: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    if not weight.numel():
        return values_NC
    if ((target < 0) | (target >= len(weight))).any():
        raise UserError(f'Targets reach from {target.min()} to {target.max()}, but weights are for classes 0 to '
                        f'{len(weight) - 1}: a sample of no class has no weight. Drop it, or the weights.')
    return values_NC.mul_(widened(weight)[target][:, None])


def _of_target(softmax: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return widened(softmax).gather(1, target.clamp(min=0)[:, None])[:, 0]


def _for_targets(values_N: torch.Tensor, weight: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    if weight.numel():
        values_N = values_N * widened(weight)[target.clamp(min=0)]
    return torch.where(target >= 0, values_N, 0)
