"""Agents that begin and end quickly; makes `agent_place` importable for these tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import bootstrap

sys.path.insert(0, str(Path(__file__).parent))

from agent_place import Place
from ports import hold_port


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(home=tmp_path, port=hold_port())


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
