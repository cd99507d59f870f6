from __future__ import annotations

import dataclasses
import json
import pathlib
import subprocess
import sys
import textwrap

import pytest
import torch
from safetensors.torch import save_file as save_safetensors

from internvl_dense.backbones.checkpoint import CheckpointMismatchError, load_backbone_weights
from internvl_dense.backbones.create import create_backbone
from internvl_dense.backbones.dialects import CHAT, DIALECTS, HF, OFFICIAL, SEGMENTOR, TRANSFORMERS, to_foreign
from internvl_dense.backbones.fitting import expected_shapes
from internvl_dense.backbones.position import resize_patch_kernel, resize_position
from internvl_dense.backbones.variants import VARIANTS
from internvl_dense.backbones.weight_files import WeightFiles
from tests.checkpoints import LAYER_SPEC, SPEC, assert_holds, build, random_state, weights_info, write_shards

CASES = [(dialect, prefix) for dialect in DIALECTS.values() for prefix in dialect.prefixes]
IDS = [f'{dialect.name}:{prefix}' for dialect, prefix in CASES]


@pytest.fixture
def state():
    return random_state(SPEC)


def save(path: pathlib.Path, content: object) -> pathlib.Path:
    torch.save(content, path)
    return path


# --- what can be opened ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize('device', ['meta', 'cpu'])
@pytest.mark.parametrize('spec', [SPEC, LAYER_SPEC], ids=lambda spec: spec.name)
@pytest.mark.parametrize(('dialect', 'prefix'), CASES, ids=IDS)
def test_every_dialect_loads(tmp_path, dialect, prefix, spec, device):
    state = random_state(spec)
    path = save(tmp_path / 'x.pth', to_foreign(state, dialect, prefix))
    module = build(spec, device)
    report = load_backbone_weights(module, path)
    assert_holds(module, state)
    assert sorted(report.loaded) == sorted(state)
    assert report.num_parameters == sum(value.numel() for value in state.values())
    assert not (report.missing or report.unexpected or report.known_unused or report.resized or report.dropped)


@pytest.mark.parametrize('wrap', [
    lambda state: state,
    lambda state: {'module': state, 'epoch': 3},
    lambda state: {'state_dict': state, 'meta': {'CLASSES': ['wall']}, 'optimizer': {'state': {}}},
    lambda state: {'model': state},
    lambda state: {'state_dict': {f'module.{key}': value for key, value in state.items()}},
], ids=['flat', 'module', 'state_dict', 'model', 'ddp'])
def test_wrapped_torch_files(tmp_path, state, wrap):
    module = build(SPEC)
    load_backbone_weights(module, save(tmp_path / 'x.pth', wrap(state)))
    assert_holds(module, state)


def test_old_torch_format(tmp_path, state):
    torch.save(state, tmp_path / 'x.pth', _use_new_zipfile_serialization=False)
    module = build(SPEC)
    load_backbone_weights(module, tmp_path / 'x.pth')
    assert_holds(module, state)


@pytest.mark.parametrize('name', ['x.safetensors', 'renamed.pth'])
def test_safetensors_is_told_by_content(tmp_path, state, name):
    save_safetensors(to_foreign(state, HF), tmp_path / name)
    module = build(SPEC)
    load_backbone_weights(module, tmp_path / name)
    assert_holds(module, state)


@pytest.mark.parametrize('dialect', [HF, TRANSFORMERS], ids=lambda dialect: dialect.name)
@pytest.mark.parametrize('kind', ['safetensors', 'bin'])
def test_shards(tmp_path, state, dialect, kind):
    # Every third key, so that q, k and v of a block come from three files.
    folder = write_shards(tmp_path / 'hf', to_foreign(state, dialect), 3, kind)
    module = build(SPEC)
    report = load_backbone_weights(module, folder)
    assert_holds(module, state)
    assert report.dialect == dialect.name


@pytest.mark.parametrize('name', ['model.safetensors', 'pytorch_model.bin', 'anything.pth'])
def test_folder_with_one_file(tmp_path, state, name):
    if name.endswith('safetensors'):
        save_safetensors(state, tmp_path / name)
    else:
        save(tmp_path / name, state)
    module = build(SPEC)
    load_backbone_weights(module, str(tmp_path))
    assert_holds(module, state)


