"""Small InternViT checkpoints in the layouts people have."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import save_file as save_safetensors

from internvl_dense.backbones.fitting import expected_shapes
from internvl_dense.backbones.internvit import InternViT
from internvl_dense.backbones.spec import BackboneSpec, WeightsInfo

SPEC = BackboneSpec(name='tiny', embed_dim=32, depth=3, num_heads=4, image_size=56)
# The 300M kind: LayerNorm with bias, bias in qkv, no qk norm.
LAYER_SPEC = SPEC.replace(name='tiny_layer', norm='layer', qkv_bias=True, qk_norm=False)


def weights_info(**kwargs: Any) -> WeightsInfo:
    return WeightsInfo(file='x.pth', hf_repo='x/x', licence='MIT', source='test', size_gb=0.0, **kwargs)


def random_state(spec: BackboneSpec, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {key: torch.randn(shape, generator=generator) for key, shape in expected_shapes(spec).items()}


def build(spec: BackboneSpec, device: str = 'meta', dtype: torch.dtype = torch.float32, **kwargs: Any) -> InternViT:
    with torch.device(device):
        return InternViT(spec, attention='eager', **kwargs).to(dtype)


def write_shards(folder: pathlib.Path, state: Mapping[str, torch.Tensor], count: int, kind: str) -> pathlib.Path:
    """Cuts a state into shards with an index, in the manner of the Hugging Face hub."""
    folder.mkdir()
    stem, suffix = ('model', 'safetensors') if kind == 'safetensors' else ('pytorch_model', 'bin')
    weight_map = {}
    for number in range(count):
        name = f'{stem}-{number + 1:05d}-of-{count:05d}.{suffix}'
        shard = {key: state[key] for key in list(state)[number::count]}
        if kind == 'safetensors':
            save_safetensors(shard, folder / name, metadata={'format': 'pt'})
        else:
            torch.save(shard, folder / name)
        weight_map.update(dict.fromkeys(shard, name))
    index = {'metadata': {}, 'weight_map': weight_map}
    (folder / f'{stem}.{suffix}.index.json').write_text(json.dumps(index))
    return folder


def assert_holds(module: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Every parameter of `module` is real and equals `state`, bit for bit."""
    own = module.state_dict()
    assert own.keys() == state.keys()
    for key, value in state.items():
        assert own[key].device.type == 'cpu'
        assert torch.equal(own[key], value.to(own[key].dtype)), key
