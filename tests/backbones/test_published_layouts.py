"""Every layout that was published loads as it is, and the report says what was known and not used."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from internvl_dense.backbones.checkpoint import CheckpointMismatchError, load_backbone_weights
from internvl_dense.backbones.fitting import compare, expected_shapes, native_view
from internvl_dense.backbones.variants import TRUNK_EXTRAS, VARIANTS
from internvl_dense.backbones.weight_files import TensorInfo, WeightFiles
from internvl_dense.safe_load import InertPlaceholder, load_file, to_plain
from tests.checkpoints import SPEC, assert_holds, build, random_state, weights_info
from tests.published_layouts import (
    CLASSES,
    CONFIG_TEXT,
    SEGMENTOR_LAYOUTS,
    STEP,
    TRUNK_LAYOUTS,
    known_extras,
    write_deeper,
    write_flat,
    write_mmcv,
    write_mmcv_config_objects,
)

PUBLISHED = dataclasses.replace(SPEC, weights=weights_info(known_extras=TRUNK_EXTRAS))
DEEPER = dataclasses.replace(SPEC, weights=weights_info(known_extras=TRUNK_EXTRAS, file_depth=SPEC.depth + 2))
EXTRAS = 'known, not used  norm (5), clip_projector (14), attn_pooling (14), head (2)'


@pytest.fixture
def state():
    return random_state(SPEC)


@pytest.fixture
def segmentor(state):
    """A whole model with this project's names."""
    heads = {f'{head}.conv_seg.{kind}': torch.ones(3) for head in ('decode_head', 'auxiliary_head')
             for kind in ('weight', 'bias')}
    pyramid = {f'neck.up{level}.0.weight': torch.full((2,), float(level)) for level in (1, 2)}
    return {**{f'backbone.{key}': value for key, value in state.items()}, **pyramid, **heads}


# --- trunks ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('layout', TRUNK_LAYOUTS)
def test_trunk_layout_loads_as_it_is(tmp_path, state, layout):
    path = TRUNK_LAYOUTS[layout](tmp_path / 'weights.pth', state)
    module = build(DEEPER if layout == 'deeper' else PUBLISHED)
    report = load_backbone_weights(module, path)
    assert_holds(module, state)
    has_extras = layout in ('flat', 'module', 'deeper')
    assert sorted(report.known_unused) == sorted(known_extras(state) if has_extras else [])
    rows = str(report).splitlines()[1:]
    assert rows[1] == f'  loaded           {len(state)} tensors, {sum(v.numel() for v in state.values()):,} parameters'
    assert rows[2:] == ['  dropped          blocks 3-4'] * (layout == 'deeper') + [f'  {EXTRAS}'] * has_extras


def test_dialects_of_the_trunk_layouts(tmp_path, state):
    found = {name: load_backbone_weights(build(DEEPER if name == 'deeper' else PUBLISHED),
                                         write(tmp_path / name, state)).dialect
             for name, write in TRUNK_LAYOUTS.items()}
    assert found == {**dict.fromkeys(TRUNK_LAYOUTS, 'official'), 'hf': 'hf', 'hf_bin': 'hf',
                     'deepspeed_prefixed': "official (keys behind 'module.')"}


@pytest.mark.parametrize(('change', 'message'), [
    (lambda state: state.update({'sidecar.weight': torch.zeros(1)}), r'sidecar\.weight unexpected'),
    (lambda state: state.update({'clip_projectors.weight': torch.zeros(1)}), r'clip_projectors\.weight unexpected'),
    (lambda state: state.update({'blocks.1.extra': torch.zeros(1)}), 'block 1: extra unexpected'),
    (lambda state: state.pop('blocks.1.norm1.weight'), r'block 1: norm1\.weight missing'),
    (lambda state: state.update({'cls_token': torch.zeros(1, 1, 16)}), r'cls_token: file \(1, 1, 16\) / model'),
], ids=['unknown', 'similar', 'in a block', 'missing', 'shape'])
def test_every_other_difference_is_an_error(tmp_path, state, change, message):
    path = write_flat(tmp_path / 'x.pth', state)
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)
    with pytest.raises(CheckpointMismatchError, match=message):
        load_backbone_weights(build(PUBLISHED), path, candidates=[])


