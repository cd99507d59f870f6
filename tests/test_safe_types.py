"""Stand-ins are inert, and plain data behind them comes back."""

from __future__ import annotations

import argparse
import collections
import copy
import datetime
import enum
import io
import pathlib
import pickle
import re
import zipfile
from typing import Any, cast

import numpy as np
import pytest
import torch

from internvl_dense import safe_types
from internvl_dense.errors import UserError
from internvl_dense.safe_load import (
    CorruptCheckpointError,
    InertPlaceholder,
    UnsafeCheckpointError,
    keep_plain,
    load_file,
    to_plain,
)
from tests import malicious
from tests.published_layouts import Config, ConfigDict, importable


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


@pytest.mark.parametrize(('module', 'attribute'), [
    ('argparse', 'Namespace'), ('mmengine.config.config', 'Config'), ('numpy', 'ndarray'), ('pathlib', 'PosixPath'),
])
def test_build_reaches_only_the_object_itself(tmp_path: pathlib.Path, module: str, attribute: str) -> None:
    state = (malicious.EMPTY_DICT + malicious.text('__class__') + malicious.text('x') + malicious.SETITEM
             + malicious.EMPTY_DICT + malicious.text('args') + malicious.text('y') + malicious.SETITEM
             + malicious.TUPLE2)
    path = malicious.opcode_file(tmp_path / 'a.pth', malicious.name(module, attribute) + malicious.EMPTY_TUPLE
                       + malicious.NEWOBJ + state + malicious.BUILD)
    obj = load_file(path)
    assert type(obj) is stand_ins()[f'{module}.{attribute}']
    assert obj.args == () and obj.state == ({'__class__': 'x'}, {'args': 'y'})


