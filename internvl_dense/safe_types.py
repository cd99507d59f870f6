"""Inert stand-ins for the classes a checkpoint may name.

A checkpoint file asks for classes and functions by name. Besides what `torch.load(weights_only=True)` knows by
itself, the names in `ALLOWED_GLOBALS` are accepted, and each of them is answered with a stand-in from this file:
the class that is really called so is never imported, called or altered. Stand-ins of numpy scalars and arrays turn
into real ones after the file is read, once their parts have been checked; the others stay `InertPlaceholder`s.
"""

from __future__ import annotations

import math
import re
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any, NoReturn, TypeGuard, cast

import numpy as np

# Plain booleans, integers, floats, complex numbers and text. No objects, records or dates: their bytes need code.
_DTYPE_CODE = re.compile(r'[|<>=]?(?:\?|[biufc]\d{1,2}|[SU]\d{1,9})')
# Methods that a HistoryBuffer stores beside its values (mmengine/logging/history_buffer.py).
_HISTORY_METHODS = frozenset({'min', 'max', 'current', 'mean'})
_HISTORY_KEYS = frozenset({'max_length', '_log_history', '_count_history', 'statistics_methods'})

_DEEPSPEED = 'deepspeed.runtime'
_ZERO_STAGES = 4  # deepspeed/runtime/zero/config.py: ZeroStageEnum has the values 0 to 3

# What training programs write beside the tensors, by the name in the file. Objects that stay inert:
CONFIGS = (
    'mmcv.utils.config.Config',  # mmcv 1.x, `Config.__getstate__`: (mapping, file name, text, ...)
    'mmengine.config.config.Config',  # the same in mmengine
)
STATES = (
    'argparse.Namespace',
    # deepspeed/runtime/zero/stage_1_and_2.py and stage3.py, `state_dict`: 'loss_scaler'. Their state is numbers, flags
    # and a torch dtype (deepspeed/runtime/fp16/loss_scaler.py).
    f'{_DEEPSPEED}.fp16.loss_scaler.LossScaler',
    f'{_DEEPSPEED}.fp16.loss_scaler.DynamicLossScaler',
    # The same and bf16_optimizer.py: 'param_slice_mappings'. A data class of two integers.
    'deepspeed.utils.tensor_fragment.fragment_address',
)
CONFIG_MAPPINGS = (
    'addict.addict.Dict',
    'mmcv.utils.config.ConfigDict',  # mmcv 1.x; meta of runs that store the config as an object
    'mmengine.config.config.ConfigDict',
)


class Refused(Exception):
    """A file asks for something that is not plain data; the text names it."""


class _Frozen(type):
    """Type of the stand-ins. A file can get hold of a class, so nothing may be set on one."""

    def __setattr__(cls, name: str, value: object) -> NoReturn:
        raise Refused(f'{cls.__qualname__}.{name} = ...')

    def __delattr__(cls, name: str) -> NoReturn:
        raise Refused(f'del {cls.__qualname__}.{name}')


class InertPlaceholder(metaclass=_Frozen):
    """An object of a class that was not imported: it holds what the file says and can do nothing.

    Attributes:
        qualified_name: Name of the class in the file.
        args: Arguments the file would have called the class with.
        state: Content the file would have given the object, or None.
    """

    __slots__ = ('args', 'state')
    qualified_name = ''

    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: Any) -> InertPlaceholder:
        self = super().__new__(cls)
        self.args = args
        self.state = None
        return self

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(f'{self!r} cannot be copied or saved; convert it with to_plain() first')

    def __repr__(self) -> str:
        return f'<inert {self.qualified_name}>'

    def finish(self) -> Any:
        """Returns what takes the place of this object after the file was read; its parts are finished already.

        Raises:
            Refused: The parts are not what an honest file holds.
        """
        return self