def test_vision_part_of_a_whole_chat_model(tmp_path, state):
    others = {f'{part}.weight': torch.zeros(2) for part in ('language_model.model.norm', 'mlp1.0', 'qllama.lm_head')}
    folder = write_shards(tmp_path / 'chat', {**others, **to_foreign(state, CHAT, 'vision_model.')}, 2, 'safetensors')
    module = build(SPEC)
    report = load_backbone_weights(module, folder)
    assert_holds(module, state)
    assert sorted(report.known_unused) == sorted(others)


def test_backbone_of_a_whole_detector_has_no_class_token(tmp_path, state):
    del state['cls_token']
    content = {**to_foreign(state, SEGMENTOR, 'backbone.'), 'backbone.up1.0.weight': torch.zeros(2),
               'roi_head.fc.bias': torch.zeros(2)}
    path = save(tmp_path / 'x.pth', {'state_dict': content})
    module = build(SPEC, 'cpu')
    with pytest.raises(CheckpointMismatchError, match='cls_token missing'):
        load_backbone_weights(module, path)
    module.cls_token.data.fill_(torch.nan)  # as memory that was only reserved may be
    report = load_backbone_weights(module, path, allow_missing=('cls_token',))
    assert report.missing == ('cls_token',)
    assert report.known_unused == ('backbone.up1.0.weight', 'roi_head.fc.bias')
    assert module.cls_token.isfinite().all() and module.cls_token.std() > 0
    assert_holds(module, {**state, 'cls_token': module.cls_token})


@pytest.mark.parametrize('device', ['meta', 'cpu'])
def test_allowed_missing_keys_are_initialised_and_their_layer_is_not(tmp_path, device):
    state = random_state(LAYER_SPEC)
    kept = {key: value for key, value in state.items() if not key.endswith('qkv.bias')}
    module = build(LAYER_SPEC, device)
    if device == 'cpu':
        for block in module.blocks:
            block.attn.qkv.bias.data.fill_(torch.nan)
    load_backbone_weights(module, save(tmp_path / 'x.pth', kept), allow_missing=('blocks.*.attn.qkv.bias',))
    zeros = {key: torch.zeros_like(value) for key, value in state.items() if key.endswith('qkv.bias')}
    assert_holds(module, {**state, **zeros})


# --- values ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('device', ['meta', 'cpu'])
@pytest.mark.parametrize(('stored', 'wanted'), [
    (torch.bfloat16, torch.float32), (torch.float16, torch.float32), (torch.float32, torch.bfloat16),
])
def test_module_keeps_its_dtype(tmp_path, state, stored, wanted, device):
    stored_state = {key: value.to(stored) for key, value in state.items()}
    module = build(SPEC, device, wanted)
    load_backbone_weights(module, save(tmp_path / 'x.pth', stored_state))
    assert {value.dtype for value in module.state_dict().values()} == {wanted}
    assert_holds(module, stored_state)


@pytest.mark.parametrize('device', ['meta', 'cpu'])
def test_parameters_stay_trainable_or_frozen(tmp_path, state, device):
    module = build(SPEC, device, out_indices=(1,))
    wanted = {key: value.requires_grad for key, value in module.named_parameters()}
    assert set(wanted.values()) == {True, False}
    load_backbone_weights(module, save(tmp_path / 'x.pth', state))
    assert {key: value.requires_grad for key, value in module.named_parameters()} == wanted
    assert all(value.is_leaf for value in module.parameters())


def test_weights_outlive_their_file(tmp_path, state):
    path = save(tmp_path / 'x.pth', state)
    module = build(SPEC)
    load_backbone_weights(module, path)
    path.write_bytes(bytes(path.stat().st_size))  # in place: a mapped tensor would turn to zeros
    assert_holds(module, state)


def test_position_and_kernel_are_resampled_and_reported(tmp_path, state):
    path = save(tmp_path / 'x.pth', state)
    module = build(SPEC.replace(patch_size=16, image_size=112))
    report = load_backbone_weights(module, path)
    assert report.resized == {
        'pos_embed': ((1, 17, 32), (1, 50, 32)), 'patch_embed.proj.weight': ((32, 3, 14, 14), (32, 3, 16, 16)),
    }
    resized = {
        'pos_embed': resize_position(state['pos_embed'], 1, (7, 7)),
        'patch_embed.proj.weight': resize_patch_kernel(state['patch_embed.proj.weight'], 16),
    }
    assert_holds(module, {**state, **resized})


