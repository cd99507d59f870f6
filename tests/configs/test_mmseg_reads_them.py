"""mmseg's own tools and registry read every config, without any of this project's commands."""

from __future__ import annotations

import importlib.util
import pathlib
import subprocess
import sys

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from tests.configs.test_configs import LEAVES, ROOT


@pytest.mark.parametrize('leaf', LEAVES)
def test_registry_builds_the_model(leaf, tmp_path, monkeypatch):
    (tmp_path / 'data' / 'mine').mkdir(parents=True)
    (tmp_path / 'data' / 'mine' / 'classes.txt').write_text('road\nsky\n')  # where `configs/own_data` looks
    monkeypatch.chdir(tmp_path)
    config = Config.fromfile(ROOT / leaf)
    init_default_scope(config.default_scope)
    with torch.device('meta'):
        model = MODELS.build(config.model)
    expected = 2 if leaf.startswith('own_data') else config.num_classes
    assert model.decode_head.num_classes == expected


@pytest.mark.parametrize('leaf', [LEAVES[0], 'own_data/linear_probing_internvit_6b_224px_own_data.py'])
def test_print_config(leaf, tmp_path):
    package = importlib.util.find_spec('mmseg').submodule_search_locations[0]
    tool = pathlib.Path(package) / '.mim' / 'tools' / 'misc' / 'print_config.py'
    result = subprocess.run([sys.executable, str(tool), str(ROOT / leaf)], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "type='DenseSegmentor'" in result.stdout
