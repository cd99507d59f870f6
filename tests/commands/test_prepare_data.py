from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from internvl_dense.commands.prepare_data import DATA_SETS, build_parser, main
from internvl_dense.data.prepare.run import LAYOUTS
from internvl_dense.errors import UserError
from tests import tiny_runs
from tests.data.prepare import miniatures

ROOT = Path(__file__).resolve().parents[2]


def test_data_sets_are_those_that_there_are() -> None:
    assert tuple(LAYOUTS) == DATA_SETS


@pytest.mark.parametrize('name', DATA_SETS)
def test_subset_from_a_folder_of_archives(tmp_path, capsys, name) -> None:
    archives = miniatures.write_archives(tmp_path / 'downloads', name)
    words = [name, str(archives), '--out', str(tmp_path / 'out'), '--partial']
    assert main(words) == 0
    said = capsys.readouterr().out
    root = tmp_path / 'out' / LAYOUTS[name].folder
    assert 'PARTIAL data set, for trying out only: 3 of ' in said
    assert LAYOUTS[name].licence in said and f'{root}: ready' in said
    assert '/12 files' in said if name == 'ade20k' else ' files/s' in said
    record = json.loads((root / 'prepared.json').read_text())
    assert record['partial'] and record['published'] == vars(LAYOUTS[name].counts)
    before = miniatures.tree(tmp_path / 'out')
    assert main(words) == 0
    assert miniatures.tree(tmp_path / 'out') == before


def test_fewer_files_than_published_are_refused(tmp_path) -> None:
    archives = miniatures.write_archives(tmp_path / 'downloads', 'ade20k')
    with pytest.raises(UserError, match='training images: 3 found, 20,210 published'):
        main(['ade20k', str(archives), '--out', str(tmp_path / 'out')])
    assert not (tmp_path / 'out').exists()


def test_tool_explains_mistakes_without_traceback(tmp_path) -> None:
    command = [sys.executable, str(ROOT / 'tools' / 'prepare_data.py'), 'coco', str(tmp_path / 'no.zip'), '--out', 'x']
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 2
    assert 'no.zip: no such file or folder' in result.stderr and 'Traceback' not in result.stderr


@pytest.mark.parametrize('words', [[], ['ade20k'], ['ade20k', 'a.zip'], ['cityscapes', 'a.zip', '--out', 'x']])
def test_missing_words_are_asked_for(words, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        build_parser().parse_args(words)
    assert stop.value.code == 2
    assert 'usage' in capsys.readouterr().err


def test_config_reads_the_folder_that_is_made(tmp_path) -> None:
    """The data set of the ADE20K base config finds every pair; the documented --out is where it looks."""
    from mmengine.registry import DATASETS, init_default_scope

    archives = miniatures.write_archives(tmp_path / 'downloads', 'ade20k')
    main(['ade20k', str(archives), '--out', str(tmp_path / 'data' / 'ade'), '--partial'])
    config = tiny_runs.load_config(tiny_runs.Namespace(config='ade20k/linear_probing_internvit_6b_224px_ade20k'))
    assert config.data_root == 'data/ade/ADEChallengeData2016'
    init_default_scope('mmseg')
    for loader, number in ((config.train_dataloader, 3), (config.val_dataloader, 2)):
        root = str(tmp_path / config.data_root)
        dataset = DATASETS.build({**loader.dataset, 'data_root': root, 'pipeline': []})
        pairs = [dataset.get_data_info(index) for index in range(len(dataset))]
        assert len(pairs) == number
        assert all(Path(pair[key]).is_file() for pair in pairs for key in ('img_path', 'seg_map_path'))
