"""The connection, on a bus of its own. The real systemd is in tests/lab/test_service_check.py."""

from __future__ import annotations

import asyncio
import gc
import logging
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from dbus_fast import Message, MessageType, Variant
from dbus_fast.aio import MessageBus

from agent.clock import Clock
from agent.errors import Unavailable
from agent.host import systemd as edge
from agent.host.stops import Verdict
from agent.host.systemd import Systemd
from agent.host.units import unit_path

WEB = "web.service"
MANAGER = "/org/freedesktop/systemd1"
BUS_CONFIG = """<busconfig>
  <type>session</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default"><allow own="*"/><allow send_type="*"/><allow eavesdrop="true"/></policy>
</busconfig>
"""
#: Generous: against hanging only.
LIMIT = 30.0


class Bus:
    """A real dbus-daemon that can be ended and started again at the same address."""

    def __init__(self, directory: Path) -> None:
        self.socket = directory / "bus"
        self.address = f"unix:path={self.socket}"
        self._config = directory / "bus.conf"
        self._config.write_text(BUS_CONFIG.format(socket=self.socket))
        self._daemon: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self.socket.unlink(missing_ok=True)
        argv = ["dbus-daemon", f"--config-file={self._config}", "--nofork", "--print-address"]
        self._daemon = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        assert self._daemon.stdout is not None
        assert self._daemon.stdout.readline().startswith("unix:")

    def end(self) -> None:
        if self._daemon is not None:
            self._daemon.kill()
            self._daemon.communicate()
            self._daemon = None


class FakeSystemd:
    """Answers as systemd does, for one unit, by the same interfaces."""

    def __init__(self, bus: MessageBus) -> None:
        self.bus = bus
        self.calls: list[str] = []
        self.silent = False
        self.active = "active"
        self.sub = "running"
        self.job_types: dict[int, str] = {}

    @classmethod
    async def appear(cls, address: str) -> FakeSystemd:
        bus = await MessageBus(bus_address=address).connect()
        fake = cls(bus)
        bus.add_message_handler(fake._answer)
        await bus.request_name("org.freedesktop.systemd1")
        return fake

    async def vanish(self) -> None:
        self.bus.disconnect()
        await self.bus.wait_for_disconnect()

    def _answer(self, call: Message) -> Message | bool | None:
        if call.message_type is not MessageType.METHOD_CALL:
            return None
        self.calls.append(str(call.member))
        if self.silent:
            return True
        match call.member, list(call.body):
            case "Subscribe", []:
                return Message.new_method_return(call)
            case "ListUnitsByNames", [names]:
                rows = [self._row(name) for name in names]
                return Message.new_method_return(call, "a(ssssssouso)", [rows])
            case "Get", [_interface, "UserspaceTimestampMonotonic"]:
                return Message.new_method_return(call, "v", [Variant("t", 5_000_000)])
            case "Get", [_interface, "Version"]:
                return Message.new_method_return(call, "v", [Variant("s", "252")])
            case "Get", [_interface, "JobType"]:
                job = int(str(call.path).rpartition("/")[2])
                if job not in self.job_types:
                    name = "org.freedesktop.DBus.Error.UnknownObject"
                    return Message.new_error(call, name, "Unknown object")
                body = [Variant("s", self.job_types[job])]
                return Message.new_method_return(call, "v", body)
            case "GetAll", ["org.freedesktop.systemd1.Unit"]:
                properties = {
                    "Id": Variant("s", WEB),
                    "LoadState": Variant("s", "loaded"),
                    "ActiveState": Variant("s", self.active),
                    "SubState": Variant("s", self.sub),
                    "InvocationID": Variant("ay", b"\x01" * 16),
                    "Job": Variant("(uo)", [0, "/"]),
                }
                return Message.new_method_return(call, "a{sv}", [properties])
            case "GetAll", ["org.freedesktop.systemd1.Service"]:
                properties = {"Type": Variant("s", "notify"), "NRestarts": Variant("u", 2)}
                return Message.new_method_return(call, "a{sv}", [properties])
        return None

    def _row(self, name: str) -> list[Any]:
        path = unit_path(name)
        return [name, "", "loaded", self.active, self.sub, "", path, 0, "", "/"]

    def change(self, active: str, sub: str) -> None:
        self.active, self.sub = active, sub
        body = [
            "org.freedesktop.systemd1.Unit",
            {"ActiveState": Variant("s", active), "SubState": Variant("s", sub)},
            [],
        ]
        self._signal(unit_path(WEB), edge._PROPERTIES, "PropertiesChanged", "sa{sv}as", body)

    def begin_job(self, job: int, job_type: str = "") -> None:
        if job_type:
            self.job_types[job] = job_type
        body = [job, f"{MANAGER}/job/{job}", WEB]
        self._signal(MANAGER, edge._MANAGER, "JobNew", "uos", body)

    def end_job(self, job: int, result: str = "done") -> None:
        body = [job, f"{MANAGER}/job/{job}", WEB, result]
        self._signal(MANAGER, edge._MANAGER, "JobRemoved", "uoss", body)

    def _signal(
        self, path: str, interface: str, member: str, signature: str, body: list[Any]
    ) -> None:
        self.bus.send(Message.new_signal(path, interface, member, signature, body))


