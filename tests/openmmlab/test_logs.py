"""What the backbone says reaches the terminal and the log file of the run."""

from __future__ import annotations

import logging

import pytest
from mmengine.logging import MMLogger

from internvl_dense.openmmlab import logs


@pytest.fixture(autouse=True)
def restore():
    handlers, level, propagate = list(logs.LOGGER.handlers), logs.LOGGER.level, logs.LOGGER.propagate
    logs.LOGGER.handlers = []
    yield
    logs.LOGGER.handlers, logs.LOGGER.propagate = handlers, propagate
    logs.LOGGER.setLevel(level)


def test_lines_go_to_the_file_of_the_latest_run_only(tmp_path, capsys):
    first, second = (MMLogger(name, log_file=str(tmp_path / f'{name}.log')) for name in ('first', 'second'))
    logs.follow(first)
    logs.LOGGER.info('one')
    logs.follow(second)
    logs.LOGGER.info('two')
    assert 'one' in (tmp_path / 'first.log').read_text() and 'two' not in (tmp_path / 'first.log').read_text()
    assert 'two' in (tmp_path / 'second.log').read_text()


def test_terminal_shows_each_line_once(tmp_path, capsys):
    logs.to_terminal()
    logs.to_terminal()
    logs.follow(MMLogger('third', log_file=str(tmp_path / 'third.log')))
    logs.LOGGER.info('loaded 12 tensors')
    assert sum(len(capture.split('loaded 12 tensors')) - 1 for capture in capsys.readouterr()) == 1


def test_without_a_command_the_run_shows_them(tmp_path):
    run = MMLogger('fourth', log_file=str(tmp_path / 'fourth.log'))
    logs.follow(run)
    assert any(type(handler) is logging.StreamHandler for handler in logs.LOGGER.handlers)
