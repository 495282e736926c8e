"""What hostmend looks at on every host without being told to. It only reports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Checks by name, as a configuration would write them. None has a remedy.
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "clock": {"type": "clock"},
    "disks": {"type": "disk", "ladder": []},
    "failed-units": {"type": "service", "unit": "*"},
    "journal": {"type": "journal", "ladder": []},
    "memory": {"type": "memory"},
    "self": {"type": "self"},
}

#: Where systemd is not PID 1 there is nothing that these could look at.
OF_SYSTEMD = frozenset({"failed-units", "journal"})

#: In effect beside the checks that a configuration names too: who watches must be watched.
ALWAYS = frozenset({"self"})


def choose_defaults(
    written: bool | None,
    configured: Mapping[str, str],
    types: Mapping[str, object],
    *,
    systemd: bool,
) -> Mapping[str, Mapping[str, Any]]:
    """The defaults in effect beside what is configured (name -> type).

    `written`: what `defaults` says; None where it is left out. `systemd`: whether it is PID 1. A
    check of the same name takes a default's place; what is always looked at needs no second check
    of its type.
    """
    if written is False:
        return {}
    all_of_them = written or not configured
    return {
        name: options
        for name, options in DEFAULTS.items()
        if options["type"] in types
        and name not in configured
        and (systemd or name not in OF_SYSTEMD)
        and (all_of_them or (name in ALWAYS and options["type"] not in configured.values()))
    }
