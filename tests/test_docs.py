"""What the documentation points at is there: files, tests, configs, commands and their options."""

from __future__ import annotations

import importlib
import pathlib
import re

import pytest

from internvl_dense import cli

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted((ROOT / 'docs').glob('*.md'))]
COMMAND = re.compile(r'^(?:internvl-dense |python3? tools/)([a-z_-]+)(?:\.py)?((?: .*)?)$', re.M)


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    targets = re.findall(r'\]\(([^)#:]+)\)', page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_named_tests_exist(page):
    last, missing = None, []
    for path, name in re.findall(r'`(tests/[\w/.]+\.py)?(?:::(\w+))?`', page.read_text()):
        last = path or last
        text = (ROOT / last).read_text() if last and (ROOT / last).is_file() else ''
        if (path or name) and f'def {name}' not in text:
            missing.append((last, name))
    assert missing == []


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_named_configs_exist(page):
    names = re.findall(r'\b(?:ade20k|coco_stuff164k|own_data|demo|camvid)/\w+_internvit_\w+', page.read_text())
    recipes = 'linear_probing|head_tuning|full_tuning|few_shot|upernet'
    stems = re.findall(rf'`((?:{recipes})_\w*internvit_\w+)', page.read_text())
    known = {path.stem for path in (ROOT / 'configs').rglob('*.py')}
    assert {name.partition('/')[2] for name in names} | set(stems) <= known


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_commands_and_options_exist(page):
    """Options, not values: the files that a command names are the reader's."""
    for name, words in COMMAND.findall(page.read_text()):
        command = name.replace('_', '-')
        if command in ('bootstrap', 'COMMAND'):
            continue
        assert command in cli.COMMANDS, name
        parser = importlib.import_module(f'internvl_dense.commands.{name.replace("-", "_")}').build_parser()
        options = re.findall(r'(?<= )(--[a-z-]+)', words.partition('#')[0])
        assert set(options) <= set(parser._option_string_actions), (name, options)


def test_the_pages_name_commands():
    """So the test above has something to look at."""
    found = {name for page in PAGES for name, _ in COMMAND.findall(page.read_text())}
    assert {'train', 'test', 'predict', 'fetch', 'prepare-data', 'reproduce', 'compare'} <= found
