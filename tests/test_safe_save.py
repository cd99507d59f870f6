"""Saved files hold plain data and appear in one piece."""

from __future__ import annotations

import collections
import enum
import os
import pathlib
from typing import Any

import numpy as np
import pytest
import torch

from internvl_dense.errors import UserError
from internvl_dense.safe_load import (
    keep_plain,
    load_file,
    save_file,
    to_plain,
)


class Level(enum.IntEnum):
    HIGH = 3


def test_to_plain_types() -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    plain = to_plain(collections.OrderedDict(
        number=np.float32(0.5), flag=np.bool_(True), text=np.str_('x'), array=np.arange(4, dtype='>i2')[::-1],
        words=np.array([['a', 'b']]), size=(1, torch.Size([2, 3])), level=Level.HIGH, none=None, parameter=parameter,
        nested={np.int64(1): [collections.OrderedDict(a=1)]}))
    assert plain['number'] == 0.5 and type(plain['number']) is float
    assert plain['flag'] is True and type(plain['text']) is str and type(plain['level']) is int
    assert torch.equal(plain['array'], torch.tensor([3, 2, 1, 0], dtype=torch.int16))
    assert plain['words'] == [['a', 'b']] and plain['size'] == [1, [2, 3]] and plain['none'] is None
    assert type(plain['parameter']) is torch.Tensor and plain['parameter'].data_ptr() == parameter.data_ptr()
    assert plain['nested'] == {1: [{'a': 1}]} and type(plain['nested'][1][0]) is dict


def test_to_plain_lists_every_problem() -> None:
    with pytest.raises(UserError) as caught:
        to_plain({'a': [1, {2, 3}], 'b': {(1, 2): 3}, 'c': torch.ones(1, device='meta'), 'd': b'x',
                  'e': np.datetime64('2020'), 'f': (len,)})
    message = str(caught.value)
    assert '6 problems' in message
    for part in ("['a'][1] is builtins.set", "['b'] has a key of builtins.tuple", "['c'] is a tensor on the meta",
                 "['d'] is builtins.bytes", "['e'] is numpy.datetime64", "['f'][0] is builtins.builtin_function_or"):
        assert part in message


def test_keep_plain_leaves_out_and_lists() -> None:
    weight = torch.ones(3, dtype=torch.bfloat16)
    plain, left_out = keep_plain({
        'a': [1, len, 2], 'b': {(1, 2): 3, 'kept': 4}, 'c': b'x', 'd': [weight, weight[1:]], 'again': len,
        'names': {'q', 'p'}, 'numbers': {3}, 'dtype': torch.float16, 'device': torch.device('cpu'),
        'module': torch.nn.Linear(2, 1),
    })
    assert plain['a'] == [1, None, 2] and plain['b'] == {'kept': 4} and 'c' not in plain and 'again' not in plain
    assert plain['d'][0].untyped_storage().data_ptr() == plain['d'][1].untyped_storage().data_ptr()
    assert plain['names'] == ['p', 'q'] and plain['numbers'] == [3] and plain['module'].keys() == {'weight', 'bias'}
    assert plain['dtype'] == 'torch.float16' and plain['device'] == 'cpu'
    assert left_out == ["['a'][1] is builtins.builtin_function_or_method", "['b'] has a key of builtins.tuple: (1, 2)",
                        "['c'] is builtins.bytes", "['again'] is builtins.builtin_function_or_method"]


def test_keep_plain_of_nothing_plain() -> None:
    with pytest.raises(UserError, match='no plain data in it: the object itself is builtins.object'):
        keep_plain(object())
    itself: list[Any] = [1]
    itself.append(itself)
    assert keep_plain(itself) == ([1, None], ['[1] contains itself'])


def test_saved_file_needs_no_allowed_names(tmp_path: pathlib.Path) -> None:
    path = tmp_path / 'a.pth'
    weight = torch.ones(3, dtype=torch.bfloat16)
    save_file({'weights': [weight, weight], 'seed': np.int64(3), 'curve': np.array([1.5]), 'betas': (0.9, 0.999)}, path)
    before = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    try:
        loaded = torch.load(path, weights_only=True)
    finally:
        torch.serialization.add_safe_globals(before)
    assert loaded['seed'] == 3 and loaded['betas'] == [0.9, 0.999] and loaded['curve'].dtype == torch.float64
    assert loaded['weights'][0].data_ptr() == loaded['weights'][1].data_ptr()
    assert load_file(path)['seed'] == 3


@pytest.mark.parametrize('step', ['save', 'fsync', 'replace'])
def test_interrupted_save_leaves_the_old_file(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / 'a.pth'
    save_file({'a': 1}, path)

    def interrupt(*args: Any) -> None:
        raise OSError('no space left on device')

    monkeypatch.setattr(torch if step == 'save' else os, step, interrupt)
    with pytest.raises(OSError, match='no space'):
        save_file({'a': 2}, path)
    monkeypatch.undo()
    assert load_file(path) == {'a': 1}
    assert os.listdir(tmp_path) == ['a.pth']


def test_save_replaces_a_file_that_is_mapped(tmp_path: pathlib.Path) -> None:
    path = tmp_path / 'a.pth'
    save_file({'a': torch.ones(1 << 14)}, path)
    loaded = load_file(path)
    save_file({'a': torch.zeros(1)}, path)
    assert loaded['a'].sum() == 1 << 14


def test_save_checks_the_path(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match=r'name it \.pth'):
        save_file({}, tmp_path / 'a.safetensors')
    with pytest.raises(UserError, match='there is no folder'):
        save_file({}, tmp_path / 'b' / 'a.pth')
    with pytest.raises(UserError, match='1 problem'):
        save_file({'a': object()}, tmp_path / 'a.pth')
    assert not os.listdir(tmp_path)