@pytest.mark.parametrize('name', sorted(stand_ins()))
@pytest.mark.parametrize('make', [b'', malicious.EMPTY_TUPLE + malicious.NEWOBJ], ids=['class', 'object'])
def test_setitem_on_a_stand_in_is_refused(tmp_path: pathlib.Path, name: str, make: bytes) -> None:
    module, _, attribute = name.rpartition('.')
    path = malicious.opcode_file(tmp_path / 'a.pth', malicious.name(module, attribute) + make + malicious.text('k')
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
    loaded = load_file(malicious.saved(state, tmp_path / 'a.pth'))
    assert torch.equal(*loaded.values(), torch.ones(2))
    assert vars(loaded) == {'_metadata': {'': {'version': 2}}}


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
        load_file(malicious.saved([value], tmp_path / 'a.pth'))


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
    path = malicious.opcode_file(tmp_path / 'a.pth', malicious.name('numpy', 'dtype') + malicious.text('f4') + b'\x85'
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
    loaded = load_file(malicious.saved(content, tmp_path / 'a.pth'))
    assert loaded['counter'] == {'a': 2, 'b': 1} and loaded['slice'] == slice(1, 2)
    assert loaded['default'] == {1: [2]} and type(loaded['default']) is dict
    assert loaded['deque'] == [1, 2] and loaded['set'] == {1, 2} and loaded['tuple'] == (1.0, 'a')
    assert loaded[3] == 'key' and type(list(loaded)[6]) is np.int64
    assert loaded['shared'][0].data_ptr() == loaded['shared'][1].data_ptr()


def test_classes_of_training_scripts_load_as_placeholders(tmp_path: pathlib.Path) -> None:
    content = {'args': argparse.Namespace(lr=0.1, path=pathlib.PurePosixPath('/a/b')),
               'when': datetime.datetime(2024, 5, 6, 7, 8), 'day': datetime.date(2024, 5, 6),
               'out': pathlib.PureWindowsPath('c:/x')}
    loaded = load_file(malicious.saved(content, tmp_path / 'a.pth'))
    assert all(isinstance(value, InertPlaceholder) for value in loaded.values())
    assert repr(loaded['args']) == '<inert argparse.Namespace>'
    assert to_plain(loaded) == {'args': {'lr': 0.1, 'path': '/a/b'}, 'when': '2024-05-06T07:08:00',
                                'day': '2024-05-06', 'out': 'c:\\x'}
    with pytest.raises((TypeError, pickle.PicklingError)):
        torch.save(loaded, tmp_path / 'b.pth')


def test_container_that_contains_itself(tmp_path: pathlib.Path) -> None:
    content: dict[str, Any] = {'list': [np.float32(1)]}
    content['list'] += [content, (content['list'],)]
    loaded = load_file(malicious.saved(content, tmp_path / 'a.pth'))
    assert loaded['list'][1] is loaded and loaded['list'][2][0] is loaded['list']
    with pytest.raises(UserError, match=r"\['list'\]\[1\] contains itself"):
        to_plain(loaded)


def test_deep_nesting_is_an_error_and_not_a_crash(tmp_path: pathlib.Path) -> None:
    path = malicious.opcode_file(tmp_path / 'a.pth', b']' * 100_000 + b'a' * 99_999)
    with pytest.raises(CorruptCheckpointError, match='RecursionError'):
        load_file(path)


# Config objects


def test_mmcv_config_objects_are_data(tmp_path: pathlib.Path) -> None:
    inner = ConfigDict(scale=np.float64(0.5))
    config = ConfigDict(model=inner, again=inner, empty=ConfigDict(), steps=[ConfigDict(a=1)])
    with importable(Config, ConfigDict):
        path = malicious.saved({'cfg': Config(config), 'dict': config}, tmp_path / 'a.pth')
    loaded = load_file(path)
    expected = {'model': {'scale': 0.5}, 'again': {'scale': 0.5}, 'empty': {}, 'steps': [{'a': 1}]}
    assert loaded['dict'] == expected and loaded['dict']['model'] is loaded['dict']['again']
    assert type(loaded['dict']) is collections.OrderedDict and type(loaded['dict']['model']['scale']) is np.float64
    assert vars(loaded['dict']) == {} and loaded['cfg'].state[1:] == ('configs/upernet.py', loaded['cfg'].state[2])
    assert to_plain(loaded) == {'cfg': expected, 'dict': expected}


def test_config_objects_of_the_real_packages_are_data(tmp_path: pathlib.Path) -> None:
    addict, config = pytest.importorskip('addict'), pytest.importorskip('mmengine.config')
    content = {'a': {'b': [1, {'c': 2}]}, 'd': {}}
    with importable(ConfigDict):  # the tests' own class pickles as the real one
        own = pickle.dumps(ConfigDict(a=ConfigDict(b=[1, ConfigDict(c=2)]), d=ConfigDict()), 2)
    own = own.replace(b'mmcv.utils.config\nConfigDict', b'addict.addict\nDict')
    assert own == pickle.dumps(addict.Dict(content), 2)
    loaded = load_file(malicious.saved(
        [addict.Dict(content), config.ConfigDict(content), config.Config(content)], tmp_path / 'a.pth'))
    assert loaded[0] == content and loaded[1] == content
    assert to_plain(loaded) == [content] * 3


CONFIG = malicious.name('mmcv.utils.config', 'ConfigDict')
PAIR = malicious.text('a') + malicious.text('b') + malicious.TUPLE2
NEW = malicious.EMPTY_TUPLE + malicious.NEWOBJ
ITEM = malicious.text('a') + malicious.text('b') + malicious.SETITEM
MAPPING = malicious.EMPTY_DICT + ITEM


@pytest.mark.parametrize('pickled', [
    CONFIG + MAPPING + malicious.TUPLE1 + malicious.REDUCE,
    CONFIG + PAIR + malicious.TUPLE1 + malicious.REDUCE,
    CONFIG + PAIR + malicious.TUPLE1 + malicious.NEWOBJ,
    CONFIG + PAIR + malicious.TUPLE1 + malicious.NEWOBJ + ITEM,
    CONFIG + NEW + ITEM + MAPPING + malicious.BUILD,
    CONFIG + NEW + b'q\x01' + ITEM + b'h\x01' + malicious.BUILD,
], ids=['mapping', 'pairs', 'new with pairs', 'new with pairs and items', 'other state', 'state is the object'])
def test_every_pickled_form_of_a_config(tmp_path: pathlib.Path, pickled: bytes) -> None:
    loaded = load_file(malicious.opcode_file(tmp_path / 'a.pth', pickled))
    assert loaded == {'a': 'b'} and type(loaded) is collections.OrderedDict and vars(loaded) == {}


@pytest.mark.parametrize('method', ['items', 'keys', '__iter__', '__class__', '__dict__', 'update'])
def test_state_of_a_config_cannot_hide_its_methods(tmp_path: pathlib.Path, method: str) -> None:
    hidden = malicious.EMPTY_DICT + malicious.text(method) + malicious.name('torch', 'Size') + malicious.SETITEM
    inner = CONFIG + NEW + ITEM + hidden + malicious.BUILD
    for number, pickled in enumerate((inner, CONFIG + inner + malicious.TUPLE1 + malicious.REDUCE)):
        loaded = load_file(malicious.opcode_file(tmp_path / f'{number}.pth', pickled))
        assert type(loaded) is collections.OrderedDict and vars(loaded) == {}
        assert list(loaded.items()) == [('a', 'b')]


def test_config_that_contains_itself(tmp_path: pathlib.Path) -> None:
    itself = CONFIG + NEW + b'q\x01' + malicious.text('me') + b'h\x01' + malicious.SETITEM + b'h\x01' + malicious.BUILD
    loaded = load_file(malicious.opcode_file(tmp_path / 'a.pth', itself))
    assert loaded['me'] is loaded and len(loaded) == 1
    with pytest.raises(UserError, match=r"\['me'\] contains itself"):
        to_plain(loaded)
    state = NEW + b'q\x01' + b'h\x01' + malicious.TUPLE1 + malicious.BUILD
    holder = load_file(malicious.opcode_file(tmp_path / 'b.pth', malicious.name('mmcv.utils.config', 'Config') + state))
    assert holder.state == (holder,)
    with pytest.raises(UserError, match='contains itself'):
        to_plain(holder)


# DeepSpeed


class ZeroStageEnum(int, enum.Enum):
    __module__ = 'deepspeed.runtime.zero.config'
    gradients = 2


class DynamicLossScaler:
    __module__ = 'deepspeed.runtime.fp16.loss_scaler'

    def __init__(self) -> None:
        self.cur_scale, self.cur_iter, self.dynamic, self.dtype = 65536.0, 7, True, torch.float16


class fragment_address:
    __module__ = 'deepspeed.utils.tensor_fragment'

    def __init__(self, numel: int, start: int) -> None:
        self.numel, self.start = numel, start


def test_deepspeed_objects_are_data(tmp_path: pathlib.Path) -> None:
    content = {'zero_stage': ZeroStageEnum.gradients, 'loss_scaler': DynamicLossScaler(),
               'param_slice_mappings': [collections.OrderedDict(weight=fragment_address(12, 4))]}
    with importable(ZeroStageEnum, DynamicLossScaler, fragment_address):
        path = malicious.saved(content, tmp_path / 'a.pth')
    loaded = load_file(path)
    assert type(loaded['zero_stage']) is int and loaded['zero_stage'] == 2
    assert isinstance(loaded['loss_scaler'], InertPlaceholder)
    scaler = {'cur_scale': 65536.0, 'cur_iter': 7, 'dynamic': True, 'dtype': 'torch.float16'}
    assert keep_plain(loaded) == ({'zero_stage': 2, 'loss_scaler': scaler,
                                   'param_slice_mappings': [{'weight': {'numel': 12, 'start': 4}}]}, [])


def test_state_of_an_accepted_object_stays_content(tmp_path: pathlib.Path) -> None:
    """A state that names methods fills none of them."""
    state = (malicious.EMPTY_DICT + malicious.text('finish') + malicious.name('torch', 'Size') + malicious.SETITEM
             + malicious.text('__class__') + malicious.text('x') + malicious.SETITEM)
    path = malicious.opcode_file(tmp_path / 'a.pth', malicious.name(
        'deepspeed.runtime.fp16.loss_scaler', 'LossScaler') + NEW + state + malicious.BUILD)
    loaded = load_file(path)
    assert type(loaded) is stand_ins()['deepspeed.runtime.fp16.loss_scaler.LossScaler']
    assert loaded.state == {'finish': torch.Size, '__class__': 'x'} and loaded.finish() is loaded


@pytest.mark.parametrize('name', [
    'mmcv.utils.config.DictAction', 'mmcv.utils.config', 'mmcv.utils.config.ConfigDict.update',
    'addict.addict.dict', 'addict.Dict', 'mmcv.runner.log_buffer.LogBuffer', 'mmengine.config.lazy.LazyObject',
    'deepspeed.runtime.zero.config.DeepSpeedZeroConfig',
    'deepspeed.runtime.fp16.loss_scaler.LossScaler.backward', 'numpy.random._pickle.__randomstate_ctor',
])
@pytest.mark.parametrize('make', [b'', malicious.EMPTY_TUPLE + malicious.REDUCE], ids=['named', 'called'])
def test_names_near_the_accepted_ones_are_refused(tmp_path: pathlib.Path, name: str, make: bytes) -> None:
    module, _, attribute = name.rpartition('.')
    path = malicious.opcode_file(tmp_path / 'a.pth', malicious.name(module, attribute) + make)
    with pytest.raises(UnsafeCheckpointError, match=re.escape(name)) as caught:
        load_file(path)
    assert caught.value.names == (name,)
