"""Units that hostmend never acts on: without them nobody gets at the host any more.

Restarting one of them cuts off the operator, the system or hostmend itself, and is no repair.
"""

from __future__ import annotations

import re

#: Each with the reason. Template or instance, a name is matched without regard to case: typing is
#: no loophole.
PROTECTED: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), reason)
    for pattern, reason in (
        (
            r"(?:dbus|dbus-broker|messagebus)(?:@.*)?\.(?:service|socket)",
            "systemd and everything on D-Bus lose their connections with it",
        ),
        (
            r"(?:systemd-.*|dbus-org\.freedesktop\..*|init|user@.*|user-runtime-dir@.*)\..*",
            "it is one of systemd's own units",
        ),
        (
            r"(?:network|networking|NetworkManager.*|netplan.*|ifup@.*|ifupdown.*|dhcpcd.*"
            r"|dhclient.*|wicked.*|connman.*|wpa_supplicant.*|iwd)\..*",
            "it is the host's networking",
        ),
        (r"(?:sshd?|dropbear)(?:-.*|@.*)?\..*", "operators reach the host through it"),
        (r"hostmend(?:[-@].*)?\..*", "it is hostmend itself"),
        (
            r".*\.(?:target|slice|scope|device|swap)",
            "units of this type are not services: many others hang on them",
        ),
    )
)


def why_never(unit: str) -> str:
    """Why hostmend never acts on this unit; empty when it may."""
    return next((reason for pattern, reason in PROTECTED if pattern.fullmatch(unit)), "")
