"""A comparison of curves in words and as plain data: the table, the verdicts, comparison.json."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import math
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from internvl_dense.evaluation.comparison import Point, Quantity, Rules
from internvl_dense.evaluation.comparison_sources import Source

ROWS = 12  # about as many round iterations are listed
STEPS = (1, 2, 5)  # what a round distance starts with
WORDS = {True: 'inside', False: 'outside', None: 'not compared'}
FORMS = {'loss': '.4f', 'lr': '.3e', 'mIoU': '.2f'}  # as mmcv prints them; mIoU in percent
SPANS = 5  # more stretches of left out iterations than this are counted only
OFF_CURVE = 'off curve'
WIDTH = 118  # of a line of prose
LEGEND = (
    'loss: means over the {window:,} iterations up to each one. A reference between two of its points is interpolated '
    f"linearly (~), never extrapolated: '{OFF_CURVE}' is before its first or after its last point. * is outside the "
    'tolerance; a value in () is shown but not judged.'
)


def table(quantities: Sequence[Quantity], rules: Rules) -> str:
    """Reference, run and ratio or difference at round iterations and at every common evaluation."""
    heads = ['iteration']
    for quantity in quantities:
        heads += [f'{quantity.name} ref.', 'run', 'diff.' if quantity.name == 'mIoU' else 'ratio']
    shown = listed_iterations(quantities)
    columns = [[f'{iteration:,}' for iteration in shown], *(column for quantity in quantities
                                                            for column in _columns(quantity, shown))]
    lines = []
    widths = [max(map(len, (head, *column))) for head, column in zip(heads, columns, strict=True)]
    for row in (heads, *zip(*columns, strict=True)):
        lines.append('  '.join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return '\n'.join([*lines, *textwrap.wrap(LEGEND.format(window=rules.window), WIDTH)])


def listed_iterations(quantities: Sequence[Quantity]) -> list[int]:
    """Iterations of the run nearest to about a dozen round ones, and every common evaluation."""
    logged = sorted({at for quantity in quantities
                     for at in (*(point.iteration for point in quantity.points), *quantity.outside_curve)})
    step = _round_step(logged[-1])
    nearest = {min(logged, key=lambda at: abs(at - target)) for target in range(step, logged[-1] + 1, step)}
    common = {point.iteration for quantity in quantities if quantity.name == 'mIoU' for point in quantity.points}
    return sorted(nearest | common)


def _round_step(last: int) -> int:
    steps = [start * 10**power for power in range(len(str(max(last, 1)))) for start in STEPS]
    return min(steps, key=lambda step: abs(last / step - ROWS))


def _columns(quantity: Quantity, iterations: Sequence[int]) -> Iterable[tuple[str, ...]]:
    """The three columns of a quantity: reference, run, ratio or difference."""
    points = {point.iteration: point for point in quantity.points}
    off = set(quantity.outside_curve)
    return zip(*((OFF_CURVE, '', '') if at in off else _cells(quantity, points.get(at)) for at in iterations),
               strict=True)


def _cells(quantity: Quantity, point: Point | None) -> tuple[str, str, str]:
    if point is None:
        return '', '', ''
    run, reference = point.compared
    form = FORMS[quantity.name]
    return f'{"~" if point.interpolated else ""}{reference:{form}}', f'{run:{form}}', _deviation(quantity, point)


def _deviation(quantity: Quantity, point: Point) -> str:
    text = _plain_deviation(quantity, point)
    if point.inside is None:
        return f'({text})'
    return text if point.inside else f'{text}*'


def _plain_deviation(quantity: Quantity, point: Point) -> str:
    if quantity.name == 'mIoU':
        return f'{point.deviation:+.2f}'
    return f'{1 + point.deviation:.{3 if quantity.name == "loss" else 4}f}'


def verdicts(quantities: Sequence[Quantity], rules: Rules) -> str:
    """For each quantity: inside or outside, from which iteration on, and what was left out."""
    lines = (line for quantity in quantities for line in _verdict(quantity, rules))
    return '\n'.join(row for line in lines for row in textwrap.wrap(line, WIDTH, subsequent_indent='    '))


def _verdict(quantity: Quantity, rules: Rules) -> Iterable[str]:
    judged, worst = quantity.judged, quantity.worst
    head = f'{quantity.name}: {WORDS[quantity.inside]}'
    if worst is None:
        yield head
    else:
        yield (f'{head} {tolerance_words(quantity)}, {_leaving(quantity, rules)}worst '
               f'{_plain_deviation(quantity, worst)} at {worst.iteration:,}; judged at {_points(len(judged))} from '
               f'{judged[0].iteration:,} to {judged[-1].iteration:,}')
    for iterations, text in (
        (quantity.outside_curve, 'outside the curve, not compared'),
        (quantity.unmatched, 'without an evaluation of the reference, not compared'),
    ):
        if iterations:
            yield f'  {_points(len(iterations))} {text}: {_spans(quantity, iterations)}'
    yield from (f'  {note}' for note in quantity.notes)


def _points(count: int) -> str:
    return f'{count:,} point{"" if count == 1 else "s"}'


def tolerance_words(quantity: Quantity) -> str:
    """The tolerance as it reads in a sentence."""
    if quantity.name == 'mIoU':
        return f'+-{quantity.tolerance:g} points'
    return f'+-{100 * quantity.tolerance:g} %'


def _leaving(quantity: Quantity, rules: Rules) -> str:
    if not quantity.leaving:
        return ''
    first = quantity.leaving[0]
    since = ''
    if quantity.name == 'loss' and math.isfinite(first.run):
        since = f' (mean over {max(0, first.iteration - rules.window) + 1:,} to {first.iteration:,})'
    count = len(quantity.leaving)
    return (f'first {_plain_deviation(quantity, first)} at {first.iteration:,}{since}, '
            f'{_points(count)} in all; ')


def _spans(quantity: Quantity, iterations: Sequence[int]) -> str:
    """First and last iteration of what lies before, among and after the compared points."""
    marks = [point.iteration for point in quantity.points]
    groups = [list(group) for _, group in itertools.groupby(iterations, lambda at: bisect.bisect_left(marks, at))]
    words = [f'{group[0]:,}' if len(group) == 1 else f'{group[0]:,} to {group[-1]:,}' for group in groups]
    return ', '.join(words[:SPANS] + (['...'] if len(words) > SPANS else []))


def as_data(run: Source, reference: Source, quantities: Sequence[Quantity], rules: Rules) -> dict[str, Any]:
    """Everything that was compared, for comparison.json.

    Returns:
        `sources` with the sha256 of each file, `rules`, and for each quantity its verdict, its points and the
        iterations that were left out. Numbers that are not finite are the words 'nan', 'inf' and '-inf', as JSON has
        none for them.
    """
    return {
        'sources': {role: {'name': source.name, 'sha256': source.files, 'notes': list(source.notes)}
                    for role, source in (('run', run), ('reference', reference))},
        'rules': dataclasses.asdict(rules),
        'inside': all(quantity.inside is not False for quantity in quantities),
        'quantities': {quantity.name: _quantity_data(quantity) for quantity in quantities},
    }


def _quantity_data(quantity: Quantity) -> dict[str, Any]:
    worst = quantity.worst
    return {
        'verdict': WORDS[quantity.inside],
        'tolerance': quantity.tolerance,
        'first_outside': quantity.leaving[0].iteration if quantity.leaving else None,
        'worst': None if worst is None else {'iteration': worst.iteration, 'deviation': _json_number(worst.deviation)},
        'points': [_point_data(point) for point in quantity.points],
        'outside_curve': list(quantity.outside_curve),
        'unmatched': list(quantity.unmatched),
        'notes': list(quantity.notes),
    }


def _point_data(point: Point) -> dict[str, Any]:
    row = dataclasses.asdict(point)
    row['compared'] = dict(zip(('run', 'reference'), map(_json_number, point.compared), strict=True))
    return {name: _json_number(value) if isinstance(value, float) else value for name, value in row.items()}


def _json_number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)
