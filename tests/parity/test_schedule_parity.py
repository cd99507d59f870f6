"""Learning rates of the published schedules, as functions and through the schedulers that configs name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from mmengine.registry import PARAM_SCHEDULERS

import internvl_dense.openmmlab  # noqa: F401  registers the schedulers
from internvl_dense.training.schedules import poly, step, warmup_factor

Golden = Callable[[str], Any]
POLY = tuple(f'poly_{iters}_{warmup}' for iters, warmup in
             ((80000, 1500), (40000, 800), (20000, 400), (10000, 200), (5000, 100)))
REL = 1e-12  # fp64, a few roundings


def rates(config: dict[str, Any], base_lrs: list[float], iters: list[int]) -> Iterator[list[float]]:
    """Rates in force at each of `iters`, from a scheduler that a training loop steps."""
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in base_lrs]
    groups = [{'params': [p], 'lr': lr} for p, lr in zip(parameters, base_lrs, strict=True)]
    optimizer = torch.optim.SGD(groups)
    scheduler = PARAM_SCHEDULERS.build({**config, 'optimizer': optimizer})
    for iteration in range(iters[-1] + 1):
        if iteration in iters:
            yield [group['lr'] for group in optimizer.param_groups]
        optimizer.step()
        scheduler.step()


def test_no_case_is_left_out(golden: Golden) -> None:
    assert golden('lr_schedules')['cases'].keys() == {*POLY, 'step_1x_epoch'}


@pytest.mark.parametrize('name', POLY)
def test_poly_with_warmup(golden: Golden, name: str) -> None:
    case = golden('lr_schedules')['cases'][name]
    for iteration, row in zip(case['iters'], case['lr'].tolist(), strict=True):
        factor = warmup_factor(iteration, case['warmup_iters'], case['warmup_ratio'])
        ours = [factor * poly(lr, iteration, case['max_iters'], case['power'], case['min_lr'])
                for lr in case['initial_lrs']]
        assert ours == pytest.approx(row, rel=REL), iteration


@pytest.mark.parametrize('name', POLY)
def test_registered_poly_scheduler(golden: Golden, name: str) -> None:
    case = golden('lr_schedules')['cases'][name]
    keys = ('max_iters', 'warmup_iters', 'warmup_ratio', 'power', 'min_lr')
    config = {'type': 'WarmupPolyLR', **{key: case[key] for key in keys}}
    assert len(case['iters']) == len(set(case['iters']))
    stepped = rates(config, case['initial_lrs'], case['iters'])
    for iteration, row, ours in zip(case['iters'], case['lr'].tolist(), stepped, strict=True):
        assert ours == pytest.approx(row, rel=REL), iteration


def test_steps_with_warmup(golden: Golden) -> None:
    case = golden('lr_schedules')['cases']['step_1x_epoch']
    milestones = [epoch * case['iters_per_epoch'] for epoch in case['step']]
    for iteration, _, expected in case['rows']:
        factor = warmup_factor(iteration, case['warmup_iters'], case['warmup_ratio'])
        ours = factor * step(case['base_lr'], iteration, milestones, case['gamma'])
        assert ours == pytest.approx(expected, rel=REL), iteration


def test_registered_step_scheduler(golden: Golden) -> None:
    case = golden('lr_schedules')['cases']['step_1x_epoch']
    milestones = [epoch * case['iters_per_epoch'] for epoch in case['step']]
    config = {'type': 'WarmupStepLR', 'milestones': milestones, 'gamma': case['gamma'],
              'warmup_iters': case['warmup_iters'], 'warmup_ratio': case['warmup_ratio']}
    iters = [row[0] for row in case['rows']]
    for (iteration, _, expected), [ours] in zip(case['rows'], rates(config, [case['base_lr']], iters), strict=True):
        assert ours == pytest.approx(expected, rel=REL), iteration