def test_blocks_beyond_the_variant_are_an_error_elsewhere(tmp_path, state):
    path = write_deeper(tmp_path / 'x.pth', state)
    with pytest.raises(CheckpointMismatchError, match='blocks 3-4 unexpected. It has 5 blocks, the variant 3'):
        load_backbone_weights(build(PUBLISHED), path, candidates=[])
    more = write_deeper(tmp_path / 'y.pth', state, extra_blocks=3)
    with pytest.raises(CheckpointMismatchError, match='block 5 unexpected'):
        load_backbone_weights(build(DEEPER), more, candidates=[])


def published_file(tmp_path, depth):
    """What the official file of that depth lists: shapes at full size, no values."""
    shapes = dict(expected_shapes(VARIANTS.get('internvit_6b_448px_v1_2').replace(depth=depth)))
    shapes |= {key: tuple(value.shape) for key, value in known_extras({'cls_token': torch.zeros(1, 1, 2)}).items()}
    infos = {key: TensorInfo(shape, torch.bfloat16) for key, shape in shapes.items()}
    return native_view(WeightFiles(tmp_path / 'x.pth', infos, dict.fromkeys(infos, tmp_path / 'x.pth'), {}))


def test_48_blocks_fit_the_v1_0_variant_alone_among_those_of_45(tmp_path):
    view = published_file(tmp_path, 48)
    reports = {name: compare(view, VARIANTS.get(name), expected_shapes(VARIANTS.get(name)))
               for name in VARIANTS.list('internvit_6b_448px_*')}
    clean = [name for name, report in reports.items() if not report.differences()]
    assert clean == ['internvit_6b_448px_v1_0']
    dropped = reports['internvit_6b_448px_v1_0'].dropped
    assert {key.split('.')[1] for key in dropped} == {'45', '46', '47'} and len(dropped) == 3 * 13
    assert reports['internvit_6b_448px_v1_2'].differences() == ['blocks 45-47 unexpected']


@pytest.mark.parametrize('name', VARIANTS.list('internvit_6b_*'))
def test_every_6b_variant_knows_the_extras_of_its_file(tmp_path, name):
    spec = VARIANTS.get(name)
    report = compare(published_file(tmp_path, spec.weights.file_depth or spec.depth), spec, expected_shapes(spec))
    assert not report.differences()
    assert EXTRAS in str(report)


# --- whole models ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('layout', SEGMENTOR_LAYOUTS)
def test_trunk_of_a_segmentor(tmp_path, state, segmentor, layout):
    path = SEGMENTOR_LAYOUTS[layout](tmp_path / 'iter_80000.pth', segmentor)
    module = build(PUBLISHED)
    report = load_backbone_weights(module, path)
    assert_holds(module, state)
    prefix = 'module.' if layout == 'deepspeed_prefixed' else ''
    assert report.dialect == f"segmentor (keys behind '{prefix}backbone.')"
    assert len(report.known_unused) == 6 and f'{prefix}backbone.up1.0.weight' in report.known_unused


def test_mmcv_checkpoint_is_read_whole(tmp_path, segmentor):
    content = load_file(write_mmcv(tmp_path / 'x.pth', segmentor))
    meta = content['meta']
    assert meta['CLASSES'] == CLASSES and meta['config'] == CONFIG_TEXT and meta['iter'] == STEP
    assert type(meta['best_score']) is np.float64 and meta['hook_msgs']['best_score'] == 0.549
    assert content['state_dict']._metadata['decode_head.conv_seg'] == {'version': 1}
    assert content['optimizer']['param_groups'][0]['betas'] == (0.9, 0.999)
    assert torch.equal(content['state_dict']['backbone.up2.0.weight'], segmentor['neck.up2.0.weight'])


def test_config_objects_come_back_as_data(tmp_path, segmentor):
    meta = load_file(write_mmcv_config_objects(tmp_path / 'x.pth', segmentor))['meta']
    backbone = {'type': 'InternViT6B', 'depth': 48, 'window_attn': [False] * 48}
    expected = {'model': {'type': 'EncoderDecoder', 'backbone': backbone}, 'gpu_ids': [0, 1]}
    assert meta['config'] == expected
    assert isinstance(meta['cfg'], InertPlaceholder) and repr(meta['cfg']) == '<inert mmcv.utils.config.Config>'
    assert to_plain(meta['cfg']) == expected
