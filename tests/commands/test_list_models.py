"""The table of variants shows every row and the notes of the model cards."""

from __future__ import annotations

from internvl_dense.backbones.create import list_backbones
from internvl_dense.commands import list_models


def test_every_variant_is_listed_with_its_note(capsys):
    assert list_models.main([]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in list_backbones())
    assert 'internvit_6b_448px_v2_5: card: ' in text
    assert '5,902.8 M' in text and 'MIT' in text


def test_pattern_selects(capsys):
    assert list_models.main(['internvit_300m*']) == 0
    assert 'internvit_6b' not in capsys.readouterr().out
    assert list_models.main(['resnet*']) == 1
    assert 'internvit_debug' in capsys.readouterr().out
