"""A comparison of curves as a picture: loss, learning rate and mIoU of both, one below the other."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from internvl_dense.evaluation.comparison import Quantity, find_curve
from internvl_dense.evaluation.comparison_report import WORDS, tolerance_words
from internvl_dense.evaluation.comparison_sources import Source
from internvl_dense.evaluation.curves import Curve, save_png, stacked_panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FIGURE_INCHES = (9.0, 10.0)
MARGIN = 0.03  # of the iterations of the run, right and left of it
RUN_COLOUR, REFERENCE_COLOUR, LEAVING_COLOUR = 'tab:orange', 'tab:blue', 'tab:red'
WIDE, THIN = 3.0, 1.3  # lines of the reference and of the run
LABELS = {'loss': 'training loss', 'lr': 'learning rate', 'mIoU': 'mIoU (%)'}


def draw_comparison(run: Source, reference: Source, quantities: Sequence[Quantity], target: str | Path) -> Path:
    """Draws both curves of each quantity over the iterations of the run, with what is outside the tolerance.

    Args:
        run: What is compared.
        reference: With what it is compared.
        quantities: As `compare_curves` returns them.
        target: PNG file to write.

    Returns:
        The written file.
    """
    figure, rows = stacked_panels(len(quantities), FIGURE_INCHES)
    shown = [at for quantity in quantities for at in find_curve(run.curves, quantity.name)]
    margin = MARGIN * max(max(shown) - min(shown), 1)
    limits = min(shown) - margin, max(shown) + margin
    for axes, quantity in zip(rows, quantities, strict=True):
        _draw_curves(axes, quantity, run, reference, limits)
        _shade_outside(axes, quantity, find_curve(reference.curves, quantity.name), limits)
        _draw_judged(axes, quantity)
        _draw_lost(axes, quantity)
        _label(axes, quantity)
    rows[-1].set_xlim(*limits)
    rows[-1].set_xlabel('iteration')
    figure.suptitle(f'{run.name}\nagainst {reference.name}')
    return save_png(figure, target)


def _label(axes: Axes, quantity: Quantity) -> None:
    since = f', first at iteration {quantity.leaving[0].iteration:,}' if quantity.leaving else ''
    bound = '' if quantity.inside is None else f' {tolerance_words(quantity)}{since}'
    axes.set_title(f'{quantity.name}: {WORDS[quantity.inside]}{bound}', loc='left', fontsize='medium')
    axes.set_ylabel(LABELS[quantity.name] + (' / maximum' if _maxima(quantity) != (1.0, 1.0) else ''))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize='small')


def _maxima(quantity: Quantity) -> tuple[float, float]:
    """What the rates of run and reference were divided by to compare them: 1 if they agree as they are."""
    points = [point for point in quantity.judged if point.finite and all(point.compared)]
    if quantity.name != 'lr' or not points:
        return 1.0, 1.0
    return points[0].run / points[0].compared[0], points[0].reference / points[0].compared[1]


def _draw_curves(axes: Axes, quantity: Quantity, run: Source, reference: Source, limits: tuple[float, float]) -> None:
    faint = 0.35 if quantity.name == 'loss' else 1.0
    mark = 'o' if quantity.name == 'mIoU' else ''
    top, other_top = _maxima(quantity)
    # The reference is wide and below, so that both show where they agree.
    for label, source, colour, width, scale in (('reference', reference, REFERENCE_COLOUR, WIDE, other_top),
                                                ('run', run, RUN_COLOUR, THIN, top)):
        curve = _visible(find_curve(source.curves, quantity.name), limits)
        if curve:
            axes.plot(list(curve), [value / scale for value in curve.values()], color=colour, alpha=faint,
                      linewidth=width, marker=mark, markersize=width + 2, label=label)


def _visible(curve: Curve, limits: tuple[float, float]) -> Curve:
    """The part within the limits, with one point beyond each, so that the line goes on to the edge."""
    steps = sorted(curve)
    first, last = bisect.bisect_left(steps, limits[0]), bisect.bisect_right(steps, limits[1])
    return {at: curve[at] for at in steps[max(0, first - 1):last + 1]}


def _shade_outside(axes: Axes, quantity: Quantity, reference: Curve, limits: tuple[float, float]) -> None:
    """Greys what lies before the first or after the last point of the reference, if the run has points there."""
    first, last = min(reference, default=0), max(reference, default=0)
    label = 'outside the curve'
    for left, right, used in ((limits[0], first, any(at < first for at in quantity.outside_curve)),
                              (last, limits[1], any(at > last for at in quantity.outside_curve))):
        if used:
            axes.axvspan(left, right, color='tab:gray', alpha=0.15, linewidth=0, label=label)
            label = '_' + label  # named once in the legend


def _draw_judged(axes: Axes, quantity: Quantity) -> None:
    """Means of the loss, the band of the tolerance around the reference, and the points outside it."""
    points = [point for point in quantity.judged if point.finite]
    if not points:
        return
    steps = [point.iteration for point in points]
    own, other = zip(*(point.compared for point in points), strict=True)
    if quantity.name == 'loss':
        mark = '.' if len(points) == 1 else ''
        axes.plot(steps, other, color=REFERENCE_COLOUR, linewidth=WIDE, marker=mark, label='reference, mean')
        axes.plot(steps, own, color=RUN_COLOUR, linewidth=THIN, marker=mark, label='run, mean')
        if min(*own, *other) > 0:
            axes.set_yscale('log')  # the same ratio is the same distance everywhere
    if quantity.name != 'lr':  # the band of the rates is thinner than their line
        low, high = zip(*(_band(quantity, reference) for reference in other), strict=True)
        axes.fill_between(steps, low, high, color=REFERENCE_COLOUR, alpha=0.15, linewidth=0, label='tolerance')
    leaving = [point for point in points if point.inside is False]
    if leaving:
        axes.plot([point.iteration for point in leaving], [point.compared[0] for point in leaving], linestyle='',
                  marker='x' if quantity.name == 'mIoU' else '.', color=LEAVING_COLOUR, label='outside the tolerance')


def _draw_lost(axes: Axes, quantity: Quantity) -> None:
    """A line where the run is nan or inf, which no curve can show."""
    for number, point in enumerate(point for point in quantity.points if not math.isfinite(point.run)):
        axes.axvline(point.iteration, color=LEAVING_COLOUR, linewidth=0.8, label='_' * (number > 0) + 'run nan or inf')


def _band(quantity: Quantity, reference: float) -> tuple[float, float]:
    if quantity.name == 'mIoU':
        return reference - quantity.tolerance, reference + quantity.tolerance
    return reference * (1 - quantity.tolerance), reference * (1 + quantity.tolerance)
