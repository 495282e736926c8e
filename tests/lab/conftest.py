"""Booted hosts for tests. Whatever asks for one carries the marker `lab`: it needs root."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.lab import Lab, build


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and "lab_tree" in item.fixturenames:
            item.add_marker(pytest.mark.lab)


@pytest.fixture(scope="session")
def lab_tree() -> Path:
    """The tree hosts boot from. Fails, and names the way out, where this machine cannot have it."""
    return build()


@pytest.fixture(scope="module")
def lab(lab_tree: Path) -> Iterator[Lab]:
    """A booted host, shared by the tests of one module."""
    with Lab.boot(lab_tree) as host:
        yield host
