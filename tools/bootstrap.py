#!/usr/bin/env python3
"""Prepares an environment, then runs one of two jobs:

python3 tools/bootstrap.py demo [options]   train and test a small model on generated images
python3 tools/bootstrap.py test [options]   every check of this repository; options go to pytest
"""

import sys

if not (3, 11) <= sys.version_info[:2] <= (3, 13):  # ahead of all that an older Python lacks; this file parses on 3.6
    version = '.'.join(map(str, sys.version_info[:2]))
    sys.exit(f'error: Python 3.11, 3.12 or 3.13 is needed, {sys.executable} is {version}')

import argparse
import hashlib
import importlib.util
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = 'openmmlab,hub,dev'
BIN = 'Scripts' if os.name == 'nt' else 'bin'
# A test computes on one thread, so two at a time fill two cores; a file and its fixtures stay with one worker.
WORKERS = ('-n', '2', '--dist', 'loadfile')


def call(*command: object) -> int:
    """Shows a command, runs it in the checkout and returns its exit status."""
    words = [str(word) for word in command]
    print('$', *words, flush=True)
    status = subprocess.call(words, cwd=ROOT, env={'OMP_NUM_THREADS': '1', **os.environ})
    return status if status >= 0 else 128 - status  # a signal, as the shell counts it


def must(*command: object) -> None:
    """Runs a command of the preparation and stops where it fails."""
    status = call(*command)
    if status:
        print(f'error: preparing the environment failed, see above (exit status {status})', file=sys.stderr)
        raise SystemExit(status)


def usable(python: Path) -> bool:
    """Whether this is a supported interpreter with pip."""
    probe = 'import pip, sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'
    return python.exists() and subprocess.run([python, '-c', probe], capture_output=True).returncode == 0


def choose_python() -> Path:
    """Python of the active virtual environment, else of `.venv` in the checkout, made where absent or broken."""
    active = sys.prefix if sys.prefix != sys.base_prefix else os.environ.get('VIRTUAL_ENV')
    python = Path(active or ROOT / '.venv', BIN, 'python')
    if usable(python):
        return python
    if active:
        sys.exit(f'error: the active environment {active} lacks pip or Python 3.11-3.13; deactivate it and try again')
    for name in ('venv', 'ensurepip'):
        if importlib.util.find_spec(name) is None:
            package = 'python{}.{}-venv'.format(*sys.version_info[:2])
            sys.exit(f'error: {sys.executable} lacks the module {name}; on Debian and Ubuntu: apt install {package}')
    must(sys.executable, '-m', 'venv', '--clear', ROOT / '.venv')
    return python


def fingerprint() -> str:
    """Changes whenever an environment may no longer be the one that this checkout asks for."""
    digest = hashlib.sha256(f'{ROOT} {EXTRAS}'.encode())
    for name in ('pyproject.toml', 'setup.py', 'constraints.txt', 'tools/bootstrap.py'):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def headless_problem(python: Path) -> str | None:
    """Why `import cv2` fails without libGL, or None. An empty file hides the library where a machine has it."""
    with tempfile.TemporaryDirectory() as hidden:
        Path(hidden, 'libGL.so.1').touch()
        search = os.pathsep.join(filter(None, [hidden, os.environ.get('LD_LIBRARY_PATH')]))
        env = {**os.environ, 'LD_LIBRARY_PATH': search}
        result = subprocess.run([python, '-c', 'import cv2'], env=env, cwd=ROOT, capture_output=True, text=True)
    return (result.stderr.strip() or f'exit status {result.returncode}') if result.returncode else None


def prepare(python: Path) -> None:
    """Installs the project with its extras, unless this very set is installed and OpenCV works."""
    stamp = python.parent.parent / 'internvl_dense.stamp'
    if stamp.exists() and stamp.read_text() == fingerprint() and headless_problem(python) is None:
        print(f'environment {stamp.parent}: up to date', flush=True)
        return
    print(f'environment {stamp.parent}: installing (minutes and 2 GB the first time)', flush=True)
    pip = (python, '-m', 'pip', 'install', '--constraint', ROOT / 'constraints.txt')
    must(*pip, '--editable', f'{ROOT}[{EXTRAS}]')
    if headless_problem(python):  # mmcv brings opencv-python, which needs libGL; the last one installed wins
        must(*pip, '--force-reinstall', '--no-deps', 'opencv-python-headless')
    problem = headless_problem(python)
    if problem:
        sys.exit(f'error: OpenCV does not import without a display library:\n{problem}')
    stamp.write_text(fingerprint())


def run_checks(python: Path, options: Sequence[str]) -> int:
    """Runs every check, also after a failure. The exit status is pytest's, or 1 if only another check fails."""
    results = {
        'ruff': call(python, '-m', 'ruff', 'check', '.'),
        'mypy': call(python, '-m', 'mypy'),
        'import-linter': call(python.with_name('lint-imports'), '--no-logo'),
        'pytest': call(python, '-m', 'pytest', '-q', '-rfEs', '-m', 'not slow', *WORKERS, *options),
    }
    for name, status in results.items():
        print(f'{name}: {"passed" if status == 0 else f"FAILED (exit status {status})"}')
    return results['pytest'] or int(any(results.values()))


def main(argv: Sequence[str] | None = None) -> int:
    """Prepares the environment and runs the job; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('job', choices=('demo', 'test'))
    parser.add_argument('options', nargs=argparse.REMAINDER, help='passed on to the job')
    args = parser.parse_args(argv)
    python = choose_python()
    prepare(python)
    if args.job == 'test':
        return run_checks(python, args.options)
    return call(python, '-m', 'internvl_dense.commands.demo', *args.options)


if __name__ == '__main__':
    raise SystemExit(main())
