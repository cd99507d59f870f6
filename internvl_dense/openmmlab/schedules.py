"""Learning-rate schedules with warm-up, as the published recipes count them."""

from __future__ import annotations

from typing import Any

from mmengine.optim.scheduler.param_scheduler import _ParamScheduler
from mmengine.registry import PARAM_SCHEDULERS

from internvl_dense.training.schedules import poly, step, warmup_factor


class _WarmupLR(_ParamScheduler):
    """A closed-form schedule over all iterations; resuming needs no replay.

    Args:
        optimizer: Optimizer or OptimWrapper.
        warmup_iters: Iterations of linear warm-up.
        warmup_ratio: Factor on the rate at iteration 0.
    """

    def __init__(
        self, optimizer: Any, *, warmup_iters: int = 0, warmup_ratio: float = 1e-6, by_epoch: bool = False,
        **kwargs: Any,
    ) -> None:
        if by_epoch:
            raise ValueError(f'{type(self).__name__} counts iterations; set by_epoch=False')
        # mmengine adds an end of its own, in epochs where a config omits by_epoch; this schedule knows its length.
        kwargs = {key: value for key, value in kwargs.items() if key not in ('begin', 'end')}
        self.warmup_iters = warmup_iters
        self.warmup_ratio = warmup_ratio
        super().__init__(optimizer, param_name='lr', by_epoch=False, **kwargs)

    def _base(self, base_lr: float) -> float:
        raise NotImplementedError

    def _get_value(self) -> list[float]:
        factor = warmup_factor(self.last_step, self.warmup_iters, self.warmup_ratio)
        return [factor * self._base(base_lr) for base_lr in self.base_values]


@PARAM_SCHEDULERS.register_module()
class WarmupPolyLR(_WarmupLR):
    """Polynomial decay to `min_lr` at `max_iters`, with linear warm-up."""

    def __init__(
        self, optimizer: Any, *, max_iters: int, power: float = 1.0, min_lr: float = 0.0, **kwargs: Any
    ) -> None:
        self.max_iters = max_iters
        self.power = power
        self.min_lr = min_lr
        super().__init__(optimizer, **kwargs)

    def _base(self, base_lr: float) -> float:
        return poly(base_lr, self.last_step, self.max_iters, self.power, self.min_lr)


@PARAM_SCHEDULERS.register_module()
class WarmupStepLR(_WarmupLR):
    """`gamma` at each milestone (in iterations), with linear warm-up."""

    def __init__(self, optimizer: Any, *, milestones: list[int], gamma: float = 0.1, **kwargs: Any) -> None:
        self.milestones = list(milestones)
        self.gamma = gamma
        super().__init__(optimizer, **kwargs)

    def _base(self, base_lr: float) -> float:
        return step(base_lr, self.last_step, self.milestones, self.gamma)
