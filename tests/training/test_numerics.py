"""The two rows of numerics."""

from __future__ import annotations

import dataclasses

import pytest

from internvl_dense.errors import UserError
from internvl_dense.training.numerics import FAST, NUMERICS, PUBLISHED, get_numerics


def test_rows_differ_in_every_choice():
    fields = [field.name for field in dataclasses.fields(PUBLISHED)]
    assert all(getattr(PUBLISHED, name) != getattr(FAST, name) for name in fields)
    assert NUMERICS == {'published': PUBLISHED, 'fast': FAST}


def test_unknown_name_is_explained():
    assert get_numerics('published') is PUBLISHED
    with pytest.raises(UserError, match="Unknown numerics 'publishd'. Did you mean 'published'"):
        get_numerics('publishd')
