"""What every test leaves behind it: nothing."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import pytest

from agent.host.processes import reap_strays

#: linux/prctl.h
_PR_SET_CHILD_SUBREAPER = 36


@pytest.fixture(autouse=True)
def adopt_no_orphans() -> Iterator[None]:
    """An agent under test makes this process adopt orphans; those of later tests are not ours."""
    yield
    reap_strays()
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
