"""Loading executes nothing, damaged files are named, plain data survives."""

from __future__ import annotations

import argparse
import collections
import copy
import datetime
import enum
import io
import os
import pathlib
import pickle
import re
import sys
import zipfile
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import pytest
import safetensors.torch
import torch

from internvl_dense import safe_types
from internvl_dense.errors import UserError
from internvl_dense.safe_load import (
    CheckpointNotFoundError,
    CorruptCheckpointError,
    InertPlaceholder,
    UnsafeCheckpointError,
    load_file,
    save_file,
    to_plain,
)
from tests import malicious

KEYS = ('os_system', 'exec', 'eval', 'popen', 'numpy_runstring', 'load_from_bytes', 'import', 'numpy_load', 'legacy',
        'legacy_header', 'legacy_tar', 'zip_in_zip', 'in_optimizer', 'named_safetensors', 'protocol_0', 'protocol_4',
        'getattr_globals', 'getattr_class', 'sys_modules', 'setstate', 'build_class')


@pytest.fixture(scope='module')
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, malicious.Malicious]]:
    folder = tmp_path_factory.mktemp('malicious')
    sys.path.insert(0, str(folder))  # where the payload of 'import' would be found
    built = malicious.build(folder)
    yield built
    sys.path.remove(str(folder))
    assert not [key for key, file in built.items() if file.fired]


def saved(obj: Any, path: pathlib.Path, **options: Any) -> pathlib.Path:
    torch.save(obj, path, **options)
    return path


# Malicious files


def test_every_malicious_file_is_tested(files: dict[str, malicious.Malicious]) -> None:
    assert set(files) == set(KEYS)


def test_payloads_are_live(files: dict[str, malicious.Malicious]) -> None:
    """The control: an unrestricted reader executes them, so a refusal means something."""
    # As an open file, because torch.load itself hands a path that ends in .safetensors to that library.
    fired = malicious.fired_in_control(files, 'torch.load(open(path, "rb"), weights_only=False)')
    assert fired == [key for key, file in files.items() if file.fires]


@pytest.mark.filterwarnings('ignore:Detected pickle protocol 4')
@pytest.mark.parametrize('key', KEYS)
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
        assert '.safetensors' in message


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
    path = saved([malicious.Call(exec, ''), malicious.Call(eval, '1')], tmp_path / 'two.pth',
                 _use_new_zipfile_serialization=modern)
    with pytest.raises(UnsafeCheckpointError, match=r'(?s)2 problems.*builtins\.exec.*builtins\.eval'):
        load_file(path)


def test_names_in_errors_are_printable_and_few(tmp_path: pathlib.Path) -> None:
    names = b''.join(malicious.name('evil', f'\x1b[2Jname{i}') for i in range(50))
    with pytest.raises(UnsafeCheckpointError, match=r'evil\.\?\[2Jname0\n') as caught:
        load_file(opcode_file(tmp_path / 'a.pth', names))
    assert '\x1b' not in str(caught.value) and '30 more names' in str(caught.value)


# Placeholders


def stand_ins() -> dict[str, type[InertPlaceholder]]:
    return {name: item for name, item in safe_types.ANSWERS.items()
            if isinstance(item, type) and issubclass(item, InertPlaceholder)}


@pytest.mark.parametrize('name', sorted(stand_ins()))
def test_stand_in_is_separate_and_cannot_be_altered(name: str) -> None:
    cls = stand_ins()[name]
    args = (safe_types.HistoryBufferPlaceholder, 'min') if name == 'builtins.getattr' else ()
    first, second = cls(*args), cls.__new__(cls, *args)
    assert isinstance(first, InertPlaceholder) and isinstance(second, InertPlaceholder)
    first.__setstate__({'__class__': int, 'args': 1})
    assert second.state is None and type(first) is type(second)
    assert not hasattr(first, '__dict__')
    with pytest.raises(safe_types.Refused):
        cls.state = 1  # type: ignore[assignment]
    with pytest.raises(safe_types.Refused):
        del cls.state
    with pytest.raises(TypeError, match='to_plain'):
        copy.deepcopy(first)


