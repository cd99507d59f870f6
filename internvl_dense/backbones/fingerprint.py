"""Checksum of weights, so that a checkpoint can say what it was trained from."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import pathlib

from internvl_dense.backbones.weight_files import shard_paths


def file_sha256(path: str | pathlib.Path) -> str:
    """SHA-256 of a weight file in hex; of a folder, the SHA-256 over the sorted hex digests of its shards.

    Raises:
        UserError: A folder without weights.
        FileNotFoundError: No such file.
    """
    path = pathlib.Path(path).expanduser()
    digests = sorted(_digest(shard) for shard in shard_paths(path))
    return hashlib.sha256(''.join(digests).encode()).hexdigest() if path.is_dir() else digests[0]


def _digest(path: pathlib.Path) -> str:
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


@dataclasses.dataclass(frozen=True)
class Origin:
    """The file or folder that weights come from; its checksum is computed once, when it is asked for."""

    path: pathlib.Path

    @functools.cached_property
    def sha256(self) -> str:
        """As `file_sha256`."""
        return file_sha256(self.path)

    def as_dict(self) -> dict[str, str]:
        """Plain data for a checkpoint."""
        return {'path': str(self.path), 'sha256': self.sha256}
