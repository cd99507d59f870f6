"""What the two numerics change in a model, a loss and a run."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from internvl_dense.errors import UserError
from internvl_dense.openmmlab.config_checks import check_run
from internvl_dense.openmmlab.configs import load_config
from internvl_dense.openmmlab.recipe import recipe_changes
from tests.openmmlab.test_segmentors import BACKBONE, FCN, LOSS, PYRAMID, UPER, build, images, samples, scope  # noqa: F401

OPEN_LOSS = {'type': 'CrossEntropyLoss'}
OPEN_LINEAR = {'type': 'LinearHead', 'num_classes': 3, 'loss_decode': OPEN_LOSS}
OPEN_FCN = {key: value for key, value in FCN.items() if key != 'in_index'}


def loss_of(model: Any) -> tuple[float, torch.Tensor, torch.Tensor]:
    """The loss of one batch, its logits and labels."""
    model.eval()
    data, batch = images(), samples(2)
    labels = torch.stack([sample.gt_sem_seg.data[0] for sample in batch])
    logits = F.interpolate(model(data, mode='tensor'), labels.shape[1:], mode='bilinear', align_corners=False)
    return model.loss(data, batch)['decode.loss_ce'].item(), logits, labels


@pytest.mark.parametrize('numerics', ['published', 'fast'])
def test_mean_of_the_loss(numerics: str) -> None:
    """Published: over all pixels. Ours: over labelled ones."""
    found, logits, labels = loss_of(build(numerics=numerics, decode_head=OPEN_LINEAR))
    total = F.cross_entropy(logits, labels, ignore_index=255, reduction='sum')
    count = labels.numel() if numerics == 'published' else (labels != 255).sum()
    assert found == pytest.approx(float(total / count), rel=1e-5)
    assert (labels == 255).any()


def test_a_head_that_names_no_loss_gets_the_mean_too() -> None:
    assert build(decode_head={**FCN, 'loss_decode': OPEN_LOSS}).decode_head.loss_decode.avg_non_ignore is True
    silent = {key: value for key, value in FCN.items() if key != 'loss_decode'}
    for numerics, mean in (('published', False), ('fast', True)):
        assert build(numerics=numerics, decode_head=silent).decode_head.loss_decode.avg_non_ignore is mean


def test_what_a_config_spells_out_wins() -> None:
    model = build(numerics='published', decode_head={**OPEN_LINEAR, 'loss_decode': LOSS})
    assert model.decode_head.loss_decode.avg_non_ignore is True
    several = build(numerics='published', decode_head={**OPEN_LINEAR, 'loss_decode': [
        {**OPEN_LOSS, 'loss_name': 'loss_a'}, {'type': 'DiceLoss', 'loss_name': 'loss_b'}]})
    assert several.decode_head.loss_decode[0].avg_non_ignore is False


@pytest.mark.parametrize(('numerics', 'frozen', 'index'), [
    ('published', True, 1), ('published', False, 2), ('fast', True, 2), ('fast', False, 2)])
def test_map_of_the_auxiliary_head(numerics: str, frozen: bool, index: int) -> None:
    options = {'numerics': numerics, 'neck': PYRAMID, 'decode_head': UPER, 'backbone': {**BACKBONE, 'frozen': frozen}}
    assert build(**options, auxiliary_head=OPEN_FCN).auxiliary_head.in_index == index
    assert build(**options, auxiliary_head=[OPEN_FCN]).auxiliary_head[0].in_index == index
    assert build(**options, auxiliary_head={**OPEN_FCN, 'in_index': 0}).auxiliary_head.in_index == 0


@pytest.mark.parametrize(('numerics', 'dtype'), [('published', torch.float32), ('fast', torch.bfloat16)])
def test_precision_of_heads_under_autocast(numerics: str, dtype: torch.dtype) -> None:
    model, seen = build(numerics=numerics, decode_head=OPEN_LINEAR), []
    model.decode_head.conv_seg.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    model.backbone.blocks[0].register_forward_hook(lambda module, inputs, output: seen.append(None))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        losses = model.loss(images(), samples(2))
    assert seen == [None, dtype]
    assert losses['decode.loss_ce'].dtype == torch.float32


def test_unknown_numerics() -> None:
    with pytest.raises(UserError, match="Did you mean 'published'"):
        build(numerics='publishd')
    with pytest.raises(UserError, match="Did you mean 'fast'"):
        load_config(Namespace(config='demo/upernet_internvit_debug_demo', numerics='fasst'))


def cell(*options: str, **more: Any) -> Any:
    return load_config(Namespace(config='linear_probing_internvit_6b_224px_ade20k', cfg_options=list(options), **more))


def test_another_batch_than_the_published_is_refused() -> None:
    with pytest.raises(UserError) as error:
        check_run(cell('train_dataloader.batch_size=2'), ('train',), check_data=0)
    assert "numerics='published' rests on 16 images" in str(error.value)
    assert 'this run has 2 x 1 = 2' in str(error.value) and '--numerics fast' in str(error.value)
    for config in (cell(), cell('train_dataloader.batch_size=2', numerics='fast')):
        with pytest.raises(UserError) as error:  # weights and data are absent
            check_run(config, ('train',), check_data=0)
        assert 'rests on' not in str(error.value)
    with pytest.raises(UserError) as error:
        check_run(cell('train_dataloader.batch_size=2'), ('test',), check_data=0)
    assert 'rests on' not in str(error.value)


def test_three_processes_cannot_share_sixteen_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('RANK', '0')
    monkeypatch.setenv('WORLD_SIZE', '3')
    with pytest.raises(UserError, match='this run has 2 x 3 = 6'):
        check_run(cell(launcher='pytorch'), ('train',), check_data=0)


def test_changes_of_the_recipe_are_named() -> None:
    assert recipe_changes(cell(weights='x.pth')) == []
    changed = recipe_changes(cell('optim_wrapper.optimizer.lr=1e-3', 'model.test_cfg.stride=[252,252]',
                                  'test_dataloader.num_workers=0', 'model.backbone.depth=40'))
    assert set(changed) == {
        'model.test_cfg.stride.0', 'model.test_cfg.stride.1', 'model.backbone.depth', 'optim_wrapper.optimizer.lr'}
