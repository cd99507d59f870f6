"""Loading executes nothing, and says what is wrong with a path, a device or a file."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Iterator

import pytest
import safetensors.torch
import torch

from internvl_dense.errors import UserError
from internvl_dense.safe_load import (
    CheckpointNotFoundError,
    CorruptCheckpointError,
    UnsafeCheckpointError,
    load_file,
)
from tests import malicious

KEYS = ('os_system', 'exec', 'eval', 'popen', 'numpy_runstring', 'load_from_bytes', 'import', 'numpy_load', 'legacy',
        'legacy_header', 'legacy_tar', 'zip_in_zip', 'in_optimizer', 'named_safetensors', 'protocol_0', 'protocol_4',
        'getattr_globals', 'getattr_class', 'sys_modules', 'setstate', 'build_class')
AIMED = malicious.AIMED


@pytest.fixture(scope='module')
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, malicious.Malicious]]:
    folder = tmp_path_factory.mktemp('malicious')
    sys.path.insert(0, str(folder))  # where the payload of 'import' would be found
    built = {**malicious.build(folder), **malicious.build_aimed(folder)}
    yield built
    sys.path.remove(str(folder))
    assert not [key for key, file in built.items() if file.fired]


def test_every_malicious_file_is_tested(files: dict[str, malicious.Malicious]) -> None:
    assert set(files) == {*KEYS, *AIMED}


def test_payloads_are_live(files: dict[str, malicious.Malicious]) -> None:
    """The control: an unrestricted reader executes them, so a refusal means something."""
    # As an open file, because torch.load itself hands a path that ends in .safetensors to that library.
    fired = malicious.fired_in_control(files, 'torch.load(open(path, "rb"), weights_only=False)')
    assert fired == [key for key, file in files.items() if file.fires]


@pytest.mark.filterwarnings('ignore:Detected pickle protocol 4')
@pytest.mark.parametrize('key', (*KEYS, *AIMED))
@pytest.mark.parametrize('mmap', [True, False])
def test_malicious_file_is_refused_by_name(files: dict[str, malicious.Malicious], key: str, mmap: bool) -> None:
    file = files[key]
    with pytest.raises(UserError) as caught:
        load_file(file.path, mmap=mmap)
    message = str(caught.value)
    assert file.shown in message
    assert str(file.path) in message
    assert 'weights_only' not in message and 'add_safe_globals' not in message
    assert not file.fired
    if key not in ('legacy_tar', 'zip_in_zip'):
        assert isinstance(caught.value, UnsafeCheckpointError)
        assert f'convert_checkpoint.py {file.path} DST.pth --to plain --trust-pickle' in message
        assert caught.value.names


@pytest.mark.parametrize('key', ['os_system', 'legacy'])
def test_environment_cannot_switch_safety_off(
    files: dict[str, malicious.Malicious], key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    with pytest.raises(UnsafeCheckpointError):
        load_file(files[key].path)
    assert not files[key].fired


def test_names_that_others_allowed_do_not_count(files: dict[str, malicious.Malicious]) -> None:
    before = torch.serialization.get_safe_globals()
    torch.serialization.add_safe_globals([exec, getattr])
    try:
        for key in ('exec', 'getattr_globals'):
            with pytest.raises(UnsafeCheckpointError):
                load_file(files[key].path)
            assert not files[key].fired
        assert set(torch.serialization.get_safe_globals()) == {*before, exec, getattr}
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


@pytest.mark.parametrize('modern', [True, False])
def test_all_refused_names_are_listed(tmp_path: pathlib.Path, modern: bool) -> None:
    path = malicious.saved([malicious.Call(exec, ''), malicious.Call(eval, '1')], tmp_path / 'two.pth',
                 _use_new_zipfile_serialization=modern)
    with pytest.raises(UnsafeCheckpointError, match=r'(?s)2 problems.*builtins\.exec.*builtins\.eval'):
        load_file(path)


def test_names_in_errors_are_printable_and_few(tmp_path: pathlib.Path) -> None:
    names = b''.join(malicious.name('evil', f'\x1b[2Jname{i}') for i in range(50))
    with pytest.raises(UnsafeCheckpointError, match=r'evil\.\?\[2Jname0\n') as caught:
        load_file(malicious.opcode_file(tmp_path / 'a.pth', names))
    assert '\x1b' not in str(caught.value) and '30 more names' in str(caught.value)


def test_safetensors_whatever_the_suffix(tmp_path: pathlib.Path) -> None:
    tensors = {'a': torch.arange(3.0), 'b': torch.ones(2, dtype=torch.bfloat16)}
    for name in ('w.safetensors', 'w.bin'):
        safetensors.torch.save_file(tensors, tmp_path / name)
        loaded = load_file(tmp_path / name)
        assert loaded.keys() == tensors.keys() and all(torch.equal(loaded[key], tensors[key]) for key in tensors)


@pytest.mark.parametrize('modern', [True, False])
@pytest.mark.parametrize('mmap', [True, False])
def test_torch_file(tmp_path: pathlib.Path, modern: bool, mmap: bool) -> None:
    state = torch.nn.BatchNorm1d(3).state_dict()
    path = malicious.saved({'state_dict': state}, tmp_path / 'a.pth.tar', _use_new_zipfile_serialization=modern)
    loaded = load_file(str(path), torch.device('cpu'), mmap=mmap)['state_dict']
    assert all(torch.equal(loaded[key], state[key]) for key in state)
    assert loaded._metadata[''] == {'version': 2}


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='reads /proc')
def test_file_is_mapped_and_not_copied(tmp_path: pathlib.Path) -> None:
    path = malicious.saved({'a': torch.ones(1 << 16)}, tmp_path / 'a.pth')
    content = path.read_bytes()
    loaded = load_file(path)
    assert str(path) in pathlib.Path('/proc/self/maps').read_text()
    loaded['a'].zero_()  # changes memory, never the file
    assert path.read_bytes() == content
    del loaded
    unmapped = load_file(path, mmap=False)
    assert str(path) not in pathlib.Path('/proc/self/maps').read_text()
    assert unmapped['a'].sum() == 1 << 16


def test_missing_file(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'iter_1000.pth').write_bytes(b'x')
    with pytest.raises(CheckpointNotFoundError, match=r'iter_100\.pth does not exist.*iter_1000\.pth') as caught:
        load_file(tmp_path / 'iter_100.pth')
    assert isinstance(caught.value, FileNotFoundError)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointNotFoundError, match=f'Looked in {tmp_path}'):
        load_file('other.pth')
    with pytest.raises(CheckpointNotFoundError, match='folder /nowhere/at does not exist'):
        load_file('/nowhere/at/all.pth')
    with pytest.raises(CorruptCheckpointError, match=r'is a folder.*iter_1000\.pth'):
        load_file(tmp_path)
    with pytest.raises(CorruptCheckpointError, match='regular file'):
        load_file('/dev/zero')


def test_devices(tmp_path: pathlib.Path) -> None:
    path = malicious.saved({'a': torch.ones(2)}, tmp_path / 'a.pth')
    assert load_file(path, None)['a'].device.type == 'cpu'
    assert load_file(path, 'meta')['a'].is_meta
    assert load_file(path, lambda storage, location: storage)['a'].sum() == 2
    with pytest.raises(UserError, match='no device'):
        load_file(path, 'gpu')
    safetensors.torch.save_file({'a': torch.ones(2)}, tmp_path / 'a.safetensors')
    with pytest.raises(UserError, match='is a device'):
        load_file(tmp_path / 'a.safetensors', {'cuda:0': 'cpu'})
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match='no CUDA device'):
            load_file(path, 'cuda:0')