def test_no_accepted_name_reaches_real_code() -> None:
    """Of the real objects, only `slice` is handed to a file; everything else is defined in this project."""
    real = {name for name, item in safe_types.ANSWERS.items()
            if getattr(item, '__module__', '') != safe_types.__name__}
    assert real == {'builtins.slice'}


def opcode_file(path: pathlib.Path, pickled: bytes) -> pathlib.Path:
    malicious.torch_zip(path, malicious.PROTO + pickled + malicious.STOP)
    return path


@pytest.mark.parametrize(('module', 'attribute'), [
    ('argparse', 'Namespace'), ('mmengine.config.config', 'Config'), ('numpy', 'ndarray'), ('pathlib', 'PosixPath'),
])
def test_build_reaches_only_the_object_itself(tmp_path: pathlib.Path, module: str, attribute: str) -> None:
    state = (malicious.EMPTY_DICT + malicious.text('__class__') + malicious.text('x') + malicious.SETITEM
             + malicious.EMPTY_DICT + malicious.text('args') + malicious.text('y') + malicious.SETITEM
             + malicious.TUPLE2)
    path = opcode_file(tmp_path / 'a.pth', malicious.name(module, attribute) + malicious.EMPTY_TUPLE
                       + malicious.NEWOBJ + state + malicious.BUILD)
    obj = load_file(path)
    assert type(obj) is stand_ins()[f'{module}.{attribute}']
    assert obj.args == () and obj.state == ({'__class__': 'x'}, {'args': 'y'})


@pytest.mark.parametrize('name', sorted(stand_ins()))
@pytest.mark.parametrize('make', [b'', malicious.EMPTY_TUPLE + malicious.NEWOBJ], ids=['class', 'object'])
def test_setitem_on_a_stand_in_is_refused(tmp_path: pathlib.Path, name: str, make: bytes) -> None:
    module, _, attribute = name.rpartition('.')
    path = opcode_file(tmp_path / 'a.pth', malicious.name(module, attribute) + make + malicious.text('k')
                       + malicious.text('v') + malicious.SETITEM)
    with pytest.raises(UnsafeCheckpointError, match=re.escape(name)):
        load_file(path)


@pytest.mark.parametrize('args', [
    (safe_types.HistoryBufferPlaceholder, '__globals__'), (safe_types.HistoryBufferPlaceholder, '_statistics_methods'),
    (safe_types.NumpyArray, 'min'), (safe_types.HistoryBufferPlaceholder,),
    (safe_types.HistoryBufferPlaceholder, 'min', None),
])
def test_getattr_stands_for_four_methods_only(args: tuple[Any, ...]) -> None:
    with pytest.raises(safe_types.Refused, match=r'builtins\.getattr\('):
        safe_types.HistoryMethod(*args)


def history(**changes: Any) -> safe_types.HistoryBufferPlaceholder:
    buffer = safe_types.HistoryBufferPlaceholder()
    buffer.state = {'max_length': 9, '_log_history': np.ones(2), '_count_history': np.ones(2), 'statistics_methods': {
        'min': safe_types.HistoryMethod(safe_types.HistoryBufferPlaceholder, 'min')}, **changes}
    return cast(safe_types.HistoryBufferPlaceholder, buffer)


def test_history_with_foreign_methods_is_refused() -> None:
    assert history().finish().state['max_length'] == 9
    for methods in ({'min': 'x'}, {'min': torch._utils._rebuild_tensor}, [], {'min': safe_types.NumpyArray()}):
        with pytest.raises(safe_types.Refused, match='statistics_methods'):
            history(statistics_methods=methods).finish()


def test_attributes_hung_on_a_state_dict_are_dropped(tmp_path: pathlib.Path) -> None:
    state = collections.OrderedDict(weight=torch.ones(2))
    state._metadata = {'': {'version': 2}}  # type: ignore[attr-defined]
    state.values = 'hidden'  # type: ignore[assignment, method-assign]
    loaded = load_file(saved(state, tmp_path / 'a.pth'))
    assert torch.equal(*loaded.values(), torch.ones(2))
    assert vars(loaded) == {'_metadata': {'': {'version': 2}}}


