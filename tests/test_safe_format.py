"""Files that are no checkpoints are named."""

from __future__ import annotations

import os
import pathlib
import zipfile
from typing import Any

import pytest
import safetensors.torch
import torch

from internvl_dense.safe_load import (
    CorruptCheckpointError,
    load_file,
)
from tests import malicious

NOT_CHECKPOINTS = {
    b'': 'empty',
    b'  <!DOCTYPE html><html>login</html>': 'HTML page.*The download probably needs a login or a direct link',
    b'<?xml version="1.0"?><Error/>': 'HTML page',
    b'version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n': 'git-lfs pointer.*git lfs pull',
    b'{"weight_map": {}}': 'JSON text.*several files',
    b'\x1f\x8b\x08abc': 'gzip archive',
    b'\x89HDF\r\n\x1a\n': 'HDF5',
    b'\x93NUMPY\x01': 'numpy',
    b'GGUF\x03': 'GGUF',
    b'hello world, no weights': 'unknown format.*safetensors file',
    b'\x80\x04K\x01.': 'plain pickle',
    b'PK\x03\x04 and then nothing': 'torch file whose end is missing',
    b'\x80\x02}q\x00.': 'plain pickle',
    b'\x00' * 2000: 'unknown format',
}


@pytest.mark.parametrize('content', NOT_CHECKPOINTS, ids=lambda content: content[:10].hex() or 'empty')
@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_other_files_are_named(tmp_path: pathlib.Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f'a{suffix}'
    path.write_bytes(content)
    with pytest.raises(CorruptCheckpointError, match=f'(?s){NOT_CHECKPOINTS[content]}') as caught:
        load_file(path)
    assert ('although it is named .safetensors' in str(caught.value)) == (suffix == '.safetensors') or not content


def test_torchscript_and_zip_are_named(tmp_path: pathlib.Path) -> None:
    with zipfile.ZipFile(tmp_path / 'script.pt', 'w') as archive:
        for member in ('data.pkl', 'constants.pkl', 'version', 'code/__torch__.py'):
            archive.writestr(f'script/{member}', b'')
    with pytest.raises(CorruptCheckpointError, match=r'TorchScript archive\. .*state_dict'):
        load_file(tmp_path / 'script.pt')
    with zipfile.ZipFile(tmp_path / 'packed.zip', 'w') as archive:
        archive.writestr('weights/model.bin', b'')
    with pytest.raises(CorruptCheckpointError, match=r'zip archive.*Unpack it.*weights/model\.bin'):
        load_file(tmp_path / 'packed.zip')


def test_torch_file_named_safetensors(tmp_path: pathlib.Path) -> None:
    with pytest.raises(CorruptCheckpointError, match=r'torch file although it is named \.safetensors\. Rename'):
        load_file(malicious.saved({'a': torch.ones(1)}, tmp_path / 'a.safetensors'))


def write_safetensors(path: pathlib.Path) -> None:
    safetensors.torch.save_file({'a': torch.ones(500)}, path)


@pytest.mark.parametrize('share', [0.01, 0.5, 0.99])
@pytest.mark.parametrize(('suffix', 'write'), [
    ('.pth', lambda path: torch.save({'a': torch.ones(500)}, path)),
    ('.pth', lambda path: torch.save({'a': torch.ones(500)}, path, _use_new_zipfile_serialization=False)),
    ('.safetensors', write_safetensors),
], ids=['zip', 'legacy', 'safetensors'])
def test_truncated_file(tmp_path: pathlib.Path, suffix: str, write: Any, share: float) -> None:
    path = tmp_path / f'a{suffix}'
    write(path)
    os.truncate(path, max(9, int(path.stat().st_size * share)))
    with pytest.raises(CorruptCheckpointError, match=r'(?s)a\.(pth|safetensors)'):
        load_file(path)


def test_unsupported_pickle_protocol(tmp_path: pathlib.Path) -> None:
    path = malicious.saved({'a': torch.ones(2)}, tmp_path / 'a.pth', pickle_protocol=4)
    with (pytest.raises(CorruptCheckpointError, match='pickle settings.*--trust-pickle'),
          pytest.warns(UserWarning, match='protocol 4')):
        load_file(path)
