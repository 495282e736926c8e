"""What the check of updates makes of what waits. Real packages: tests/lab/test_vitals.py."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from pydantic import ValidationError

from agent.checks import updates
from agent.checks.updates import REBOOT, SECURITY, SERVICES, UPDATES, UpdatesOptions, gather, look
from agent.clock import Clock
from agent.core.model import Finding, Status
from agent.errors import Unavailable
from agent.host.machine import Machine
from agent.host.memory import Memories, Memory
from agent.host.packages import Reboot

DAY = 86400.0


class Days(Clock):
    """A clock that a test sets."""

    def __init__(self) -> None:
        super().__init__(0.0)
        self.at = 1_700_000_000.0

    def now(self) -> float:
        return self.at

    def wall(self) -> float:
        return self.at


class Scene:
    """A host on which a test says what waits."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = Days()
        self.memories = Memories()
        self.reboots: list[Reboot] = []
        self.waiting: dict[str, str] = {}
        self.outdated: dict[str, tuple[str, ...]] = {}
        self.asked = self.clock.at
        self.manager = "apt-get"
        self.hint: bool | None = None
        self.listed = 0
        self.locked = False
        self.refused: Exception | None = None

        async def list_updates(_manager: str, *, seconds: float) -> dict[str, str]:
            self.listed += 1
            if self.refused:
                raise self.refused
            return dict(self.waiting)

        async def hint(_seconds: float) -> bool | None:
            return self.hint

        monkeypatch.setattr(updates, "find_reboots", lambda container: self.reboots)
        monkeypatch.setattr(updates, "needs_reboot", hint)
        monkeypatch.setattr(updates, "find_manager", lambda: self.manager)
        monkeypatch.setattr(updates, "read_freshness", lambda: (self.asked, self.asked))
        monkeypatch.setattr(updates, "list_security_updates", list_updates)
        monkeypatch.setattr(updates, "find_outdated", lambda: dict(self.outdated))
        monkeypatch.setattr(updates, "is_locked", lambda _path: self.locked)

    async def look(self, *, after: float = 3600.0, **given: Any) -> dict[str, Finding]:
        self.clock.at += after
        options = UpdatesOptions.model_validate({"type": "updates", **given})
        memory: Memory = self.memories.open("updates")
        machine = Machine(clock=self.clock, memory=memory)
        found = {finding.subject: finding for finding in await look(options, machine)}
        self.memories.keep("updates", memory)
        assert set(found) == {REBOOT, SECURITY, SERVICES}
        for finding in found.values():
            assert set(finding.measurements) <= set(UPDATES.measurements)
            assert not finding.cause or finding.cause in UPDATES.causes
        return found


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(monkeypatch)


async def test_a_host_without_anything_to_do_is_ok(scene: Scene) -> None:
    assert {f.status for f in (await scene.look()).values()} == {Status.OK}


async def test_a_reboot_that_is_due_is_a_warning_after_a_week(scene: Scene) -> None:
    scene.reboots = [Reboot(why="a reboot is asked for by libc6", since=scene.clock.at)]
    found = (await scene.look(after=6 * DAY))[REBOOT]
    assert (found.status, found.measurements["waiting_seconds"]) == (Status.OK, 6 * DAY)
    scene.asked = scene.clock.at
    found = (await scene.look(after=DAY))[REBOOT]
    assert (found.status, found.cause) == (Status.WARNING, "reboot")
    assert found.summary == "a reboot is asked for by libc6, since 7 d"
    assert not (await scene.look(reboot_within="30d"))[REBOOT].failing


async def test_what_needs_restarting_asks_for_counts_from_when_it_was_first_seen(
    scene: Scene,
) -> None:
    scene.hint = True
    assert not (await scene.look())[REBOOT].failing
    found = (await scene.look(after=7 * DAY))[REBOOT]
    assert (found.cause, found.measurements["waiting_seconds"]) == ("reboot", 7 * DAY)


async def test_security_updates_wait_from_when_they_were_first_seen_also_by_an_earlier_agent(
    scene: Scene,
) -> None:
    scene.waiting = {"libssl3": "3.0.17"}
    assert not (await scene.look())[SECURITY].failing
    rows = [("updates", key, text) for key, text in scene.memories._kept["updates"].items()]
    scene.memories = Memories(rows)
    scene.waiting["curl"] = "8"
    scene.asked = scene.clock.at = scene.clock.at + 7 * DAY
    found = (await scene.look(after=0))[SECURITY]
    assert (found.status, found.cause) == (Status.WARNING, "security")
    assert found.summary.startswith("2 security updates wait: curl, libssl3, since 7 d")
    scene.waiting = {"curl": "9"}
    scene.asked = scene.clock.at = scene.clock.at + DAY
    found = (await scene.look(after=0))[SECURITY]
    assert (found.status, found.measurements["waiting_seconds"]) == (Status.OK, DAY)


