"""The service check, its trigger and systemd's connection against a real systemd.

Every test runs a small program inside the host and judges what it printed.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.lab import PYTHON, Lab

#: What every program begins with. Waiting has a generous limit and measures nothing.
PRELUDE = '''
import asyncio, json, os, signal, subprocess, sys
from agent.checks import CHECKS
from agent.checks.service import ServiceOptions, gather, look
from agent.clock import Clock
from agent.errors import Unavailable
from agent.host.journal import read_told
from agent.host.machine import open_machine
from agent.host.transition import host_transition
from agent.host.units import unit_path
from agent.triggers.systemd import SystemdTrigger

LIMIT = 60


async def systemctl(*words, check=True):
    process = await asyncio.create_subprocess_exec("systemctl", *words)
    code = await process.wait()
    if check and code:
        raise SystemExit(f"systemctl {words} ended with {code}")


class Watcher:
    """Looks whenever the trigger says so, as the agent does, and keeps what it found."""

    def __init__(self, machine, unit):
        self.machine, self.unit = machine, unit
        self.options = ServiceOptions(type="service", unit=unit)
        self.findings = []
        self.signals = 0
        self.came = asyncio.Event()
        self.trigger = SystemdTrigger(machine.systemd, self.wake)

    def wake(self, check):
        assert check == "web"
        self.signals += 1
        self.came.set()

    async def watch(self, *others):
        names = {self.unit, *others}
        await self.trigger.watch({name: frozenset({"web"}) for name in names})

    async def look(self):
        (finding,) = await look(self.options, self.machine)
        self.findings.append(finding)
        return finding

    async def until(self, wanted):
        """Look at every signal until a finding is as wanted; no look without a signal."""
        async with asyncio.timeout(LIMIT):
            while True:
                await self.came.wait()
                self.came.clear()
                finding = await self.look()
                if wanted(finding):
                    return finding


def show(finding):
    return {
        "status": finding.status,
        "cause": finding.cause,
        "intended": finding.intended,
        "transition": finding.transition,
        "summary": finding.summary,
        "facts": dict(finding.facts),
        "measurements": dict(finding.measurements),
        "implicates": list(finding.implicates),
    }


def settled(finding):
    return finding.status != "unknown"


def down(finding):
    return settled(finding) and "active (" not in finding.facts["State"].replace("inactive", "")


async def look_once(unit):
    """As a program that has just been started: nothing was watched, only the journal knows."""
    machine = await open_machine(Clock())
    (finding,) = await look(ServiceOptions(type="service", unit=unit), machine)
    await machine.close()
    return show(finding)


async def run():
    machine = await open_machine(Clock())
    # A lab is a container, and says so.
    assert set(machine.list_missing()) == {"kernel"}, machine.list_missing()
    try:
        print(json.dumps(await main(machine)))
    finally:
        await machine.close()
'''

UNITS = {
    # Ends the moment it is told to: its jobs are over before anybody can ask for their type.
    "quick.service": "[Service]\nExecStart=/bin/sleep infinity\n",
    "phoenix.service": """[Service]
ExecStart=/bin/sleep infinity
Restart=always
RestartSec=500ms
""",
    # Answers a stop as Java does.
    "java.service": """[Service]
ExecStart=/bin/sh -c 'trap "exit 143" TERM; while :; do sleep 0.1; done'
""",
    "ends.service": """[Service]
ExecStart=/bin/sh -c 'while [ -e /run/go-on ]; do sleep 0.05; done'
""",
    "hasty.service": """[Service]
ExecStart=/bin/sh -c 'echo start number $$(cat /run/number); exit 3'
""",
    "talks.service": """[Service]
ExecStart=/bin/sh -c 'echo start number $$(cat /run/number); sleep 1; exit 3'
""",
    "job.service": "[Service]\nType=oneshot\nExecStart=/bin/true\n",
    "setup.service": "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n",
    "badjob.service": "[Service]\nType=oneshot\nExecStart=/bin/false\n",
    "broken.service": "[Service]\nType=simple\n",
    "skipped.service": "[Unit]\nConditionPathExists=/nowhere\n[Service]\nExecStart=/bin/sleep 9\n",
    "caller.socket": "[Socket]\nListenStream=/run/caller\n",
    "caller.service": "[Service]\nExecStart=/bin/true\n",
    "db.service": "[Service]\nExecStart=/bin/sleep infinity\n",
    "app.service": """[Unit]
