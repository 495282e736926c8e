"""What the check of processors makes of their times."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from agent.checks import cpu
from agent.checks.cpu import CPU, CpuOptions, Seen, Shares, gather, judge, look
from agent.clock import Clock
from agent.core.model import Finding, Status
from agent.errors import Unavailable
from agent.host.kernel import ProcessorFigures
from agent.host.machine import Machine


def options(**given: Any) -> CpuOptions:
    return CpuOptions.model_validate({"type": "cpu", **given})


def seen(load: float = 1.0, **given: Any) -> Seen:
    shares = {name: given.pop(name, 0.0) for name in ("busy", "steal", "iowait")}
    return Seen(load=load, processors=2, shares=Shares(**shares), **given)


@pytest.mark.parametrize(
    ("sentence", "saw", "given", "status", "cause"),
    [
        ("a little to do is fine", seen(), {}, "ok", ""),
        ("a busy host is fine", seen(6.0, busy=100.0), {}, "ok", ""),
        ("much more than it can do is a warning", seen(8.1), {}, "warning", "load"),
        ("the limit can be another", seen(3.0), {"warning": {"load": 1}}, "warning", "load"),
        ("a load can be critical", seen(30.0), {"critical": {"load": 10}}, "critical", "load"),
        ("a hypervisor that takes much is a warning", seen(steal=26.0), {}, "warning", "steal"),
        ("waiting for disks is fine without being asked for", seen(iowait=80.0), {}, "ok", ""),
        ("waiting for disks can be a limit", seen(iowait=80.0), {"warning": {"iowait": "50%"}},
         "warning", "iowait"),
        ("work can be a limit", seen(busy=96.0), {"critical": {"busy": "95%"}}, "critical",
         "busy"),
        ("pressure can be a limit", seen(pressure=70.0), {"warning": {"pressure": "60%"}},
         "warning", "pressure"),
        ("without pressure its limit says nothing", seen(why_no_pressure="no"),
         {"warning": {"pressure": "60%"}}, "ok", ""),
        ("until the window is full only the load is known", Seen(load=1.0, processors=2),
         {"warning": {"busy": "1%"}}, "ok", ""),
    ],
)  # fmt: skip
def test_what_is_seen_makes_one_finding(
    sentence: str, saw: Seen, given: dict[str, Any], status: str, cause: str
) -> None:
    finding = judge(options(**given), saw)
    assert (finding.status, finding.cause) == (status, cause), sentence
    assert set(finding.measurements) <= set(CPU.measurements)
    assert not cause or cause in CPU.causes


class Hours(Clock):
    """A clock that a test sets."""

    def __init__(self) -> None:
        super().__init__(0.0)
        self.at = 1_000_000.0

    def now(self) -> float:
        return self.at


async def test_shares_are_averages_over_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Hours()
    machine = Machine(clock=clock)
    ticks = {"total": 0, "idle": 0, "iowait": 0, "steal": 0}
    monkeypatch.setattr(cpu, "read_processors", lambda: ProcessorFigures(**ticks))
    monkeypatch.setattr(cpu, "read_load", lambda: (0.5, 0.5, 0.5))
    given = options(over="15m", warning={"steal": "30%"})
    found = []
    for minute in range(40):
        (finding,) = await look(given, machine)
        found.append(finding)
        clock.at += 60
        # Two processors of a hundred ticks a second; from minute 20 on half of it is stolen.
        stolen = 6000 if minute >= 20 else 0
        for name, more in (("total", 12000), ("idle", 3000), ("steal", stolen)):
            ticks[name] += more
    assert "busy_percent" not in found[10].measurements
    assert found[20].measurements["busy_percent"] == 75.0
    assert found[20].measurements["steal_percent"] == 0.0
    assert [f.status.value for f in found].index("warning") in range(29, 32), "a peak is no news"
    assert found[-1].measurements["steal_percent"] == 50.0
    assert found[-1].measurements["busy_percent"] == 25.0


async def test_a_look_at_this_machine_says_what_the_kernel_says() -> None:
    (finding,) = await look(options(), Machine(clock=Clock()))
    assert finding.measurements["processors_count"] >= 1
    assert finding.subject == "cpu"


async def test_what_cannot_be_read_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> ProcessorFigures:
        raise Unavailable("cannot read /proc/stat: it does not begin as it should")

    monkeypatch.setattr(cpu, "read_processors", refuse)
    (finding,) = await look(options(), Machine(clock=Clock()))
    assert (finding.status, finding.cause) == (Status.UNKNOWN, "unavailable")


async def test_a_kernel_without_pressure_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_path: object) -> None:
        raise Unavailable("this kernel does not measure pressure; boot it with psi=1")

    monkeypatch.setattr(cpu, "read_pressure", refuse)
    (finding,) = await look(options(), Machine(clock=Clock()))
    assert "psi=1" in finding.facts["Pressure"]
    assert "pressure_percent" not in finding.measurements


async def test_evidence_names_who_uses_the_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "_COMPARED", 0.1)
    finding = Finding(subject="cpu", status=Status.WARNING, cause="load")
    items = await gather(options(), finding, Machine(clock=Clock()))
    assert items[0].title == "Processes that use most of the processors"
    assert len(items[0].text.splitlines()) > 3


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"warning": {"load": 0}}, "greater than 0"),
        ({"warning": {"steal": 20}}, "85%"),
        ({"critical": {"idle": "5%"}}, "Extra inputs"),
    ],
)
def test_what_cannot_be_meant_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        options(**given)
