"""The edges to this machine, handed to looks in one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.clock import Clock


@dataclass(kw_only=True)
class Machine:
    """What looks may use of this machine. An edge that is not there is None."""

    clock: Clock
    #: What cannot be watched here, and why, by the name of the edge: `{"systemd": "no D-Bus ..."}`.
    missing: Mapping[str, str] = field(default_factory=dict)