class NumpyDtype(InertPlaceholder):
    """Stands for `numpy.dtype`; becomes a dtype of plain numbers or text."""

    __slots__ = ()
    qualified_name = 'numpy.dtype'

    def finish(self) -> np.dtype[Any]:
        code = self.args[0] if self.args else None
        if type(code) is not str or not _DTYPE_CODE.fullmatch(code):
            raise Refused(f'numpy.dtype({code!r})')
        if self.state is None:
            return np.dtype(code)
        # (version, byte order, sub-array, field names, fields, ...): the middle three make a record type.
        state = self.state
        if type(state) is not tuple or len(state) != 8 or state[1] not in ('<', '>', '|', '='):
            raise Refused(f'numpy.dtype({code!r}) with an unknown state')
        if any(part is not None for part in state[2:5]):
            raise Refused(f'numpy.dtype({code!r}) with fields')
        return np.dtype(code).newbyteorder(state[1])


class NumpyArray(InertPlaceholder):
    """Stands for numpy's `_reconstruct`; becomes an array of plain numbers or text."""

    __slots__ = ()
    qualified_name = 'numpy.core.multiarray._reconstruct'

    def finish(self) -> np.ndarray[Any, Any]:
        if type(self.state) is not tuple or len(self.state) != 5:
            raise Refused('numpy.ndarray with an unknown state')
        _, shape, dtype, fortran, raw = self.state
        sizes_ok = type(shape) is tuple and all(type(size) is int and size >= 0 for size in shape)
        if not sizes_ok or not isinstance(dtype, np.dtype) or type(raw) is not bytes:
            raise Refused('numpy.ndarray whose shape, dtype or bytes are of another type')
        if dtype.itemsize == 0 or math.prod(shape) * dtype.itemsize != len(raw):
            raise Refused(f'numpy.ndarray of shape {shape} and dtype {dtype} with {len(raw)} bytes')
        return np.frombuffer(raw, dtype).reshape(shape, order='F' if fortran else 'C').copy(order='K')


class NumpyScalar(InertPlaceholder):
    """Stands for numpy's `scalar`; becomes a numpy number or string."""

    __slots__ = ()
    qualified_name = 'numpy.core.multiarray.scalar'

    def finish(self) -> Any:
        if len(self.args) != 2 or not isinstance(self.args[0], np.dtype) or type(self.args[1]) is not bytes:
            raise Refused('numpy scalar whose dtype or bytes are of another type')
        dtype, raw = self.args
        if dtype.itemsize != len(raw):
            raise Refused(f'numpy scalar of dtype {dtype} with {len(raw)} bytes')
        return np.frombuffer(raw, dtype)[0] if raw else dtype.type()


class ConfigMapping(metaclass=_Frozen):
    """Stands for the dict subclasses of configs; every way they are pickled ends in a plain OrderedDict.

    mmengine writes a call with one mapping; addict, and mmcv's class on top of it, a new object with its pairs as
    arguments, then the same pairs as items, then the object itself as its state (addict 2.x: `__getnewargs__`,
    `__getstate__`). The reader fills items into an OrderedDict only, and puts the state into its `__dict__`, which
    `replace_placeholders` empties.
    """

    __slots__ = ()

    def __new__(cls, *args: Any) -> OrderedDict[Any, Any]:  # type: ignore[misc]
        content: OrderedDict[Any, Any] = OrderedDict()
        for arg in args:
            if type(arg) in (dict, OrderedDict):
                pairs = list(dict.items(arg))  # not arg.items(): a file can hide that method
            elif type(arg) is tuple and len(arg) == 2:
                pairs = [arg]
            else:
                raise Refused(f'a config called with {_short(arg)}')
            for key, value in pairs:
                content[key] = value
        return content


