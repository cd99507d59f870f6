"""Every way OpenMMLab code loads a checkpoint goes through the safe loader."""

from __future__ import annotations

import builtins
import logging
import os
import pathlib
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub, history_buffer
from mmengine.registry import init_default_scope
from mmengine.runner import CheckpointLoader, checkpoint, load_checkpoint

from internvl_dense.errors import UserError
from internvl_dense.openmmlab import loading
from internvl_dense.safe_load import CheckpointNotFoundError, CorruptCheckpointError
from tests import malicious
from tests.openmmlab.loading_entries import (
    ENTRIES,
    ITERATIONS,
    Tiny,
    build_runner,
    by_inferencer,
    by_init_model,
    by_pretrained,
    by_pretrained_prefix,
    segmentor_config,
)

MALICIOUS = ('os_system', 'exec', 'eval', 'popen', 'numpy_runstring', 'load_from_bytes', 'import', 'numpy_load',
             'legacy', 'legacy_header', 'legacy_tar', 'zip_in_zip', 'in_optimizer', 'named_safetensors', 'protocol_0',
             'protocol_4', 'getattr_globals', 'getattr_class', 'sys_modules', 'setstate', 'build_class',
             'in_message_hub', 'in_runtime_info', 'in_param_schedulers', 'in_meta', *malicious.AIMED)
ADDRESSES = ('http://host/a.pth', 'https://host/a.pth', 'pavi://a', 's3://bucket/a.pth', 'open:s3://bucket/a.pth',
             'petrel://a', 'modelzoo://resnet50', 'torchvision://resnet50', 'open-mmlab://resnet50',
             'openmmlab://resnet50', 'mmcls://resnet50')


@pytest.fixture(scope='module', autouse=True)
def safe_loader() -> Iterator[None]:
    before = dict(CheckpointLoader._schemes)
    loading.register_safe_loader()
    yield
    for scheme, loader in before.items():
        CheckpointLoader.register_scheme(scheme, loader, force=True)


@pytest.fixture(scope='module')
def genuine(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The last checkpoint of a short run of mmengine's runner."""
    work_dir = tmp_path_factory.mktemp('genuine')
    build_runner(work_dir).train()
    return work_dir / f'iter_{ITERATIONS}.pth'


@pytest.fixture(scope='module')
def files(
    genuine: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, malicious.Malicious]]:
    folder = tmp_path_factory.mktemp('malicious')
    sys.path.insert(0, str(folder))
    built = {**malicious.build(folder), **malicious.build_aimed(folder)}
    malicious.add_to_runner_checkpoint(built, genuine, folder)
    yield built
    sys.path.remove(str(folder))
    assert not [key for key, file in built.items() if file.fired]


@pytest.fixture
def unchanged() -> Iterator[None]:
    """Nothing outside the checkpoint may be different afterwards."""
    before = watched()
    yield
    after = watched()
    assert [place for place in before if before[place] != after[place]] == []


def watched() -> dict[str, Any]:
    places = {'builtins': vars(builtins), 'os': vars(os), 'history_buffer': vars(history_buffer),
              'HistoryBuffer': vars(HistoryBuffer), 'statistics': HistoryBuffer._statistics_methods,
              'checkpoint': vars(checkpoint), 'CheckpointLoader': vars(CheckpointLoader),
              'schemes': CheckpointLoader._schemes}
    found: dict[str, Any] = {name: {key: id(value) for key, value in place.items()} for name, place in places.items()}
    return {**found, 'safe globals': set(torch.serialization.get_safe_globals()), 'sentinels': malicious.sentinels()}


# Malicious files


def test_every_malicious_file_is_tested(files: dict[str, malicious.Malicious]) -> None:
    assert set(files) == set(MALICIOUS)


def test_payloads_are_live(files: dict[str, malicious.Malicious]) -> None:
    fired = malicious.fired_in_control(files, 'torch.load(open(path, "rb"), weights_only=False)')
    assert fired == [key for key, file in files.items() if file.fires]


@pytest.mark.skipif(not hasattr(checkpoint, '_safe_torch_load'), reason='this mmengine leaves safety to torch')
def test_mmengine_alone_executes_them(files: dict[str, malicious.Malicious]) -> None:
    """The second control: without this project's loader, mmengine's own one runs what the files ask for."""
    fired = malicious.fired_in_control(
        files, 'CheckpointLoader.load_checkpoint(path)', 'from mmengine.runner import CheckpointLoader')
    # torch itself stops at a tar archive and hands a name that ends in .safetensors to that library.
    assert fired == [key for key, file in files.items()
                     if file.fires and key not in ('legacy_tar', 'named_safetensors')]


@pytest.mark.filterwarnings('ignore:Detected pickle protocol 4')
@pytest.mark.parametrize('entry', ENTRIES)
@pytest.mark.parametrize('key', MALICIOUS)
def test_malicious_file_is_refused(
    files: dict[str, malicious.Malicious], key: str, entry: str, tmp_path: pathlib.Path, unchanged: None
) -> None:
    file = files[key]
    with pytest.raises(UserError) as caught:
        ENTRIES[entry](str(file.path), tmp_path)
    assert file.shown in str(caught.value) and str(file.path) in str(caught.value)
    assert not file.fired


