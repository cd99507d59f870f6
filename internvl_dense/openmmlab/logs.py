"""Sends the project's own log lines where a run's lines go: what was loaded, chosen or drawn at random must be seen."""

from __future__ import annotations

import logging
import sys

LOGGER = logging.getLogger('internvl_dense')


def _on_terminal() -> bool:
    return any(type(handler) is logging.StreamHandler for handler in LOGGER.handlers)  # a file's is a subclass


def to_terminal() -> None:
    """Shows the lines on the terminal; for commands, before a runner exists."""
    if not _on_terminal():
        LOGGER.addHandler(logging.StreamHandler(sys.stdout))
    LOGGER.setLevel(logging.INFO)


def follow(run: logging.Logger) -> None:
    """Writes the lines into the log of a run, and to its terminal where nothing shows them yet.

    Args:
        run: Logger of the runner. Its levels hold: in other processes than the first, errors only.
    """
    # Files belong to the run that opened them, so those of an earlier run in this process go.
    LOGGER.handlers = [handler for handler in LOGGER.handlers if not isinstance(handler, logging.FileHandler)]
    shown = _on_terminal()
    for handler in run.handlers:
        if isinstance(handler, logging.FileHandler) or not shown:
            LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False  # the handlers above are enough
