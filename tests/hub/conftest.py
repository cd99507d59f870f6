"""The server that stands for the hub in these tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import fetches, hub_server


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[hub_server.HubServer]:
    """A server with one file in one commit; small text files are no LFS files on it."""
    with hub_server.alone(monkeypatch) as server:
        server.plain |= fetches.PLAIN
        server.publish(fetches.REPO, {fetches.FILE: fetches.CONTENT})
        yield server
