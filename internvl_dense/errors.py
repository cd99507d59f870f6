"""Errors a user can mend, and how the command line shows them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable


class UserError(ValueError):
    """A mistake in the input. The message carries the value, the rule and the way out."""


def problems(title: str, items: Iterable[str]) -> str:
    """Formats every problem of one kind as a single message.

    Args:
        title: What was checked, without a full stop.
        items: One sentence for each problem.
    """
    rows = list(items)
    count = f'{len(rows)} problem' + ('' if len(rows) == 1 else 's')
    return '\n'.join([f'{title}: {count}', *(f'  - {row}' for row in rows)])


def run(main: Callable[[], int]) -> int:
    """Runs an entry point; a `UserError` becomes a plain message on stderr and exit code 2."""
    try:
        return main()
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