# Honest files


def test_runner_loads_its_own_file(genuine: pathlib.Path, tmp_path: pathlib.Path) -> None:
    expected = torch.load(genuine, weights_only=False)  # written by this test
    runner = build_runner(tmp_path, load_from=str(genuine))
    runner.load_or_resume()
    for name, value in runner.model.state_dict().items():
        assert torch.equal(value, expected['state_dict'][name])


def test_runner_resumes_with_everything(genuine: pathlib.Path, tmp_path: pathlib.Path) -> None:
    expected = torch.load(genuine, weights_only=False)
    methods = dict(HistoryBuffer._statistics_methods)
    runner = build_runner(tmp_path, iterations=ITERATIONS + 2, load_from=str(genuine), resume=True)
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner.param_schedulers = runner.build_param_scheduler(runner.param_schedulers)
    runner.load_or_resume()
    assert runner.iter == ITERATIONS
    state = runner.optim_wrapper.state_dict()['state']
    for index, values in expected['optimizer']['state'].items():
        assert all(torch.equal(state[index][name], value) for name, value in values.items())
    assert runner.param_schedulers[0].last_step == expected['param_schedulers'][0]['last_step']
    scalars = runner.message_hub.log_scalars
    assert 'train/loss' in scalars
    for name, buffer in expected['message_hub']['log_scalars'].items():
        assert type(scalars[name]) is HistoryBuffer
        assert all(np.array_equal(a, b) for a, b in zip(scalars[name].data, buffer.data, strict=True))
    assert dict(HistoryBuffer._statistics_methods) == methods
    runner.train()
    assert runner.iter == ITERATIONS + 2
    assert len(runner.message_hub.get_scalar('train/loss').data[0]) == ITERATIONS + 2


def test_resumed_run_equals_an_uninterrupted_one(genuine: pathlib.Path, tmp_path: pathlib.Path) -> None:
    whole = build_runner(tmp_path, iterations=ITERATIONS + 2)
    whole.train()
    resumed = build_runner(tmp_path, iterations=ITERATIONS + 2, load_from=str(genuine), resume=True)
    resumed.train()
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name])