def test_same_grid_with_another_patch_is_not_resampled(tmp_path, state):
    report = load_backbone_weights(build(SPEC.replace(image_size=63)), save(tmp_path / 'x.pth', state))
    assert report.resized == {}


def test_grid_that_is_not_square(tmp_path, state):
    state['pos_embed'] = torch.zeros(1, 1 + 4 * 6, 32)
    with pytest.raises(CheckpointMismatchError, match=r"'tiny': pos_embed: 24 positions after 1 .* no square"):
        load_backbone_weights(build(SPEC), save(tmp_path / 'x.pth', state))


# --- a trunk without class token, as detectors have it --------------------------------------------------------------

HEADLESS = SPEC.replace(name='headless', cls_token=False)
SLOT = 'class slot of pos_embed'


@pytest.mark.parametrize('device', ['meta', 'cpu'])
@pytest.mark.parametrize('dialect', [OFFICIAL, HF], ids=lambda dialect: dialect.name)
def test_a_file_with_class_token_loses_it_and_says_so(tmp_path, state, dialect, device):
    module = build(HEADLESS, device)
    report = load_backbone_weights(module, save(tmp_path / 'x.pth', to_foreign(state, dialect)))
    assert report.dropped_class == ('cls_token', SLOT)
    assert not (report.dropped or report.unexpected or report.known_unused or report.missing)
    assert '  dropped          cls_token, class slot of pos_embed' in str(report).splitlines()
    del state['cls_token']
    assert_holds(module, {**state, 'pos_embed': state['pos_embed'][:, 1:]})


def test_a_detector_keeps_an_unused_slot_that_is_dropped(tmp_path, state):
    del state['cls_token']
    module = build(HEADLESS)
    content = {**to_foreign(state, SEGMENTOR, 'backbone.'), 'backbone.up1.0.weight': torch.zeros(2)}
    report = load_backbone_weights(module, save(tmp_path / 'x.pth', {'state_dict': content}))
    assert report.dropped_class == (SLOT,)
    assert_holds(module, {**state, 'pos_embed': state['pos_embed'][:, 1:]})


def test_a_trunk_without_class_token_reads_its_own_file_bit_for_bit(tmp_path):
    own = random_state(HEADLESS)
    module = build(HEADLESS)
    report = load_backbone_weights(module, save(tmp_path / 'x.pth', own))
    assert (report.dropped_class, report.resized) == ((), {})
    assert_holds(module, own)


@pytest.mark.parametrize('with_slot', [True, False])
def test_positions_without_class_slot_are_resampled(tmp_path, state, with_slot):
    grid = state['pos_embed'][:, 1:]
    state['pos_embed'] = state['pos_embed'] if with_slot else grid
    del state['cls_token']
    module = build(HEADLESS.replace(image_size=98))
    report = load_backbone_weights(module, save(tmp_path / 'x.pth', state))
    assert report.dropped_class == ((SLOT,) if with_slot else ())
    assert report.resized == {'pos_embed': (tuple(state['pos_embed'].shape), (1, 49, 32))}
    assert_holds(module, {**state, 'pos_embed': resize_position(grid, 0, (7, 7))})


@pytest.mark.parametrize(('count', 'with_class', 'message'), [
    (18, False, '18 positions after 0 class slot'),
    (18, True, '17 positions after 1 class slot'),
    (16, True, '15 positions after 1 class slot'),  # as many as the trunk has, but one of them is the class token's
])
def test_other_counts_of_positions_are_refused(tmp_path, state, count, with_class, message):
    state['pos_embed'] = torch.zeros(1, count, 32)
    if not with_class:
        del state['cls_token']
    with pytest.raises(CheckpointMismatchError, match=message):
        load_backbone_weights(build(HEADLESS), save(tmp_path / 'x.pth', state))


def test_a_class_token_outside_the_trunk_is_still_unexpected(tmp_path, state):
    content = {f'backbone.{key}': value for key, value in state.items()}
    path = save(tmp_path / 'x.pth', {**content, 'cls_token': torch.zeros(1)})
    with pytest.raises(CheckpointMismatchError, match='cls_token unexpected'):
        load_backbone_weights(build(HEADLESS), path)


# --- what does not fit ----------------------------------------------------------------------------------------------

