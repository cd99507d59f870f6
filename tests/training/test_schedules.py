"""Schedules at their edges; whole tables are compared in tests/parity."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from internvl_dense.training.schedules import poly, step, warmup_factor


def test_warmup_starts_at_its_ratio_and_ends_at_1() -> None:
    assert warmup_factor(0, 100, 1e-6) == pytest.approx(1e-6)
    assert warmup_factor(50, 100, 0.2) == pytest.approx(0.6)
    assert warmup_factor(99, 100, 0.0) == pytest.approx(0.99)
    assert warmup_factor(100, 100, 0.0) == 1.0
    assert warmup_factor(10**6, 100, 0.0) == 1.0


def test_no_warmup() -> None:
    assert warmup_factor(0, 0, 1e-6) == 1.0


@given(st.integers(1, 50), st.floats(0, 1))
def test_warmup_never_falls(warmup: int, ratio: float) -> None:
    factors = [warmup_factor(i, warmup, ratio) for i in range(warmup + 3)]
    assert factors == sorted(factors)
    assert all(ratio - 1e-12 <= factor <= 1 for factor in factors)


def test_poly_from_base_to_minimum() -> None:
    assert poly(2.0, 0, 10) == 2.0
    assert poly(2.0, 5, 10) == pytest.approx(1.0)
    assert poly(2.0, 10, 10) == 0.0
    assert poly(2.0, 5, 10, power=2.0) == pytest.approx(0.5)
    assert poly(2.0, 5, 10, min_lr=1.0) == pytest.approx(1.5)


@pytest.mark.parametrize('power', [0.5, 1.0, 0.9])
def test_poly_stays_at_the_minimum_behind_its_end(power: float) -> None:
    assert poly(2.0, 11, 10, power=power, min_lr=0.25) == 0.25


def test_steps_take_effect_at_their_milestone() -> None:
    rates = [step(1.0, i, [3, 5], gamma=0.1) for i in (0, 2, 3, 4, 5, 100)]
    assert rates == pytest.approx([1.0, 1.0, 0.1, 0.1, 0.01, 0.01])
    assert step(1.0, 100, []) == 1.0
