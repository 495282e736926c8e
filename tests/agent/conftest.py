"""Makes `agent_place` importable for the tests of this directory."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from agent_place import Place, free_port


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(home=tmp_path, port=free_port())
