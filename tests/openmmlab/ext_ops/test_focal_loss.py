"""Focal losses against their formulas, in float64, and their gradients against automatic ones."""

from __future__ import annotations

import math

import pytest
import torch
from mmcv.ops import sigmoid_focal_loss, softmax_focal_loss

from internvl_dense.errors import UserError

EQUAL = 1e-12
TARGET = torch.tensor([0, 2, 1, 3, 2, -1])  # 3 and -1 are no class


def by_formula(x: torch.Tensor, target: torch.Tensor, gamma: float, alpha: float) -> torch.Tensor:
    is_target = torch.arange(x.shape[1]) == target[:, None]
    p = x.sigmoid()
    of_target = -alpha * (1 - p) ** gamma * p.log()
    of_others = -(1 - alpha) * p**gamma * (1 - p).log()
    return torch.where(is_target, of_target, of_others)


@pytest.mark.parametrize('gamma', [0.0, 0.5, 2.0])
def test_sigmoid_loss_and_gradient(gamma: float) -> None:
    x = (torch.randn(6, 3, dtype=torch.float64) * 3).requires_grad_()
    ours, expected = sigmoid_focal_loss(x, TARGET, gamma, 0.3, None, 'none'), by_formula(x, TARGET, gamma, 0.3)
    assert (ours - expected).abs().max() < EQUAL
    weights = torch.randn_like(expected)
    gradients = [torch.autograd.grad(loss, x, weights)[0] for loss in (ours, expected)]
    assert (gradients[0] - gradients[1]).abs().max() < EQUAL


def test_sigmoid_loss_with_weights_by_target() -> None:
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    target, factors = torch.tensor([0, 2, 1, 1, 2]), torch.tensor([0.5, 2.0, 3.0], dtype=torch.float64)
    ours = sigmoid_focal_loss(x, target, 2.0, 0.25, factors, 'sum')
    expected = (by_formula(x, target, 2.0, 0.25) * factors[target][:, None]).sum()
    assert (ours - expected).abs() < EQUAL
    difference = torch.autograd.grad(ours, x)[0] - torch.autograd.grad(expected, x)[0]
    assert difference.abs().max() < EQUAL


def test_a_sample_of_no_class_has_no_weight() -> None:
    with pytest.raises(UserError, match='reach from -1 to 3, but weights are for classes 0 to 2'):
        sigmoid_focal_loss(torch.randn(6, 3), TARGET, 2.0, 0.25, torch.ones(3))


def test_confident_mistakes_keep_their_loss_and_gradient_in_float32() -> None:
    x = torch.tensor([[30.0, -30.0]], requires_grad=True)
    loss = sigmoid_focal_loss(x, torch.tensor([1]), 2.0, 0.25, None, 'none')
    assert loss.tolist() == [[pytest.approx(0.75 * 30), pytest.approx(0.25 * 30)]]
    assert torch.autograd.grad(loss.sum(), x)[0].tolist() == [[pytest.approx(0.75), pytest.approx(-0.25)]]
    assert torch.isfinite(sigmoid_focal_loss(x.detach() * 100, torch.tensor([1]), 2.0, 0.25, None, 'none')).all()


@pytest.mark.parametrize('gamma', [0.0, 0.5, 2.0])
@pytest.mark.parametrize('weighted', [False, True])
def test_softmax_loss_and_gradient(gamma: float, weighted: bool) -> None:
    x = (torch.randn(5, 3, dtype=torch.float64) * 2).requires_grad_()
    target, factors = torch.tensor([0, 2, 1, -1, 2]), torch.tensor([0.5, 2.0, 3.0], dtype=torch.float64)
    p = x.softmax(1).gather(1, target.clamp(min=0)[:, None])[:, 0]
    expected = -0.3 * (1 - p) ** gamma * p.log() * (factors[target] if weighted else 1) * (target >= 0)
    ours = softmax_focal_loss(x, target, gamma, 0.3, factors if weighted else None, 'sum')
    assert (ours - expected.sum()).abs() < EQUAL
    difference = torch.autograd.grad(ours, x)[0] - torch.autograd.grad(expected.sum(), x)[0]
    assert difference.abs().max() < EQUAL


def test_a_certain_softmax_has_no_loss_and_a_finite_gradient() -> None:
    x = torch.tensor([[1000.0, 0.0]], requires_grad=True)
    for gamma in (0.0, 0.5, 2.0):
        loss = softmax_focal_loss(x, torch.tensor([0]), gamma, 0.25, None, 'sum')
        assert loss == 0 and torch.isfinite(torch.autograd.grad(loss, x)[0]).all()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_narrow_logits_are_widened_and_the_result_rounded_once(dtype: torch.dtype) -> None:
    x = (torch.randn(6, 3) * 3).to(dtype)
    ours, exact = (sigmoid_focal_loss(v, TARGET, 2.0, 0.25, None, 'none') for v in (x, x.float()))
    assert ours.dtype == dtype and ours.equal(exact.to(dtype))


def test_no_samples() -> None:
    x = torch.zeros(0, 3, requires_grad=True)
    target = torch.zeros(0, dtype=torch.long)
    assert sigmoid_focal_loss(x, target, 2.0, 0.25, None, 'sum') == 0
    assert math.isfinite(torch.autograd.grad(sigmoid_focal_loss(x, target, 2.0, 0.25, None, 'sum'), x)[0].sum().item())
