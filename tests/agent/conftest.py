"""Agents that begin and end quickly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import bootstrap


@pytest.fixture(autouse=True, scope="module")
def nothing_packed() -> Iterator[None]:
    """Packing Ansible's modules would take longer than most of these agents live.

    It is tested by itself (tests/remedies), and works in the agents of tests/cli and tests/lab.
    """

    async def pack_nothing(_runtime: Path) -> None:
        pass

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bootstrap, "pack_modules", pack_nothing)
        yield
