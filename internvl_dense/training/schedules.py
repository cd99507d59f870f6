"""Learning-rate schedules as functions of the iteration.

The rate at iteration i (0-based) is the one that the step of iteration i uses. Warm-up multiplies the schedule below
it, as the published recipes do.
"""

from __future__ import annotations

from collections.abc import Sequence


def warmup_factor(iteration: int, warmup_iters: int, warmup_ratio: float) -> float:
    """Linear warm-up from `warmup_ratio` at iteration 0 to 1 at `warmup_iters`."""
    if iteration >= warmup_iters:
        return 1.0
    return 1 - (1 - iteration / warmup_iters) * (1 - warmup_ratio)


def poly(base_lr: float, iteration: int, max_iters: int, power: float = 1.0, min_lr: float = 0.0) -> float:
    """Polynomial decay from `base_lr` at 0 to `min_lr` at `max_iters`."""
    left = max(1 - iteration / max_iters, 0.0)
    return (base_lr - min_lr) * left**power + min_lr


def step(base_lr: float, iteration: int, milestones: Sequence[int], gamma: float = 0.1) -> float:
    """`base_lr` times `gamma` for each milestone that is reached."""
    return base_lr * gamma ** sum(iteration >= milestone for milestone in milestones)
