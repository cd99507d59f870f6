from __future__ import annotations

import json
import pathlib

import pytest
import torch
from safetensors.torch import save_file as save_safetensors

from internvl_dense.backbones.weight_files import MIN_STEP_BYTES, open_weights, shard_paths
from internvl_dense.errors import UserError
from internvl_dense.safe_load import CheckpointNotFoundError, CorruptCheckpointError
from tests.checkpoints import SPEC, random_state, write_shards
from tests.published_layouts import STEP, deepspeed_states, write_deepspeed_folder


@pytest.fixture
def state():
    return random_state(SPEC)


def save(path: pathlib.Path, content: object) -> pathlib.Path:
    torch.save(content, path)
    return path


def test_files_that_cannot_be_opened(tmp_path, state):
    with pytest.raises(CheckpointNotFoundError, match='absent.pth does not exist'):
        open_weights(tmp_path / 'absent.pth')
    with pytest.raises(UserError, match='is no folder of weights'):
        open_weights(tmp_path)
    with pytest.raises(UserError, match='holds no tensors; top-level keys: epoch'):
        open_weights(save(tmp_path / 'x.pth', {'epoch': 1}))
    with pytest.raises(UserError, match='holds list; expected a state dict'):
        open_weights(save(tmp_path / 'x.pth', [torch.zeros(1)]))
    save_safetensors(state, tmp_path / 'x.safetensors')
    whole = (tmp_path / 'x.safetensors').read_bytes()
    (tmp_path / 'x.safetensors').write_bytes(whole[:-100])
    with pytest.raises(CorruptCheckpointError, match=r'x\.safetensors'):
        open_weights(tmp_path / 'x.safetensors')


def test_shards_that_are_missing_or_outside(tmp_path, state):
    folder = write_shards(tmp_path / 'hf', state, 3, 'safetensors')
    first = sorted(folder.glob('*.safetensors'))[0]
    first.rename(tmp_path / first.name)
    with pytest.raises(UserError, match='model-00001-of-00003.safetensors is missing'):
        open_weights(folder)
    index = folder / 'model.safetensors.index.json'
    index.write_text(index.read_text().replace(first.name, f'../{first.name}'))
    with pytest.raises(UserError, match='is not a plain file name'):
        open_weights(folder)
    index.write_text('{"weight_map": ')
    with pytest.raises(CorruptCheckpointError, match='not readable JSON'):
        open_weights(folder)


def test_index_and_shards_disagree(tmp_path, state):
    folder = write_shards(tmp_path / 'hf', state, 2, 'safetensors')
    index = folder / 'model.safetensors.index.json'
    content = json.loads(index.read_text())
    content['weight_map']['ghost'] = next(iter(content['weight_map'].values()))
    index.write_text(json.dumps(content))
    with pytest.raises(UserError, match='ghost is in the index but not in model-0000'):
        open_weights(folder)


def test_reading_in_steps_yields_each_key_once(tmp_path):
    """Tensors larger and smaller than one step, so that the file is reopened on the way."""
    state = {'small': torch.ones(3), 'large': torch.arange(MIN_STEP_BYTES // 4 + 5).float(), 'last': torch.zeros(2, 2)}
    files = open_weights(save(tmp_path / 'x.pth', state))
    seen = []
    for key, tensor in files.read(['small', 'large', 'last']):
        assert torch.equal(tensor, state[key])
        seen.append(key)
    assert seen == ['small', 'large', 'last']


def test_dtype_of_most_bytes(tmp_path):
    state = {'a': torch.zeros(9, dtype=torch.bfloat16), 'b': torch.zeros(2), 'c': torch.zeros(99, dtype=torch.int64)}
    files = open_weights(save(tmp_path / 'x.pth', state))
    assert files.dtype == torch.bfloat16
    assert files.tensors['b'].size_bytes == 8


# --- DeepSpeed ------------------------------------------------------------------------------------------------------

def test_model_states_hold_the_parameters_and_nothing_else_counts(tmp_path, state):
    content = deepspeed_states(state, lr_scheduler={'last_batch_iteration': 3}, meta={'config': 'model = dict()'})
    assert open_weights(save(tmp_path / 'mp_rank_00_model_states.pt', content)).tensors.keys() == state.keys()


@pytest.mark.parametrize('place', ['iter', 'step', 'without latest', 'link'])
def test_deepspeed_folders_open_their_model_states(tmp_path, state, place):
    folder = write_deepspeed_folder(tmp_path / 'iter_80000', state)
    if place == 'without latest':
        (folder / 'latest').unlink()
    (tmp_path / 'latest').symlink_to(folder, target_is_directory=True)
    named = {'step': folder / f'global_step{STEP}', 'link': tmp_path}.get(place, folder)
    files = open_weights(named)
    assert files.tensors.keys() == state.keys()
    assert {path.name for path in files.shards.values()} == {'mp_rank_00_model_states.pt'}
    assert all(torch.equal(tensor, state[key]) for key, tensor in files.read(state))


def test_partitions_of_zero_3_are_refused(tmp_path, state):
    folder = write_deepspeed_folder(tmp_path / 'iter_80000', state)
    step = folder / f'global_step{STEP}'
    for rank in (0, 1):
        save(step / f'zero_pp_rank_{rank}_mp_rank_00_model_states.pt', {'module': {}})
    (step / 'mp_rank_00_model_states.pt').unlink()
    for named in (folder, step):
        with pytest.raises(UserError, match='holds ZeRO-3 partitions.*zero_pp_rank_0_mp_rank_00.*zero_to_fp32.py'):
            open_weights(named)
    save(step / 'pytorch_model.bin', state)  # what that script writes
    assert open_weights(step).tensors.keys() == state.keys()


def test_other_deepspeed_folders_that_are_no_single_model(tmp_path, state):
    folder = write_deepspeed_folder(tmp_path / 'iter_80000', state)
    step = folder / f'global_step{STEP}'
    save(step / 'mp_rank_01_model_states.pt', deepspeed_states(state))
    with pytest.raises(UserError, match='split over 2 ranks'):
        open_weights(folder)
    (step / 'mp_rank_01_model_states.pt').unlink()
    for tag in ('global_step7', '../iter_80000', '..', ''):
        (folder / 'latest').write_text(tag)
        with pytest.raises(UserError, match='latest names'):
            open_weights(folder)
    (folder / 'latest').unlink()
    (folder / 'global_step7').mkdir()
    with pytest.raises(UserError, match='several steps.*global_step7, global_step80000'):
        open_weights(folder)
    assert shard_paths(step) == [step / 'mp_rank_00_model_states.pt']
