"""Builds checkpoint files that execute something when an unrestricted reader opens them.

Each payload leaves a mark: it creates a file of its own or sets `SENTINEL` in a place outside the checkpoint.
"""

from __future__ import annotations

import argparse
import builtins
import dataclasses
import importlib.util
import io
import json
import os
import pathlib
import pickle
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.testing._private.utils import runstring

from internvl_dense import safe_types

SENTINEL = 'internvl_dense_sentinel'
HISTORY = 'mmengine.logging.history_buffer'
PAYLOAD_MODULE = 'internvl_dense_payload'
# Pickle opcodes by hand, protocol 2: text(), name() and TUPLE2 push, REDUCE calls, SETITEM and BUILD alter.
TUPLE1, TUPLE2, REDUCE, SETITEM, BUILD, NEWOBJ, STOP = b'\x85', b'\x86', b'R', b's', b'b', b'\x81', b'.'
EMPTY_DICT, EMPTY_TUPLE, NONE, PROTO = b'}', b')', b'N', b'\x80\x02'


@dataclasses.dataclass(frozen=True)
class Malicious:
    """One file.

    Args:
        path: The file.
        shown: What an error about it must name: the function it asks for, or its format.
        mark: File that the payload creates, or None if it sets the sentinel.
        fires: Whether an unrestricted torch.load executes it. Others hide it one archive deeper, or aim at this
            project's stand-ins or at a package that is not installed.
    """

    path: pathlib.Path
    shown: str
    mark: pathlib.Path | None
    fires: bool = True

    @property
    def fired(self) -> bool:
        return self.mark.exists() if self.mark else bool(sentinels())


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.function, self.args = function, args

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.function, self.args


def sentinels() -> list[str]:
    """Places outside a checkpoint that a payload has changed."""
    places: dict[str, Any] = {'sys.modules': sys.modules, 'argparse': vars(argparse.Namespace)}
    places |= {name: vars(item) for name, item in safe_types.ANSWERS.items() if hasattr(item, '__dict__')}
    if HISTORY in sys.modules:
        module = sys.modules[HISTORY]
        places |= {'module': vars(module), 'class': vars(module.HistoryBuffer),
                   'methods': module.HistoryBuffer._statistics_methods}
    return [name for name, place in places.items() if SENTINEL in place]


def remove_sentinels() -> None:
    sys.modules.pop(SENTINEL, None)
    if SENTINEL in vars(argparse.Namespace):
        delattr(argparse.Namespace, SENTINEL)
    if HISTORY in sys.modules:
        module = sys.modules[HISTORY]
        vars(module).pop(SENTINEL, None)
        module.HistoryBuffer._statistics_methods.pop(SENTINEL, None)
        if SENTINEL in vars(module.HistoryBuffer):
            delattr(module.HistoryBuffer, SENTINEL)


def text(value: str) -> bytes:
    return b'X' + len(value).to_bytes(4, 'little') + value.encode()


def name(module: str, attribute: str) -> bytes:
    return f'c{module}\n{attribute}\n'.encode()


def torch_zip(path: pathlib.Path, pickled: bytes) -> None:
    """A file as torch.save writes it, around a given pickle."""
    with zipfile.ZipFile(path, 'w') as archive:
        for member, content in (('data.pkl', pickled), ('byteorder', b'little'), ('version', b'3\n')):
            archive.writestr(f'{path.stem}/{member}', content)


def opcode_file(path: pathlib.Path, pickled: bytes) -> pathlib.Path:
    """Writes a torch file around opcodes and returns its path."""
    torch_zip(path, PROTO + pickled + STOP)
    return path


def saved(obj: Any, path: pathlib.Path, **options: Any) -> pathlib.Path:
    """Writes `obj` with torch.save and returns the path."""
    torch.save(obj, path, **options)
    return path


