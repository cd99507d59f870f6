"""Writes given weights in the layouts that were published or that the original training programs leave behind.

Every writer takes a path and a state dict and returns the path to open. Trunk states have native keys; segmentor states
have the keys of a whole model, `backbone.`, `decode_head.`, `auxiliary_head.` and `neck.`.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import sys
import types
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from internvl_dense.backbones.dialects import HF, to_foreign
from tests.checkpoints import write_shards

State = Mapping[str, torch.Tensor]
Writer = Callable[..., pathlib.Path]

STEP = 80_000
CLASSES = ('wall', 'building', 'sky')
PALETTE = [[120, 120, 120], [180, 120, 120], [6, 230, 230]]
CLIP_DIM, NUM_CLASSES = 768, 1000  # outputs of the contrastive projector and of the classifier
CONFIG_TEXT = "norm_cfg = dict(type='SyncBN', requires_grad=True)\nmodel = dict(type='EncoderDecoder')\n"


# --- classes of programs that are not installed ----------------------------------------------------------------------

class ConfigDict(dict[str, Any]):
    """Pickles as mmcv 1.x's class, which inherits how from addict 2.x."""

    __module__ = 'mmcv.utils.config'

    def __getnewargs__(self) -> tuple[Any, ...]:
        return tuple(self.items())

    def __getstate__(self) -> ConfigDict:
        return self


class Config:
    """Pickles as mmcv 1.x's class."""

    __module__ = 'mmcv.utils.config'

    def __init__(self, content: ConfigDict) -> None:
        self.content = content

    def __getstate__(self) -> tuple[Any, ...]:
        return self.content, 'configs/upernet.py', CONFIG_TEXT


@contextlib.contextmanager
def importable(*classes: type) -> Iterator[None]:
    """Lets pickle find classes in the modules they claim to come from, which need not exist."""
    modules: dict[str, types.ModuleType] = {}
    for cls in classes:
        parts = cls.__module__.split('.')
        for parent in ('.'.join(parts[:depth]) for depth in range(1, len(parts))):
            if parent not in sys.modules:
                modules[parent] = types.ModuleType(parent)
        module = modules.setdefault(cls.__module__, types.ModuleType(cls.__module__))
        setattr(module, cls.__name__, cls)
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name, old in before.items():
            if old is None:
                del sys.modules[name]
            else:
                sys.modules[name] = old


# --- parts -----------------------------------------------------------------------------------------------------------

def known_extras(state: State) -> dict[str, torch.Tensor]:
    """What the published trunk files hold beside the trunk: contrastive projector and classification heads."""
    width = state['cls_token'].shape[-1]
    extras = {**_pooling('clip_projector', width, CLIP_DIM), **_pooling('attn_pooling', width, width)}
    for name in ('weight', 'bias', 'running_mean', 'running_var'):
        extras[f'norm.{name}'] = torch.ones(width)
    extras['norm.num_batches_tracked'] = torch.tensor(7)
    extras['head.weight'], extras['head.bias'] = torch.ones(NUM_CLASSES, width), torch.ones(NUM_CLASSES)
    return extras


def _pooling(name: str, width: int, out: int) -> dict[str, torch.Tensor]:
    parts = {f'norm1_{part}.{kind}': torch.ones(width) for part in 'qkv' for kind in ('weight', 'bias')}
    parts |= {f'cross_attn.{part}.weight': torch.ones(width, width) for part in 'qkv'}
    parts |= {f'cross_attn.{part}_bias': torch.ones(width) for part in 'qkv'}
    parts |= {'cross_attn.proj.weight': torch.ones(out, width), 'cross_attn.proj.bias': torch.ones(out)}
    return {f'{name}.{key}': value for key, value in parts.items()}


def deeper(state: State, extra_blocks: int) -> dict[str, torch.Tensor]:
    """The state with more blocks at its end."""
    depth = 1 + max(int(key.split('.')[1]) for key in state if key.startswith('blocks.'))
    first = {key.removeprefix('blocks.0.'): value for key, value in state.items() if key.startswith('blocks.0.')}
    more = {f'blocks.{depth + i}.{key}': value + 1 for i in range(extra_blocks) for key, value in first.items()}
    return {**state, **more}


def published_names(state: State) -> OrderedDict[str, torch.Tensor]:
    """Keys of a segmentor as published: the pyramid belongs to the backbone."""
    return OrderedDict((key.replace('neck.', 'backbone.', 1) if key.startswith('neck.up') else key, value)
                       for key, value in state.items())


def with_versions(state: State) -> OrderedDict[str, torch.Tensor]:
    """A state dict with the versions that torch hangs on it."""
    versioned = OrderedDict(state)
    modules = ['', *dict.fromkeys(key.rpartition('.')[0] for key in state)]
    versioned._metadata = OrderedDict((name, {'version': 1}) for name in modules)  # type: ignore[attr-defined]
    return versioned


def mmcv_meta(**facts: Any) -> dict[str, Any]:
    """`meta` of an mmcv 1.x run of mmsegmentation; `facts` replace or add entries."""
    return {
        'env_info': 'sys.platform: linux\nPyTorch: 1.12.1\nMMCV: 1.7.0', 'mmseg_version': '0.27.0+', 'seed': 0,
        'exp_name': 'upernet.py', 'mmcv_version': '1.7.0', 'time': 'Sat Jul  1 12:00:00 2023', 'config': CONFIG_TEXT,
        'CLASSES': CLASSES, 'PALETTE': PALETTE, 'epoch': 63, 'iter': STEP, 'best_score': np.float64(0.549),
        'hook_msgs': {'best_score': np.float64(0.549), 'best_ckpt': f'best_mIoU_iter_{STEP}.pth',
                      'last_ckpt': f'iter_{STEP}.pth'}, **facts,
    }


