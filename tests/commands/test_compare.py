"""`compare` as a user calls it: a work directory against a published log or another run."""

from __future__ import annotations

import hashlib
import json
import pathlib

import pytest
from PIL import Image

from internvl_dense.backbones.locate import ENVIRONMENT
from internvl_dense.commands.compare import build_parser, main
from internvl_dense.errors import UserError
from internvl_dense.zoo import ZOO
from tests import mmcv_logs, tiny_runs

CELL = 'linear_probing_internvit_6b_224px_ade20k'


@pytest.fixture
def folder(tmp_path, monkeypatch) -> pathlib.Path:
    """A working directory with a run like the published one, and nothing where published files are looked for."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    mmcv_logs.write_run(tmp_path / 'run', mmcv_logs.run_rows())
    (tmp_path / 'published.log').write_text(mmcv_logs.text_log())
    return tmp_path


def diverged(factor: float = 1.3, after: int = 3000) -> list[dict[str, float]]:
    rows = mmcv_logs.run_rows()
    return [{**row, 'loss': row['loss'] * factor} if 'loss' in row and row['step'] > after else row for row in rows]


def report(path: pathlib.Path) -> dict:
    return json.loads(path.read_text())


def test_a_run_inside_the_published_curve(folder, capsys):
    assert main(['run', 'published:published.log']) == 0
    data = report(folder / 'run' / 'comparison' / 'comparison.json')
    assert {name: quantity['verdict'] for name, quantity in data['quantities'].items()} == dict.fromkeys(
        ('loss', 'lr', 'mIoU'), 'inside')
    checksum = hashlib.sha256((folder / 'published.log').read_bytes()).hexdigest()
    assert data['sources']['reference']['sha256'] == {'published.log': checksum}
    assert list(data['sources']['run']['sha256']) == ['run/20260101_000000/vis_data/scalars.json']
    assert len(data['quantities']['mIoU']['points']) == 8
    with Image.open(folder / 'run' / 'comparison' / 'comparison.png') as picture:
        assert picture.format == 'PNG' and min(picture.size) > 600
    text = capsys.readouterr().out
    assert f'published.log (sha256 {checksum[:12]}...)' in text
    assert 'loss: inside +-15 %' in text and 'interpolated linearly' in ' '.join(text.split())


def test_a_run_that_diverged(folder, capsys):
    mmcv_logs.write_run(folder / 'bad', diverged())
    assert main(['bad', 'published:published.log', '--window', '200', '--out', 'here/it/is']) == 1
    loss = report(folder / 'here' / 'it' / 'is' / 'comparison.json')['quantities']['loss']
    assert loss['verdict'] == 'outside' and 3050 <= loss['first_outside'] <= 3200
    assert not (folder / 'bad' / 'comparison').exists()
    assert 'loss: outside +-15 %' in capsys.readouterr().out
    assert main(['bad', 'published:published.log', '--window', '200', '--loss-tolerance', '0.5']) == 0
    assert main(['run', 'published:published.log', '--miou-tolerance', '0.05']) == 1
    assert main(['run', 'published:published.log', '--lr-tolerance', '1e-5']) == 1


def test_two_runs_of_ours(folder):
    mmcv_logs.write_run(folder / 'bad', diverged())
    assert main(['run', 'run/20260101_000000/vis_data/scalars.json']) == 0
    assert main(['bad', 'run']) == 1
    assert main(['run/20260101_000000/vis_data/scalars.json', 'run']) == 0
    assert (folder / 'run' / '20260101_000000' / 'vis_data' / 'comparison' / 'comparison.png').is_file()


def test_a_cell_is_found_among_the_published_files(folder, monkeypatch, capsys):
    weights = folder / 'elsewhere'
    weights.mkdir()
    (weights / ZOO.get(CELL).log).write_text(mmcv_logs.text_log() + 'half a line')
    monkeypatch.setenv(ENVIRONMENT, str(weights))
    assert main(['run', f'published:{CELL}']) == 0
    text = capsys.readouterr().out
    assert f'{weights / ZOO.get(CELL).log} (sha256 ' in text
    assert '1 line broken off' in text
    data = report(folder / 'run' / 'comparison' / 'comparison.json')
    assert data['sources']['reference']['name'] == f'published:{CELL}'
    assert data['sources']['reference']['notes'] == ['1 line broken off: read as far as whole']


def test_a_log_in_json(folder):
    (folder / 'a.log.json').write_text(mmcv_logs.json_log())
    assert main(['run', 'published:a.log.json']) == 0


@pytest.mark.parametrize(('words', 'message'), [
    (['run', f'published:{CELL}'], rf'{CELL}: its training log \S+_frozen.log is not in .*{ENVIRONMENT}.*'
                                   rf'internvl-dense fetch {CELL} --log --to pretrained'),
    (['run', 'published:linear_probing_internvit_6b_ade20k'], f'neither a published model nor a file. Nearest.*{CELL}'),
    (['run', 'published:few_shot_internvit_6b_224px_ade20k'], 'Nearest models: few_shot_.*, few_shot_'),
    (['run', 'published:no/such.log'], 'neither a published model nor a file'),
    (['run', 'published.log'], 'a log of mmcv, not the scalars of a run; name it published:published.log'),
    (['nowhere', 'run'], 'nowhere: no scalars there'),
    (['nowhere', 'published:nothing'], '(?s)curves to compare: 2 problems.*nowhere.*published:nothing'),
    (['run', 'run', '--window', '0', '--lr-tolerance', '-1'], '(?s)tolerances: 2 problems.*lr=-1.*window=0'),
    (['published:published.log', 'run'], 'no work directory to write into: name a folder with --out'),
    (['run', 'run', '--out', 'published.log'], '--out published.log is a file'),
])
def test_wrong_input(folder, words: list[str], message: str):
    with pytest.raises(UserError, match=message):
        main(words)
    assert not list(folder.rglob('comparison*'))


def test_nothing_in_common_writes_nothing(folder):
    mmcv_logs.write_run(folder / 'short', mmcv_logs.run_rows(last=40, every=10))
    with pytest.raises(UserError, match='(?s)nothing in common.*run 4 points, iterations 10 to 40, reference 160'):
        main(['short', 'published:published.log'])
    assert not list(folder.rglob('comparison*'))


def test_a_published_log_may_stand_first(folder):
    assert main(['published:published.log', 'run', '--out', 'out']) == 0
    assert (folder / 'out' / 'comparison.json').is_file()


def test_the_tool_and_its_exit_codes(folder):
    mmcv_logs.write_run(folder / 'bad', diverged())
    codes = {words: tiny_runs.tool('compare', *words, cwd=folder)
             for words in (('run', 'published:published.log'), ('bad', 'run'), ('run', 'published:x'))}
    assert [result.returncode for result in codes.values()] == [0, 1, 2]
    assert codes['run', 'published:x'].stderr.startswith('error: published:x: neither')


def test_a_real_run_of_ours(folder):
    """What the train command logs is what is read: total loss, rate of the first group, mIoU in percent."""
    data = tiny_runs.make_data(folder)
    for name, rate in (('a', 0.95), ('b', 1.0)):
        assert tiny_runs.train(tiny_runs.CONFIG, folder / name, data=data,
                               optim_wrapper__paramwise_cfg__layer_decay_rate=rate) == 0
    assert main(['a', 'a', '--out', 'same']) == 0
    assert main(['a', 'b', '--out', 'other', '--loss-tolerance', '5', '--miou-tolerance', '100']) == 1  # the rate
    quantities = report(folder / 'other' / 'comparison.json')['quantities']
    assert [len(quantities[name]['points']) for name in ('loss', 'lr', 'mIoU')] == [4, 4, 2]
    assert f'{0.95 ** (tiny_runs.TINY_TRUNK["depth"] + 1):.4g} times' in quantities['lr']['notes'][0]


def test_help_states_the_rules():
    text = ' '.join(build_parser().format_help().split())
    assert 'interpolated linearly' in text and '(default: 0.15)' in text and '(default: 1.0)' in text
