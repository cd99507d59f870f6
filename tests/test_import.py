"""What an import costs and needs, each in a fresh interpreter."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = ROOT / 'internvl_dense'
OPTIONAL = ('mmcv', 'mmengine', 'mmseg', 'mmdet', 'transformers', 'timm', 'torchvision', 'deepspeed', 'cv2')
HEAVY = ('torch', 'numpy', 'cv2', 'safetensors', *OPTIONAL)

# Makes packages absent and remembers who asked for them.
BLOCK = """
import sys

class Block:
    asked = []

    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {names!r}:
            self.asked.append(name)
            raise ModuleNotFoundError(f'{{name}} is blocked', name=name)

sys.meta_path.insert(0, Block())
"""

RUN_HELP = """
import importlib, runpy
sys.argv = ['program', '--help']
try:
    {statement}
except SystemExit as stop:
    assert stop.code in (0, None), f'exit status {{stop.code}}'
assert not Block.asked, f'asked for {{Block.asked}}'
"""


def fresh(code: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Runs code in a new interpreter at the top of the checkout."""
    command = [sys.executable, *options, '-c', code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def assert_silent(result: subprocess.CompletedProcess[str]) -> None:
    assert (result.returncode, result.stdout, result.stderr) == (0, '', '')


def test_import_loads_nothing_heavy():
    code = BLOCK.format(names=HEAVY) + 'import internvl_dense\nassert not Block.asked, Block.asked\n'
    assert_silent(fresh(code, '-W', 'error'))


def test_backbone_runs_without_optional_packages():
    code = BLOCK.format(names=OPTIONAL) + (
        'import torch, warnings\n'
        "warnings.simplefilter('error')\n"
        'import internvl_dense\n'
        "backbone = internvl_dense.create_backbone('internvit_debug')\n"
        'maps = backbone(torch.zeros(1, 3, 56, 70))\n'
        'assert [tuple(m.shape[2:]) for m in maps] == [(4, 5)] * 4, [m.shape for m in maps]\n'
        'assert torch.get_default_dtype() == torch.float32\n'
    )
    assert_silent(fresh(code))


def test_public_names_resolve_and_unknown_ones_do_not():
    code = (
        'import internvl_dense\n'
        'assert set(internvl_dense.__all__) <= set(dir(internvl_dense))\n'
        'for name in internvl_dense.__all__: getattr(internvl_dense, name)\n'
        "assert not hasattr(internvl_dense, 'create_backbones')\n"
        "assert 'internvit_debug' in internvl_dense.list_backbones()\n"
    )
    assert_silent(fresh(code))


def help_statements() -> list[str]:
    """Python statements that show the help of every command a user can type."""
    tools = [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / 'tools').rglob('*.py'))]
    commands = sorted((PACKAGE / 'commands').glob('*.py'))
    modules = [f'internvl_dense.commands.{path.stem}' for path in commands if 'def main(' in path.read_text()]
    programs = [name for name in ('cli', 'commands.demo') if (PACKAGE / f'{name.replace(".", "/")}.py').exists()]
    return [
        *(f"runpy.run_path({path!r}, run_name='__main__')" for path in tools),
        *(f"importlib.import_module({name!r}).main(['--help'])" for name in modules),
        *(f"runpy.run_module('internvl_dense.{name}', run_name='__main__')" for name in programs),
    ]


@pytest.mark.parametrize('statement', help_statements())
def test_help_needs_only_the_standard_library(statement: str):
    result = fresh(BLOCK.format(names=HEAVY) + RUN_HELP.format(statement=statement))
    assert result.returncode == 0, result.stderr
    assert 'usage:' in result.stdout
