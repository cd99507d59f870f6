"""Logs of mmcv 1.x, written here line by line as its logger writes them."""

from __future__ import annotations

import json
import math
import pathlib

import pytest

from internvl_dense.errors import UserError
from internvl_dense.evaluation.mmcv_log import MmcvLog, read_mmcv_log
from tests import mmcv_logs
from tests.mmcv_logs import EVALUATION, HEADER, LOGGING, STAMP, evaluation, json_log, score_line, text_log, train_line

DEEPSPEED = (
    '[2023-12-21 10:11:12,131] [INFO] [timer.py:198:stop] epoch=0/micro_step=50/global_step=50, '
    'RunningAvgSamplesPerSec=14.2, loss: 9.9\n'
    '{"zero_optimization": {\n{"train_batch_size": 16, "loss": 3.0,\n'
)


def read(tmp_path: pathlib.Path, text: str | bytes, name: str = 'run.log') -> MmcvLog:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_mmcv_log(path)


def train(*iterations: int) -> str:
    return ''.join(train_line(at, 1e-5, 1.0) for at in iterations)


@pytest.mark.parametrize(('make', 'name'), [(text_log, 'a.log'), (json_log, 'a.log.json')])
def test_a_whole_log(tmp_path: pathlib.Path, make, name: str):
    log = read(tmp_path, make(), name)
    steps = list(range(LOGGING, mmcv_logs.MAX_ITERS + 1, LOGGING))
    factor = mmcv_logs.noise(0, 0.05)
    assert log.curves['loss'] == {at: round(mmcv_logs.loss(at) * factor(), 4) for at in steps}
    assert log.curves['lr'] == {at: float(f'{mmcv_logs.lr(at):.3e}') for at in steps}
    evaluated = steps[EVALUATION // LOGGING - 1::EVALUATION // LOGGING]
    assert log.curves['mIoU'] == {at: round(100 * round(mmcv_logs.miou(at) / 100, 4), 6) for at in evaluated}
    assert log.curves['aAcc'] == dict.fromkeys(evaluated, 83.18)
    assert log.curves['mAcc'] == dict.fromkeys(evaluated, 59.5)
    assert set(log.curves) == {'loss', 'lr', 'mIoU', 'aAcc', 'mAcc'}
    assert log.notes() == []


def test_a_line_as_printed(tmp_path: pathlib.Path):
    line = ('2023-12-21 10:11:12,131 - mmseg - INFO - Iter [50/80000]\tlr: 1.307e-06, eta: 1 day, 2:03:04, '
            'time: 1.172, data_time: 0.011, memory: 16411, decode.loss_ce: 4.6129, decode.acc_seg: 6.5182, '
            'aux.loss_ce: 1.8, aux.acc_seg: 3.1, loss: 4.6129\r\n')
    assert read(tmp_path, line) == MmcvLog({'loss': {50: 4.6129}, 'lr': {50: 1.307e-06}})


def test_other_programs_print_between(tmp_path: pathlib.Path):
    text = HEADER + DEEPSPEED + train(50) + DEEPSPEED + '[>>>>] 2000/2000, 3.1 task/s\r' + train(100) + DEEPSPEED
    assert read(tmp_path, text) == MmcvLog({'loss': {50: 1.0, 100: 1.0}, 'lr': {50: 1e-5, 100: 1e-5}})


def test_the_later_of_two_lines_counts(tmp_path: pathlib.Path):
    """A second rank, and a run that was resumed from its checkpoint."""
    text = ''.join([train(50, 50, 100, 1000), evaluation(1000, 10.0), train(1050), train_line(50, 2e-5, 3.0),
                    train_line(1000, 3e-5, 2.5), evaluation(1000, 12.0)])
    log = read(tmp_path, text)
    assert log.curves['loss'] == {50: 3.0, 100: 1.0, 1000: 2.5, 1050: 1.0}
    assert log.curves['lr'] == {50: 2e-5, 100: 1e-5, 1000: 3e-5, 1050: 1e-5}
    assert list(log.curves['loss']) == sorted(log.curves['loss'])
    assert log.curves['mIoU'] == {1000: 12.0}
    assert log.notes() == ['3 lines of an iteration logged before: the later one counts']


@pytest.mark.parametrize('form', ['text', 'json'])
def test_losses_that_are_lost_are_kept(tmp_path: pathlib.Path, form: str):
    values = [math.nan, math.inf, -math.inf]
    if form == 'text':
        text = ''.join(train_line(50 * number, 1e-5, value) for number, value in enumerate(values, 1))
    else:
        text = ''.join(json.dumps({'mode': 'train', 'epoch': 1, 'iter': 50 * number, 'lr': 1e-5, 'loss': value}) + '\n'
                       for number, value in enumerate(values, 1))
    log = read(tmp_path, text)
    assert [str(log.curves['loss'][at]) for at in (50, 100, 150)] == ['nan', 'inf', '-inf']
    assert log.incomplete == 0


def test_several_rates_give_the_first(tmp_path: pathlib.Path):
    assert read(tmp_path, train_line(50, '[1.5e-06, 4e-05]', 1.0)).curves == {'lr': {50: 1.5e-6}, 'loss': {50: 1.0}}
    row = {'mode': 'train', 'epoch': 1, 'iter': 50, 'lr': [1.5e-6, 4e-5], 'loss': 1.0}
    assert read(tmp_path, json.dumps(row) + '\n').curves == {'lr': {50: 1.5e-6}, 'loss': {50: 1.0}}


def test_older_versions_log_percent(tmp_path: pathlib.Path):
    log = read(tmp_path, train(1000) + score_line(250, 0.9, scale=1.0) + train(2000) + score_line(250, 47.2, scale=1.0))
    assert log.curves['mIoU'] == {1000: 0.9, 2000: 47.2}


def test_a_score_that_is_nan_does_not_hide_the_unit(tmp_path: pathlib.Path):
    text = train(1000) + score_line(250, math.nan) + train(2000) + score_line(250, 47.2)
    assert read(tmp_path, text).curves['mIoU'] == {1000: pytest.approx(math.nan, nan_ok=True), 2000: 47.2}


CONFIG = "evaluation = dict(metric='mIoU',\n    interval=1000)\n"
SAVED = f'{STAMP}Saving checkpoint at 1000 iterations\n'


@pytest.mark.parametrize(('text', 'iterations'), [
    pytest.param(CONFIG + train(900, 950, 1000) + score_line(250, 40), [1000], id='after-its-line'),
    pytest.param(CONFIG + train(900, 950) + score_line(250, 40), [1000], id='its-line-is-missing'),
    pytest.param(CONFIG + train(800, 850) + score_line(250, 40), [850], id='too-far-from-the-interval'),
    pytest.param(train(900, 950) + SAVED + score_line(250, 40), [1000], id='after-the-checkpoint'),
    pytest.param(train(900, 950) + score_line(970, 40), [970], id='bracket-is-the-iteration'),
    pytest.param(train(900, 950) + score_line(2000, 40), [950], id='nothing-known'),
    pytest.param(train(900, 950) + score_line(250, 40) + train(1000, 1050, 1950) + score_line(250, 41), [1000, 2000],
                 id='distance-of-evaluations'),
    pytest.param(CONFIG + train(1450, 1500) + score_line(250, 40), [1500], id='at-the-end-of-the-run'),
])
def test_iteration_of_an_evaluation(tmp_path: pathlib.Path, text: str, iterations: list[int]):
    assert list(read(tmp_path, text).curves['mIoU']) == iterations


def test_evaluation_before_any_training_is_counted(tmp_path: pathlib.Path):
    log = read(tmp_path, score_line(250, 40) + train(50) + score_line(250, 42))
    assert list(log.curves['mIoU'].values()) == [42.0]
    assert log.notes() == ['1 line with scores before the first training line: left out']


def test_a_log_that_broke_off(tmp_path: pathlib.Path):
    """The last number lacks digits: what stands before it is whole."""
    log = read(tmp_path, train(50) + train_line(100, 2e-5, 1.2345).removesuffix('45\n'))
    assert log.curves == {'loss': {50: 1.0}, 'lr': {50: 1e-5, 100: 2e-5}}
    assert log.notes() == ['1 line broken off: read as far as whole']
    scores = read(tmp_path, train(50) + score_line(250, 47.2).rstrip('\n'))
    assert (scores.curves['mIoU'], scores.incomplete) == ({50: 47.2}, 1)


@pytest.mark.parametrize('rest', ['{"mode": "train", "epoch": 1, "it', f'{STAMP}Iter [1', '| wall | 7'])
def test_a_last_line_that_says_nothing_is_counted(tmp_path: pathlib.Path, rest: str):
    assert read(tmp_path, train(50) + rest) == MmcvLog({'loss': {50: 1.0}, 'lr': {50: 1e-5}}, incomplete=1)


def test_a_new_start_on_a_line_that_broke_off(tmp_path: pathlib.Path):
    log = read(tmp_path, train_line(50, 9e-5, 9.0)[:70] + train_line(100, 1e-5, 1.0))
    assert log.curves == {'loss': {100: 1.0}, 'lr': {100: 1e-5}}
    glued = read(tmp_path, train(50) + train_line(100, 1e-5, 1.0).rstrip('\n') + f'{STAMP}Exp name: a.py\n')
    assert (glued.curves['loss'], glued.incomplete) == ({50: 1.0}, 1)


def test_bytes_that_are_not_utf8(tmp_path: pathlib.Path):
    text = HEADER.encode() + b'path: /data/\xe9\xff/a\n' + train(50).encode() + 'é\ufffd\n'.encode()
    log = read(tmp_path, text)
    assert (log.curves['loss'], log.undecodable) == ({50: 1.0}, 1)
    assert log.notes() == ['1 line not UTF-8: read with replacement characters']


@pytest.mark.parametrize(('text', 'message'), [
    ('', 'no training line; expected is a log of mmcv 1.x with lines such as'),
    (HEADER + score_line(250, 40), r'no training line; .*Iter \[50/80000\].*"mode": "train"'),
    (f'{STAMP}Iter [50/80000]\tlr: 1.3', 'no training line'),
    (f'{STAMP}Epoch [1][50/7330]\tlr: 1.3e-06, loss: 1.0\n', 'count within epochs'),
    ('{"mode": "train", "epoch": 1, "iter": 50, "loss": 1.0}\n{"mode": "train", "epoch": 2, "iter": 50, "loss": 1.0}\n',
     'count within epochs'),
    (b'PK\x03\x04\0\0' + train(50).encode(), 'not a text in UTF-8'),
])
def test_files_that_are_no_such_log(tmp_path: pathlib.Path, text: str | bytes, message: str):
    with pytest.raises(UserError, match=message):
        read(tmp_path, text)


def test_no_file(tmp_path: pathlib.Path):
    with pytest.raises(UserError, match='no such file; expected is'):
        read_mmcv_log(tmp_path)


def test_a_resumed_json_log_counts_epochs_from_the_start(tmp_path: pathlib.Path):
    rows = [{'mode': 'train', 'epoch': epoch, 'iter': at, 'lr': 1e-5, 'loss': 1.0}
            for epoch, at in ((1, 1000), (2, 1500), (1, 1050), (2, 1500))]
    log = read(tmp_path, ''.join(json.dumps(row) + '\n' for row in rows))
    assert (list(log.curves['loss']), log.repeated) == ([1000, 1050, 1500], 1)
