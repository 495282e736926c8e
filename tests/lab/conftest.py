"""Booted hosts for tests. Every test here carries the marker `lab`: it needs root."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.lab import Lab, build


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.lab)


@pytest.fixture(scope="session")
def lab_tree() -> Path:
    """The tree that hosts boot from. Fails, with the way out, where this machine cannot have one."""
    return build()


@pytest.fixture(scope="module")
def lab(lab_tree: Path) -> Iterator[Lab]:
    """A booted host, shared by the tests of one module."""
    with Lab.boot(lab_tree) as host:
        yield host