# Plain data


def equal(a: Any, b: Any) -> bool:
    return type(a) is type(b) and a.dtype == b.dtype and a.shape == b.shape and bool(np.all(a == b))


ARRAYS = {
    'scalars': [np.float32(1.5), np.float64(2.5), np.int64(-3), np.bool_(True), np.float16(0.5), np.uint8(7),
                np.complex64(1j), np.str_('é'), np.str_(''), np.bytes_(b'ab')],
    'arrays': [np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3)), np.zeros((0, 3)),
               np.array(4), np.array(['a', 'bcd']), np.arange(4, dtype='>i2'), np.array([True, False])],
}


@pytest.mark.parametrize('kind', ARRAYS)
@pytest.mark.parametrize('spelling', [b'numpy._core', b'numpy.core'])
@pytest.mark.parametrize('modern', [True, False])
def test_numpy_values_survive(tmp_path: pathlib.Path, kind: str, spelling: bytes, modern: bool) -> None:
    """Both numpy spellings, in both of torch's file formats."""
    buffer = io.BytesIO()
    torch.save({'meta': ARRAYS[kind]}, buffer, _use_new_zipfile_serialization=modern)
    path = tmp_path / 'a.pth'
    if modern:
        with zipfile.ZipFile(buffer) as archive:
            pickled = archive.read('archive/data.pkl')
        assert b'numpy._core' in pickled
        malicious.torch_zip(path, pickled.replace(b'numpy._core', spelling))
    else:
        path.write_bytes(buffer.getvalue().replace(b'numpy._core', spelling))
    loaded = load_file(path)['meta']
    assert len(loaded) == len(ARRAYS[kind])
    assert all(equal(a, b) for a, b in zip(loaded, ARRAYS[kind], strict=True))


@pytest.mark.parametrize('value', [
    np.array([{}], dtype=object), np.zeros(2, dtype=[('a', 'f4')]), np.datetime64('2020-01-01'),
    np.void(b'ab'), np.zeros(1, dtype='datetime64[s]'),
], ids=str)
def test_numpy_objects_are_refused(tmp_path: pathlib.Path, value: Any) -> None:
    with pytest.raises(UnsafeCheckpointError, match=r'numpy\.dtype'):
        load_file(saved([value], tmp_path / 'a.pth'))


@pytest.mark.parametrize('state', [
    None, (1, (2,), np.dtype('f4'), False), (1, (3,), np.dtype('f4'), False, b'1234'),
    (1, (-1,), np.dtype('f4'), False, b'1234'), (1, 2, np.dtype('f4'), False, b'12345678'),
    (1, (2,), 'f4', False, b'12345678'), (1, (1,), np.dtype('f4'), False, [0]),
    (1, (10**9,), np.dtype('U0'), False, b''),
])
def test_array_with_inconsistent_parts_is_refused(state: Any) -> None:
    array = safe_types.NumpyArray()
    array.state = state
    with pytest.raises(safe_types.Refused, match=r'numpy\.ndarray'):
        array.finish()


def test_dtype_instances_of_numpy_are_not_altered(tmp_path: pathlib.Path) -> None:
    """np.dtype('f4') is one object for the whole process; a file must not change its byte order."""
    state = b'(K\x03' + malicious.text('>') + b'NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t'
    path = opcode_file(tmp_path / 'a.pth', malicious.name('numpy', 'dtype') + malicious.text('f4') + b'\x85'
                       + malicious.REDUCE + state + malicious.BUILD)
    assert load_file(path) == np.dtype('>f4')
    assert np.dtype('f4').isnative


