"""The names that docs/importing.md promises to keep are there, and so are the keys of a state dict."""

from __future__ import annotations

import importlib
import pathlib
import re

import pytest
from mmengine.registry import root

import internvl_dense
from internvl_dense import create_backbone

PAGE = pathlib.Path(__file__).resolve().parent.parent / 'docs' / 'importing.md'
TYPES = 'internvl_dense.openmmlab'  # rows of config types start with it

# Keys of a backbone with all that a variant may have; N stands for the number of a block.
KEYS = {
    'pos_embed', 'cls_token', 'register_tokens', 'patch_embed.proj.weight', 'patch_embed.proj.bias', 'norm.weight',
    'blocks.N.norm1.weight', 'blocks.N.attn.qkv.weight', 'blocks.N.attn.qkv.bias', 'blocks.N.attn.q_norm.weight',
    'blocks.N.attn.k_norm.weight', 'blocks.N.attn.proj.weight', 'blocks.N.attn.proj.bias', 'blocks.N.ls1.gamma',
    'blocks.N.norm2.weight', 'blocks.N.mlp.fc1.weight', 'blocks.N.mlp.fc1.bias', 'blocks.N.mlp.fc2.weight',
    'blocks.N.mlp.fc2.bias', 'blocks.N.ls2.gamma',
}


def rows() -> list[tuple[str, list[str]]]:
    """Module and names of each row of the tables of public names."""
    section = PAGE.read_text().partition('## Public names')[2].partition('\n## ')[0]
    found = re.findall(r'^\| `([\w.]+)` \| (.*) \|$', section, re.M)
    return [(module, re.findall(r'`(\w+)`', names)) for module, names in found]


ROWS = rows()
NAMES = [(module, name) for module, names in ROWS if not re.fullmatch(rf'{TYPES}(\.det)?', module) for name in names]
TYPE_ROWS = [(module, names) for module, names in ROWS if re.fullmatch(rf'{TYPES}(\.det)?', module)]


def test_the_page_lists_names():
    assert len(NAMES) > 15 and [module for module, _ in TYPE_ROWS] == [TYPES, f'{TYPES}.det']


@pytest.mark.parametrize(('module', 'name'), NAMES)
def test_name(module, name):
    value = getattr(importlib.import_module(module), name)
    assert name.startswith('__') or value.__doc__


@pytest.mark.parametrize(('module', 'names'), TYPE_ROWS, ids=[module for module, _ in TYPE_ROWS])
def test_types_of_configs(module, names):
    importlib.import_module(module)
    registered = {name for key, registry in vars(root).items() if key.isupper() for name in registry.module_dict}
    assert set(names) <= registered


def test_all_of_the_package_is_public():
    assert set(dict(ROWS)['internvl_dense']) == set(internvl_dense.__all__)


def test_keys_of_a_state_dict():
    model = create_backbone('internvit_debug', device='meta', qkv_bias=True, num_register_tokens=1, final_norm=True)
    assert {re.sub(r'^blocks\.\d+\.', 'blocks.N.', key) for key in model.state_dict()} == KEYS
