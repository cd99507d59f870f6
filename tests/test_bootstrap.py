"""tools/bootstrap.py, with recorded instead of real installs; one slow test installs everything."""

from __future__ import annotations

import ast
import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys
from types import ModuleType

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
SCRIPT = ROOT / 'tools' / 'bootstrap.py'


@pytest.fixture
def bootstrap() -> ModuleType:
    spec = importlib.util.spec_from_file_location('bootstrap', SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def calls(bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Every command the script would run; each succeeds."""
    recorded: list[list[str]] = []

    def call(*command: object) -> int:
        recorded.append([str(word) for word in command])
        return 0

    monkeypatch.setattr(bootstrap, 'call', call)
    return recorded


@pytest.fixture
def no_active_env(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, 'prefix', sys.base_prefix)
    monkeypatch.delenv('VIRTUAL_ENV', raising=False)


def fake_cv2(folder: pathlib.Path, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / 'cv2.py').write_text(code)
    monkeypatch.setenv('PYTHONPATH', str(folder))


# --- Python version ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('version', [(3, 6, 15), (3, 10, 0), (3, 14, 0), (4, 0, 0)])
def test_unsupported_python_gets_one_line(version: tuple[int, ...]):
    code = f'import runpy, sys; sys.version_info = {version}; runpy.run_path({str(SCRIPT)!r}, run_name="__main__")'
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stdout == ''
    assert result.stderr.startswith('error: Python 3.11, 3.12 or 3.13 is needed') and result.stderr.count('\n') == 1
    assert f'is {version[0]}.{version[1]}' in result.stderr


def test_old_python_can_parse_the_script():
    ast.parse(SCRIPT.read_text(), feature_version=(3, 6))
    assert '__future__' not in SCRIPT.read_text(), 'Python 3.6 refuses annotations from __future__'


# --- Environment ------------------------------------------------------------------------------------------------------


def test_active_environment_is_used(bootstrap, calls, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, 'prefix', str(tmp_path))
    monkeypatch.setattr(bootstrap, 'usable', lambda python: True)
    assert bootstrap.choose_python() == tmp_path / bootstrap.BIN / 'python'
    assert calls == []


def test_environment_named_by_the_shell_is_used(bootstrap, calls, no_active_env, monkeypatch, tmp_path):
    monkeypatch.setenv('VIRTUAL_ENV', str(tmp_path))
    monkeypatch.setattr(bootstrap, 'usable', lambda python: True)
    assert bootstrap.choose_python() == tmp_path / bootstrap.BIN / 'python'
    assert calls == []


def test_broken_active_environment_is_an_error(bootstrap, calls, no_active_env, monkeypatch, tmp_path):
    monkeypatch.setenv('VIRTUAL_ENV', str(tmp_path / 'gone'))
    with pytest.raises(SystemExit, match='active environment .*gone lacks pip'):
        bootstrap.choose_python()
    assert calls == []


def test_environment_is_made_once(bootstrap, calls, no_active_env, monkeypatch, tmp_path):
    monkeypatch.setattr(bootstrap, 'ROOT', tmp_path)
    python = bootstrap.choose_python()
    assert python == tmp_path / '.venv' / bootstrap.BIN / 'python'
    assert calls == [[sys.executable, '-m', 'venv', '--clear', str(tmp_path / '.venv')]]
    monkeypatch.setattr(bootstrap, 'usable', lambda candidate: candidate == python)
    assert bootstrap.choose_python() == python
    assert len(calls) == 1


@pytest.mark.parametrize('absent', ['venv', 'ensurepip'])
def test_missing_venv_module_names_the_package(bootstrap, calls, no_active_env, monkeypatch, tmp_path, absent):
    monkeypatch.setattr(bootstrap, 'ROOT', tmp_path)
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None if name == absent else find_spec(name))
    with pytest.raises(SystemExit) as stop:
        bootstrap.choose_python()
    package = f'python{sys.version_info[0]}.{sys.version_info[1]}-venv'
    assert f'lacks the module {absent}' in str(stop.value) and f'apt install {package}' in str(stop.value)
    assert str(stop.value).count('\n') == 0
    assert calls == []


def test_usable_asks_the_interpreter(bootstrap, tmp_path):
    assert bootstrap.usable(pathlib.Path(sys.executable))
    assert not bootstrap.usable(tmp_path / 'python')
    empty = tmp_path / 'python'
    empty.write_text('#!/bin/sh\nexit 1\n')
    empty.chmod(0o755)
    assert not bootstrap.usable(empty)


# --- Install ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def checkout(bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> pathlib.Path:
    """A checkout with the files that decide whether an environment is up to date, and an environment in it."""
    for name in ('pyproject.toml', 'setup.py', 'constraints.txt', 'tools/bootstrap.py'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / '.venv' / 'bin').mkdir(parents=True)
    monkeypatch.setattr(bootstrap, 'ROOT', tmp_path)
    return tmp_path


def test_second_run_installs_nothing(bootstrap, calls, checkout, monkeypatch, capsys):
    monkeypatch.setattr(bootstrap, 'headless_problem', lambda python: None)
    python = checkout / '.venv' / 'bin' / 'python'
    bootstrap.prepare(python)
    assert len(calls) == 1 and calls[0][-2:] == ['--editable', f'{checkout}[openmmlab,hub,dev]']
    assert str(checkout / 'constraints.txt') in calls[0]
    bootstrap.prepare(python)
    assert len(calls) == 1
    assert 'up to date' in capsys.readouterr().out


@pytest.mark.parametrize('name', ['pyproject.toml', 'setup.py', 'constraints.txt', 'tools/bootstrap.py'])
def test_changed_file_installs_again(bootstrap, calls, checkout, monkeypatch, name):
    monkeypatch.setattr(bootstrap, 'headless_problem', lambda python: None)
    bootstrap.prepare(checkout / '.venv' / 'bin' / 'python')
    (checkout / name).write_text('changed')
    bootstrap.prepare(checkout / '.venv' / 'bin' / 'python')
    assert len(calls) == 2


def test_broken_opencv_is_replaced_by_the_headless_build(bootstrap, calls, checkout, monkeypatch):
    problems = iter(['libGL.so.1: file too short', None])
    monkeypatch.setattr(bootstrap, 'headless_problem', lambda python: next(problems))
    bootstrap.prepare(checkout / '.venv' / 'bin' / 'python')
    assert calls[1][-3:] == ['--force-reinstall', '--no-deps', 'opencv-python-headless']
    assert (checkout / '.venv' / 'internvl_dense.stamp').exists()


def test_opencv_that_stays_broken_leaves_no_stamp(bootstrap, calls, checkout, monkeypatch):
    monkeypatch.setattr(bootstrap, 'headless_problem', lambda python: 'libGL.so.1: file too short')
    with pytest.raises(SystemExit, match='libGL.so.1: file too short'):
        bootstrap.prepare(checkout / '.venv' / 'bin' / 'python')
    assert not (checkout / '.venv' / 'internvl_dense.stamp').exists()


def test_failed_install_ends_with_its_status(bootstrap, checkout, monkeypatch, capsys):
    monkeypatch.setattr(bootstrap, 'call', lambda *command: 7)
    with pytest.raises(SystemExit) as stop:
        bootstrap.prepare(checkout / '.venv' / 'bin' / 'python')
    assert stop.value.code == 7
    assert 'preparing the environment failed' in capsys.readouterr().err
    assert not (checkout / '.venv' / 'internvl_dense.stamp').exists()


# --- OpenCV without libGL ---------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != 'linux', reason='libGL is a matter of Linux')
def test_import_that_needs_libgl_is_reported(bootstrap, monkeypatch, tmp_path):
    fake_cv2(tmp_path, "import ctypes\nctypes.CDLL('libGL.so.1')\n", monkeypatch)
    assert 'libGL.so.1' in bootstrap.headless_problem(pathlib.Path(sys.executable))


def test_import_that_needs_no_libgl_is_fine(bootstrap, monkeypatch, tmp_path):
    fake_cv2(tmp_path, "import ctypes\nctypes.CDLL('libc.so.6')\n", monkeypatch)
    assert bootstrap.headless_problem(pathlib.Path(sys.executable)) is None


def test_prepared_environment_needs_no_libgl(bootstrap):
    if not (pathlib.Path(sys.prefix) / 'internvl_dense.stamp').exists():
        pytest.skip('this environment was not made by tools/bootstrap.py')
    assert bootstrap.headless_problem(pathlib.Path(sys.executable)) is None


# --- Jobs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('statuses', 'expected'),
    [({}, 0), ({'pytest': 5}, 5), ({'pytest': 2, 'ruff': 1}, 2), ({'mypy': 1}, 1), ({'lint-imports': 3}, 1)],
)
def test_status_is_that_of_pytest(bootstrap, monkeypatch, capsys, statuses, expected):
    ran = []

    def call(*command: object) -> int:
        name = next(n for n in ('ruff', 'mypy', 'lint-imports', 'pytest') if n in ' '.join(map(str, command)))
        ran.append(name)
        return statuses.get(name, 0)

    monkeypatch.setattr(bootstrap, 'call', call)
    assert bootstrap.run_checks(pathlib.Path('/env/bin/python'), []) == expected
    assert ran == ['ruff', 'mypy', 'lint-imports', 'pytest'], 'every check runs, whatever fails'
    assert capsys.readouterr().out.count('FAILED') == len(statuses)


@pytest.mark.parametrize(
    ('arguments', 'tail'),
    [
        (['demo', '--out', 'x'], ['-m', 'internvl_dense.commands.demo', '--out', 'x']),
        (['test', '-k', 'name', '-x'], ['-n', '2', '--dist', 'loadfile', '-k', 'name', '-x']),
    ],
)
def test_options_are_passed_on(bootstrap, calls, monkeypatch, arguments, tail):
    monkeypatch.setattr(bootstrap, 'choose_python', lambda: pathlib.Path('/env/bin/python'))
    monkeypatch.setattr(bootstrap, 'prepare', lambda python: None)
    assert bootstrap.main(arguments) == 0
    assert calls[-1][-len(tail):] == tail


def test_call_runs_in_the_checkout_with_one_thread(bootstrap, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    code = f'import os; assert os.getcwd() == {str(ROOT)!r}; assert os.environ["OMP_NUM_THREADS"] == "1"'
    assert bootstrap.call(sys.executable, '-c', code) == 0
    assert bootstrap.call(sys.executable, '-c', 'import sys; sys.exit(5)') == 5
    assert bootstrap.call(sys.executable, '-c', 'import os; os.kill(os.getpid(), 9)') == 137


@pytest.mark.slow
def test_full_install_from_a_bare_copy(tmp_path):
    """The real thing: a copy of the checkout, no active environment, another working folder, twice."""
    copy = tmp_path / 'a checkout'  # with a space, as people have it
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns('.git', '.venv', 'work_dirs', '__pycache__', '.*_cache'))
    hidden = ('VIRTUAL_ENV', 'PYTHONPATH', 'PYTHONHOME')
    env = {name: value for name, value in os.environ.items() if name not in hidden}
    base = pathlib.Path(sys.base_prefix, 'bin', f'python{sys.version_info[0]}.{sys.version_info[1]}')
    command = [base, copy / 'tools' / 'bootstrap.py', 'test', 'tests/test_structure.py', 'tests/test_import.py']
    first = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert first.returncode == 0, first.stdout[-4000:] + first.stderr[-4000:]
    assert (copy / '.venv' / 'bin' / 'python').exists()
    second = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert second.returncode == 0, second.stdout[-4000:]
    assert 'up to date' in second.stdout and ' pip install' not in second.stdout