def test_common_containers_become_plain(tmp_path: pathlib.Path) -> None:
    shared = torch.arange(3)
    content = {
        'counter': collections.Counter('aab'), 'default': collections.defaultdict(list, {1: [np.int64(2)]}),
        'deque': collections.deque([1, 2], maxlen=5), 'slice': slice(1, 2), 'set': {1, 2},
        'tuple': (np.float32(1), 'a'), np.int64(3): 'key', 'shared': [shared, shared],
        'device': torch.device('cpu'), 'dtype': torch.float16,
    }
    loaded = load_file(saved(content, tmp_path / 'a.pth'))
    assert loaded['counter'] == {'a': 2, 'b': 1} and loaded['slice'] == slice(1, 2)
    assert loaded['default'] == {1: [2]} and type(loaded['default']) is dict
    assert loaded['deque'] == [1, 2] and loaded['set'] == {1, 2} and loaded['tuple'] == (1.0, 'a')
    assert loaded[3] == 'key' and type(list(loaded)[6]) is np.int64
    assert loaded['shared'][0].data_ptr() == loaded['shared'][1].data_ptr()


def test_classes_of_training_scripts_load_as_placeholders(tmp_path: pathlib.Path) -> None:
    content = {'args': argparse.Namespace(lr=0.1, path=pathlib.PurePosixPath('/a/b')),
               'when': datetime.datetime(2024, 5, 6, 7, 8), 'day': datetime.date(2024, 5, 6),
               'out': pathlib.PureWindowsPath('c:/x')}
    loaded = load_file(saved(content, tmp_path / 'a.pth'))
    assert all(isinstance(value, InertPlaceholder) for value in loaded.values())
    assert repr(loaded['args']) == '<inert argparse.Namespace>'
    assert to_plain(loaded) == {'args': {'lr': 0.1, 'path': '/a/b'}, 'when': '2024-05-06T07:08:00',
                                'day': '2024-05-06', 'out': 'c:\\x'}
    with pytest.raises((TypeError, pickle.PicklingError)):
        torch.save(loaded, tmp_path / 'b.pth')


def test_container_that_contains_itself(tmp_path: pathlib.Path) -> None:
    content: dict[str, Any] = {'list': [np.float32(1)]}
    content['list'] += [content, (content['list'],)]
    loaded = load_file(saved(content, tmp_path / 'a.pth'))
    assert loaded['list'][1] is loaded and loaded['list'][2][0] is loaded['list']
    with pytest.raises(UserError, match=r"\['list'\]\[1\] contains itself"):
        to_plain(loaded)


def test_deep_nesting_is_an_error_and_not_a_crash(tmp_path: pathlib.Path) -> None:
    path = opcode_file(tmp_path / 'a.pth', b']' * 100_000 + b'a' * 99_999)
    with pytest.raises(CorruptCheckpointError, match='RecursionError'):
        load_file(path)


# Formats


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
    path = saved({'state_dict': state}, tmp_path / 'a.pth.tar', _use_new_zipfile_serialization=modern)
    loaded = load_file(str(path), torch.device('cpu'), mmap=mmap)['state_dict']
    assert all(torch.equal(loaded[key], state[key]) for key in state)
    assert loaded._metadata[''] == {'version': 2}


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='reads /proc')
def test_file_is_mapped_and_not_copied(tmp_path: pathlib.Path) -> None:
    path = saved({'a': torch.ones(1 << 16)}, tmp_path / 'a.pth')
    content = path.read_bytes()
    loaded = load_file(path)
    assert str(path) in pathlib.Path('/proc/self/maps').read_text()
    loaded['a'].zero_()  # changes memory, never the file
    assert path.read_bytes() == content
    del loaded
    unmapped = load_file(path, mmap=False)
    assert str(path) not in pathlib.Path('/proc/self/maps').read_text()
    assert unmapped['a'].sum() == 1 << 16