def test_extras_that_the_variant_knows(tmp_path, state):
    spec = dataclasses.replace(SPEC, weights=weights_info(known_extras=('sidecar.*',)))
    path = save(tmp_path / 'x.pth', {**state, 'sidecar.a': torch.zeros(1), 'clip_projector.b': torch.zeros(1)})
    report = load_backbone_weights(build(spec), path)
    assert report.known_unused == ('sidecar.a', 'clip_projector.b')
    with pytest.raises(CheckpointMismatchError, match=r"'tiny': sidecar.a unexpected\."):
        load_backbone_weights(build(SPEC), path, candidates=[])


def test_blocks_that_the_variant_drops(tmp_path):
    deep = SPEC.replace(name='deep', depth=5)
    path = save(tmp_path / 'x.pth', random_state(deep))
    spec = dataclasses.replace(SPEC, weights=weights_info(file_depth=5))
    module = build(spec)
    report = load_backbone_weights(module, path)
    assert {key.split('.')[1] for key in report.dropped} == {'3', '4'}
    assert 'dropped          blocks 3-4' in str(report)
    assert_holds(module, {key: value for key, value in random_state(deep).items() if key in module.state_dict()})


def test_blocks_are_dropped_from_the_file_of_the_variant_only(tmp_path):
    own = dataclasses.replace(SPEC, weights=weights_info(file_depth=5))
    other = SPEC.replace(name='other', depth=5, image_size=SPEC.image_size - SPEC.patch_size)
    foreign = save(tmp_path / 'foreign.pth', random_state(other))
    with pytest.raises(CheckpointMismatchError, match="dropped only from the file of this variant.*'other' fits"):
        load_backbone_weights(build(own), foreign, candidates=[own, other])
    published = save(tmp_path / 'own.pth', random_state(SPEC.replace(name='file', depth=5)))
    assert load_backbone_weights(build(own), published, candidates=[own, other]).dropped


def test_surplus_blocks_name_the_variant_that_fits(tmp_path):
    deep = SPEC.replace(name='deep', depth=5)
    path = save(tmp_path / 'x.pth', random_state(deep))
    with pytest.raises(CheckpointMismatchError) as error:
        load_backbone_weights(build(SPEC), path, candidates=[SPEC, deep, LAYER_SPEC])
    assert str(error.value) == (
        "x.pth does not fit 'tiny': blocks 3-4 unexpected. It has 5 blocks, the variant 3; 'deep' fits."
    )


def test_variants_of_the_default_are_those_registered(tmp_path):
    path = save(tmp_path / 'x.pth', random_state(VARIANTS.get('internvit_debug')))
    with pytest.raises(CheckpointMismatchError, match="It has 4 blocks, the variant 3; 'internvit_debug' without over"):
        create_backbone('internvit_debug', depth=3, weights=path)


def test_all_problems_at_once(tmp_path, state):
    for block in (0, 1, 2):
        state[f'blocks.{block}.mlp.fc1.bias'] = torch.zeros(7)
    del state['blocks.0.norm1.weight'], state['blocks.1.norm1.weight'], state['patch_embed.proj.bias']
    state['mystery'] = torch.zeros(1)
    with pytest.raises(CheckpointMismatchError) as error:
        load_backbone_weights(build(SPEC), save(tmp_path / 'x.pth', state), candidates=[])
    assert str(error.value).splitlines() == [
        "x.pth does not fit 'tiny': 4 problems",
        '  - mystery unexpected',
        '  - blocks 0-1: norm1.weight missing',
        '  - patch_embed.proj.bias missing',
        '  - blocks.{0-2}.mlp.fc1.bias: file (7,) / model (128,)',
        'No other registered variant fits.',
    ]


def test_another_model(tmp_path):
    path = save(tmp_path / 'x.pth', {'conv1.weight': torch.zeros(1), 'fc.bias': torch.zeros(1)})
    with pytest.raises(CheckpointMismatchError, match='no key of the file belongs to InternViT; first keys: conv1.wei'):
        load_backbone_weights(build(SPEC), path, allow_missing=('*',))


@pytest.mark.parametrize('device', ['meta', 'cpu'])
def test_a_mismatch_reads_no_value_and_changes_nothing(tmp_path, state, device, monkeypatch):
    monkeypatch.setattr(WeightFiles, 'read', lambda *_: pytest.fail('values were read'))
    module = build(SPEC, device)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    path = save(tmp_path / 'x.pth', {**state, 'mystery': torch.zeros(1)})
    with pytest.raises(CheckpointMismatchError):
        load_backbone_weights(module, path)
    after = module.state_dict()
    assert all(after[key].device.type == device for key in before)
    assert device == 'meta' or all(torch.equal(after[key], value) for key, value in before.items())


