"""The message hub as plain data and back."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub

from internvl_dense.openmmlab.plain_state import hub_from_plain, hub_to_plain
from internvl_dense.safe_load import load_file
from internvl_dense.safe_save import save_file, to_plain

VALUES = [0.1, 2.5, float('nan'), 3e-9]


@pytest.fixture
def hub() -> MessageHub:
    hub = MessageHub('plain_state')
    for value in VALUES:
        hub.update_scalar('train/loss', value, count=2)
    hub.update_scalar('train/lr', np.float64(1e-4))
    hub.update_scalar('val/mIoU', torch.tensor(0.5), resumed=False)
    hub.update_info('iter', 7)
    hub.update_info('loop_stage', 'train')
    return hub


def is_plain(value: object) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and is_plain(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(is_plain, value))
    return type(value) in (int, float, str, bool, type(None))


def test_histories_become_lists_of_numbers(hub: MessageHub) -> None:
    plain = hub_to_plain(hub.state_dict())
    assert is_plain(plain)
    history = plain['log_scalars']['train/loss']
    assert history['values'] == pytest.approx(VALUES, nan_ok=True)
    assert history['counts'] == [2] * 4
    assert plain['runtime_info'] == {'iter': 7, 'loop_stage': 'train'}
    assert 'val/mIoU' not in plain['log_scalars']  # the hub itself leaves out what is not to be resumed


def test_back_and_forth(hub: MessageHub) -> None:
    state = hub.state_dict()
    again = hub_from_plain(hub_to_plain(state))
    assert again.keys() == state.keys()
    for key, buffer in state['log_scalars'].items():
        restored = again['log_scalars'][key]
        assert isinstance(restored, HistoryBuffer)
        np.testing.assert_array_equal(restored.data[0], np.asarray(buffer.data[0], dtype=np.float64))
        np.testing.assert_array_equal(restored.data[1], buffer.data[1])
        assert restored.max_length == buffer.max_length


def test_a_hub_continues_after_a_round_through_a_file(hub: MessageHub, tmp_path: pathlib.Path) -> None:
    save_file(to_plain(hub_to_plain(hub.state_dict())), str(tmp_path / 'hub.pth'))
    other = MessageHub('other')
    other.load_state_dict(hub_from_plain(load_file(tmp_path / 'hub.pth')))
    other.update_scalar('train/loss', 4.0)
    assert other.get_scalar('train/loss').data[0].tolist() == pytest.approx([*VALUES, 4.0], nan_ok=True)
    assert other.get_info('iter') == 7


def test_objects_of_older_checkpoints_stay(hub: MessageHub) -> None:
    state = hub.state_dict()
    assert hub_from_plain(state)['log_scalars'] == state['log_scalars']


def test_the_state_itself_is_not_changed(hub: MessageHub) -> None:
    state = hub.state_dict()
    hub_to_plain(state)
    assert isinstance(state['log_scalars']['train/loss'], HistoryBuffer)
