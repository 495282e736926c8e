"""What checks remember from one look to the next, also across a restart of the agent."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(kw_only=True)
class Memory:
    """What one check remembers, as one look sees it: small values of JSON, by key.

    What a look writes counts once that look was decided on: lines that were read by a look whose
    result never arrived are read again. It may be lost (`History`), so a check must do without.
    """

    #: Whose memory it is: the check's name. Empty where nothing is kept.
    check: str = ""
    #: What earlier looks left, as JSON.
    kept: Mapping[str, str] = field(default_factory=dict)
    #: What this look wrote, as JSON; None: forgotten.
    written: dict[str, str | None] = field(default_factory=dict)
    #: Values of any kind that need not outlive the agent, such as counters of earlier looks.
    notes: dict[str, Any] = field(default_factory=dict)

    def get(self, key: str) -> Any:
        """The value that was last put there; None when there is none."""
        text = self.written[key] if key in self.written else self.kept.get(key)
        return None if text is None else json.loads(text)

    def put(self, key: str, value: Any) -> None:
        text = json.dumps(value, separators=(",", ":"))
        if self.written.get(key, self.kept.get(key)) != text:
            self.written[key] = text

    def forget(self, key: str) -> None:
        if key in self.kept:
            self.written[key] = None
        else:
            self.written.pop(key, None)

    def keys(self) -> frozenset[str]:
        gone = {key for key, text in self.written.items() if text is None}
        return frozenset({*self.kept, *self.written} - gone)


class Memories:
    """What all checks remember, by their names."""

    def __init__(self, rows: Iterable[tuple[str, str, str]] = ()) -> None:
        """`rows`: check, key and JSON text of each value."""
        self._kept: dict[str, dict[str, str]] = {}
        self._notes: dict[str, dict[str, Any]] = {}
        for check, key, text in rows:
            self._kept.setdefault(check, {})[key] = text

    def open(self, check: str) -> Memory:
        """For one look: what it writes is its own until `keep`; its notes it has at once."""
        return Memory(
            check=check, kept=self._kept.get(check, {}), notes=self._notes.setdefault(check, {})
        )

    def keep(self, check: str, memory: Memory) -> Mapping[str, str | None]:
        """From now on later looks see what this one wrote. Returns it, to be made durable."""
        kept = dict(self._kept.get(check, {}))
        for key, text in memory.written.items():
            if text is None:
                kept.pop(key, None)
            else:
                kept[key] = text
        self._kept[check] = kept
        return memory.written