class Builder:
    """Writes the files into one folder and remembers them."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.files: dict[str, Malicious] = {}

    def add(self, key: str, shown: str, write: Callable[[pathlib.Path, pathlib.Path], object], *,
            suffix: str = '.pth', marks: bool = True, fires: bool = True) -> None:
        path, mark = self.folder / f'{key}{suffix}', self.folder / f'{key}.mark'
        write(path, mark)
        self.files[key] = Malicious(path, shown, mark if marks else None, fires)

    def call(self, key: str, shown: str, payload: Callable[[pathlib.Path], Any]) -> None:
        """A state dict with a call in the place of one tensor."""
        self.add(key, shown, lambda path, mark: torch.save(
            {'state_dict': {'weight': torch.zeros(2), 'bias': payload(mark)}}, path))

    def opcodes(self, key: str, shown: str, pickled: bytes) -> None:
        """A checkpoint written opcode by opcode, which sets the sentinel."""
        aims_at_nothing = b'mmengine' in pickled and importlib.util.find_spec('mmengine') is None
        self.add(key, shown, lambda path, _: opcode_file(path, pickled), marks=False,
                 fires=not aims_at_nothing)


def shell(mark: pathlib.Path) -> Call:
    return Call(os.system, f'touch {mark}')


def code(mark: pathlib.Path) -> str:
    return f'open({str(mark)!r}, "w")'


def build(folder: pathlib.Path) -> dict[str, Malicious]:
    """Files that need no other package than torch and numpy to be written."""
    builder = Builder(folder)
    _calls(builder)
    _formats(builder)
    _opcodes(builder)
    return builder.files


def _calls(builder: Builder) -> None:
    builder.call('os_system', 'posix.system', shell)
    builder.call('exec', 'builtins.exec', lambda mark: Call(builtins.exec, code(mark)))
    builder.call('eval', 'builtins.eval', lambda mark: Call(builtins.eval, code(mark)))
    builder.call('popen', 'subprocess.Popen', lambda mark: Call(subprocess.Popen, ['touch', str(mark)]))
    builder.call('numpy_runstring', 'numpy.testing._private.utils.runstring',
                 lambda mark: Call(runstring, code(mark), {}))
    builder.call('load_from_bytes', 'torch.storage._load_from_bytes',
                 lambda mark: Call(torch.storage._load_from_bytes, _saved(shell(mark))))

    def import_module(mark: pathlib.Path) -> Call:
        (builder.folder / f'{PAYLOAD_MODULE}.py').write_text(code(mark))
        return Call(builtins.__import__, PAYLOAD_MODULE)

    def numpy_load(mark: pathlib.Path) -> Call:
        array = builder.folder / 'objects.npy'
        np.save(array, np.array([shell(mark)], dtype=object), allow_pickle=True)
        return Call(np.load, str(array), None, True)

    builder.call('import', 'builtins.__import__', import_module)
    builder.call('numpy_load', 'numpy.load', numpy_load)


def _saved(obj: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(obj, buffer, **options)
    return buffer.getvalue()


def _formats(builder: Builder) -> None:
    def legacy_header(path: pathlib.Path, mark: pathlib.Path) -> None:
        magic, version, rest = _saved({}, _use_new_zipfile_serialization=False).split(b'.', 2)
        # The third pickle describes the system that wrote the file; nobody looks at what it holds.
        path.write_bytes(magic + b'.' + version + b'.' + pickle.dumps(shell(mark), 2) + rest)

    def legacy_tar(path: pathlib.Path, mark: pathlib.Path) -> None:
        with tarfile.open(path, 'w', format=tarfile.PAX_FORMAT) as tar:
            for member, pickles in (('storages', (0, [])), ('tensors', (0,)), ('pickle', (shell(mark),))):
                data = b''.join(pickle.dumps(item, 2) for item in pickles)
                info = tarfile.TarInfo(member)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))

    def zip_in_zip(path: pathlib.Path, mark: pathlib.Path) -> None:
        with zipfile.ZipFile(path, 'w') as archive:
            archive.writestr('inner.pth', _saved(shell(mark)))

    def in_optimizer(path: pathlib.Path, mark: pathlib.Path) -> None:
        model = torch.nn.Linear(2, 2)
        optimizer = torch.optim.AdamW(model.parameters())
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        state = optimizer.state_dict()
        state['state'][0]['exp_avg'] = shell(mark)
        torch.save({'state_dict': model.state_dict(), 'optimizer': state}, path)

    builder.add('legacy', 'posix.system', lambda path, mark: torch.save(
        {'weight': shell(mark)}, path, _use_new_zipfile_serialization=False))
    builder.add('legacy_header', 'posix.system', legacy_header)
    builder.add('legacy_tar', 'tar archive', legacy_tar)
    builder.add('zip_in_zip', 'zip archive that torch.save did not write', zip_in_zip, fires=False)
    builder.add('in_optimizer', 'posix.system', in_optimizer)
    builder.add('named_safetensors', 'posix.system', suffix='.safetensors',
                write=lambda path, mark: torch.save({'weight': shell(mark)}, path))
    builder.add('protocol_0', 'posix.system',
                lambda path, mark: path.write_bytes(pickle.dumps(shell(mark), 0)))
    builder.add('protocol_4', 'posix.system', lambda path, mark: torch.save(
        {'weight': shell(mark)}, path, pickle_protocol=4))


def _opcodes(builder: Builder) -> None:
    buffer, getattr_ = name(HISTORY, 'HistoryBuffer'), name('__builtin__', 'getattr')
    method = getattr_ + buffer + text('current') + TUPLE2 + REDUCE
    module_globals = getattr_ + method + text('__globals__') + TUPLE2 + REDUCE
    entry = text(SENTINEL) + text('set') + SETITEM
    builder.opcodes('getattr_globals', 'builtins.getattr', module_globals + entry)
    builder.opcodes('getattr_class', 'builtins.getattr',
                    getattr_ + buffer + text('_statistics_methods') + TUPLE2 + REDUCE + entry)
    builder.opcodes('sys_modules', 'sys.modules', name('sys', 'modules') + entry)
    # HistoryBuffer.__setstate__ copies these methods into the class.
    methods = EMPTY_DICT + text('statistics_methods') + EMPTY_DICT + entry + SETITEM
    builder.opcodes('setstate', f'{HISTORY}.HistoryBuffer', buffer + EMPTY_TUPLE + NEWOBJ + methods + BUILD)
    builder.opcodes('build_class', 'argparse.Namespace',
                    name('argparse', 'Namespace') + NONE + EMPTY_DICT + entry + TUPLE2 + BUILD)


# Keys of `build_aimed`.
AIMED = ('config_item', 'config_argument', 'config_state', 'config_class_entry', 'config_class_state',
         'loss_scaler_class_entry', 'loss_scaler_class_state', 'zero_stage_class_entry', 'zero_stage_class_state',
         'zero_stage_text', 'zero_stage_size', 'config_number', 'config_call')


def build_aimed(folder: pathlib.Path) -> dict[str, Malicious]:
    """Files that misuse the accepted names of config objects and of DeepSpeed."""
    builder = Builder(folder)
    has_addict = importlib.util.find_spec('addict') is not None
    config = name('addict.addict', 'Dict')

    def payload(mark: pathlib.Path) -> bytes:
        return text('key') + name('posix', 'system') + text(f'touch {mark}') + TUPLE1 + REDUCE

    for key, around in {
        'config_item': lambda call: config + EMPTY_TUPLE + NEWOBJ + call + SETITEM,
        'config_argument': lambda call: config + call + TUPLE2 + TUPLE1 + NEWOBJ,
        'config_state': lambda call: config + EMPTY_TUPLE + NEWOBJ + EMPTY_DICT + call + SETITEM + BUILD,
    }.items():
        builder.add(key, 'posix.system', fires=has_addict, write=lambda path, mark, around=around: opcode_file(
            path, around(payload(mark))))

    def misuse(key: str, shown: str, pickled: bytes) -> None:
        builder.add(key, shown, lambda path, _: opcode_file(path, pickled), marks=False, fires=False)

    entry = text(SENTINEL) + text('set') + SETITEM
    attributes = NONE + EMPTY_DICT + entry + TUPLE2 + BUILD
    for key, (module, attribute) in {
        'config': ('mmcv.utils.config', 'ConfigDict'),
        'loss_scaler': ('deepspeed.runtime.fp16.loss_scaler', 'LossScaler'),
        'zero_stage': ('deepspeed.runtime.zero.config', 'ZeroStageEnum'),
    }.items():
        misuse(f'{key}_class_entry', f'{module}.{attribute}', name(module, attribute) + entry)
        misuse(f'{key}_class_state', f'{module}.{attribute}', name(module, attribute) + attributes)
    stage = name('deepspeed.runtime.zero.config', 'ZeroStageEnum')
    misuse('zero_stage_text', "ZeroStageEnum('1')", stage + text('1') + TUPLE1 + REDUCE)
    misuse('zero_stage_size', 'ZeroStageEnum(int)', stage + b'J\xff\xff\xff\x7f' + TUPLE1 + REDUCE)
    misuse('config_number', 'a config called with int', config + b'J\xff\xff\xff\x7f' + TUPLE1 + REDUCE)
    misuse('config_call', 'a config called with function', config + stage + TUPLE1 + NEWOBJ)
    return builder.files


def add_to_runner_checkpoint(files: dict[str, Malicious], genuine: pathlib.Path, folder: pathlib.Path) -> None:
    """Payloads inside a checkpoint that mmengine's runner wrote."""
    checkpoint = torch.load(genuine, weights_only=False)  # written a moment ago by the test
    builder = Builder(folder)

    def put(path: pathlib.Path, mark: pathlib.Path, *keys: Any) -> None:
        torch.save(checkpoint, path)
        changed = torch.load(path, weights_only=False)
        place = changed
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = shell(mark)
        torch.save(changed, path)

    for key, keys in {
        'in_message_hub': ('message_hub', 'log_scalars', 'train/loss'),
        'in_runtime_info': ('message_hub', 'runtime_info', 'extra'),
        'in_param_schedulers': ('param_schedulers', 0, 'base_values'),
        'in_meta': ('meta', 'seed'),
    }.items():
        builder.add(key, 'posix.system', lambda path, mark, keys=keys: put(path, mark, *keys))
    files.update(builder.files)


CONTROL = """
import contextlib, json, sys, time
sys.path[:0] = [{root!r}, {folder!r}]
import pathlib
import torch
from tests import malicious
{prepare}
fired = []
for key, (path, mark) in {files!r}.items():
    mark = mark and pathlib.Path(mark)
    with contextlib.suppress(Exception):
        {load}
    time.sleep(0.1 if key == 'popen' else 0)
    if (mark.exists() if mark else malicious.sentinels()):
        fired.append(key)
    malicious.remove_sentinels()
    if mark:
        mark.unlink(missing_ok=True)
print(json.dumps(fired))
"""


def fired_in_control(files: dict[str, Malicious], load: str, prepare: str = '') -> list[str]:
    """Opens the files in another process with the statement `load` and returns those whose payload was executed."""
    folder = next(iter(files.values())).path.parent
    script = CONTROL.format(
        root=str(pathlib.Path(__file__).resolve().parent.parent), folder=str(folder), load=load, prepare=prepare,
        files={key: (str(file.path), file.mark and str(file.mark)) for key, file in files.items()})
    done = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True, check=True)
    return list(json.loads(done.stdout.splitlines()[-1]))
