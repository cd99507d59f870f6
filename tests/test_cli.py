"""The console script: every command by name, mistakes explained, no heavy import for help."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

from internvl_dense import cli
from internvl_dense.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parents[1]


def test_every_command_has_its_module_and_every_module_its_command():
    modules = {path.stem for path in (ROOT / 'internvl_dense' / 'commands').glob('[a-z]*.py')}
    assert {name.replace('-', '_') for name in cli.COMMANDS} == modules


def test_every_command_has_its_tool():
    tools = {path.stem for path in (ROOT / 'tools').glob('*.py')} - {'bootstrap'}
    assert {name.replace('-', '_') for name in cli.COMMANDS} == tools


@pytest.mark.parametrize('name', cli.COMMANDS)
def test_help_of_every_command(name, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([name, '--help'])
    assert stop.value.code == 0
    assert 'usage' in capsys.readouterr().out


@pytest.mark.parametrize('words', [[], ['train']])
def test_help_comes_in_a_second_and_without_torch(words):
    code = ('import sys, time; start = time.perf_counter()\n'
            "sys.modules.update(dict.fromkeys(('torch', 'numpy', 'cv2', 'mmengine')))\n"
            'from internvl_dense.cli import main\n'
            'try:\n'
            f'    main({[*words, "--help"]})\n'
            'except SystemExit:\n'
            '    print(end="")\n'
            "print('seconds', time.perf_counter() - start)\n")
    result = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert 'usage' in result.stdout
    assert float(result.stdout.split()[-1]) < 1


def test_importing_the_module_runs_nothing():
    """Worker processes that are spawned import the main module again."""
    result = subprocess.run([sys.executable, '-c', 'import internvl_dense.__main__'], cwd=ROOT, capture_output=True,
                            text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, '', '')


def test_version_and_exit_code_of_a_command(tmp_path, monkeypatch, capsys):
    assert cli.main(['--version']) == 0
    assert capsys.readouterr().out.strip() == cli.__version__
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'a.jpg').touch()
    assert cli.main(['few-shot-list', '.', '1', '--out', 'list.txt']) == 0
    assert (tmp_path / 'list.txt').read_text() == 'a\n'
    assert cli.main(['list-models', 'no_such_*']) == 1


def test_misspelt_command_is_explained():
    with pytest.raises(UserError, match="Did you mean 'train'"):
        cli.main(['trian'])


def test_module_and_console_show_usage_and_errors():
    usage = subprocess.run([sys.executable, '-m', 'internvl_dense'], cwd=ROOT, capture_output=True, text=True)
    assert usage.returncode == 0 and 'browse-dataset' in usage.stdout
    wrong = subprocess.run([sys.executable, '-m', 'internvl_dense', 'tset'], cwd=ROOT, capture_output=True, text=True)
    assert wrong.returncode == 2
    assert "Did you mean 'test'" in wrong.stderr and 'Traceback' not in wrong.stderr