def test_part_of_a_fused_tensor_is_missing(tmp_path, state):
    foreign = to_foreign(state, TRANSFORMERS)
    del foreign['encoder.layer.1.attention.k_proj.weight']
    with pytest.raises(CheckpointMismatchError, match=r'blocks\.1\.attn\.qkv\.weight needs 3 tensor'):
        load_backbone_weights(build(SPEC), save(tmp_path / 'x.pth', foreign))


def test_quantised_weights(tmp_path, state):
    state['blocks.0.attn.qkv.weight'] = state['blocks.0.attn.qkv.weight'].to(torch.int8)
    with pytest.raises(CheckpointMismatchError, match=r'dtype torch\.int8 are quantised'):
        load_backbone_weights(build(SPEC), save(tmp_path / 'x.pth', state))


@pytest.mark.parametrize('nested', [False, True])
def test_config_beside_the_weights_contradicts(tmp_path, state, nested):
    config = {'num_attention_heads': 8, 'layer_norm_eps': 1e-6, 'hidden_act': 'gelu'}
    (tmp_path / 'config.json').write_text(json.dumps({'vision_config': config} if nested else config))
    save_safetensors(state, tmp_path / 'model.safetensors')
    with pytest.raises(CheckpointMismatchError, match='config.json says num_attention_heads 8, the variant has 4'):
        load_backbone_weights(build(SPEC), tmp_path)


# --- report, checksum, memory ---------------------------------------------------------------------------------------

def test_report_reads_as_a_table(tmp_path, state):
    state['clip_projector.a'] = state['clip_projector.b'] = torch.zeros(1)
    del state['cls_token']
    report = load_backbone_weights(
        build(SPEC.replace(image_size=98)), save(tmp_path / 'x.pth', {f'module.{k}': v for k, v in state.items()}),
        allow_missing=('cls_*',),
    )
    assert str(report).splitlines() == [
        f'tiny from {tmp_path / "x.pth"}',
        "  dialect          official (keys behind 'module.')",
        '  loaded           42 tensors, 58,464 parameters',
        '  resized          pos_embed 1x17x32 -> 1x50x32',
        '  known, not used  module.clip_projector (2)',
        '  missing          cls_token (allowed, initialised)',
    ]


# VmHWM and not ru_maxrss: a child inherits the latter from the process that started it.
MEASURE = textwrap.dedent("""
    import pathlib, re, sys, torch
    from internvl_dense.backbones.checkpoint import load_backbone_weights
    from internvl_dense.backbones.internvit import InternViT
    from internvl_dense.backbones.spec import BackboneSpec
    peak = lambda: int(re.search(r'VmHWM:\\s+(\\d+)', pathlib.Path('/proc/self/status').read_text())[1]) * 1024
    spec = BackboneSpec(name='large', embed_dim=768, depth=8, num_heads=8, image_size=224)
    with torch.device('meta'):
        module = InternViT(spec, attention='eager')
    if sys.argv[2] == 'reserved':
        module.to_empty(device='cpu')
    before = peak()
    report = load_backbone_weights(module, sys.argv[1])
    print((peak() - before) / (4 * report.num_parameters), report.num_parameters)
""")


@pytest.fixture(scope='module')
def large(tmp_path_factory):
    """230 MB of weights as a torch file, as one safetensors file and as shards."""
    folder = tmp_path_factory.mktemp('large')
    spec = SPEC.replace(name='large', embed_dim=768, depth=8, num_heads=8, image_size=224)
    state = {key: torch.zeros(shape) for key, shape in expected_shapes(spec).items()}
    torch.save(state, folder / 'x.pth')
    save_safetensors(state, folder / 'x.safetensors')
    write_shards(folder / 'shards', to_foreign(state, HF), 3, 'bin')
    return folder


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='reads /proc')
@pytest.mark.parametrize(('name', 'module'), [
    ('x.pth', 'meta'), ('x.safetensors', 'meta'), ('shards', 'meta'), ('x.pth', 'reserved'),
])
def test_loading_needs_one_copy_of_the_weights(large, repo_root, name, module):
    result = subprocess.run(
        [sys.executable, '-c', MEASURE, str(large / name), module], cwd=repo_root, text=True, capture_output=True
    )
    assert result.returncode == 0, result.stderr
    copies, parameters = map(float, result.stdout.split())
    assert parameters > 50e6
    assert 0.9 < copies < 1.25
