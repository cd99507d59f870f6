"""Every config: resolves, builds with the shapes of the real model, and keeps the rules of the folder."""

from __future__ import annotations

import pathlib
from argparse import Namespace

import pytest
from mmengine.config import Config

from internvl_dense.openmmlab.configs import configs_root, find_config, load_config, strategies
from internvl_dense.openmmlab.launch import build_model_on_meta
from internvl_dense.openmmlab.summary import count_parameters

ROOT = pathlib.Path(__file__).resolve().parents[2] / 'configs'
LEAVES = sorted(str(path.relative_to(ROOT)) for path in ROOT.rglob('*.py') if '_base_' not in path.parts)
BASES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / '_base_').rglob('*.py'))
MAX_LEAF_LINES = 15
# Total and trainable parameters without the auxiliary head, at 504 px with 150 classes, from the published models.
PUBLISHED_COUNTS = {
    'linear_probing_internvit_6b_224px_ade20k': (5_906_608_150, 486_550),
    'head_tuning_internvit_6b_224px_ade20k': (6_341_498_518, 435_376_918),
    'full_tuning_internvit_6b_224px_ade20k': (6_341_498_518, 6_341_498_518),
    'few_shot_1of16_internvit_6b_224px_ade20k': (5_906_608_150, 5_906_608_150),
}
# Each folder of bases owns its top-level keys, so that any combination composes.
OWNED = {
    'models': {'model'},
    'datasets': {'num_classes', 'crop_size', 'slide_stride', 'data_root', 'metainfo', 'train_pipeline', 'test_pipeline',
                 'tta_pipeline', 'train_dataloader', 'val_dataloader', 'test_dataloader', 'val_evaluator',
                 'test_evaluator'},
    'schedules': {'optim_wrapper', 'param_scheduler', 'train_cfg', 'val_cfg', 'test_cfg'},
    'strategies': {'strategy'},
}


def load(leaf: str, *options: str) -> Config:
    return load_config(Namespace(config=leaf, cfg_options=list(options)))


def code_lines(text: str) -> int:
    return sum(1 for line in text.splitlines() if line.strip() and not line.startswith('#'))


@pytest.mark.parametrize('leaf', LEAVES)
def test_config_builds_without_memory(leaf):
    model = build_model_on_meta(load(leaf))
    assert all(p.device.type == 'meta' for p in model.parameters())
    stem = pathlib.Path(leaf).stem
    if stem in PUBLISHED_COUNTS:
        assert count_parameters(model) == PUBLISHED_COUNTS[stem]


def test_every_published_count_has_its_config():
    assert PUBLISHED_COUNTS.keys() <= {pathlib.Path(leaf).stem for leaf in LEAVES}


def test_the_45_block_trunk_has_its_published_count():
    options = ['model.backbone.variant=internvit_6b_448px_v1_2']
    model = build_model_on_meta(load('ade20k/full_tuning_internvit_6b_224px_ade20k.py', *options))
    assert count_parameters(model) == (5_972_743_318, 5_972_743_318)


@pytest.mark.parametrize('leaf', LEAVES)
def test_leaf_is_short_and_opens_with_result_and_arithmetic(leaf):
    text = (ROOT / leaf).read_text()
    assert code_lines(text) <= MAX_LEAF_LINES
    comment = ' '.join(line for line in text.splitlines() if line.startswith('#'))
    assert 'mIoU' in comment and 'iterations' in comment and 'images' in comment
    assert 'import' not in text.replace('custom_imports', '')


@pytest.mark.parametrize('leaf', LEAVES)
def test_stem_names_recipe_variant_and_dataset(leaf):
    config, stem = load(leaf), pathlib.Path(leaf).stem
    assert config.model.backbone.variant in stem
    assert stem.endswith(pathlib.Path(leaf).parts[0])
    probes = config.model.decode_head.type == 'LinearHead' and config.model.backbone.get('frozen', False)
    assert ('linear_probing' in stem) == probes
    assert config.work_dir == f'work_dirs/{stem}'


@pytest.mark.parametrize('base', BASES)
def test_bases_own_their_keys(base):
    kind = pathlib.Path(base).parts[1]
    keys = set(Config.fromfile(ROOT / base, import_custom_modules=False).keys())
    if kind in OWNED:
        assert keys <= OWNED[kind]
    else:  # the runtime owns whatever no other folder does
        assert not keys & set().union(*OWNED.values())


def test_heads_agree_with_data_sets():
    for leaf in LEAVES:
        config = load(leaf)
        head = config.model.decode_head
        assert head.num_classes == config.num_classes
        if 'metainfo' in config:
            assert len(config.metainfo.classes) == len(config.metainfo.palette) == config.num_classes


def test_strategies_are_overlays():
    assert strategies() == ['ddp', 'single']
    config = load_config(Namespace(config=LEAVES[0], strategy='ddp'))
    assert config.strategy.type == 'DenseDDP'


def test_config_is_found_by_short_name_and_misspelling_is_explained():
    assert find_config('demo/upernet_internvit_debug_demo') == configs_root() / 'demo/upernet_internvit_debug_demo.py'
    with pytest.raises(ValueError, match="Did you mean 'demo/upernet_internvit_debug_demo.py'"):
        find_config('demo/upernet_intervit_debug_demo.py')