NOT_CHECKPOINTS = {
    b'': 'empty',
    b'  <!DOCTYPE html><html>login</html>': 'HTML page.*The download probably needs a login or a direct link',
    b'<?xml version="1.0"?><Error/>': 'HTML page',
    b'version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n': 'git-lfs pointer.*git lfs pull',
    b'{"weight_map": {}}': 'JSON text.*several files',
    b'\x1f\x8b\x08abc': 'gzip archive',
    b'\x89HDF\r\n\x1a\n': 'HDF5',
    b'\x93NUMPY\x01': 'numpy',
    b'GGUF\x03': 'GGUF',
    b'hello world, no weights': 'unknown format.*safetensors file',
    b'\x80\x04K\x01.': 'plain pickle',
    b'PK\x03\x04 and then nothing': 'torch file whose end is missing',
    b'\x80\x02}q\x00.': 'plain pickle',
    b'\x00' * 2000: 'unknown format',
}


@pytest.mark.parametrize('content', NOT_CHECKPOINTS, ids=lambda content: content[:10].hex() or 'empty')
@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_other_files_are_named(tmp_path: pathlib.Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f'a{suffix}'
    path.write_bytes(content)
    with pytest.raises(CorruptCheckpointError, match=f'(?s){NOT_CHECKPOINTS[content]}') as caught:
        load_file(path)
    assert ('although it is named .safetensors' in str(caught.value)) == (suffix == '.safetensors') or not content


def test_torchscript_and_zip_are_named(tmp_path: pathlib.Path) -> None:
    with zipfile.ZipFile(tmp_path / 'script.pt', 'w') as archive:
        for member in ('data.pkl', 'constants.pkl', 'version', 'code/__torch__.py'):
            archive.writestr(f'script/{member}', b'')
    with pytest.raises(CorruptCheckpointError, match=r'TorchScript archive\. .*state_dict'):
        load_file(tmp_path / 'script.pt')
    with zipfile.ZipFile(tmp_path / 'packed.zip', 'w') as archive:
        archive.writestr('weights/model.bin', b'')
    with pytest.raises(CorruptCheckpointError, match=r'zip archive.*Unpack it.*weights/model\.bin'):
        load_file(tmp_path / 'packed.zip')


def test_torch_file_named_safetensors(tmp_path: pathlib.Path) -> None:
    with pytest.raises(CorruptCheckpointError, match=r'torch file although it is named \.safetensors\. Rename'):
        load_file(saved({'a': torch.ones(1)}, tmp_path / 'a.safetensors'))


def write_safetensors(path: pathlib.Path) -> None:
    safetensors.torch.save_file({'a': torch.ones(500)}, path)


@pytest.mark.parametrize('share', [0.01, 0.5, 0.99])
@pytest.mark.parametrize(('suffix', 'write'), [
    ('.pth', lambda path: torch.save({'a': torch.ones(500)}, path)),
    ('.pth', lambda path: torch.save({'a': torch.ones(500)}, path, _use_new_zipfile_serialization=False)),
    ('.safetensors', write_safetensors),
], ids=['zip', 'legacy', 'safetensors'])
def test_truncated_file(tmp_path: pathlib.Path, suffix: str, write: Any, share: float) -> None:
    path = tmp_path / f'a{suffix}'
    write(path)
    os.truncate(path, max(9, int(path.stat().st_size * share)))
    with pytest.raises(CorruptCheckpointError, match=r'(?s)a\.(pth|safetensors)'):
        load_file(path)


def test_unsupported_pickle_protocol(tmp_path: pathlib.Path) -> None:
    path = saved({'a': torch.ones(2)}, tmp_path / 'a.pth', pickle_protocol=4)
    with pytest.raises(CorruptCheckpointError, match='pickle settings'), pytest.warns(UserWarning, match='protocol 4'):
        load_file(path)


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
    path = saved({'a': torch.ones(2)}, tmp_path / 'a.pth')
    assert load_file(path, None)['a'].device.type == 'cpu'
    assert load_file(path, 'meta')['a'].is_meta
    assert load_file(path, lambda storage, location: storage)['a'].sum() == 2
    with pytest.raises(UserError, match='no device'):
        load_file(path, 'gpu')
    write_safetensors(tmp_path / 'a.safetensors')
    with pytest.raises(UserError, match='is a device'):
        load_file(tmp_path / 'a.safetensors', {'cuda:0': 'cpu'})
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match='no CUDA device'):
            load_file(path, 'cuda:0')


