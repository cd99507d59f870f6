"""Records of fetches: which commit of which repository a file on this disk is."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from typing import Any

from internvl_dense.errors import UserError

FOLDER_RECORD = 'fetched.json'  # inside a folder that is fetched as a whole; beside a single file, it is FILE.json


@dataclasses.dataclass(frozen=True)
class Entry:
    """One file: its name, its size in bytes and its SHA-256 in hex.

    In a record of a finished fetch, the checksum is that of the bytes on the disk. Before that, it is what the server
    announced, or None if it announced none.
    """

    file: str
    size: int
    sha256: str | None


@dataclasses.dataclass(frozen=True)
class Record:
    """What was fetched from where.

    Args:
        repo: Repository on the hub.
        revision: What was asked for, as in 'main'.
        commit: The commit that it stood for.
        licence: Licence that the publisher states.
        endpoint: Address of the server.
        files: The files.
        fetched: Date and time (UTC, ISO 8601) when all of them were complete and checked; None before that.
    """

    repo: str
    revision: str
    commit: str
    licence: str
    endpoint: str
    files: tuple[Entry, ...]
    fetched: str | None = None

    def entry(self, file: str) -> Entry | None:
        """The entry of that file, if there is one."""
        return next((entry for entry in self.files if entry.file == file), None)


def read_record(path: pathlib.Path) -> Record | None:
    """The record at `path`, or None if there is none.

    Raises:
        UserError: The file is something else.
    """
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
        entries = content.pop('files', None) or [{key: content.pop(key) for key in ('file', 'size', 'sha256')}]
        return Record(files=tuple(Entry(**entry) for entry in entries), **content)
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise UserError(f'{path} is no record of a fetch ({error!r}): move it away and run again') from error


def write_record(path: pathlib.Path, record: Record) -> None:
    """Writes the record; readers see the old file or the whole new one."""
    content: dict[str, Any] = dataclasses.asdict(record)
    if path.name != FOLDER_RECORD:
        content = {**content.pop('files')[0], **content}
    fresh = path.with_name(f'{path.name}.new')
    fresh.write_text(json.dumps(content, indent=2) + '\n', encoding='utf-8')
    os.replace(fresh, path)
