"""Where one training curve lies inside or outside another: loss, learning rate and mIoU at common iterations."""

from __future__ import annotations

import bisect
import dataclasses
import math
import statistics
from collections.abc import Callable, Iterable

from internvl_dense.errors import UserError, problems
from internvl_dense.evaluation.curves import Curve

# A bound holds up to this much rounding: 4.4 - 3.4 is a little more than 1.0 in floating point.
ROUNDING = 1e-9


@dataclasses.dataclass(frozen=True)
class Rules:
    """What counts as the same curve.

    Args:
        loss: Largest |ratio - 1| of the mean losses.
        lr: Largest |ratio - 1| of the learning rates. mmcv prints four digits, so its rates are off by up to 0.0005.
        miou: Largest difference of mIoU in percentage points, at an iteration where both evaluated.
        window: Iterations in a mean of losses. The default is the evaluation interval of the published runs, 20 of
            their log lines: single lines differ by more than the tolerance from noise alone.

    Raises:
        UserError: A value is not positive.
    """

    loss: float = 0.15
    lr: float = 1e-3
    miou: float = 1.0
    window: int = 1000

    def __post_init__(self) -> None:
        wrong = [f'{field.name}={value} must be a positive number' for field in dataclasses.fields(self)
                 if not (value := getattr(self, field.name)) > 0 or not math.isfinite(value)]
        if wrong:
            raise UserError(problems('tolerances', wrong))


@dataclasses.dataclass(frozen=True)
class Point:
    """One iteration of the run at which the reference is known.

    Args:
        iteration: As both count it.
        run: Value as logged.
        reference: Value as logged, or between its neighbours.
        interpolated: Which of the two it is.
        compared: What is compared, (run, reference): means of losses, rates, or mIoU.
        deviation: Ratio of `compared` minus 1, for mIoU their difference in points.
        inside: Whether the deviation is within the tolerance; None where it is shown but not judged.
    """

    iteration: int
    run: float
    reference: float
    interpolated: bool
    compared: tuple[float, float]
    deviation: float
    inside: bool | None = None

    @property
    def finite(self) -> bool:
        return math.isfinite(self.run) and math.isfinite(self.reference)


@dataclasses.dataclass(frozen=True)
class Quantity:
    """One curve of the run against that of the reference.

    Args:
        name: `loss`, `lr` or `mIoU`.
        tolerance: As in `Rules`.
        points: Iterations of the run within the range of the reference, in order.
        outside_curve: Iterations of the run before the first or after the last point of the reference; not compared.
        unmatched: Evaluations of the run within that range at which the reference has none; not compared.
        notes: What a reader must know to judge the verdict.
    """

    name: str
    tolerance: float
    points: tuple[Point, ...] = ()
    outside_curve: tuple[int, ...] = ()
    unmatched: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def judged(self) -> list[Point]:
        return [point for point in self.points if point.inside is not None]

    @property
    def leaving(self) -> list[Point]:
        """Points outside the tolerance, in order."""
        return [point for point in self.points if point.inside is False]

    @property
    def inside(self) -> bool | None:
        """Whether all judged points are within the tolerance; None if nothing could be judged."""
        return not self.leaving if self.judged else None

    @property
    def worst(self) -> Point | None:
        """The judged point that deviates most; one that is not finite before any other."""
        return max(self.judged, key=lambda point: abs(point.deviation) if point.finite else math.inf, default=None)


def compare_curves(run: dict[str, Curve], reference: dict[str, Curve], rules: Rules) -> list[Quantity]:
    """Compares a run with a reference at the iterations of the run.

    The reference is interpolated linearly between two logged points and never extrapolated. Losses are compared as
    means over the iterations (i - window, i], taken at the same iterations for both; a mean is judged once its window
    lies within the common range, or once at the end if the common range is shorter. Learning rates are judged where
    both were logged, at interpolated points only if there are no such iterations. mIoU is judged where both evaluated.

    Args:
        run: Name -> iteration -> value, as `read_scalars` gives it; scores in percent.
        reference: The same of the other run or of a published log.
        rules: Tolerances and window.

    Returns:
        loss, lr and mIoU, in this order; also those that could not be compared.

    Raises:
        UserError: No quantity has an iteration at which both are known.
    """
    found = [
        _quantity('loss', rules.loss, run, reference, lambda points: _judge_losses(points, rules)),
        _rates(run, reference, rules.lr),
        _quantity('mIoU', rules.miou, run, reference, lambda points: _judge_scores(points, rules.miou)),
    ]
    if all(quantity.inside is None for quantity in found):
        raise UserError(problems('nothing in common to compare', [
            f'{quantity.name}: run {_range(find_curve(run, quantity.name))}, '
            f'reference {_range(find_curve(reference, quantity.name))}' for quantity in found
        ]))
    return found


def find_curve(curves: dict[str, Curve], name: str) -> Curve:
    """The curve of that name, also below a prefix as in `val/mIoU`; empty if none was logged."""
    return next((curve for key, curve in curves.items() if key.split('/')[-1] == name), {})


def _range(curve: Curve) -> str:
    return f'{len(curve)} points, iterations {min(curve)} to {max(curve)}' if curve else 'none'


_Judged = tuple[list[Point], list[str]]  # points with their verdicts, and notes


