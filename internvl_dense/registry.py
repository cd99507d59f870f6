"""Named items with errors that suggest the closest name."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable
from typing import Generic, TypeVar

from internvl_dense.errors import UserError

T = TypeVar('T')


def closest(name: str, options: Iterable[str], count: int = 3) -> list[str]:
    """Returns up to `count` of `options` that resemble `name`, best first."""
    return difflib.get_close_matches(name, list(options), n=count, cutoff=0.5)


def unknown(kind: str, name: object, options: Iterable[str]) -> str:
    """Sentence for a name that is not among `options`, with the nearest ones or all of them."""
    known = sorted(options)
    matches = closest(str(name), known)
    hint = f"Did you mean '{matches[0]}'?" if matches else f'Known: {", ".join(known) or "none"}.'
    return f'Unknown {kind} {name!r}. {hint}'


class Registry(Generic[T]):
    """A table from names to items of one kind.

    Args:
        kind: What the items are, as it should read in an error ("backbone").
        hint: Where a user finds all names, appended to the error.
    """

    def __init__(self, kind: str, hint: str = '') -> None:
        self.kind = kind
        self.hint = hint
        self._items: dict[str, T] = {}

    def register(self, name: str, item: T) -> T:
        """Adds `item` under `name` and returns it.

        Raises:
            KeyError: The name is taken.
        """
        if name in self._items:
            raise KeyError(f'{self.kind} {name!r} is registered already')
        self._items[name] = item
        return item

    def get(self, name: str) -> T:
        """Returns the item of that name.

        Raises:
            UserError: No such name; the message holds the closest ones.
        """
        if name not in self._items:
            raise UserError(f'{unknown(self.kind, name, self._items)} {self.hint}'.rstrip())
        return self._items[name]

    def list(self, pattern: str = '*') -> list[str]:
        """Names that match the shell-style `pattern`, in order of registration."""
        return [name for name in self._items if fnmatch.fnmatchcase(name, pattern)]

    def __contains__(self, name: object) -> bool:
        return name in self._items
