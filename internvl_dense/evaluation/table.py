"""Metrics as text: one line a class, in percent."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Sequence

from internvl_dense.evaluation.miou import Metrics

ABSENT = 'absent'
NUMBER_WIDTH = 8
NOTE_WIDTH = 100


def per_class_table(metrics: Metrics) -> str:
    """Lines of class, IoU and accuracy in percent with two decimals, then the means and which classes are absent.

    Lines and columns are drawn in ASCII; class names stay as they are, and wide characters count as two columns.
    """
    scores = metrics['per_class']
    rows = [(name, values['IoU'], values['Acc']) for name, values in scores.items()]
    width = max(text_width(name) for name in ['class', *scores])
    rule = '-' * (width + 2 * NUMBER_WIDTH)
    lines = [
        line('class', ['IoU %', 'Acc %'], width),
        rule,
        *(line(name, [percent(iou), percent(acc)], width) for name, iou, acc in rows),
        rule,
        line('mean', [percent(metrics['mIoU']), percent(metrics['mAcc'])], width),
        f'aAcc {percent(metrics["aAcc"])}, '
        f'mIoU over all {len(rows)} classes (absent ones as 0) {percent(metrics["mIoU_all_classes"])}',
        *_note('absent, not in the means:', [name for name, iou, _ in rows if iou is None]),
        *_note(
            'predicted but absent from the labels, in the mean IoU as 0:',
            [name for name, iou, acc in rows if iou is not None and acc is None],
        ),
    ]
    return '\n'.join(lines)


def percent(fraction: float | None) -> str:
    """`0.4567` -> `45.67`; a class without a value is `absent`."""
    return ABSENT if fraction is None else f'{100 * fraction:.2f}'


def line(name: str, cells: Sequence[str], width: int) -> str:
    """A name in a column of `width`, then cells of equal width."""
    return name + ' ' * (width - text_width(name)) + ''.join(cell.rjust(NUMBER_WIDTH) for cell in cells)


def _note(title: str, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    return textwrap.wrap(f'{title} {", ".join(names)}', NOTE_WIDTH, subsequent_indent='  ')


def text_width(text: str) -> int:
    """Width on a terminal: East Asian wide and full-width characters take two columns, combining marks none."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in 'WF' else 1 for char in text
    )