# Saving


class Level(enum.IntEnum):
    HIGH = 3


def test_to_plain_types() -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    plain = to_plain(collections.OrderedDict(
        number=np.float32(0.5), flag=np.bool_(True), text=np.str_('x'), array=np.arange(4, dtype='>i2')[::-1],
        words=np.array([['a', 'b']]), size=(1, torch.Size([2, 3])), level=Level.HIGH, none=None, parameter=parameter,
        nested={np.int64(1): [collections.OrderedDict(a=1)]}))
    assert plain['number'] == 0.5 and type(plain['number']) is float
    assert plain['flag'] is True and type(plain['text']) is str and type(plain['level']) is int
    assert torch.equal(plain['array'], torch.tensor([3, 2, 1, 0], dtype=torch.int16))
    assert plain['words'] == [['a', 'b']] and plain['size'] == [1, [2, 3]] and plain['none'] is None
    assert type(plain['parameter']) is torch.Tensor and plain['parameter'].data_ptr() == parameter.data_ptr()
    assert plain['nested'] == {1: [{'a': 1}]} and type(plain['nested'][1][0]) is dict


def test_to_plain_lists_every_problem() -> None:
    with pytest.raises(UserError) as caught:
        to_plain({'a': [1, {2, 3}], 'b': {(1, 2): 3}, 'c': torch.ones(1, device='meta'), 'd': b'x',
                  'e': np.datetime64('2020'), 'f': (len,)})
    message = str(caught.value)
    assert '6 problems' in message
    for part in ("['a'][1] is builtins.set", "['b'] has a key of builtins.tuple", "['c'] is a tensor on the meta",
                 "['d'] is builtins.bytes", "['e'] is numpy.datetime64", "['f'][0] is builtins.builtin_function_or"):
        assert part in message


def test_saved_file_needs_no_allowed_names(tmp_path: pathlib.Path) -> None:
    path = tmp_path / 'a.pth'
    weight = torch.ones(3, dtype=torch.bfloat16)
    save_file({'weights': [weight, weight], 'seed': np.int64(3), 'curve': np.array([1.5]), 'betas': (0.9, 0.999)}, path)
    before = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    try:
        loaded = torch.load(path, weights_only=True)
    finally:
        torch.serialization.add_safe_globals(before)
    assert loaded['seed'] == 3 and loaded['betas'] == [0.9, 0.999] and loaded['curve'].dtype == torch.float64
    assert loaded['weights'][0].data_ptr() == loaded['weights'][1].data_ptr()
    assert load_file(path)['seed'] == 3


@pytest.mark.parametrize('step', ['save', 'fsync', 'replace'])
def test_interrupted_save_leaves_the_old_file(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / 'a.pth'
    save_file({'a': 1}, path)

    def interrupt(*args: Any) -> None:
        raise OSError('no space left on device')

    monkeypatch.setattr(torch if step == 'save' else os, step, interrupt)
    with pytest.raises(OSError, match='no space'):
        save_file({'a': 2}, path)
    monkeypatch.undo()
    assert load_file(path) == {'a': 1}
    assert os.listdir(tmp_path) == ['a.pth']


def test_save_replaces_a_file_that_is_mapped(tmp_path: pathlib.Path) -> None:
    path = tmp_path / 'a.pth'
    save_file({'a': torch.ones(1 << 14)}, path)
    loaded = load_file(path)
    save_file({'a': torch.zeros(1)}, path)
    assert loaded['a'].sum() == 1 << 14


def test_save_checks_the_path(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match=r'name it \.pth'):
        save_file({}, tmp_path / 'a.safetensors')
    with pytest.raises(UserError, match='there is no folder'):
        save_file({}, tmp_path / 'b' / 'a.pth')
    with pytest.raises(UserError, match='1 problem'):
        save_file({'a': object()}, tmp_path / 'a.pth')
    assert not os.listdir(tmp_path)
