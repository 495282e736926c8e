"""Every exception that crosses a module boundary.

Messages follow one form, "cannot X: why", and name the item and the way out.
"""

from __future__ import annotations


class HostmendError(Exception):
    """The base of everything raised on purpose; its text is fit for an operator."""


class ConfigError(HostmendError):
    """The configuration is not usable.

    `file`, `line` (counted from 1) and `key` say where; they are None where there is no such place.
    """

    def __init__(
        self,
        message: str,
        *,
        file: str | None = None,
        line: int | None = None,
        key: str | None = None,
    ) -> None:
        self.file = file
        self.line = line
        self.key = key
        self.message = message
        place = ":".join(str(part) for part in (file, line) if part is not None)
        super().__init__(": ".join(part for part in (place, key, message) if part))


class RemedyError(HostmendError):
    """A remedy, its description or its options are not usable."""


class NotFound(HostmendError):
    """Nothing of that name or number exists."""


class Conflict(HostmendError):
    """The order contradicts the present state (for example: the run slot is taken)."""


class Invalid(HostmendError):
    """A request's input is wrong; the text names the field and what would be right."""


class StoreError(HostmendError):
    """The state cannot be read or written."""


class Unavailable(HostmendError):
    """A part of this host that is needed (D-Bus, systemd, a socket) is not there."""


class ImpossibleTransition(HostmendError):
    """The core was asked for a step that its table of states does not have: a defect."""
