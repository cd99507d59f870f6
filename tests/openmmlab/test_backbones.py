"""The backbone as configs name it: registries, weights, precision."""

from __future__ import annotations

import copy
import pathlib
import subprocess
import sys
from typing import Any

import pytest
import torch
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import load_checkpoint
from torch import nn

import internvl_dense.openmmlab  # noqa: F401  registers the backbone
from internvl_dense.backbones.create import create_backbone
from internvl_dense.backbones.internvit import InternViT
from internvl_dense.errors import UserError

CONFIG = {'type': 'InternViT', 'variant': 'internvit_debug', 'weights': 'random', 'embed_dim': 8, 'num_heads': 2,
          'image_size': 28}
IMAGE = torch.zeros(1, 3, 28, 28)


def build(**options: Any) -> Any:
    return MODELS.build({**CONFIG, **options})


def reference(**options: Any) -> InternViT:
    return create_backbone('internvit_debug', embed_dim=8, num_heads=2, image_size=28, **options)


@pytest.fixture
def weights(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / 'weights.pth'
    torch.save(reference().state_dict(), path)
    return path


def holds(model: nn.Module, path: pathlib.Path) -> bool:
    saved = torch.load(path, weights_only=True)
    return all(torch.equal(value, saved[key]) for key, value in model.state_dict().items())


def test_found_by_both_names_in_a_fresh_interpreter_without_and_with_a_scope() -> None:
    code = (
        'import internvl_dense.openmmlab\n'
        'from mmengine.registry import MODELS, init_default_scope\n'
        "for scope in (None, 'mmengine', 'mmseg', 'mmdet'):\n"
        '    if scope: init_default_scope(scope)\n'
        "    for name in ('InternViT', 'InternViT6B'):\n"
        f'        backbone = MODELS.build({{**{CONFIG!r}, "type": name}})\n'
        "        assert type(backbone).__name__ == 'InternViTBackbone', (scope, name)\n"
    )
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr


def test_found_through_the_registries_of_mmseg_and_mmdet() -> None:
    from mmdet.registry import MODELS as MMDET_MODELS
    from mmseg.registry import MODELS as MMSEG_MODELS

    for registry in (MODELS, MMSEG_MODELS, MMDET_MODELS):
        for scope in ('mmseg', 'mmdet'):
            init_default_scope(scope)
            assert isinstance(registry.build(dict(CONFIG)), InternViT)
    init_default_scope('mmseg')


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'variant': 'internvit_debgu'}, "Did you mean 'internvit_debug'?"),
        ({'qk_nrom': False}, "Did you mean 'qk_norm'?"),
        ({'dtype': 'fp16'}, "Unknown dtype 'fp16'"),
        ({'window_size': [4, 4]}, 'window_size lists 2 blocks, internvit_debug has 4'),
        ({'init_cfg': {'type': 'Constant', 'val': 0}}, "init_cfg=dict(type='Pretrained', checkpoint=PATH)"),
        ({'init_cfg': {'type': 'Pretrained', 'checkpoint': 'a'}, 'weights': 'b'}, 'only one of them'),
        ({'init_cfg': {'type': 'Pretrained', 'checkpoint': 'a'}, 'weights': 'random'}, 'only one of them'),
    ],
)
def test_mistakes_in_a_config_are_explained(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        build(**options)
    assert message in str(error.value)


def test_memory_that_was_never_filled_is_not_a_model() -> None:
    model = build()
    with pytest.raises(UserError, match=r'internvit_debug has no weights yet: call init_weights\(\)'):
        model(IMAGE)
    model.init_weights()
    assert all(one.isfinite().all() for one in model(IMAGE))


def test_shapes_can_be_asked_without_memory_and_without_weights() -> None:
    with torch.device('meta'):
        model = build()
    assert {p.device.type for p in model.parameters()} == {'meta'}
    assert [tuple(one.shape) for one in model(IMAGE.to('meta'))] == [(1, 8, 2, 2)] * 4


@pytest.mark.parametrize('by_init_cfg', [False, True])
def test_weights_are_read_by_init_weights_only(weights: pathlib.Path, by_init_cfg: bool) -> None:
    pretrained = {'type': 'Pretrained', 'checkpoint': str(weights)}
    model = build(init_cfg=pretrained, weights=None) if by_init_cfg else build(weights=str(weights))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert not holds(model, weights)
    assert not model.is_init
    model.init_weights()
    assert model.is_init
    assert holds(model, weights)


def test_a_wrong_path_is_noticed_when_weights_are_read(tmp_path: pathlib.Path) -> None:
    model = build(weights=str(tmp_path / 'absent.pth'))
    with pytest.raises(UserError, match='absent.pth does not exist'):
        model.init_weights()
    with pytest.raises(UserError, match='no weights yet'):
        model(IMAGE)


def test_keys_that_weights_may_lack(tmp_path: pathlib.Path) -> None:
    state = {key: value for key, value in reference().state_dict().items() if not key.startswith('blocks.3.')}
    torch.save(state, tmp_path / 'part.pth')
    with pytest.raises(UserError, match='block 3 missing'):
        build(weights=str(tmp_path / 'part.pth')).init_weights()
    model = build(weights=str(tmp_path / 'part.pth'), allow_missing=['blocks.3.*'])
    model.init_weights()
    assert all(p.isfinite().all() for p in model.parameters())


class Whole(nn.Module):
    """A model that holds the backbone behind a part with similar key names."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.head = nn.ModuleDict({'norm': nn.BatchNorm2d(8)})
        self.backbone = build(final_norm=True, **options)


def whole_state() -> dict[str, torch.Tensor]:
    return {f'backbone.{key}': value for key, value in reference(final_norm=True).state_dict().items()}


@pytest.mark.parametrize('loader', ['torch', 'mmengine'])
def test_a_checkpoint_of_the_whole_model_fills_it(loader: str, tmp_path: pathlib.Path) -> None:
    model, state = Whole(), whole_state()
    if loader == 'torch':
        model.load_state_dict(state, strict=False)
    else:
        torch.save({'state_dict': state, 'meta': {}}, tmp_path / 'whole.pth')
        load_checkpoint(model, str(tmp_path / 'whole.pth'), map_location='cpu')
    expected = reference(final_norm=True)
    expected.load_state_dict({key.removeprefix('backbone.'): value for key, value in state.items()})
    image = torch.randn(1, 3, 28, 42)
    for ours, theirs in zip(model.backbone.eval()(image), expected.eval()(image), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def test_a_checkpoint_that_lacks_one_key_does_not_fill_it() -> None:
    model, state = Whole(), whole_state()
    del state['backbone.blocks.2.ls1.gamma']
    model.load_state_dict(state, strict=False)
    with pytest.raises(UserError, match='no weights yet'):
        model.backbone(IMAGE)
    with pytest.raises(UserError, match='no weights yet'):  # parts do not add up unnoticed
        model.load_state_dict({'head.norm.weight': torch.ones(8)}, strict=False)
        model.backbone(IMAGE)


def test_a_copy_is_independent_and_fills_itself() -> None:
    model = build()
    clone = copy.deepcopy(model)
    clone.load_state_dict(reference().state_dict())
    clone(IMAGE)
    with pytest.raises(UserError, match='no weights yet'):
        model(IMAGE)
    model.init_weights()
    again = copy.deepcopy(model)
    for ours, theirs in zip(again(IMAGE), model(IMAGE), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize('return_cls', [False, True])
def test_a_bf16_trunk_gives_fp32_maps(return_cls: bool) -> None:
    model = build(dtype='bf16', return_cls=return_cls)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    model.init_weights()
    for output in model(IMAGE):
        parts = output if return_cls else (output,)
        assert len(parts) == 1 + return_cls
        assert all(part.dtype == torch.float32 for part in parts)


def test_options_reach_the_backbone() -> None:
    model = build(frozen=True, out_indices='probe', checkpointing='full', drop_path_rate=0.3, attention='eager',
                  patch_size=7, window_size=3, global_blocks=[1], window_padding='zeros')
    assert (model.frozen, model.out_indices, model.checkpointing) == (True, (3,), 'full')
    assert (model.spec.patch_size, model.spec.image_size) == (7, 28)
    assert model.windows == (3, None, 3, 3)
    assert [block.attn.padding for block in model.blocks] == ['zeros'] * 4
    assert model.blocks[-1].drop_path.rate == pytest.approx(0.3)
    assert not any(p.requires_grad for p in model.parameters())
