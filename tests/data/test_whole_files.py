from __future__ import annotations

import json
from pathlib import Path

import pytest

from internvl_dense.data.whole_files import write_json, write_whole


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / 'a.txt'
    path.write_text('old')

    def half(part: Path) -> None:
        part.write_text('ha')
        raise OSError('disk full')

    with pytest.raises(OSError, match='disk full'):
        write_whole(path, half)
    assert path.read_text() == 'old'
    write_whole(path, lambda part: part.write_text('new'))
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [('a.txt', 'new')]


def test_json_makes_its_folder_and_knows_no_nan(tmp_path: Path) -> None:
    path = tmp_path / 'new' / 'a.json'
    write_json(path, {'Straße': [1, None]})
    assert json.loads(path.read_text(encoding='utf-8')) == {'Straße': [1, None]}
    with pytest.raises(ValueError, match='JSON compliant'):
        write_json(path, float('nan'))
    assert json.loads(path.read_text(encoding='utf-8')) == {'Straße': [1, None]}