class Told:
    """What a watcher was told."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._came = asyncio.Event()

    def __call__(self, name: str) -> None:
        self.names.append(name)
        self._came.set()

    async def more(self) -> None:
        async with asyncio.timeout(LIMIT):
            await self._came.wait()
        self._came.clear()


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[Bus]:
    bus = Bus(tmp_path)
    yield bus
    bus.end()


@pytest.fixture
async def fake(bus: Bus) -> AsyncIterator[FakeSystemd]:
    bus.start()
    fake = await FakeSystemd.appear(bus.address)
    yield fake
    if fake.bus.connected:
        await fake.vanish()


@pytest.fixture
async def systemd(bus: Bus, fake: FakeSystemd) -> AsyncIterator[Systemd]:
    systemd = Systemd(Clock(), address=bus.address)
    await systemd.open()
    yield systemd
    await systemd.close()


async def connected(systemd: Systemd) -> None:
    async with asyncio.timeout(LIMIT):
        while not systemd.connected:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_without_a_bus_it_says_why_and_goes_on_trying(bus: Bus) -> None:
    systemd = Systemd(Clock(), address=bus.address)
    with pytest.raises(Unavailable, match=r"cannot reach D-Bus: .*No such file"):
        await systemd.open()
    with pytest.raises(Unavailable, match="cannot reach D-Bus"):
        await systemd.unit(WEB)
    bus.start()
    fake = await FakeSystemd.appear(bus.address)
    await connected(systemd)
    assert await systemd.version() == "252"
    await systemd.close()
    await fake.vanish()


async def test_without_systemd_on_the_bus_it_says_so(bus: Bus) -> None:
    bus.start()
    systemd = Systemd(Clock(), address=bus.address)
    with pytest.raises(Unavailable, match=r"org\.freedesktop\.systemd1"):
        await systemd.open()
    await systemd.close()


async def test_a_look_costs_two_calls_and_one_while_nothing_is_signalled(
    systemd: Systemd, fake: FakeSystemd
) -> None:
    told = Told()
    await systemd.watch([WEB], told)
    fake.calls.clear()
    first = await systemd.unit(WEB)
    assert fake.calls == ["GetAll", "GetAll"]
    fake.calls.clear()
    assert await systemd.unit(WEB) is first
    assert fake.calls == ["ListUnitsByNames"]
    fake.change("failed", "failed")
    await told.more()
    fake.calls.clear()
    assert (await systemd.unit(WEB)).active_state == "failed"
    assert fake.calls == ["GetAll", "GetAll"]
    assert first.n_restarts == 2


async def test_looks_of_one_moment_ask_together_and_one_that_is_given_up_harms_no_other(
    systemd: Systemd, fake: FakeSystemd
) -> None:
    other = "db.service"
    await systemd.watch([WEB, other], Told())
    first = await systemd.unit(WEB), await systemd.unit(other)
    fake.calls.clear()
    given_up = asyncio.ensure_future(systemd.unit(WEB))
    looks = asyncio.gather(systemd.unit(WEB), systemd.unit(other))
    await asyncio.sleep(0)
    given_up.cancel()
    states = await looks
    assert (states[0], states[1]) == first
    assert fake.calls == ["ListUnitsByNames"]
    await systemd.unit(WEB)
    assert fake.calls == ["ListUnitsByNames"] * 2


async def test_a_change_that_no_signal_told_of_is_seen_by_the_next_look(
    systemd: Systemd, fake: FakeSystemd
) -> None:
    await systemd.watch([WEB], Told())
    await systemd.unit(WEB)
    fake.active, fake.sub = "failed", "failed"
    assert (await systemd.unit(WEB)).active_state == "failed"


async def test_a_stop_job_seen_on_the_bus_is_an_intention(
    systemd: Systemd, fake: FakeSystemd
) -> None:
    told = Told()
    await systemd.watch([WEB], told)
    fake.begin_job(7, "stop")
    fake.change("inactive", "dead")
    fake.end_job(7)
    while systemd.stops.judge(WEB) is not Verdict.STOPPED:
        await told.more()
        await systemd.job_types_known(WEB)


async def test_a_job_that_is_over_at_once_leaves_the_journal_to_be_asked(
    systemd: Systemd, fake: FakeSystemd
) -> None:
    told = Told()
    await systemd.watch([WEB], told)
    fake.begin_job(7)
    fake.end_job(7)
    await told.more()
    await systemd.job_types_known(WEB)
    assert systemd.stops.judge(WEB) is Verdict.ASK_JOURNAL


async def test_a_stranger_that_pretends_to_be_systemd_is_not_believed(
    systemd: Systemd, fake: FakeSystemd, bus: Bus
) -> None:
    told = Told()
    await systemd.watch([WEB], told)
    stranger = FakeSystemd(await MessageBus(bus_address=bus.address).connect())
    assert systemd._bus is not None
    body = [7, f"{MANAGER}/job/7", WEB, "done"]
    lie = Message.new_signal(MANAGER, edge._MANAGER, "JobRemoved", "uoss", body)
    lie.destination = systemd._bus.unique_name
    await stranger.bus.send(lie)
    await stranger.vanish()
    fake.change("failed", "failed")
    await told.more()
    assert told.names == [WEB]


async def test_a_call_without_an_answer_ends_in_time_and_the_connection_is_made_anew(
    bus: Bus, fake: FakeSystemd, caplog: pytest.LogCaptureFixture
) -> None:
    systemd = Systemd(Clock(), address=bus.address, timeout=0.1)
    await systemd.open()
    fake.silent = True
    with caplog.at_level(logging.WARNING):
        for _ in range(edge._DEAF_AFTER):
            with pytest.raises(Unavailable, match=r"no answer to Get within 0\.1 s"):
                await systemd.version()
    assert not systemd.connected
    with pytest.raises(Unavailable, match="does not answer"):
        await systemd.version()
    fake.silent = False
    await connected(systemd)
    assert await systemd.version() == "252"
    await systemd.close()


async def test_a_bus_that_goes_away_raises_nothing_but_unavailable_and_comes_back(
    systemd: Systemd, fake: FakeSystemd, bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    told = Told()
    await systemd.watch([WEB], told)
    bus.end()
    with pytest.raises(Unavailable):
        await systemd.unit(WEB)
    assert systemd.stops.judge(WEB) is Verdict.ASK_JOURNAL
    bus.start()
    again = await FakeSystemd.appear(bus.address)
    # What happened meanwhile is not known, so each watched unit is to be looked at.
    await told.more()
    assert told.names == [WEB]
    again.change("failed", "failed")
    await told.more()
    assert (await systemd.unit(WEB)).active_state == "failed"
    await again.vanish()
    await systemd.close()
    gc.collect()
    assert "never retrieved" not in caplog.text


async def test_another_systemd_on_the_same_bus_is_subscribed_to_anew(
    systemd: Systemd, fake: FakeSystemd, bus: Bus
) -> None:
    told = Told()
    await systemd.watch([WEB], told)
    await fake.vanish()
    again = await FakeSystemd.appear(bus.address)
    await told.more()
    assert "Subscribe" in again.calls
    again.change("failed", "failed")
    await told.more()
    await again.vanish()


async def test_units_that_are_watched_while_there_is_no_bus_are_watched_once_there_is(
    bus: Bus,
) -> None:
    systemd = Systemd(Clock(), address=bus.address)
    with pytest.raises(Unavailable):
        await systemd.open()
    told = Told()
    await systemd.watch([WEB], told)
    bus.start()
    fake = await FakeSystemd.appear(bus.address)
    await told.more()
    fake.change("failed", "failed")
    await told.more()
    await systemd.close()
    await fake.vanish()


async def test_a_watcher_that_breaks_does_not_break_the_connection(
    systemd: Systemd, fake: FakeSystemd, caplog: pytest.LogCaptureFixture
) -> None:
    told = Told()

    def break_down(name: str) -> None:
        told(name)
        raise RuntimeError("broken")

    await systemd.watch([WEB], break_down)
    fake.change("failed", "failed")
    await told.more()
    assert await systemd.version() == "252"
    assert "cannot pass on a change of web.service" in caplog.text


@pytest.mark.parametrize("units", [1, edge._MOST_NARROW_UNITS, edge._MOST_NARROW_UNITS + 1])
def test_match_rules_are_narrow_until_the_bus_would_refuse_them(units: int) -> None:
    names = [f"unit{number}.service" for number in range(units)]
    rules = edge._match_rules({name: unit_path(name) for name in names})
    assert len(rules) < 512
    narrow = [rule for rule in rules if "path='/org/freedesktop/systemd1/unit/" in rule]
    assert len(narrow) == (units if units <= edge._MOST_NARROW_UNITS else 0)