def test_numpy_values_in_a_runner_checkpoint(genuine: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """mmengine's strict reader stops at a single np.float32, which its own hooks can put there."""
    content = torch.load(genuine, weights_only=False)
    values = {'a': np.float32(1.5), 'b': np.float64(2.5), 'c': np.int64(3), 'd': np.arange(3, dtype=np.float32)}
    content['meta']['values'] = values
    content['message_hub']['runtime_info']['best'] = np.float32(0.5)
    content['message_hub']['resumed_keys']['best'] = True
    content['message_hub']['log_scalars']['empty'] = HistoryBuffer()
    path = tmp_path / 'numpy.pth'
    torch.save(content, path)
    loaded = CheckpointLoader.load_checkpoint(str(path))
    assert all(type(loaded['meta']['values'][key]) is type(value) for key, value in values.items())
    assert np.array_equal(loaded['meta']['values']['d'], values['d'])
    runner = build_runner(tmp_path, load_from=str(path), resume=True, iterations=ITERATIONS + 1)
    runner.train()
    assert runner.message_hub.get_info('best') == np.float32(0.5)
    assert len(runner.message_hub.get_scalar('empty').data[0]) == 0


def test_other_entries_load_an_honest_file(tmp_path: pathlib.Path) -> None:
    init_default_scope('mmseg')
    source = by_init_model_weights(tmp_path)
    for entry in (by_init_model, by_inferencer):
        loaded = entry(str(tmp_path / 'seg.pth'), tmp_path)
        model = getattr(loaded, 'model', loaded)
        for name, value in source.items():
            assert torch.equal(model.state_dict()[name], value)
        assert model.dataset_meta['classes'] == ['a', 'b', 'c']
    tiny = Tiny().state_dict()
    torch.save({'state_dict': {f'backbone.{name}': value for name, value in tiny.items()}}, tmp_path / 'prefix.pth')
    torch.save(tiny, tmp_path / 'plain.pth')
    for model in (by_pretrained_prefix(str(tmp_path / 'prefix.pth'), tmp_path),
                  by_pretrained(str(tmp_path / 'plain.pth'), tmp_path)):
        assert all(torch.equal(value, tiny[name]) for name, value in model.state_dict().items())


def by_init_model_weights(folder: pathlib.Path) -> dict[str, torch.Tensor]:
    """Writes seg.pth with random weights of the tiny segmentor and returns them."""
    from mmseg.registry import MODELS

    state: dict[str, torch.Tensor] = MODELS.build(segmentor_config().model).state_dict()
    meta = {'dataset_meta': {'classes': ['a', 'b', 'c'], 'palette': [[0, 0, 0], [1, 1, 1], [2, 2, 2]]}}
    torch.save({'state_dict': state, 'meta': meta}, folder / 'seg.pth')
    return state


@pytest.mark.parametrize('state', [
    {'max_length': 5, '_log_history': [1.0], '_count_history': [1]},
    {'max_length': 5, '_log_history': np.ones((2, 2)), '_count_history': np.ones((2, 2))},
    {'max_length': 5, '_log_history': np.ones(2), '_count_history': np.ones(3)},
    {'max_length': None, '_log_history': np.ones(2), '_count_history': np.ones(2)},
    {'max_length': 5, '_log_history': np.array(['a']), '_count_history': np.ones(1)},
    {'max_length': 5, '_log_history': np.ones(2), '_count_history': np.ones(2), 'mean': 'x'},
])
def test_history_with_other_content_is_refused(tmp_path: pathlib.Path, state: dict[str, Any]) -> None:
    buffer = HistoryBuffer()
    buffer.__dict__.clear()
    buffer.__dict__.update(state)
    torch.save({'state_dict': {}, 'message_hub': {'log_scalars': {'x': buffer}}}, tmp_path / 'a.pth')
    with pytest.raises(UserError, match='HistoryBuffer'):
        CheckpointLoader.load_checkpoint(str(tmp_path / 'a.pth'))


# The table of loaders


def test_every_scheme_is_ours() -> None:
    loaders = set(CheckpointLoader._schemes.values())
    assert loaders == {loading.load_from_local_safely, loading.load_from_remote_refused}
    assert CheckpointLoader._schemes[''] is loading.load_from_local_safely


@pytest.mark.parametrize('address', ADDRESSES)
def test_addresses_are_refused_without_a_connection(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*args: Any, **options: Any) -> None:
        raise AssertionError('a connection was opened')

    monkeypatch.setattr(socket, 'getaddrinfo', connect)
    monkeypatch.setattr(socket.socket, 'connect', connect)
    with pytest.raises(UserError, match='Download the file first') as caught:
        load_checkpoint(Tiny(), address)
    assert address in str(caught.value)


def test_addresses_cover_all_schemes() -> None:
    unused = [scheme for scheme in CheckpointLoader._schemes
              if scheme and not any(re.match(scheme, address) for address in ADDRESSES)]
    assert unused == []


def test_scheme_registered_later(tmp_path: pathlib.Path) -> None:
    """It serves its own addresses only, until the safe loader is registered again."""
    torch.save({'a': torch.ones(1)}, tmp_path / 'a.pth')
    CheckpointLoader.register_scheme('later://', lambda path, map_location=None: {'from': path})
    try:
        assert CheckpointLoader.load_checkpoint('later://a.pth') == {'from': 'later://a.pth'}
        assert 'a' in CheckpointLoader.load_checkpoint(str(tmp_path / 'a.pth'))
        loading.register_safe_loader()
        with pytest.raises(UserError, match='later://'):
            CheckpointLoader.load_checkpoint('later://a.pth')
    finally:
        CheckpointLoader._schemes.pop('later://')


def test_missing_and_damaged_files(tmp_path: pathlib.Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match='does not exist'):
        load_checkpoint(Tiny(), str(tmp_path / 'none.pth'))
    (tmp_path / 'page.pth').write_text('<html></html>')
    with pytest.raises(CorruptCheckpointError, match='HTML'):
        load_checkpoint(Tiny(), str(tmp_path / 'page.pth'))


def test_announced_name(tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.save(Tiny().state_dict(), tmp_path / 'a.pth')
    logger = logging.getLogger('test_loading')
    with caplog.at_level(logging.INFO, 'test_loading'):
        CheckpointLoader.load_checkpoint(str(tmp_path / 'a.pth'), logger=logger)
    assert 'Loads checkpoint by local_safely backend' in caplog.text


TRUNCATE = """
import os, sys, torch
from internvl_dense.openmmlab.loading import register_safe_loader
from mmengine.runner import CheckpointLoader
register_safe_loader()
checkpoint = CheckpointLoader.load_checkpoint(sys.argv[1])
os.truncate(sys.argv[1], 0)
print(float(checkpoint['optimizer']['state'][0]['exp_avg'].sum()), float(checkpoint['more'][0][0].sum()))
"""


def test_optimizer_survives_overwriting_of_the_file(tmp_path: pathlib.Path, repo_root: pathlib.Path) -> None:
    """Optimizers keep the tensors they are given; a file mapped into memory must not be behind them."""
    ones = torch.ones(1 << 14)
    more: list[Any] = [(ones,)]
    more.append(more)
    torch.save({'state_dict': {}, 'optimizer': {'state': {0: {'exp_avg': ones}}}, 'more': more}, tmp_path / 'a.pth')
    done = subprocess.run([sys.executable, '-c', TRUNCATE, str(tmp_path / 'a.pth')], capture_output=True, text=True,
                          cwd=repo_root)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-2:] == ['16384.0', '16384.0']


def test_hub_of_another_run_is_not_touched(genuine: pathlib.Path) -> None:
    """Loading gives values back; it does not write into the process-wide hubs by itself."""
    names = set(MessageHub._instance_dict)
    CheckpointLoader.load_checkpoint(str(genuine))
    assert set(MessageHub._instance_dict) == names