def adam_state(state: State) -> dict[str, Any]:
    """State of AdamW over all parameters, one group each, as mmcv's constructors make them."""
    groups = [{'lr': 4e-5, 'betas': (0.9, 0.999), 'eps': 1e-8, 'weight_decay': 0.05, 'amsgrad': False, 'params': [i],
               'initial_lr': 4e-5} for i in range(len(state))]
    moments = {i: {'step': STEP, 'exp_avg': torch.zeros_like(value), 'exp_avg_sq': torch.ones_like(value)}
               for i, value in enumerate(state.values())}
    return {'state': moments, 'param_groups': groups}


def deepspeed_states(module: State, **facts: Any) -> dict[str, Any]:
    """Content of mp_rank_00_model_states.pt; `facts` replace or add entries."""
    shapes = OrderedDict((key, value.shape) for key, value in module.items())
    return {
        'module': with_versions(module), 'buffer_names': [], 'optimizer': None, 'param_shapes': [shapes],
        'frozen_param_shapes': None, 'shared_params': {}, 'frozen_param_fragments': None, 'lr_scheduler': None,
        'data_sampler': None, 'random_ltd': None, 'sparse_tensor_module_names': set(), 'skipped_steps': 0,
        'global_steps': STEP, 'global_samples': 16 * STEP, 'dp_world_size': 8, 'mp_world_size': 1,
        'ds_config': {'train_batch_size': 16, 'bf16': {'enabled': True}, 'zero_optimization': {'stage': 1}},
        'ds_version': '0.8.0', 'epoch': 1, 'iter': STEP, **facts,
    }


# --- trunks ----------------------------------------------------------------------------------------------------------

def write_flat(path: pathlib.Path, state: State) -> pathlib.Path:
    """intern_vit_6b_*.pth: trunk and known extras, one level."""
    torch.save(OrderedDict({**state, **known_extras(state)}), path)
    return path


def write_module(path: pathlib.Path, state: State) -> pathlib.Path:
    """The same under 'module'."""
    torch.save({'module': OrderedDict({**state, **known_extras(state)})}, path)
    return path


def write_deeper(path: pathlib.Path, state: State, extra_blocks: int = 2) -> pathlib.Path:
    """The kind of the V1-0 file: more blocks than dense models build."""
    return write_flat(path, deeper(state, extra_blocks))


def write_hf(path: pathlib.Path, state: State, kind: str = 'safetensors', **config: Any) -> pathlib.Path:
    """A folder of the hub: three shards with an index, and config.json with the entries `config`."""
    write_shards(path, to_foreign(state, HF), 3, kind)
    (path / 'config.json').write_text(json.dumps({'model_type': 'intern_vit_6b', **config}), encoding='utf-8')
    return path


def write_hf_bin(path: pathlib.Path, state: State, **config: Any) -> pathlib.Path:
    """The same with pickled shards."""
    return write_hf(path, state, 'bin', **config)


# --- whole models ----------------------------------------------------------------------------------------------------

def write_mmcv(path: pathlib.Path, state: State, **meta: Any) -> pathlib.Path:
    """Checkpoint of an mmcv 1.x runner, with its optimizer."""
    published = published_names(state)
    torch.save({'meta': mmcv_meta(**meta), 'state_dict': with_versions(published), 'optimizer': adam_state(published)},
               path)
    return path


def write_mmcv_config_objects(path: pathlib.Path, state: State, **meta: Any) -> pathlib.Path:
    """The same from a run that kept its config as objects instead of text."""
    backbone = ConfigDict(type='InternViT6B', depth=48, window_attn=[False] * 48)
    config = ConfigDict(model=ConfigDict(type='EncoderDecoder', backbone=backbone), gpu_ids=[0, 1])
    with importable(ConfigDict, Config):
        return write_mmcv(path, state, **{'config': config, 'cfg': Config(config), **meta})


def write_deepspeed(path: pathlib.Path, state: State, prefix: str = '', **facts: Any) -> pathlib.Path:
    """Model states of DeepSpeed as one file; `prefix` stands in front of every key."""
    module = {prefix + key: value for key, value in published_names(state).items()}
    torch.save(deepspeed_states(module, **facts), path)
    return path


def write_deepspeed_prefixed(path: pathlib.Path, state: State, **facts: Any) -> pathlib.Path:
    """The same from an engine that wraps a wrapped model."""
    return write_deepspeed(path, state, 'module.', **facts)


def write_deepspeed_folder(path: pathlib.Path, state: State, ranks: int = 2, **facts: Any) -> pathlib.Path:
    """iter_N/: `latest`, and global_stepN/ with the model states and a shard of the optimizer for each rank."""
    step = path / f'global_step{STEP}'
    step.mkdir(parents=True)
    (path / 'latest').write_text(step.name, encoding='utf-8')
    write_deepspeed(step / 'mp_rank_00_model_states.pt', state, **facts)
    for rank in range(ranks):
        torch.save({'optimizer_state_dict': {'single_partition_of_fp32_groups': [torch.zeros(3)]}},
                   step / f'bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt')
    return path


_DEEPSPEED: dict[str, Writer] = {
    'deepspeed': write_deepspeed, 'deepspeed_prefixed': write_deepspeed_prefixed,
    'deepspeed_folder': write_deepspeed_folder,
}
TRUNK_LAYOUTS: dict[str, Writer] = {
    'flat': write_flat, 'module': write_module, 'deeper': write_deeper, 'hf': write_hf, 'hf_bin': write_hf_bin,
    **_DEEPSPEED,
}
SEGMENTOR_LAYOUTS: dict[str, Writer] = {
    'mmcv': write_mmcv, 'mmcv_config_objects': write_mmcv_config_objects, **_DEEPSPEED,
}
