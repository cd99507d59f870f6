"""What every source of files has in common: a list of its files, and a way to read them."""

from __future__ import annotations

import struct
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

# What reading a cut off or damaged archive raises beside tarfile.TarError; seen with archives damaged at random.
# NotImplementedError: a zip version or method that zipfile lacks.
READ_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    ArithmeticError,
    NotImplementedError,
    struct.error,
)

Load = Callable[[], bytes]


@dataclass(frozen=True, eq=False)
class Entry:
    """A file in a source.

    Args:
        source: Where it is.
        path: Within the source, '/' between folders, none of them '..'.
        size: Bytes.
        file: The file itself where the source is a folder.
    """

    source: Source
    path: str
    size: int
    file: Path | None = None

    def __str__(self) -> str:
        return str(self.file) if self.file else f'{self.source.path}: {self.path}'


class Source(ABC):
    """An archive or a folder.

    Args:
        path: The archive or folder.
        explicit: Named by the user, not found in a folder.
    """

    kind: ClassVar[str]
    # A damaged file is noticed by reading it, so that contents need not be decoded to know.
    has_checksums: bool

    def __init__(self, path: Path, explicit: bool = True) -> None:
        self.path = path
        self.explicit = explicit
        self.entries: tuple[Entry, ...] = ()
        # Members that break a rule of `member_rules`: nothing may be read from the source then.
        self.faults: tuple[str, ...] = ()
        # The list was broken off at a fault, so `entries` says little.
        self.is_cut_short = False

    @abstractmethod
    def reading(self, wanted: Sequence[Entry]) -> AbstractContextManager[Iterable[tuple[Entry, Load]]]:
        """Opens the source: pairs of an entry and a function that gives its bytes, which may run in any thread.

        The functions must be called before the context ends. They raise `UserError` for a damaged file.
        """
