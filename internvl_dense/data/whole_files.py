"""Files that are either whole or not there."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Writes under another name, waits for the disk and renames. A leftover of a stopped run is replaced."""
    part = path.with_name(f'{path.name}.part')
    write(part)
    with part.open('rb') as file:
        os.fsync(file.fileno())
    part.replace(path)


def write_json(path: Path, content: Any, indent: int | None = None) -> None:
    """Writes plain data as a whole json file, and the folders above it.

    Raises:
        ValueError: A number is NaN or infinite, which json does not know.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False)
    write_whole(path, lambda part: part.write_text(f'{text}\n', encoding='utf-8'))
