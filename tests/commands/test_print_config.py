"""The printed config is the one that would run, and can be read back."""

from __future__ import annotations

import pytest
from mmengine.config import Config

from internvl_dense.commands import print_config
from internvl_dense.errors import UserError

CONFIG = 'demo/upernet_internvit_debug_demo'


def test_overrides_and_strategy_are_in_the_output(capsys):
    options = ['--strategy', 'ddp', '--cfg-options', 'model.backbone.frozen=True', 'train_dataloader.batch_size=3']
    assert print_config.main([CONFIG, *options]) == 0
    config = Config.fromstring(capsys.readouterr().out, file_format='.py')
    assert config.strategy.type == 'DenseDDP'
    assert config.model.backbone.frozen is True
    assert config.train_dataloader.batch_size == 3
    assert config.model.decode_head.num_classes == 6


def test_wrong_names_are_explained():
    with pytest.raises(UserError, match='ddp'):
        print_config.main([CONFIG, '--strategy', 'dpp'])
    with pytest.raises(UserError, match='key=value'):
        print_config.main([CONFIG, '--cfg-options', 'frozen'])