async def test_many_updates_are_named_in_part_and_listed_in_the_evidence(scene: Scene) -> None:
    scene.waiting = {f"package-{n}": "1" for n in range(9)}
    found = (await scene.look())[SECURITY]
    assert "package-4 and 4 more" in found.summary
    machine = Machine(clock=scene.clock, memory=scene.memories.open("updates"))
    options = UpdatesOptions(type="updates")
    (evidence,) = await gather(options, found, machine)
    assert len(evidence.text.splitlines()) == 9


async def test_nothing_is_listed_again_while_nothing_changed(scene: Scene) -> None:
    for _ in range(5):
        await scene.look()
    assert scene.listed == 1
    scene.asked += 1
    await scene.look()
    assert scene.listed == 2


async def test_while_packages_are_being_installed_what_was_seen_before_stands(
    scene: Scene,
) -> None:
    scene.waiting = {"curl": "1"}
    await scene.look()
    scene.locked, scene.waiting = True, {}
    scene.asked += 1
    assert (await scene.look())[SECURITY].measurements["waiting_count"] == 1
    scene.locked = False
    assert "waiting_count" not in (await scene.look())[SECURITY].measurements


async def test_lists_that_are_old_or_missing_hide_what_waits(scene: Scene) -> None:
    found = (await scene.look(after=14 * DAY))[SECURITY]
    assert (found.status, found.cause) == (Status.WARNING, "stale")
    assert "nobody has asked for updates for 14 d" in found.summary
    scene.asked = 0.0
    assert "nobody has asked for updates yet" in (await scene.look())[SECURITY].summary
    assert scene.listed == 0


async def test_services_that_run_what_was_replaced_are_a_warning_after_a_week(
    scene: Scene,
) -> None:
    scene.outdated = {"nginx.service": ("/usr/lib/libssl.so.3",)}
    assert not (await scene.look())[SERVICES].failing
    scene.asked = scene.clock.at + 7 * DAY
    found = (await scene.look(after=7 * DAY))[SERVICES]
    assert (found.status, found.cause) == (Status.WARNING, "outdated")
    assert found.summary == "nginx.service still runs what was updated meanwhile, since 7 d"
    machine = Machine(clock=scene.clock, memory=scene.memories.open("updates"))
    (evidence,) = await gather(UpdatesOptions(type="updates"), found, machine)
    assert evidence.text == "nginx.service: /usr/lib/libssl.so.3"
    scene.outdated = {}
    assert (await scene.look())[SERVICES].status is Status.OK
    scene.outdated = {"nginx.service": ("/usr/lib/libssl.so.3",)}
    assert not (await scene.look())[SERVICES].failing, "it was restarted meanwhile"


async def test_a_host_without_a_package_manager_has_no_updates(scene: Scene) -> None:
    scene.manager = ""
    found = (await scene.look())[SECURITY]
    assert (found.status, found.summary) == (Status.OK, "not watched: neither apt nor dnf is here")


@pytest.mark.parametrize(
    ("why", "cause"),
    [
        ("cannot list updates: apt-get has not answered for 50 s", "hung"),
        ("cannot list updates: E: no", "unavailable"),
    ],
)
async def test_a_manager_that_does_not_answer_is_unknown(
    scene: Scene, why: str, cause: str
) -> None:
    scene.refused = Unavailable(why)
    found = (await scene.look())[SECURITY]
    assert (found.status, found.cause) == (Status.UNKNOWN, cause)


async def test_processes_that_cannot_be_read_are_unknown(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    monkeypatch.setattr(updates, "_SCAN", 0.2)
    monkeypatch.setattr(updates, "find_outdated", lambda: release.wait() and {})
    found = (await scene.look())[SERVICES]
    assert (found.status, found.cause) == (Status.UNKNOWN, "hung")
    release.set()

    def refuse() -> dict[str, tuple[str, ...]]:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(updates, "find_outdated", refuse)
    found = (await scene.look())[SERVICES]
    assert (found.status, found.cause) == (Status.UNKNOWN, "unavailable")


@pytest.mark.parametrize("kept", [5, "x", [1], {"libssl3": "soon"}, {"libssl3": [1]}])
async def test_what_is_remembered_may_be_garbage(scene: Scene, kept: object) -> None:
    memory = scene.memories.open("updates")
    memory.put("updates.security", kept)
    scene.memories.keep("updates", memory)
    scene.waiting = {"libssl3": "3"}
    assert (await scene.look())[SECURITY].measurements["waiting_seconds"] == 0


async def test_a_clock_that_was_wrong_is_no_wait_before_now(scene: Scene) -> None:
    memory = scene.memories.open("updates")
    memory.put("updates.security", {"libssl3": scene.clock.at + 1000 * DAY})
    scene.memories.keep("updates", memory)
    scene.waiting = {"libssl3": "3"}
    scene.reboots = [Reboot(why="a reboot is asked for", since=scene.clock.at + 1000 * DAY)]
    found = await scene.look()
    assert found[SECURITY].measurements["waiting_seconds"] == 0
    assert found[REBOOT].measurements["waiting_seconds"] == 0


def test_what_cannot_be_meant_is_refused() -> None:
    with pytest.raises(ValidationError, match="needs a unit"):
        UpdatesOptions.model_validate({"type": "updates", "reboot_within": 7})
