from __future__ import annotations

import hashlib

import pytest

from internvl_dense.backbones.fingerprint import file_sha256
from tests.checkpoints import SPEC, random_state, write_shards


@pytest.fixture
def state():
    return random_state(SPEC)


def test_checksum(tmp_path, state):
    (tmp_path / 'x.pth').write_bytes(b'abc')
    assert file_sha256(tmp_path / 'x.pth') == hashlib.sha256(b'abc').hexdigest()
    folder = write_shards(tmp_path / 'hf', state, 2, 'safetensors')
    digests = sorted(file_sha256(shard) for shard in folder.glob('*.safetensors'))
    assert file_sha256(folder) == hashlib.sha256(''.join(digests).encode()).hexdigest()
    (folder / 'README.md').write_text('other files do not count')
    assert file_sha256(folder) == hashlib.sha256(''.join(digests).encode()).hexdigest()
