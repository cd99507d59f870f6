"""COCO scores as text: one line a class, in percent."""

from __future__ import annotations

from internvl_dense.evaluation.coco_ap import NOTHING, CocoScores
from internvl_dense.evaluation.table import line, percent, text_width

COLUMNS = {'AP': 'mAP', 'AP50': 'mAP_50', 'AP75': 'mAP_75', 'APs': 'mAP_s', 'APm': 'mAP_m', 'APl': 'mAP_l'}


def coco_table(scores: CocoScores) -> str:
    """Lines of class and precisions in percent with two decimals, the mean below; `absent` where no object counts."""
    rows = [(name, [values[key] for key in COLUMNS.values()]) for name, values in scores['per_class'].items()]
    width = max(text_width(name) for name in ['class', *scores['per_class']])
    head = line('class', list(COLUMNS), width)
    rule = '-' * len(head)
    mean = [None if scores['summary'][key] == NOTHING else scores['summary'][key] for key in COLUMNS.values()]
    return '\n'.join([head, rule, *(line(name, [percent(value) for value in values], width) for name, values in rows),
                      rule, line('mean', [percent(value) for value in mean], width), _recalls(scores)])


def _recalls(scores: CocoScores) -> str:
    """`AR@1 12.34, AR@10 23.45, ...`."""
    values = {name: value for name, value in scores['summary'].items() if name.startswith('AR')}
    return ', '.join(f'{name} {percent(None if value == NOTHING else value)}' for name, value in values.items())
