"""Names of systemd units, and those that hostmend never touches."""

from __future__ import annotations

import re

#: systemd.unit(5): "Valid unit names consist of a unit name prefix, and a suffix specifying the
#: unit type"; letters, digits, ":", "-", "_", ".", "\\" and one "@", at most 255 characters.
_UNIT = re.compile(
    r"[A-Za-z0-9:_.\\-]+(?:@[A-Za-z0-9:_.\\-]*)?"
    r"\.(?:service|socket|device|mount|automount|swap|target|path|timer|slice|scope)"
)
_MAX_UNIT = 255

#: Unit names that are never acted on, with the reason. Restarting one of them cuts off the
#: operator, the system or hostmend itself, and is no repair.
NEVER_RESTART: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"(?:dbus|dbus-broker|messagebus)(?:@.*)?\.(?:service|socket)"),
        "systemd and everything on D-Bus lose their connections with it",
    ),
    (
        re.compile(
            r"(?:systemd-.*|dbus-org\.freedesktop\..*|init|user@.*|user-runtime-dir@.*)\..*"
        ),
        "it is one of systemd's own units",
    ),
    (
        re.compile(
            r"(?:network|networking|NetworkManager.*|netplan.*|ifup@.*|ifupdown.*|dhcpcd.*"
            r"|dhclient.*|wicked.*|connman.*|wpa_supplicant.*|iwd)\..*"
        ),
        "it is the host's networking",
    ),
    (re.compile(r"sshd?(?:-.*|@.*)?\..*"), "operators reach the host through it"),
    (re.compile(r"hostmend(?:[-@].*)?\..*"), "it is hostmend itself"),
    (
        re.compile(r".*\.(?:target|slice|scope|device|swap)"),
        "units of this type are not services: many others hang on them",
    ),
)


def is_unit(text: str) -> bool:
    """Whether this is a complete unit name, its suffix included."""
    return (
        len(text) <= _MAX_UNIT
        and bool(_UNIT.fullmatch(text))
        and not text.startswith(("-", "."))
        and ".." not in text
    )


def why_never(unit: str) -> str:
    """Why hostmend never acts on this unit; empty when it may."""
    # Template or instance, a name is also matched without regard to case: typing is no loophole.
    return next(
        (
            reason
            for pattern, reason in NEVER_RESTART
            if re.fullmatch(pattern.pattern, unit, re.IGNORECASE)
        ),
        "",
    )
