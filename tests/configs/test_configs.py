"""Every config: resolves, builds with the shapes of the real model, and keeps the rules of the folder."""

from __future__ import annotations

import itertools
import pathlib
import re
from argparse import Namespace

import pytest
from mmengine.config import Config

from internvl_dense.backbones.variants import VARIANTS
from internvl_dense.openmmlab.configs import configs_root, find_config, load_config, strategies
from internvl_dense.openmmlab.launch import build_model_on_meta
from internvl_dense.openmmlab.summary import count_parameters
from internvl_dense.zoo import ZOO

ROOT = pathlib.Path(__file__).resolve().parents[2] / 'configs'
EVERY_LEAF = sorted(str(path.relative_to(ROOT)) for path in ROOT.rglob('*.py') if '_base_' not in path.parts)
# Detectors have rules of their own, see test_detection_configs.py.
LEAVES = [leaf for leaf in EVERY_LEAF if not leaf.startswith('coco/') and 'mask_rcnn' not in leaf]
OWN_RECIPES = ('mask2former',)  # not among the published ones
BASES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / '_base_').rglob('*.py'))
BENCHMARKS = ('ade20k', 'coco_stuff164k')
CELLS = [leaf for leaf in LEAVES if leaf.startswith(BENCHMARKS) and not any(name in leaf for name in OWN_RECIPES)]
MAX_LEAF_LINES = 15
IMPORT = re.compile(r'^\s*(import|from) ', re.MULTILINE)
MAX_CELL_LINES = 6  # of a leaf that differs from another one in a fact
SIX_B = ('internvit_6b_224px', *(f'internvit_6b_448px_{version}' for version in ('v1_0', 'v1_2', 'v1_5', 'v2_5')))
RECIPES = ('linear_probing', 'head_tuning', 'full_tuning')
# Total and trainable parameters without the auxiliary head, at 504 px with 150 classes, from the published models;
# those of 45 blocks lack three blocks of 122,918,400.
BLOCK = 122_918_400
COUNTS = {'linear_probing': (5_906_608_150, 486_550), 'head_tuning': (6_341_498_518, 435_376_918),
          'full_tuning': (6_341_498_518, 6_341_498_518), 'few_shot': (5_906_608_150, 5_906_608_150),
          'vit_adapter': (6_362_101_102, 456_277_102)}
# Figures of models whose checkpoint was never published, so that they are not in the zoo.
FIGURES = {'vit_adapter_internvit_6b_224px_ade20k': 58.1}
# One output of the layer of the classes: its weights and its bias.
CLASS_WIDTH = {'linear_probing': 3201, 'head_tuning': 1537, 'full_tuning': 1537}
TABLE_15 = 'arXiv 2412.05271, Table 15, not transcribed'
NOT_PUBLISHED = 'not published'
# Each folder of bases owns its top-level keys, so that any combination composes.
OWNED = {
    'models': {'model'},
    'datasets': {'num_classes', 'crop_size', 'slide_stride', 'data_root', 'metainfo', 'train_pipeline', 'test_pipeline',
                 'tta_pipeline', 'train_dataloader', 'val_dataloader', 'test_dataloader', 'val_evaluator',
                 'test_evaluator'},
    'schedules': {'optim_wrapper', 'param_scheduler', 'train_cfg', 'val_cfg', 'test_cfg', 'auto_scale_lr', 'epochs'},
    'strategies': {'strategy'},
}
COMPOSED = ('recipes', 'small_gpu.py')  # a model with its schedule and the runtime: everything but the data