class HistoryBufferPlaceholder(InertPlaceholder):
    """Stands for mmengine's `HistoryBuffer`, the curve of one logged value."""

    __slots__ = ()
    qualified_name = 'mmengine.logging.history_buffer.HistoryBuffer'

    def finish(self) -> InertPlaceholder:
        state = self.state
        if type(state) is not dict or not _HISTORY_KEYS.issuperset(state):
            raise Refused(f'{self.qualified_name} with an unknown state')
        methods = state.get('statistics_methods', {})
        if type(methods) is not dict or any(type(method) is not HistoryMethod for method in methods.values()):
            raise Refused(f'{self.qualified_name} with foreign statistics_methods')
        values, counts = state.get('_log_history'), state.get('_count_history')
        if not (_is_curve(values) and _is_curve(counts) and type(state.get('max_length')) is int):
            raise Refused(f'{self.qualified_name} whose values are not 1-D arrays of numbers')
        if values.shape != counts.shape:
            raise Refused(f'{self.qualified_name} with {len(values)} values but {len(counts)} counts')
        return self

    @property
    def history(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], int]:
        """Values (n,), counts (n,) and the greatest length."""
        return self.state['_log_history'], self.state['_count_history'], self.state['max_length']


def _is_curve(array: object) -> TypeGuard[np.ndarray[Any, Any]]:
    return isinstance(array, np.ndarray) and array.ndim == 1 and array.dtype.kind in 'biuf'


class HistoryMethod(InertPlaceholder):
    """Stands for the `getattr` with which a HistoryBuffer names its methods, and for no other use of it."""

    __slots__ = ()
    qualified_name = 'builtins.getattr'

    def __new__(cls, *args: Any) -> HistoryMethod:
        # The real getattr reaches `__globals__` of any function, and through it every module.
        if len(args) != 2 or args[0] is not HistoryBufferPlaceholder or args[1] not in _HISTORY_METHODS:
            raise Refused(f'builtins.getattr({", ".join(_short(arg) for arg in args)})')
        return cast(HistoryMethod, super().__new__(cls, *args))


def _short(arg: object) -> str:
    if isinstance(arg, str):
        return repr(arg)
    return str(getattr(arg, 'qualified_name', type(arg).__name__))


def _as_dict(*args: Any) -> dict[Any, Any]:
    """Answers for `defaultdict(factory)`: a plain dict of the same content."""
    mappings = [arg for arg in args if type(arg) is dict]
    return dict(mappings[0]) if mappings else {}


def _as_list(items: Any = (), maxlen: Any = None) -> list[Any]:
    """Answers for `deque(items, maxlen)`."""
    return list(items) if type(items) in (list, tuple) else []


def _no_bytes(*args: Any) -> bytes:
    """Answers for `bytes()`, which is how an empty byte string is written; `bytes(n)` would reserve n bytes."""
    if args:
        raise Refused('builtins.bytes with arguments')
    return b''


def _zero_stage(*args: Any) -> int:
    """Answers for `ZeroStageEnum(number)`: the number."""
    if len(args) != 1 or type(args[0]) is not int or args[0] not in range(_ZERO_STAGES):
        raise Refused(f'{_DEEPSPEED}.zero.config.ZeroStageEnum({", ".join(_short(arg) for arg in args)})')
    return args[0]


def _stand_in(name: str, base: type[InertPlaceholder] = InertPlaceholder) -> type[InertPlaceholder]:
    return cast('type[InertPlaceholder]', _Frozen(name, (base,), {'__slots__': (), 'qualified_name': name}))


def _numpy_dtype_class(name: str) -> type[InertPlaceholder]:
    """Stand-in of a class such as `numpy.dtypes.Float32DType`; calling it gives that dtype."""
    code = np.dtype(name.lower()).str

    def new(cls: type[InertPlaceholder], *args: Any) -> InertPlaceholder:
        return NumpyDtype(code)

    return cast('type[InertPlaceholder]', _Frozen(
        f'numpy.dtypes.{name}DType', (NumpyDtype,), {'__slots__': (), '__new__': new}))


