"""What ansible-runner reports, turned into the few events that hostmend shows.

Only events that Ansible's own callback wrote are taken. They arrive through the playbook's output,
where a text with escape sequences (a file's content in a diff) can pretend to be one; the callback
leaves each event's data in a private file as well, which a text cannot.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from agent.host.text import MAX_DIFF, MAX_MESSAGE, MAX_OUTPUT, show
from agent.remedies.protocol import now

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_STATUS = {
    "runner_on_ok": "ok",
    "runner_on_failed": "failed",
    "runner_on_skipped": "skipped",
    "runner_on_unreachable": "unreachable",
}
_COUNTS = ("ok", "changed", "failures", "skipped", "rescued", "ignored")
#: Lines of a file that a diff is made of.
_DIFF_LINES = 2_000
_LAST_WORDS = 20


class EventReader:
    """Takes ansible-runner's events and hands on hostmend's. `handle` never raises."""

    def __init__(
        self,
        emit: Callable[[Mapping[str, object]], None],
        *,
        folder: Path,
        unchecked: frozenset[tuple[str, int]] = frozenset(),
        secrets: tuple[str, ...] = (),
    ) -> None:
        self._emit = emit
        #: Where the callback leaves its data.
        self._folder = folder
        #: Tasks, as file and line, that run even in a preview.
        self._unchecked = unchecked
        self._secrets = secrets
        self.stats: dict[str, int] | None = None
        self.stats_at: float | None = None
        self.needs_human = ""
        #: What the playbook says that it did (`set_stats`: hostmend_did).
        self.did = ""
        #: The last failure that nothing took back, or else the last words of Ansible.
        self._failure = ""
        self._words: list[str] = []

    @property
    def failure(self) -> str:
        return self._failure or self._show(" ".join(self._words), MAX_MESSAGE)

    def handle(self, event: Mapping[str, Any]) -> bool:
        """For ansible-runner. False: it keeps no file of the event."""
        try:
            self._handle(event)
        except Exception as error:
            # What is raised here would end the playbook half-way.
            self._words.append(f"an event could not be read: {error!r}")
        return False

    def _handle(self, event: Mapping[str, Any]) -> None:
        genuine = self._take(event.get("uuid"))
        kind = genuine.get("event") if genuine else None
        if genuine and kind in _STATUS:
            self._emit(self._read_task(str(kind), genuine.get("event_data") or {}))
        elif genuine and kind == "playbook_on_stats":
            self._read_stats(genuine.get("event_data") or {})
        elif kind in (None, "error", "verbose", "warning") and event.get("stdout"):
            self._words = [*self._words, str(event["stdout"])[:MAX_MESSAGE]][-_LAST_WORDS:]

    def _take(self, uuid: object) -> dict[str, Any] | None:
        if not isinstance(uuid, str) or not _UUID.fullmatch(uuid):
            return None
        path = self._folder / f"{uuid}-partial.json"
        try:
            value = json.loads(path.read_bytes())
            path.unlink()
        except (OSError, ValueError):
            return None
        return value if isinstance(value, dict) else None

    def _read_task(self, kind: str, data: Mapping[str, Any]) -> dict[str, object]:
        given = data.get("res")
        res: dict[str, Any] = given if isinstance(given, dict) else {}
        status = _STATUS[kind]
        changed = bool(res.get("changed"))
        if status == "failed" and data.get("ignore_errors"):
            status = "ignored"
        elif status == "ok" and changed:
            status = "changed"
        name = self._show(data.get("task") or "", 200)
        message = self._show(_find_message(res, status), MAX_MESSAGE)
        if status in ("failed", "unreachable"):
            self._failure = self._show(f"task {name!r} {status}: {message}", MAX_MESSAGE)
        event: dict[str, object] = {
            "event": "task",
            "at": now(),
            "task": name,
            "action": self._show(data.get("task_action") or "", 200),
            "status": status,
            "changed": changed,
            "duration": data.get("duration"),
            "msg": message,
        }
        if isinstance(res.get("rc"), int):
            event["rc"] = res["rc"]
        for stream in ("stdout", "stderr"):
            if res.get(stream):
                event[stream] = self._show(res[stream], MAX_OUTPUT)
        if diff := _find_diff(res):
            event["diff"] = self._show(diff, MAX_DIFF)
        file, _, line = str(data.get("task_path") or "").rpartition(":")
        if line.isdecimal() and (file, int(line)) in self._unchecked:
            event["check_mode_false"] = True
        return event

    def _read_stats(self, data: Mapping[str, Any]) -> None:
        self.stats_at = now()
        self.stats = {name: sum((data.get(name) or {}).values()) for name in _COUNTS}
        self.stats["unreachable"] = sum((data.get("dark") or {}).values())
        told = data.get("artifact_data") or {}
        if asked := told.get("hostmend_needs_human"):
            self.needs_human = self._show(asked, MAX_MESSAGE)
        if did := told.get("hostmend_did"):
            self.did = self._show(did, MAX_MESSAGE)
        self._emit(
            {
                "event": "stats",
                "at": self.stats_at,
                "stats": self.stats,
                "needs_human": self.needs_human,
            }
        )

    def _show(self, text: object, limit: int) -> str:
        return show(text, limit, self._secrets)


def _find_message(res: Mapping[str, Any], status: str) -> str:
    """The sentence that says most: of the task, or of the first loop item that failed."""
    message = res.get("msg") or res.get("censored") or res.get("skip_reason") or ""
    for item in res.get("results") or ():
        if isinstance(item, dict) and item.get("failed") and item.get("msg"):
            return f"{message}: {item['msg']}"
    if status == "failed" and res.get("stderr"):
        return f"{message}: {str(res['stderr']).strip()}"
    return message if isinstance(message, str) else json.dumps(message, default=str)


def _find_diff(res: Mapping[str, Any]) -> str:
    parts = []
    for item in (res, *(res.get("results") or ())):
        diffs = item.get("diff") if isinstance(item, dict) else None
        for diff in diffs if isinstance(diffs, list) else [diffs]:
            if isinstance(diff, dict):
                parts.append(_format_diff(diff))
    return "\n".join(part for part in parts if part)


def _format_diff(diff: Mapping[str, Any]) -> str:
    if "prepared" in diff:
        return str(diff["prepared"])
    before, after = (_lines(diff.get(key)) for key in ("before", "after"))
    if before == after:
        return ""
    old, new = (str(diff.get(f"{key}_header") or key) for key in ("before", "after"))
    return "\n".join(difflib.unified_diff(before, after, old, new, lineterm=""))


def _lines(value: object) -> list[str]:
    text = value if isinstance(value, str) else json.dumps(value, indent=1, default=str)
    return text[: 4 * MAX_DIFF].splitlines()[:_DIFF_LINES] if value is not None else []
