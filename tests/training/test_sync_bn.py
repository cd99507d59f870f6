"""Batch norm over all processes: as torch's on one process, as the whole batch on two."""

from __future__ import annotations

import copy
import datetime
import pathlib
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from internvl_dense.errors import UserError
from internvl_dense.training.sync_bn import SyncBatchNorm32

ATOL = 1e-5
CHANNELS = 5
SHAPE = (6, CHANNELS, 3, 4)
WORLD = 2


def pair(**options: Any) -> tuple[SyncBatchNorm32, nn.BatchNorm2d]:
    """Ours and torch's with the same random weights and running statistics."""
    ours, theirs = SyncBatchNorm32(CHANNELS, **options), nn.BatchNorm2d(CHANNELS, **options)
    with torch.no_grad():
        for name, value in ours.state_dict().items():
            if value.is_floating_point():
                value.uniform_(0.5, 1.5) if 'var' in name or 'weight' in name else value.normal_()
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def batch(seed: int = 0) -> torch.Tensor:
    """Values far from mean 0 and variance 1."""
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed)) * 3 + 10


@pytest.mark.parametrize('options', [
    {}, {'momentum': None}, {'momentum': 0.3, 'eps': 1e-2}, {'affine': False}, {'track_running_stats': False},
], ids=str)
def test_equals_batch_norm_on_one_process(options: dict[str, Any]) -> None:
    ours, theirs = pair(**options)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for seed in range(3):
        x, y = batch(seed).requires_grad_(), batch(seed).requires_grad_()
        out, expected = ours(x), theirs(y)
        torch.testing.assert_close(out, expected, atol=ATOL, rtol=0)
        weight = torch.randn(SHAPE)
        (out * weight).sum().backward()
        (expected * weight).sum().backward()
        torch.testing.assert_close(x.grad, y.grad, atol=ATOL, rtol=0)
    for key, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], value, atol=ATOL, rtol=ATOL, msg=key)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, atol=1e-4, rtol=ATOL)
    torch.testing.assert_close(ours.eval()(batch(9)), theirs.eval()(batch(9)), atol=ATOL, rtol=0)


def test_vectors_are_normalised_like_maps() -> None:
    ours, theirs = SyncBatchNorm32(CHANNELS), nn.BatchNorm1d(CHANNELS)
    x = batch().flatten(2)[..., 0]
    torch.testing.assert_close(ours(x), theirs(x), atol=ATOL, rtol=0)
    with pytest.raises(ValueError, match=r'expected \(B, C, ...\), got shape \(5,\)'):
        ours(torch.zeros(CHANNELS))


@pytest.mark.parametrize('training', [True, False])
def test_bf16_input_is_computed_in_fp32_and_keeps_its_dtype(training: bool) -> None:
    ours, theirs = pair()
    ours.train(training)
    theirs.train(training)
    x = batch().bfloat16()
    out = ours(x)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out, theirs(x.float()).bfloat16(), atol=0, rtol=2**-7)
    assert ours.running_mean.dtype == torch.float32
    torch.testing.assert_close(ours.running_mean, theirs.running_mean, atol=ATOL, rtol=0)


def test_autocast_does_not_lower_it() -> None:
    ours, theirs = pair()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        out = ours(batch())
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, theirs(batch()), atol=ATOL, rtol=0)


def test_a_single_value_is_refused_in_training_only() -> None:
    norm = SyncBatchNorm32(CHANNELS)
    before = copy.deepcopy(norm.state_dict())
    with pytest.raises(UserError, match='batch norm got a single value per channel.*Raise the batch size'):
        norm(torch.zeros(1, CHANNELS, 1, 1))
    assert all(torch.equal(value, before[key]) for key, value in norm.state_dict().items())
    assert norm.eval()(torch.zeros(1, CHANNELS, 1, 1)).shape == (1, CHANNELS, 1, 1)


def work(rank: int, folder: str, shares: list[int]) -> None:
    """One process: its share of the batch forward and backward, in train and in eval mode."""
    torch.set_num_threads(1)
    store, limit = f'file://{folder}/store', datetime.timedelta(seconds=60)
    dist.init_process_group('gloo', init_method=store, rank=rank, world_size=WORLD, timeout=limit)
    norm = SyncBatchNorm32(CHANNELS)
    norm.load_state_dict(torch.load(f'{folder}/state.pt', weights_only=True))
    start = sum(shares[:rank])
    x, weight = (part[start:start + shares[rank]] for part in (batch(0), batch(1)))
    x.requires_grad_()
    out = norm(x)
    (out * weight).sum().backward()
    result = {'out': out.detach(), 'input': x.grad, 'weight': norm.weight.grad, 'bias': norm.bias.grad,
              'state': norm.state_dict()}
    if rank == 0:  # alone: no process waits for another in eval mode
        result['eval'] = norm.eval()(x).detach()
        result['untracked'] = SyncBatchNorm32(CHANNELS, track_running_stats=False).eval()(x).detach()
    torch.save(result, f'{folder}/{rank}.pt')
    try:
        norm.train()(x[:1, :, :1, :1] if rank == 0 else x[:0, :, :1, :1])
    except UserError as error:
        pathlib.Path(folder, f'{rank}.txt').write_text(str(error))
    dist.destroy_process_group()


@pytest.mark.parametrize('shares', [[3, 3], [5, 1]], ids=str)
def test_two_processes_equal_the_whole_batch(tmp_path: pathlib.Path, shares: list[int]) -> None:
    ours, theirs = pair()
    torch.save(ours.state_dict(), tmp_path / 'state.pt')
    mp.spawn(work, (str(tmp_path), shares), nprocs=WORLD)
    parts = [torch.load(tmp_path / f'{rank}.pt', weights_only=True) for rank in range(WORLD)]

    x = batch(0).requires_grad_()
    expected = theirs(x)
    (expected * batch(1)).sum().backward()
    torch.testing.assert_close(torch.cat([part['out'] for part in parts]), expected, atol=ATOL, rtol=0)
    torch.testing.assert_close(torch.cat([part['input'] for part in parts]), x.grad, atol=ATOL, rtol=ATOL)
    for name in ('weight', 'bias'):  # each process has its share; DistributedDataParallel adds them up
        total = sum(part[name] for part in parts)
        torch.testing.assert_close(total, getattr(theirs, name).grad, atol=1e-4, rtol=ATOL)
    for part in parts:
        for key, value in theirs.state_dict().items():
            torch.testing.assert_close(part['state'][key], value, atol=ATOL, rtol=ATOL, msg=key)
    torch.testing.assert_close(parts[0]['eval'], theirs.eval()(batch(0)[:shares[0]]), atol=ATOL, rtol=0)
    own = nn.functional.batch_norm(batch(0)[:shares[0]], None, None, training=True)
    torch.testing.assert_close(parts[0]['untracked'], own, atol=ATOL, rtol=0)
    for rank in range(WORLD):
        assert 'single value per channel' in (tmp_path / f'{rank}.txt').read_text()
