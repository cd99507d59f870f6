"""What the separate process does with a file; the files here are harmless, so that it can run in this one."""

from __future__ import annotations

import argparse
import json
import pickle

import numpy as np
import pytest
import torch

from internvl_dense.commands import _unpickle
from internvl_dense.errors import UserError
from internvl_dense.safe_load import load_file
from internvl_dense.safe_types import InertPlaceholder
from tests import malicious
from tests.published_layouts import Config, ConfigDict, importable


class Absent:
    __module__ = 'absent.module'

    def __init__(self) -> None:
        self.weight = torch.ones(1)


class AbsentList(list):
    __module__ = 'absent.module'


class AbsentDict(dict):
    __module__ = 'absent.module'


class Outer:
    __module__ = 'absent.module'

    class Inner:
        """Pickled as an attribute of the outer class."""

        __module__ = 'absent.module'


WEIGHT = torch.arange(4.0).bfloat16()


def content():
    return {'weights': [WEIGHT, WEIGHT[1:]], 'layer': torch.nn.Linear(2, 1), 'object': Absent(), 'after': 1}


def save_plain_pickle(obj, path):
    path.write_bytes(pickle.dumps(obj, 4))


SAVERS = {
    'x.pth': torch.save,
    'x.safetensors': torch.save,
    'legacy.pth': lambda obj, path: torch.save(obj, path, _use_new_zipfile_serialization=False),
    'protocol.pth': lambda obj, path: torch.save(obj, path, pickle_protocol=4),
    'x.pkl': save_plain_pickle,
}


@pytest.mark.filterwarnings('ignore:Detected pickle protocol 4')
@pytest.mark.parametrize('name', SAVERS)
def test_every_kind_of_pickle_leaves_its_plain_content(tmp_path, name):
    with importable(Absent):
        SAVERS[name](content(), tmp_path / name)
    with pytest.raises(UserError):
        load_file(tmp_path / name)
    (tmp_path / 'out').mkdir()
    _unpickle.extract(tmp_path / name, tmp_path / 'out')
    plain = torch.load(tmp_path / 'out' / _unpickle.PLAIN, weights_only=True)
    whole, part = plain['weights']
    assert torch.equal(whole, WEIGHT) and torch.equal(part, WEIGHT[1:]) and whole.dtype == torch.bfloat16
    # A pickle that torch did not write holds each tensor by itself.
    assert (part.untyped_storage().data_ptr() == whole.data_ptr()) == (name != 'x.pkl')
    assert plain['layer']['weight'].shape == (1, 2) and plain['after'] == 1
    assert json.loads((tmp_path / 'out' / _unpickle.LEFT_OUT).read_text()) == ["['object'] is absent.module.Absent"]


def test_absent_classes_of_all_kinds(tmp_path):
    with importable(Absent, AbsentList, AbsentDict, Outer):
        path = malicious.saved([Absent(), AbsentList([1]), AbsentDict(a=1), Outer.Inner(), 5], tmp_path / 'x.pth')
    *absent, last = _unpickle.read(path)
    assert last == 5
    assert [f'{type(item).__module__}.{type(item).__qualname__}' for item in absent] == [
        'absent.module.Absent', 'absent.module.AbsentList', 'absent.module.AbsentDict', 'absent.module.Outer.Inner']


def test_accepted_names_are_inert_here_too(tmp_path):
    config = ConfigDict(lr=np.float32(0.5))
    with importable(Config, ConfigDict):
        path = malicious.saved({'args': argparse.Namespace(lr=1), 'config': config, 'cfg': Config(config),
                                'array': np.array([1, 2])}, tmp_path / 'x.pth')
    read = _unpickle.read(path)
    assert isinstance(read['args'], InertPlaceholder) and isinstance(read['cfg'], InertPlaceholder)
    assert read['config'] == {'lr': 0.5} and vars(read['config']) == {}
    assert type(read['config']['lr']) is np.float32 and type(read['array']) is np.ndarray


def test_history_of_mmengine(tmp_path):
    logging = pytest.importorskip('mmengine.logging')
    buffer = logging.HistoryBuffer([1.0, 2.0], [1, 1])
    other = malicious.Call(getattr, torch.nn.Linear, '__name__')
    read = _unpickle.read(malicious.saved([buffer, other], tmp_path / 'x.pth'))
    assert list(read[0].history[0]) == [1.0, 2.0] and read[1] == 'Linear'


def test_nothing_plain_at_all(tmp_path):
    with importable(Absent):
        path = malicious.saved(Absent(), tmp_path / 'x.pth')
    with pytest.raises(UserError, match='no plain data in it: the object itself is absent.module.Absent'):
        _unpickle.extract(path, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ['x.pth']
