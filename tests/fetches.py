"""Small sources, and fetches of them from the server of a test."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib

from internvl_dense.hub import transfer
from internvl_dense.hub.bundles import Bundle
from internvl_dense.hub.fetching import Options, fetch
from internvl_dense.hub.sources import Source
from tests.hub_server import HubServer

REPO = 'someone/things'
FILE = 'weights.pth'
CONTENT = bytes(range(256)) * 600  # 153 600 bytes, several blocks of the server
SHA256 = hashlib.sha256(CONTENT).hexdigest()
SOURCE = Source('small', REPO, 'MIT', files=(FILE,), size_gb=len(CONTENT) / 1e9)
CELL = dataclasses.replace(SOURCE, files=(FILE, 'weights.log'), optional=('weights.log',), is_cell=True)
LOG = b'{"mode": "val"}\n'
SHARDS = {f'model-0000{number}-of-00002.safetensors': CONTENT[number:] for number in (1, 2)}
FOLDER_FILES = {
    **SHARDS, 'model.safetensors.index.json': b'{"weight_map": {}}', 'config.json': b'{"hidden_size": 8}',
    'modeling.py': b'print("code")', 'pytorch_model.bin': b'pickle', 'README.md': b'text', 'onnx/model.onnx': b'graph',
}
FOLDER = Source('small', REPO, 'MIT', folder='things', size_gb=2 * len(CONTENT) / 1e9)
PLAIN = {'weights.log', 'config.json', 'model.safetensors.index.json'}  # too small for LFS on the real hub


class Told:
    """Keeps what is reported."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.steps: list[tuple[str, int, int]] = []

    def say(self, text: str) -> None:
        assert len(self.lines) < 100, 'a fetch that does not come to an end'
        self.lines.append(text)

    def progress(self, file: str, done: int, total: int) -> None:
        self.steps.append((file, done, total))

    @property
    def text(self) -> str:
        return '\n'.join(self.lines)


def get(hub: HubServer, folder: pathlib.Path, source: Source = SOURCE, told: Told | None = None,
        **options: object) -> list[Bundle]:
    """Fetches with one attempt for each file, unless `options` say otherwise."""
    chosen = Options(**{'folder': folder, 'endpoint': hub.endpoint, 'retries': 0, **options})  # type: ignore[arg-type]
    return fetch(source, chosen, told or Told())


def record_of(path: pathlib.Path) -> dict:
    return json.loads(path.with_name(f'{path.name}.json').read_text())


def names_in(folder: pathlib.Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob('*')} if folder.exists() else set()


def no_waiting(monkeypatch) -> None:
    """Attempts follow each other at once."""
    monkeypatch.setattr(transfer, 'LONGEST_WAIT_S', 0.0)
