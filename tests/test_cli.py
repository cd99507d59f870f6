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


def test_misspelt_command_is_explained():
    with pytest.raises(UserError, match="Did you mean 'train'"):
        cli.main(['trian'])


def test_module_and_console_show_usage_and_errors():
    usage = subprocess.run([sys.executable, '-m', 'internvl_dense'], cwd=ROOT, capture_output=True, text=True)
    assert usage.returncode == 0 and 'browse-dataset' in usage.stdout
    wrong = subprocess.run([sys.executable, '-m', 'internvl_dense', 'tset'], cwd=ROOT, capture_output=True, text=True)
    assert wrong.returncode == 2
    assert "Did you mean 'test'" in wrong.stderr and 'Traceback' not in wrong.stderr