def _answers() -> dict[str, Any]:
    """Every accepted name with its stand-in."""
    answers: dict[str, Any] = {
        'builtins.slice': slice,
        'builtins.bytes': _no_bytes,
        HistoryMethod.qualified_name: HistoryMethod,
        HistoryBufferPlaceholder.qualified_name: HistoryBufferPlaceholder,
        NumpyDtype.qualified_name: NumpyDtype,
        'collections.defaultdict': _as_dict,
        'collections.deque': _as_list,
        # deepspeed/runtime/zero/stage_1_and_2.py and stage3.py, `state_dict`: 'zero_stage'.
        f'{_DEEPSPEED}.zero.config.ZeroStageEnum': _zero_stage,
        **dict.fromkeys(CONFIG_MAPPINGS, ConfigMapping),
    }
    for room in ('numpy.core', 'numpy._core'):  # numpy 1.x, numpy 2.x
        answers[f'{room}.multiarray._reconstruct'] = NumpyArray
        answers[f'{room}.multiarray.scalar'] = NumpyScalar
    for name in ('Bool', 'Int8', 'Int16', 'Int32', 'Int64', 'UInt8', 'UInt16', 'UInt32', 'UInt64', 'Float16',
                 'Float32', 'Float64', 'Complex64', 'Complex128'):
        answers[f'numpy.dtypes.{name}DType'] = _numpy_dtype_class(name)
    inert = [*CONFIGS, *STATES, 'numpy.ndarray', 'datetime.datetime', 'datetime.date',
             'builtins.list', 'builtins.dict', 'builtins.int', 'builtins.float']
    # Python 3.13 moved the path classes to pathlib._local.
    inert += [f'{module}.{name}' for module in ('pathlib', 'pathlib._local')
              for name in ('Path', 'PurePath', 'PosixPath', 'PurePosixPath', 'WindowsPath', 'PureWindowsPath')]
    answers.update({name: _stand_in(name) for name in inert})
    return answers


ANSWERS: dict[str, Any] = _answers()
# The form that torch.serialization.safe_globals() takes: (object, name in the file).
ALLOWED_GLOBALS: list[Any] = [(item, name) for name, item in ANSWERS.items()]


def replace_placeholders(obj: Any, replace: Callable[[InertPlaceholder], Any]) -> Any:
    """Walks lists, dicts, sets and tuples and puts `replace(placeholder)` in the place of every placeholder.

    Parts come before the whole. Containers are changed in place, so what was shared stays shared; a container that
    holds itself is visited once.
    """
    return _Walk(replace).visit(obj)


class _Walk:
    """One pass of `replace_placeholders`."""

    def __init__(self, replace: Callable[[InertPlaceholder], Any]) -> None:
        self.replace = replace
        # id -> (object, its replacement). The object is kept so that its id is not given to another one meanwhile.
        self.seen: dict[int, tuple[Any, Any]] = {}

    def visit(self, obj: Any) -> Any:
        if not isinstance(obj, (dict, list, set, InertPlaceholder)) and type(obj) is not tuple:
            return obj
        if id(obj) not in self.seen:
            self.seen[id(obj)] = (obj, obj)
            self.seen[id(obj)] = (obj, self._renew(obj))
        return self.seen[id(obj)][1]

    def _renew(self, obj: Any) -> Any:
        if isinstance(obj, InertPlaceholder):
            obj.args, obj.state = self.visit(obj.args), self.visit(obj.state)
            return self.replace(obj)
        if isinstance(obj, dict):
            return self._renew_dict(obj)
        items = [self.visit(item) for item in obj]
        if isinstance(obj, tuple):
            return obj if all(new is old for new, old in zip(items, obj, strict=True)) else tuple(items)
        obj.clear()
        (obj.extend if isinstance(obj, list) else obj.update)(items)
        return obj

    def _renew_dict(self, obj: dict[Any, Any]) -> dict[Any, Any]:
        if isinstance(obj, (OrderedDict, Counter)):
            # A file can hang attributes on these two and so hide methods such as `items`; torch itself uses one.
            metadata = vars(obj).get('_metadata')
            vars(obj).clear()
            if isinstance(metadata, dict):
                vars(obj)['_metadata'] = self.visit(metadata)
        items = [(self.visit(key), self.visit(value)) for key, value in obj.items()]
        obj.clear()
        for key, value in items:
            obj[key] = value
        return obj