@pytest.fixture(scope='module')
def own_data(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder as a user brings it, without images."""
    folder = tmp_path_factory.mktemp('own')
    (folder / 'classes.txt').write_text('road\nsky\nsign symbol\n')
    return folder


def load(leaf: str, *options: str, data_root: pathlib.Path | None = None) -> Config:
    return load_config(Namespace(config=leaf, cfg_options=list(options), data_root=data_root and str(data_root)))


def code_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip() and not line.startswith('#')]


def recipe_of(leaf: str) -> str:
    return next(name for name in COUNTS if pathlib.Path(leaf).stem.startswith(name))


def published_count(leaf: str) -> tuple[int, int]:
    recipe, config = recipe_of(leaf), load(leaf)
    spec = VARIANTS.get(config.model.backbone.variant)
    trunk = (48 - spec.depth) * BLOCK
    more = (config.num_classes - 150) * CLASS_WIDTH.get(recipe, 0)
    total, trainable = COUNTS[recipe]
    return total - trunk + more, trainable + more - (trunk if recipe in ('full_tuning', 'few_shot') else 0)


@pytest.mark.parametrize('leaf', LEAVES)
def test_config_builds_without_memory(leaf, own_data):
    model = build_model_on_meta(load(leaf, data_root=own_data if leaf.startswith('own_data') else None))
    assert all(p.device.type == 'meta' for p in model.parameters())
    if leaf.startswith('own_data'):
        assert model.decode_head.num_classes == 3


@pytest.mark.parametrize('leaf', [leaf for leaf in CELLS if '300m' not in leaf])
def test_the_6b_cells_have_the_published_counts(leaf):
    assert count_parameters(build_model_on_meta(load(leaf))) == published_count(leaf)


def test_every_published_cell_is_there():
    wanted = {f'{data}/{recipe}_{variant}_{data}.py'
              for data, recipe, variant in itertools.product(BENCHMARKS, RECIPES, SIX_B)}
    wanted |= {f'ade20k/few_shot_1of{n}_internvit_6b_224px_ade20k.py' for n in (16, 8, 4, 2, 1)}
    wanted |= {f'ade20k/{recipe}_internvit_300m_448px_ade20k.py' for recipe in RECIPES}
    wanted |= {f'ade20k/{stem}.py' for stem in FIGURES}
    assert set(CELLS) == wanted
    assert len(CELLS) == 39


@pytest.mark.parametrize('leaf', LEAVES)
def test_leaf_is_short_and_opens_with_result_and_arithmetic(leaf):
    text = (ROOT / leaf).read_text()
    assert len(text.splitlines()) <= MAX_LEAF_LINES
    comment = ' '.join(line for line in text.splitlines() if line.startswith('#'))
    assert 'mIoU' in comment and 'iterations' in comment and 'images' in comment
    assert f'configs/{leaf}' in comment  # the command
    assert not IMPORT.search(text)


def test_no_leaf_is_a_near_copy():
    """A leaf either states a whole recipe for its data, or inherits one and says what differs."""
    for leaf in CELLS:
        lines = code_lines((ROOT / leaf).read_text())
        inherits = '_base_/' not in lines[0]
        if inherits and 'few_shot_1of16' not in leaf:
            assert len(lines) <= MAX_CELL_LINES, leaf
    texts = {leaf: '\n'.join(code_lines((ROOT / leaf).read_text())) for leaf in EVERY_LEAF}
    assert len(set(texts.values())) == len(texts)


@pytest.mark.parametrize('leaf', CELLS)
def test_reference_is_a_figure_or_says_why_there_is_none(leaf):
    """The leaf says it itself: an inherited figure would be that of another model."""
    text, config = (ROOT / leaf).read_text(), load(leaf)
    assert sum(line.startswith('published = ') for line in text.splitlines()) == 1
    stem, first = pathlib.Path(leaf).stem, text.splitlines()[0] + text.splitlines()[1]
    figure = ZOO.get(stem).miou if stem in ZOO else FIGURES.get(stem)
    if figure is not None:
        assert config.published.mIoU == figure
        assert f'mIoU {config.published.mIoU}' in first
        assert config.published.images == 2000 and 'InternVL-MMDetSeg' in config.published.source
        assert stem in FIGURES or ZOO.get(stem).config == leaf.removesuffix('.py')
    else:
        assert config.published == (NOT_PUBLISHED if '300m' in stem else TABLE_15)
        assert ('not published' if '300m' in stem else 'not transcribed') in first


def test_every_published_model_has_its_cell():
    assert {ZOO.get(name).config for name in ZOO.list()} <= {leaf.removesuffix('.py') for leaf in LEAVES}
    assert len(ZOO.list()) == 8


@pytest.mark.parametrize('leaf', LEAVES)
def test_published_figures_rest_on_published_numerics(leaf):
    config = load(leaf)
    states_a_figure = isinstance(config.get('published'), dict)
    assert config.model.get('numerics', 'fast') == ('published' if states_a_figure else 'fast')


@pytest.mark.parametrize('leaf', LEAVES)
def test_stem_names_recipe_variant_and_dataset(leaf):
    config, stem = load(leaf), pathlib.Path(leaf).stem
    assert config.model.backbone.variant in stem
    assert stem.endswith(pathlib.Path(leaf).parts[0])
    probes = config.model.decode_head.type == 'LinearHead' and config.model.backbone.get('frozen', False)
    adapts = config.model.backbone.type == 'InternViTAdapter'
    assert ('linear_probing' in stem) == probes
    assert ('adapter' in stem) == adapts
    own = stem.startswith(OWN_RECIPES)
    assert ('head_tuning' in stem) == (config.model.backbone.get('frozen', False) and not (probes or adapts or own))
    assert config.work_dir == f'work_dirs/{stem}'


def test_the_adapter_is_the_published_one():
    config = load('ade20k/vit_adapter_internvit_6b_224px_ade20k.py')
    model = build_model_on_meta(config)
    backbone, wrapper, options = model.backbone, config.optim_wrapper, model.backbone.options
    assert options.published and options.mode == 'interact'
    assert options.runs == ((0, 11), (12, 23), (24, 35), (36, 47))
    assert (options.cffn_ratio, options.deform_ratio, options.drop_path_rate) == (0.25, 0.25, 0)
    assert (backbone.frozen, backbone.spec.patch_size, backbone.spec.image_size) == (True, 16, 512)
    assert (config.crop_size, config.slide_stride) == ((512, 512), (341, 341))
    assert config.model.get('neck') is None and model.auxiliary_head.in_index == 2
    assert (wrapper.optimizer.lr, wrapper.optimizer.weight_decay) == (4e-5, 0.05)
    assert wrapper.paramwise_cfg.layer_decay_rate == 0.95 and config.train_cfg.max_iters == 80000


@pytest.mark.parametrize('base', BASES)
def test_bases_own_their_keys(base):
    kind = pathlib.Path(base).parts[1]
    keys = set(Config.fromfile(ROOT / base, import_custom_modules=False).keys())
    if kind in OWNED:
        assert keys <= OWNED[kind]
    elif kind in COMPOSED:
        assert not keys & OWNED['datasets']
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
    path = configs_root() / 'demo/upernet_internvit_debug_demo.py'
    assert find_config('demo/upernet_internvit_debug_demo') == find_config('upernet_internvit_debug_demo') == path
    with pytest.raises(ValueError, match="Did you mean 'demo/upernet_internvit_debug_demo.py'"):
        find_config('demo/upernet_intervit_debug_demo.py')