def _quantity(name: str, tolerance: float, run: dict[str, Curve], reference: dict[str, Curve],
              judge: Callable[[list[Point]], _Judged]) -> Quantity:
    own, other = find_curve(run, name), find_curve(reference, name)
    missing = [f'the {role} logged no {name}' for role, curve in (('run', own), ('reference', other)) if not curve]
    if missing:
        return Quantity(name, tolerance, notes=tuple(missing))
    aligned, outside = align(own, other)
    equal = [point for point in aligned if not point.interpolated]
    used = equal if name == 'mIoU' else aligned
    points, notes = judge(used)
    unmatched = [] if used is aligned else [point.iteration for point in aligned if point.interpolated]
    return Quantity(name, tolerance, tuple(points), tuple(outside), tuple(unmatched),
                    (*_not_finite(used), *notes))


def align(run: Curve, reference: Curve) -> tuple[list[Point], list[int]]:
    """Points of the run with the reference beside them, and the iterations that lie outside its range."""
    steps = sorted(reference)
    points: list[Point] = []
    outside: list[int] = []
    for iteration, value in sorted(run.items()):
        if not steps[0] <= iteration <= steps[-1]:
            outside.append(iteration)
            continue
        other = _between(reference, steps, iteration)
        interpolated = iteration not in reference
        points.append(Point(iteration, value, other, interpolated, (value, other), _relative(value, other)))
    return points, outside


def _between(reference: Curve, steps: list[int], iteration: int) -> float:
    above = bisect.bisect_left(steps, iteration)
    if steps[above] == iteration:
        return reference[iteration]
    low, high = steps[above - 1], steps[above]
    share = (iteration - low) / (high - low)
    return (1 - share) * reference[low] + share * reference[high]


def _relative(value: float, other: float) -> float:
    """Ratio minus 1; two zeros are the same."""
    if other == 0:
        return 0.0 if value == 0 else math.inf
    return value / other - 1


def _verdict(point: Point, deviation: float, tolerance: float) -> bool | None:
    """None where the reference is not finite; a run that is not finite beside a finite reference is outside."""
    if not math.isfinite(point.reference):
        return None
    return abs(deviation) <= tolerance + ROUNDING  # False for nan


def _not_finite(points: list[Point]) -> Iterable[str]:
    for role, broken in (
        ('run', [point for point in points if not math.isfinite(point.run)]),
        ('reference', [point for point in points if not math.isfinite(point.reference)]),
    ):
        if broken:
            yield f'the {role} is nan or inf at {len(broken)} of {len(points)} points, first {broken[0].iteration}'


def _judge_losses(points: list[Point], rules: Rules) -> _Judged:
    finite = [point for point in points if point.finite]
    steps = [point.iteration for point in finite]
    own, other = [point.run for point in finite], [point.reference for point in finite]
    judged: list[Point] = []
    for point in points:
        window = slice(bisect.bisect_right(steps, point.iteration - rules.window),
                       bisect.bisect_right(steps, point.iteration))
        # A loss that is nan or inf stands for itself: it needs no mean to be outside.
        lost = not math.isfinite(point.run)
        means = point.run if lost else _mean(own[window]), _mean(other[window])
        deviation = _relative(*means)
        inside = _verdict(point, deviation, rules.loss) if lost or _is_due(points, point, rules.window) else None
        judged.append(dataclasses.replace(point, compared=means, deviation=deviation, inside=inside))
    return judged, []


def _is_due(points: list[Point], point: Point, window: int) -> bool:
    """Whether the window of a point lies within the common range, or the range is shorter and ends here."""
    first, last = points[0].iteration, points[-1].iteration
    return point.iteration - first >= window or (last - first < window and point is points[-1])


def _mean(values: list[float]) -> float:
    return statistics.fmean(values) if values else math.nan


def _rates(run: dict[str, Curve], reference: dict[str, Curve], tolerance: float) -> Quantity:
    """The rate of the first parameter group, as both log it; else the base rate of the run, if that is the reference.

    With layer-wise decay the two differ by a constant factor, and a published log may state either.
    """
    found = _quantity('lr', tolerance, run, reference, lambda points: _judge_rates(points, tolerance))
    if found.inside is not False or not find_curve(run, 'base_lr') or find_curve(reference, 'base_lr'):
        return found
    base = {**run, 'lr': find_curve(run, 'base_lr')}
    other = _quantity('lr', tolerance, base, reference, lambda points: _judge_rates(points, tolerance))
    if not other.inside:
        return found
    note = 'the reference logged the base rate, and so is the run read'
    return dataclasses.replace(other, notes=(*other.notes, note))


def _judge_rates(points: list[Point], tolerance: float) -> _Judged:
    equal = {point.iteration for point in points if not point.interpolated}
    chosen = equal or {point.iteration for point in points}
    notes = [] if equal or not points else ['no iteration at which both were logged: judged at interpolated points']
    judged = [
        dataclasses.replace(point, inside=_verdict(point, point.deviation, tolerance))
        if point.iteration in chosen else point for point in points
    ]
    ratios = [1 + point.deviation for point in judged if point.inside is not None and math.isfinite(point.deviation)]
    if len(ratios) > 1 and min(ratios) > 0 and max(ratios) / min(ratios) <= 1 + 2 * tolerance and min(
            abs(ratio - 1) for ratio in ratios) > tolerance:
        notes.append(f'the rate of the run is {ratios[-1]:.4g} times that of the reference throughout: another base '
                     'rate, or another layer-wise decay')
    return judged, notes


def _judge_scores(points: list[Point], tolerance: float) -> _Judged:
    return [
        dataclasses.replace(point, deviation=point.run - point.reference,
                            inside=_verdict(point, point.run - point.reference, tolerance))
        for point in points
    ], []
