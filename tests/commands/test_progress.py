from __future__ import annotations

import pytest

from internvl_dense.commands import _progress
from internvl_dense.commands._progress import Progress, duration


@pytest.mark.parametrize(('seconds', 'text'), [
    (0.4, '0 s'), (59.4, '59 s'), (60, '1 min 0 s'), (3599.6, '1 h 0 min'), (7384, '2 h 3 min'),
])
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_a_line_says_speed_and_time_left():
    progress = Progress(400, 'images')
    progress.done = 100
    assert progress.line(50) == '100/400 images, 2.00 images/s, 50 s so far, 2 min 30 s left'
    progress.done = 400
    assert progress.line(200) == '400/400 images, 2.00 images/s, 3 min 20 s so far, done'


def test_lines_come_at_the_ends_and_now_and_then(monkeypatch, capsys):
    clock = iter(range(0, 100, 2))
    monkeypatch.setattr(_progress.time, 'monotonic', lambda: next(clock))
    progress = Progress(10, 'images')
    for _ in range(10):
        progress.step()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split('/')[0] for line in lines] == ['1', '4', '7', '10']
