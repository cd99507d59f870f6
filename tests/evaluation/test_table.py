from __future__ import annotations

import torch

from internvl_dense.evaluation.miou import segmentation_metrics
from internvl_dense.evaluation.table import per_class_table, percent

COUNTS = [[6, 2, 0, 0], [0, 3, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]

TABLE = """\
class   IoU %   Acc %
---------------------
road    75.00   75.00
sky     50.00   75.00
tree     0.00  absent
boat   absent  absent
---------------------
mean    41.67   75.00
aAcc 75.00, mIoU over all 4 classes (absent ones as 0) 31.25
absent, not in the means: boat
predicted but absent from the labels, in the mean IoU as 0: tree"""


def table(*names: str) -> str:
    return per_class_table(segmentation_metrics(torch.tensor(COUNTS), names))


def test_whole_table():
    assert table('road', 'sky', 'tree', 'boat') == TABLE


def test_nothing_is_said_of_absent_classes_when_there_are_none():
    text = per_class_table(segmentation_metrics(torch.tensor([[5, 1], [2, 7]]), ('a', 'b')))
    assert 'absent' not in text.replace('(absent ones as 0)', '')
    assert 'nan' not in text


def test_wide_names_keep_columns_straight():
    lines = table('道路', 'Straße', 'e\N{COMBINING ACUTE ACCENT}tang', 'x').splitlines()
    # Two characters of two columns each, and one mark without width.
    assert lines[2] == '道路     75.00   75.00'
    assert lines[3] == 'Straße   50.00   75.00'
    assert lines[4] == 'e\N{COMBINING ACUTE ACCENT}tang     0.00  absent'


def test_frame_is_ascii_and_long_lists_are_wrapped():
    size = 150
    counts = torch.zeros(size, size, dtype=torch.int64)
    counts[0, 0] = 1
    text = per_class_table(segmentation_metrics(counts, [f'class number {i}' for i in range(size)]))
    assert text.isascii()
    assert max(len(line) for line in text.splitlines()) <= 100
    assert 'class number 149' in text.splitlines()[-1]


def test_percent_has_two_decimals():
    assert [percent(value) for value in (0.45678, 1.0, 0.0, None)] == ['45.68', '100.00', '0.00', 'absent']
