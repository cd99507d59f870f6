"""Tells how far a long loop is."""

from __future__ import annotations

import time

INTERVAL_S = 5.0  # between two lines


class Progress:
    """Prints a line now and then: done, speed, time left.

    Args:
        total: Number of items.
        unit: What they are, in the plural.
    """

    def __init__(self, total: int, unit: str) -> None:
        self.total = total
        self.unit = unit
        self.done = 0
        self._start = self._printed = time.monotonic()

    def step(self) -> None:
        """One more item is done."""
        self.done += 1
        now = time.monotonic()
        if self.done == self.total or self.done == 1 or now - self._printed >= INTERVAL_S:
            self._printed = now
            print(self.line(now - self._start), flush=True)

    def line(self, seconds: float) -> str:
        """State after `seconds` of work."""
        rate = self.done / max(seconds, 1e-9)
        left = duration((self.total - self.done) / rate) + ' left' if self.done < self.total else 'done'
        return f'{self.done}/{self.total} {self.unit}, {rate:.2f} {self.unit}/s, {duration(seconds)} so far, {left}'


def duration(seconds: float) -> str:
    """'2 h 5 min', '3 min 20 s' or '7 s'."""
    total = round(seconds)
    hours, minutes, rest = total // 3600, total // 60 % 60, total % 60
    if hours:
        return f'{hours} h {minutes} min'
    return f'{minutes} min {rest} s' if minutes else f'{rest} s'
