"""The one way to open a checkpoint file that the safe reader refuses: shown, confirmed, and in another process."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Sequence

from internvl_dense.commands._unpickle import LEFT_OUT, PLAIN
from internvl_dense.errors import UserError

TIMEOUT = 3600.0  # seconds: a file of 13 GB is read and written in minutes
_LOG_LINES = 5
_WARNING = """\
Whoever wrote this file can do whatever you can do on this machine, network included: the process it runs in has no
secrets in its environment, but it is no sandbox. Go on only if you know who that is and trust them, and if the checksum
is the one they state."""
# The search path of this process instead of PYTHONPATH, which -I ignores.
_START = """\
import json, pathlib, sys
sys.path[:] = json.loads(sys.argv[1])
from internvl_dense.commands._unpickle import extract
extract(pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]))"""


def readable(
    source: str | pathlib.Path, folder: pathlib.Path, yes: bool, timeout: float
) -> tuple[pathlib.Path, list[str]]:
    """Finds or makes a file with the content of `source` that the safe reader accepts.

    Args:
        source: The checkpoint: a file, or a folder as `open_weights` takes it.
        folder: Where a converted file may be left; the caller removes it.
        yes: Whether the question is answered already.
        timeout: Seconds that the other process may take.

    Returns:
        `source` itself where it needs no trust, otherwise the converted file; and what the latter lacks.

    Raises:
        UserError: Not confirmed, the other process failed, or `source` is refused for another reason.
    """
    from internvl_dense.backbones.weight_files import shard_paths
    from internvl_dense.safe_format import FileKind, sniff
    from internvl_dense.safe_load import CorruptCheckpointError, UnsafeCheckpointError, load_file

    source = pathlib.Path(source).expanduser()
    shards = shard_paths(source)
    for shard in shards:
        try:
            load_file(shard)
        except (UnsafeCheckpointError, CorruptCheckpointError) as error:
            pickled = shard.is_file() and sniff(shard) in (FileKind.TORCH_ZIP, FileKind.TORCH_LEGACY, FileKind.PICKLE)
            if len(shards) > 1 or not pickled:
                raise  # it names the shard, which can be converted by itself
            print(_announcement(shard, error))
            _confirm(shard, yes)
            return _open_apart(shard, folder, timeout)
    print(f'--trust-pickle is not needed: {source} holds plain data')
    return source, []


def _announcement(path: pathlib.Path, error: UserError) -> str:
    """What opening the file would execute, and its checksum."""
    from internvl_dense.backbones.fingerprint import file_sha256
    from internvl_dense.safe_load import printable, refused_names

    names = dict.fromkeys([*getattr(error, 'names', ()), *printable(refused_names(path))])
    asked = '\n'.join(f'  - {name}' for name in names) or f'  (nothing by name; the safe reader says: {error})'
    return '\n'.join([f'{path} is refused by the safe reader. The unrestricted one would run at least:', asked,
                      f'sha256 {file_sha256(path)}', _WARNING])


def _confirm(path: pathlib.Path, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise UserError(f'{path} was not opened: --trust-pickle asks first, and there is no terminal to ask on. '
                        'Answer beforehand with --yes')
    try:
        answer = input('Run it? Type yes: ')
    except EOFError:
        answer = ''
    if answer.strip() != 'yes':
        raise UserError(f'{path} was not opened: the answer was {answer.strip()!r}, not yes')


def _open_apart(path: pathlib.Path, folder: pathlib.Path, timeout: float) -> tuple[pathlib.Path, list[str]]:
    """Lets another process open the file, and checks what it leaves."""
    work = folder / 'apart'
    for part in ('home', 'out'):
        (work / part).mkdir(parents=True)
    log, out = work / 'log.txt', work / 'out'
    code = _run([str(path.resolve()), str(out.resolve())], work, log, timeout)
    if code != 0 or not _is_plain_file(out / PLAIN) or not _is_plain_file(out / LEFT_OUT):
        reason = f'the process that opened it {_ending(code, timeout)}'
        raise UserError('\n'.join([f'{path} could not be converted: {reason}', *_last_lines(log)]))
    return _checked(path, out)


def _run(arguments: Sequence[str], work: pathlib.Path, log: pathlib.Path, timeout: float) -> int | None:
    """Runs `_unpickle.extract`; returns its exit status, or None if the time was up."""
    search = [entry for entry in sys.path if os.path.isabs(entry)]
    command = [sys.executable, '-I', '-c', _START, json.dumps(search), *arguments]
    home = str((work / 'home').resolve())
    environment = {'PATH': os.environ.get('PATH', os.defpath), 'HOME': home, 'TMPDIR': home, 'CUDA_VISIBLE_DEVICES': ''}
    if 'LD_LIBRARY_PATH' in os.environ:  # without it torch may not find its libraries
        environment['LD_LIBRARY_PATH'] = os.environ['LD_LIBRARY_PATH']
    with log.open('wb') as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd=home,
                                   env=environment, start_new_session=True)
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        return None
    finally:
        # With everything it started: a session of its own is a process group of its own.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _is_plain_file(path: pathlib.Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _ending(code: int | None, timeout: float) -> str:
    if code is None:
        return f'was stopped after {timeout:g} s; give it more with --timeout SECONDS'
    return f'ended with status {code}' + ('' if code else ' and left no result')


def _last_lines(log: pathlib.Path) -> list[str]:
    from internvl_dense.safe_load import printable

    lines = log.read_text(encoding='utf-8', errors='replace').splitlines()
    return [f'  {line}' for line in printable(lines[-_LOG_LINES:])]


def _checked(path: pathlib.Path, out: pathlib.Path) -> tuple[pathlib.Path, list[str]]:
    """What the other process wrote is as little trusted as the file itself."""
    from internvl_dense.safe_load import load_file, printable

    try:
        load_file(out / PLAIN)
        left_out = json.loads((out / LEFT_OUT).read_text(encoding='utf-8'))
    except ValueError as error:  # a UserError, or no JSON
        reason = str(error).partition('\n')[0]
        raise UserError(
            f'{path} could not be converted: the process that opened it left no plain data ({reason})'
        ) from None
    return out / PLAIN, printable(map(str, left_out if isinstance(left_out, list) else [left_out]))