BindsTo=db.service
After=db.service
[Service]
ExecStart=/bin/sleep infinity
""",
    "rival.service": """[Unit]
Conflicts=quick.service
[Service]
ExecStart=/bin/sleep infinity
""",
    "real.service": """[Service]
ExecStart=/bin/sleep infinity
[Install]
WantedBy=multi-user.target
Alias=nick.service
""",
    "static.service": "[Service]\nExecStart=/bin/sleep infinity\n",
    "disabled.service": """[Service]
ExecStart=/bin/sleep infinity
[Install]
WantedBy=multi-user.target
""",
}


@pytest.fixture(scope="module")
def host(lab_tree: Path) -> Iterator[Lab]:
    """A host with the units above."""
    with Lab.boot(lab_tree) as lab:
        for name, text in UNITS.items():
            lab.write(f"/etc/systemd/system/{name}", text)
        # Tests start and kill the same units again and again.
        limit = "[Unit]\nStartLimitIntervalSec=0\n"
        lab.write("/etc/systemd/system/service.d/no-start-limit.conf", limit)
        lab.run(["systemctl", "daemon-reload"])
        lab.run(["systemctl", "enable", "real.service"])
        yield lab


def run(host: Lab, program: str) -> Any:
    """Run `async def main(machine)` in the host; what it returns."""
    text = f"{PRELUDE}\n{textwrap.dedent(program)}\nasyncio.run(run())\n"
    done = host.run([PYTHON, "-P", "-X", "dev", "-W", "error", "-"], input=text, timeout=150)
    return json.loads(done.stdout.splitlines()[-1])


def look_once(host: Lab, unit: str) -> Any:
    """A look by a program that has just started and watched nothing."""
    return run(host, f"async def main(machine):\n    return await look_once({unit!r})")


def test_a_killed_service_wakes_the_trigger_and_is_critical(host: Lab) -> None:
    told = run(
        host,
        """
        async def main(machine):
            await systemctl("restart", "nginx")
            watcher = Watcher(machine, "nginx.service")
            await watcher.watch()
            before = await watcher.look()
            await systemctl("kill", "-s", "KILL", "--kill-who=all", "nginx")
            return [show(before), show(await watcher.until(down))]
        """,
    )
    before, after = told
    assert before["status"] == "ok"
    assert (after["status"], after["cause"]) == ("critical", "failed")
    assert after["summary"] == "nginx.service failed: signal (killed by SIGKILL)"
    assert after["facts"]["Result"] == "signal"
    assert look_once(host, "nginx.service")["cause"] == "failed"


def test_a_service_that_systemd_restarts_is_left_to_it(host: Lab) -> None:
    findings = run(
        host,
        """
        async def main(machine):
            await systemctl("restart", "phoenix")
            watcher = Watcher(machine, "phoenix.service")
            await watcher.watch()
            first = await watcher.look()
            pid = (await machine.systemd.unit("phoenix.service")).main_pid
            os.kill(pid, signal.SIGKILL)
            await watcher.until(lambda finding: finding.measurements["restarts_count"] == 1
                                and finding.status == "ok")
            return [show(finding) for finding in watcher.findings]
        """,
    )
    assert [finding["status"] for finding in findings if finding["status"] == "critical"] == []
    waiting = [finding for finding in findings if finding["cause"] == "restarting"]
    assert waiting
    assert all(finding["transition"] == "restarting" for finding in waiting)
    assert findings[-1]["status"] == "ok"


def test_an_operators_stop_is_intended_and_a_start_takes_it_back(host: Lab) -> None:
    stopped, started, killed = run(
        host,
        """
        async def main(machine):
            await systemctl("restart", "nginx")
            watcher = Watcher(machine, "nginx.service")
            await watcher.watch()
            await systemctl("stop", "nginx")
            stopped = await watcher.until(down)
            await systemctl("start", "nginx")
            started = await watcher.until(lambda finding: "running" in finding.summary)
            await systemctl("kill", "-s", "KILL", "--kill-who=all", "nginx")
            killed = await watcher.until(down)
            return [show(stopped), show(started), show(killed)]
        """,
    )
    assert (stopped["status"], stopped["intended"]) == ("ok", True)
    assert stopped["summary"] == "nginx.service was stopped by an operator"
    assert (started["status"], started["intended"]) == ("ok", False)
    assert (killed["status"], killed["cause"]) == ("critical", "failed")


def test_a_stop_from_before_the_start_of_the_watch_is_in_the_journal(host: Lab) -> None:
    host.run(["systemctl", "restart", "nginx"])
    host.run(["systemctl", "stop", "nginx"])
    assert look_once(host, "nginx.service")["intended"] is True
    host.run(["systemctl", "start", "nginx"])
    assert look_once(host, "nginx.service")["intended"] is False
    host.run(["systemctl", "kill", "-s", "KILL", "--kill-who=all", "nginx"])
    host.wait_for(["systemctl", "is-failed", "nginx"])
    assert look_once(host, "nginx.service")["cause"] == "failed"


def test_a_stop_job_that_is_over_in_no_time_is_an_intention_every_time(host: Lab) -> None:
    findings = run(
        host,
        """
        async def main(machine):
            watcher = Watcher(machine, "quick.service")
            await watcher.watch()
            found = []
            for _ in range(15):
                await systemctl("start", "quick")
                await watcher.until(lambda finding: "running" in finding.summary)
                await systemctl("stop", "quick")
                found.append(show(await watcher.until(down)))
            return found
        """,
    )
    assert [finding["intended"] for finding in findings] == [True] * 15


def test_a_stop_that_ends_in_an_error_is_intended_and_the_same_error_by_itself_is_not(
    host: Lab,
) -> None:
    stopped, died = run(
        host,
        """
        async def main(machine):
            await systemctl("restart", "java")
            watcher = Watcher(machine, "java.service")
            await watcher.watch()
            await systemctl("stop", "java")
            stopped = await watcher.until(down)
            await systemctl("start", "java")
            await watcher.until(lambda finding: "running" in finding.summary)
            await systemctl("kill", "-s", "TERM", "--kill-who=main", "java")
            died = await watcher.until(down)
            return [show(stopped), show(died)]
        """,
    )
    for finding in (stopped, died):
        assert finding["facts"]["Result"] == "exit-code"
        assert finding["facts"]["Main process"] == "exit code 143"
    assert (stopped["status"], stopped["intended"]) == ("ok", True)
    assert (died["status"], died["cause"]) == ("critical", "failed")
    host.run(["systemctl", "restart", "java"])
    host.run(["systemctl", "stop", "java"])
    assert look_once(host, "java.service")["intended"] is True


def test_a_service_that_ends_well_without_a_stop_job_has_stopped(host: Lab) -> None:
    host.write("/run/go-on", "")
    watched = run(
        host,
        """
        async def main(machine):
            await systemctl("restart", "ends")
            watcher = Watcher(machine, "ends.service")
            await watcher.watch()
            os.unlink("/run/go-on")
            return show(await watcher.until(down))
        """,
    )
    assert (watched["status"], watched["cause"]) == ("critical", "stopped")
    assert look_once(host, "ends.service")["cause"] == "stopped"


def test_what_a_run_of_hostmend_stopped_is_no_wish_of_an_operator(host: Lab) -> None:
    finding = run(
        host,
        """
        async def main(machine):
            await systemctl("restart", "quick")
            asked = []
            machine.ran = lambda unit, at: not asked.append((unit, at))
            watcher = Watcher(machine, "quick.service")
            await watcher.watch()
            before = machine.clock.now()
            await systemctl("stop", "quick")
            found = await watcher.until(down)
            ((unit, at),) = set(asked)
            assert unit == "quick.service" and before <= at <= machine.clock.now(), (before, at)
            return show(found)
        """,
    )
    assert (finding["status"], finding["cause"]) == ("critical", "stopped")
    assert "by a run of hostmend" in finding["summary"]


#: What is ordered, the unit that is looked at, and its finding: status, cause, intended.
KINDS = [
    ([["start", "job"]], "job.service", "ok", "", False),
    ([["start", "setup"]], "setup.service", "ok", "", False),
    ([["stop", "setup"]], "setup.service", "ok", "", True),
    ([["start", "badjob"]], "badjob.service", "critical", "failed", False),
    ([], "nothing.service", "critical", "missing", False),
    ([], "broken.service", "critical", "unloadable", False),
    ([["start", "skipped"]], "skipped.service", "warning", "skipped", False),
    ([["start", "caller.socket"]], "caller.service", "ok", "", False),
    ([], "caller.socket", "ok", "", False),
    ([], "static.service", "critical", "stopped", False),
    ([], "disabled.service", "ok", "", True),
    ([["mask", "masked"]], "masked.service", "ok", "", True),
    ([], "multi-user.target", "ok", "", False),
    ([["restart", "db", "app"], ["stop", "db"]], "app.service", "ok", "", True),
]


@pytest.fixture(scope="module")
def kinds(host: Lab) -> Any:
    """The findings of the list above, in its order."""
    return run(
        host,
        f"""
        async def main(machine):
            found = []
            for orders, unit, *_ in {KINDS!r}:
                for order in orders:
                    await systemctl(*order, check=False)
                found.append(await look_once(unit))
            return found
        """,
    )


@pytest.mark.parametrize(
    ("number", "unit", "status", "cause", "intended"),
    [(number, *kind[1:]) for number, kind in enumerate(KINDS)],
    ids=[f"{kind[1]}-is-{kind[3] or ('intended' if kind[4] else kind[2])}" for kind in KINDS],
)
def test_each_kind_of_unit_has_its_finding(
    kinds: Any, number: int, unit: str, status: str, cause: str, intended: bool
) -> None:
    finding = kinds[number]
    assert unit in finding["summary"]
    assert (finding["status"], finding["cause"]) == (status, cause)
    assert finding["intended"] is intended


def test_a_service_at_rest_behind_its_socket_says_so(kinds: Any) -> None:
    (facts,) = (kinds[n]["facts"] for n, kind in enumerate(KINDS) if kind[1] == "caller.service")
    assert facts["At rest"] == "caller.service waits for caller.socket"


def test_a_service_that_is_bound_to_a_dead_one_was_not_stopped_by_an_operator(host: Lab) -> None:
    watched = run(
        host,
        """
        async def main(machine):
            await systemctl("restart", "db", "app")
            watcher = Watcher(machine, "app.service")
            await watcher.watch()
            await systemctl("kill", "-s", "KILL", "db")
            return show(await watcher.until(down))
        """,
    )
    for finding in (watched, look_once(host, "app.service")):
        assert (finding["status"], finding["cause"]) == ("critical", "stopped")
        assert finding["implicates"] == ["unit:db.service"]


def test_a_service_that_gave_way_to_a_rival_is_a_conflict(host: Lab) -> None:
    watched = run(
        host,
        """
        async def main(machine):
            await systemctl("restart", "quick")
            watcher = Watcher(machine, "quick.service")
            await watcher.watch()
            await systemctl("start", "rival")
            return show(await watcher.until(down))
        """,
    )
    for finding in (watched, look_once(host, "quick.service")):
        assert (finding["status"], finding["cause"]) == ("critical", "conflict")
        assert "rival.service" in finding["summary"]
    host.run(["systemctl", "stop", "rival"])


def test_the_death_of_a_unit_is_seen_by_its_alias(host: Lab) -> None:
    finding = run(
        host,
        """
        async def main(machine):
            await systemctl("restart", "real")
            watcher = Watcher(machine, "nick.service")
            await watcher.watch()
            await systemctl("kill", "-s", "KILL", "real")
            return show(await watcher.until(down))
        """,
    )
    assert (finding["status"], finding["cause"]) == ("critical", "failed")
    assert finding["facts"]["Unit"] == "real.service"


def test_a_death_is_seen_among_more_units_than_the_bus_takes_narrow_rules_for(host: Lab) -> None:
    finding = run(
        host,
        """
        async def main(machine):
            await systemctl("restart", "quick")
            watcher = Watcher(machine, "quick.service")
            await watcher.watch(*(f"many{number}.service" for number in range(600)))
            await systemctl("kill", "-s", "KILL", "quick")
            return show(await watcher.until(down))
        """,
    )
    assert (finding["status"], finding["cause"]) == ("critical", "failed")


def test_the_connection_comes_back_after_a_restart_of_the_bus_and_sees_later_deaths(
    host: Lab,
) -> None:
    during, missed, killed = run(
        host,
        """
        async def main(machine):
            await systemctl("restart", "quick")
            watcher = Watcher(machine, "quick.service")
            await watcher.watch()
            await watcher.look()
            await systemctl("stop", "dbus.socket", "dbus.service")
            during = await watcher.look()
            await systemctl("kill", "-s", "KILL", "quick")
            watcher.came.clear()
            await systemctl("start", "dbus.socket", "dbus.service")
            missed = await watcher.until(down)
            await systemctl("start", "quick")
            await watcher.until(lambda finding: "running" in finding.summary)
            await systemctl("restart", "dbus")
            async with asyncio.timeout(LIMIT):
                while not (await watcher.look()).status == "ok":
                    await asyncio.sleep(0.05)
            await systemctl("kill", "-s", "KILL", "quick")
            killed = await watcher.until(down)
            return [show(during), show(missed), show(killed)]
        """,
    )
    assert (during["status"], during["cause"]) == ("unknown", "unavailable")
    assert (missed["status"], missed["cause"]) == ("critical", "failed")
    assert (killed["status"], killed["cause"]) == ("critical", "failed")


def test_systemds_own_restart_and_reload_lose_nothing(host: Lab) -> None:
    stopped, killed = run(
        host,
        """
        async def main(machine):
            await systemctl("restart", "quick")
            watcher = Watcher(machine, "quick.service")
            await watcher.watch()
            await systemctl("daemon-reload")
            await systemctl("stop", "quick")
            stopped = await watcher.until(down)
            await systemctl("start", "quick")
            await systemctl("daemon-reexec")
            async with asyncio.timeout(LIMIT):
                while not (await watcher.look()).status == "ok":
                    await asyncio.sleep(0.05)
            await systemctl("kill", "-s", "KILL", "quick")
            killed = await watcher.until(down)
            return [show(stopped), show(killed)]
        """,
    )
    assert stopped["intended"] is True
    assert (killed["status"], killed["cause"]) == ("critical", "failed")


def test_evidence_holds_the_log_of_this_start_alone(host: Lab) -> None:
    evidence = run(
        host,
        """
        async def main(machine):
            watcher = Watcher(machine, "talks.service")
            await watcher.watch()
            for number in (1, 2):
                open("/run/number", "w").write(str(number))
                await systemctl("start", "talks", check=False)
                finding = await watcher.until(down)
            items = await gather(watcher.options, finding, machine)
            return {item.title: item.text for item in items}
        """,
    )
    state, log = (
        evidence["State of talks.service"],
        evidence["Log of the last start of talks.service"],
    )
    assert "Result: exit-code" in state
    assert "Main process: exit code 3" in state
    assert "start number 2" in log
    assert "status=3/NOTIMPLEMENTED" in log
    assert "start number 1" not in log


def test_words_that_the_journal_takes_after_the_death_are_those_of_that_start(host: Lab) -> None:
    """journald reads which start a line belongs to as it takes it (systemd issue 2913)."""
    logs = run(
        host,
        """
        async def main(machine):
            watcher = Watcher(machine, "hasty.service")
            await watcher.watch()
            journald = (await machine.systemd.unit("systemd-journald.service")).main_pid
            logs = []
            for number in (1, 2):
                open("/run/number", "w").write(str(number))
                os.kill(journald, signal.SIGSTOP)
                try:
                    await systemctl("start", "hasty", check=False)
                    async with asyncio.timeout(LIMIT):
                        while (await machine.systemd.unit(watcher.unit)).active_state != "failed":
                            await asyncio.sleep(0.05)
                finally:
                    os.kill(journald, signal.SIGCONT)
                finding = await watcher.look()
                items = await gather(watcher.options, finding, machine)
                logs.append(items[-1].text)
            return logs
        """,
    )
    for number, log in enumerate(logs, 1):
        said = [line.partition(": ")[2] for line in log.splitlines()]
        assert said[0] == "Started hasty.service."
        assert sorted(said[1:]) == [
            "hasty.service: Failed with result 'exit-code'.",
            "hasty.service: Main process exited, code=exited, status=3/NOTIMPLEMENTED",
            f"start number {number}",
        ]


def test_every_unit_of_the_host_has_the_object_path_that_is_worked_out_for_it(host: Lab) -> None:
    wrong = run(
        host,
        """
        async def main(machine):
            text = subprocess.run(["systemctl", "list-units", "--all", "--plain", "--no-legend"],
                                  capture_output=True, text=True, check=True).stdout
            names = [line.split()[0] for line in text.splitlines()]
            rows = await machine.systemd.units(names)
            assert len(rows) > 50, rows
            return [row.id for row in rows if unit_path(row.id) != row.path]
        """,
    )
    assert wrong == []


def test_failed_units_and_the_version_are_listed(host: Lab) -> None:
    failed, version = run(
        host,
        """
        async def main(machine):
            await systemctl("start", "badjob", check=False)
            failed = [row.id for row in await machine.systemd.list_units(["*"], ["failed"])]
            return [failed, await machine.systemd.version()]
        """,
    )
    assert "badjob.service" in failed
    assert version.startswith("252")


def test_the_hosts_transitions_are_seen(host: Lab) -> None:
    seen = run(
        host,
        """
        async def main(machine):
            seen = [await host_transition(machine)]
            hold = ("import fcntl, sys; file = open('/var/lib/dpkg/lock-frontend', 'w');"
                    "fcntl.lockf(file, fcntl.LOCK_EX); print(flush=True); sys.stdin.read()")
            holder = subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE,
                                      stdout=subprocess.PIPE)
            holder.stdout.readline()
            seen.append(await host_transition(machine))
            holder.communicate()
            os.makedirs("/run/systemd/shutdown", exist_ok=True)
            file = "/run/systemd/shutdown/scheduled"
            soon = int((machine.clock.now() + 30) * 1e6)
            open(file, "w").write(f"USEC={soon}\\nWARN_WALL=1\\nMODE=reboot\\n")
            seen.append(await host_transition(machine))
            os.unlink(file)
            seen.append(await host_transition(machine))
            return seen
        """,
    )
    assert seen == ["", "package manager at work", "shutting down", ""]


def test_what_a_shutdown_stopped_was_not_stopped_by_an_operator_after_the_boot(
    lab_tree: Path,
) -> None:
    with Lab.boot(lab_tree) as host:
        host.run(["mkdir", "-p", "/var/log/journal"])
        host.run(["systemctl", "restart", "systemd-journald"])
        host.write("/etc/systemd/system/static.service", UNITS["static.service"])
        host.run(["systemctl", "daemon-reload"])
        host.run(["systemctl", "start", "static"])
        host.reboot()
        stopped = host.run(["journalctl", "-b", "-1", "-u", "static", "-o", "cat"]).stdout
        assert "Stopped static.service" in stopped
        finding = look_once(host, "static.service")
        # The monotonic clock of a real host begins anew, that of this one does not.
        told = run(
            host,
            """
            async def main(machine):
                return len(await read_told(["static.service"], since_wall=0, since_monotonic=0))
            """,
        )
    assert told == 0
    assert (finding["status"], finding["cause"]) == ("critical", "stopped")
    assert "not started since boot" in finding["summary"]
