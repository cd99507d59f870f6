"""ViT-Adapter in miniature through the commands: a frozen trunk from a file, its checkpoints, resuming, testing."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmseg.apis import inference_model, init_model
from PIL import Image

from internvl_dense.backbones.fingerprint import file_sha256
from internvl_dense.backbones.trunk_keys import is_trunk_key
from internvl_dense.backbones.variants import VARIANTS
from internvl_dense.commands import predict as predict_command
from internvl_dense.errors import run
from internvl_dense.safe_load import load_file, save_file
from tests import tiny_runs
from tests.checkpoints import random_state

TRUNK = VARIANTS.get('internvit_debug').replace(**tiny_runs.TINY_TRUNK)
# The published recipe, smaller.
CONFIG = """
_base_ = ['{bases}/recipes/vit_adapter.py', '{bases}/datasets/demo.py']
model = dict(
    backbone=dict(variant='internvit_debug', weights='random', image_size=160, dtype='fp32', conv_inplane=4, n_points=2,
                  deform_ratio=0.5, init_values=0.1),
    decode_head=dict(num_classes=6, channels=8), auxiliary_head=dict(num_classes=6, channels=8),
    data_preprocessor=dict(size=(144, 144)), test_cfg=dict(mode='whole'))
"""


@pytest.fixture(scope='module')
def adapted(data, tmp_path_factory):
    """A trunk and a run of 4 iterations around it."""
    folder = tmp_path_factory.mktemp('adapter')
    save_file(random_state(TRUNK), folder / 'trunk.pth')
    config = folder / 'adapter.py'
    config.write_text(CONFIG.format(bases=tiny_runs.ROOT / 'configs' / '_base_'))
    assert tiny_runs.train(config, folder / 'run', '--weights', folder / 'trunk.pth', data=data,
                           **tiny_runs.STILL) == 0
    return SimpleNamespace(config=config, trunk=folder / 'trunk.pth', work_dir=folder / 'run',
                           checkpoint=folder / 'run' / 'iter_4.pth')


def backbone_keys(state):
    return {key.removeprefix('backbone.') for key in state if key.startswith('backbone.')}


def test_checkpoint_holds_the_trained_adapter_and_names_the_trunk(adapted):
    early, late = (load_file(adapted.work_dir / f'iter_{n}.pth') for n in (2, 4))
    names = backbone_keys(late['state_dict'])
    assert {'level_embed', 'up.weight', 'norm4.bias', 'spm.stem.0.weight',
            'interactions.3.extra_extractors.1.ffn.dwconv.dwconv.weight'} <= names
    assert not any(is_trunk_key(name) for name in names)
    assert late['meta']['internvl_dense']['trunk']['sha256'] == file_sha256(adapted.trunk)
    for name in ('level_embed', 'spm.fc4.weight', 'interactions.0.injector.gamma', 'up.weight'):
        assert not torch.equal(early['state_dict'][f'backbone.{name}'], late['state_dict'][f'backbone.{name}']), name


def test_test_takes_the_trunk_again_and_repeats_the_validation(adapted, data, tmp_path):
    code = tiny_runs.test(adapted.config, adapted.checkpoint, tmp_path, '--weights', adapted.trunk, data=data)
    assert code == 0
    logged = [row for row in tiny_runs.scalars(adapted.work_dir) if 'mIoU' in row][-1]
    assert 100 * json.loads((tmp_path / 'metrics.json').read_text())['mIoU'] == pytest.approx(logged['mIoU'], abs=5e-5)


def test_resume_goes_on_as_if_nothing_had_happened(adapted, data, tmp_path):
    assert tiny_runs.train(adapted.config, tmp_path, '--weights', adapted.trunk, '--resume',
                           adapted.work_dir / 'iter_2.pth', data=data, **tiny_runs.STILL) == 0
    whole, resumed = (load_file(path)['state_dict'] for path in (adapted.checkpoint, tmp_path / 'iter_4.pth'))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(value, resumed[key]) for key, value in whole.items())


def test_a_trained_trunk_stays_in_the_checkpoint(adapted, data, tmp_path):
    assert tiny_runs.train(adapted.config, tmp_path, '--weights', adapted.trunk, data=data,
                           model__backbone__frozen=False, train_cfg__max_iters=2) == 0
    state = load_file(tmp_path / 'iter_2.pth')['state_dict']
    saved = load_file(adapted.trunk)
    assert saved.keys() <= backbone_keys(state)
    assert not torch.equal(state['backbone.blocks.0.attn.qkv.weight'], saved['blocks.0.attn.qkv.weight'])


def test_predictions_of_our_command_and_of_mmseg_are_the_same(adapted, data, tmp_path):
    image = sorted((data / 'images' / 'validation').glob('*.jpg'))[0]
    words = [adapted.config, adapted.checkpoint, image, '--out', tmp_path, '--weights', adapted.trunk,
             *tiny_runs.options(data)]
    assert run(lambda: predict_command.main([str(word) for word in words])) == 0
    mask = np.asarray(Image.open(next((tmp_path / 'masks').rglob('*.png'))))
    overrides = {f'model.backbone.{key}': value for key, value in tiny_runs.TINY_TRUNK.items()}
    model = init_model(str(adapted.config), str(adapted.checkpoint), device='cpu', cfg_options={
        **overrides, 'model.backbone.weights': str(adapted.trunk), 'model.decode_head.channels': 8})
    assert np.array_equal(inference_model(model, str(image)).pred_sem_seg.data[0].numpy(), mask)
