"""Checks of the host itself against a real systemd, real packages and real processes.

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
import asyncio, json, os, signal, subprocess, sys, time
from agent.checks import CHECKS
from agent.clock import Clock
from agent.host.machine import open_machine
from agent.host.memory import Memories
from agent.triggers import open_triggers

LIMIT = 90


async def systemctl(*words, check=True):
    process = await asyncio.create_subprocess_exec("systemctl", *words)
    code = await process.wait()
    if check and code:
        raise SystemExit(f"systemctl {words} ended with {code}")


class Watched:
    """One check as the agent has it: with its memory, and woken by its triggers."""

    def __init__(self, machine, kind, **given):
        self.kind = CHECKS[kind]
        self.options = self.kind.model.model_validate(
            {"type": kind, "every": "10s", "timeout": "60s", **given})
        self.machine, self.memories = machine, Memories()
        self.came = asyncio.Event()
        self.triggers = open_triggers(machine, lambda _name: self.came.set())

    async def watch(self):
        for name, trigger in self.triggers.items():
            watched = self.kind.watches(self.options)
            await trigger.watch({w.what: frozenset({"it"}) for w in watched if w.trigger == name})

    async def look(self):
        memory = self.memories.open("it")
        own = self.machine.remember(memory)
        found = await self.kind.look(self.options, own)
        self.memories.keep("it", memory)
        return {finding.subject: show(finding) for finding in found}

    async def until(self, wanted):
        """Look at every signal until the findings are as wanted; no look without a signal."""
        async with asyncio.timeout(LIMIT):
            while True:
                await self.came.wait()
                self.came.clear()
                found = await self.look()
                if wanted(found):
                    return found

    async def poll(self, wanted):
        """Look again and again, as the timer does."""
        async with asyncio.timeout(LIMIT):
            while True:
                found = await self.look()
                if wanted(found):
                    return found
                await asyncio.sleep(0.1)


def show(finding):
    return {
        "status": finding.status,
        "cause": finding.cause,
        "intended": finding.intended,
        "transition": finding.transition,
        "summary": finding.summary,
        "facts": dict(finding.facts),
        "measurements": dict(finding.measurements),
    }


async def run():
    machine = await open_machine(Clock())
    try:
        print(json.dumps(await main(machine)))
    finally:
        await machine.close()
'''

OLD = "/usr/local/lib/libold.so"
UNITS = {
    "phoenix.service": """[Service]
ExecStart=/bin/sleep infinity
Restart=always
RestartSec=100ms
""",
    "job.service": "[Service]\nType=oneshot\nExecStart=/bin/sh /run/job\n",
    "job.timer": "[Timer]\nOnCalendar=yearly\n[Install]\nWantedBy=timers.target\n",
    "badjob.service": "[Service]\nType=oneshot\nExecStart=/bin/false\n",
    "bad@.service": "[Service]\nType=oneshot\nExecStart=/bin/false\n",
    # Answers a stop as Java does: systemd calls that failed.
    "java.service": """[Service]
ExecStart=/bin/sh -c 'trap "exit 143" TERM; while :; do sleep 0.1; done'
""",
    "loads.service": """[Service]
ExecStart=/usr/bin/python3 -c "import ctypes, time; ctypes.CDLL('{old}'); time.sleep(1e6)"
""",
}


@pytest.fixture(scope="module")
def host(lab_tree: Path) -> Iterator[Lab]:
    """A host with the units above."""
    with Lab.boot(lab_tree) as lab:
        for name, text in UNITS.items():
            lab.write(f"/etc/systemd/system/{name}", text.replace("{old}", OLD))
        limit = "[Unit]\nStartLimitIntervalSec=0\n"
        lab.write("/etc/systemd/system/service.d/no-start-limit.conf", limit)
        lab.run(["systemctl", "daemon-reload"])
        yield lab


def run(host: Lab, program: str) -> Any:
    """Run `async def main(machine)` in the host; what it returns."""
    text = f"{PRELUDE}\n{textwrap.dedent(program)}\nasyncio.run(run())\n"
    done = host.run([PYTHON, "-P", "-X", "dev", "-W", "error", "-"], input=text, timeout=180)
    return json.loads(done.stdout.splitlines()[-1])


# Services that are up


def test_what_systemd_restarts_again_and_again_is_told_and_left_to_it(host: Lab) -> None:
    causes, last = run(
        host,
        """
        async def main(machine):
            await systemctl("restart", "phoenix")
            watched = Watched(machine, "service", unit="phoenix.service")
            await watched.watch()
            causes = [(await watched.look())["phoenix.service"]["cause"]]
            for number in (1, 2, 3):
                pid = (await machine.systemd.unit("phoenix.service")).main_pid
                os.kill(pid, signal.SIGKILL)
                found = await watched.until(
                    lambda f: f["phoenix.service"]["measurements"]["restarts_count"] == number
                    and f["phoenix.service"]["facts"]["State"] == "active (running)")
                causes.append(found["phoenix.service"]["cause"])
            return causes, found["phoenix.service"]
        """,
    )
    assert causes == ["", "", "", "restarting-often"]
    assert last["status"] == "warning"
    assert "was restarted 3 times by systemd within 10 min" in last["summary"]


def test_a_job_by_the_clock_is_overdue_once_its_last_success_is_too_long_ago(host: Lab) -> None:
    never, done, failed, overdue, later, healed = run(
        host,
        """
        async def main(machine):
            def say(text):
                open("/run/job", "w").write(text)
            # As on a host that was booted long ago: right after a boot, timers may catch up.
            machine.systemd.started -= 3600
            await systemctl("start", "job.timer")
            watched = Watched(machine, "service", unit="job.timer", succeeded_within="1h")
            await watched.watch()
            look = lambda: watched.look()
            never = (await look())["job.timer"]
            say("exit 0")
            await systemctl("start", "job")
            done = (await look())["job.timer"]
            say("exit 3")
            await systemctl("start", "job", check=False)
            failed = (await look())["job.timer"]
            # The last success was two hours ago, as an earlier agent remembers it.
            memory = watched.memories.open("it")
            memory.put("service.succeeded", machine.clock.now() - 7200)
            watched.memories.keep("it", memory)
            overdue = (await look())["job.timer"]
            machine.systemd.started += 3600
            later = (await look())["job.timer"]
            say("exit 0")
            await systemctl("start", "job")
            healed = (await look())["job.timer"]
            return never, done, failed, overdue, later, healed
        """,
    )
    assert (never["status"], never["facts"]["Last success"]) == ("ok", "none was seen yet")
    assert done["status"] == "ok"
    assert done["measurements"]["success_age_seconds"] < 600
    assert failed["status"] == "ok", "it is not too long ago yet"
    assert (overdue["status"], overdue["cause"]) == ("critical", "overdue")
    assert "should succeed within 1 h, and did so 2 h ago" in overdue["summary"]
    assert "its last run failed: exit-code" in overdue["summary"]
    assert later["status"] == "ok", "a host that has just come up makes up for what it missed"
    assert healed["status"] == "ok"


# Whatever fails


def test_a_host_on_which_nothing_fails_has_one_finding(host: Lab) -> None:
    found = run(
        host,
        """
        async def main(machine):
            await systemctl("reset-failed")
            return await Watched(machine, "service", unit="*").look()
        """,
    )
    assert {subject: f["summary"] for subject, f in found.items()} == {"*": "no unit has failed"}


def test_each_unit_that_fails_is_a_finding_until_it_has_not_any_more(host: Lab) -> None:
    failed, again, reset = run(
        host,
        """
        async def main(machine):
            await systemctl("reset-failed")
            watched = Watched(machine, "service", unit="*")
            await systemctl("start", "badjob", check=False)
            await systemctl("start", "nginx")
            failed = await watched.look()
            # Another agent remembers which ones had failed.
            rows = [("it", key, text) for key, text in watched.memories._kept["it"].items()]
            watched.memories = Memories(rows)
            again = await watched.look()
            await systemctl("reset-failed")
            return failed, again, await watched.look()
        """,
    )
    assert (failed["badjob.service"]["status"], failed["badjob.service"]["cause"]) == (
        "critical",
        "failed",
    )
    assert list(failed) == list(again) == list(reset) == ["badjob.service"]
    assert reset["badjob.service"]["status"] == "ok"


def test_who_answers_an_operators_stop_with_an_error_has_not_failed(host: Lab) -> None:
    found = run(
        host,
        """
        async def main(machine):
            await systemctl("reset-failed")
            await systemctl("restart", "java")
            await systemctl("stop", "java")
            state = await machine.systemd.unit("java.service")
            assert state.active_state == "failed", state
            return await Watched(machine, "service", unit="*").look()
        """,
    )
    assert (found["java.service"]["status"], found["java.service"]["intended"]) == ("ok", True)


def test_units_that_are_ignored_watched_by_name_or_of_another_name_are_left_out(
    host: Lab,
) -> None:
    ignored, named, other = run(
        host,
        """
        async def main(machine):
            await systemctl("reset-failed")
            await systemctl("start", "badjob", "bad@1", check=False)
            ignored = await Watched(machine, "service", unit="*", ignore=["bad@*"]).look()
            machine.named = lambda: frozenset({"badjob.service"})
            named = await Watched(machine, "service", unit="*").look()
            machine.named = frozenset
            other = await Watched(machine, "service", unit="bad?[0-9].service").look()
            await systemctl("reset-failed")
            return sorted(ignored), sorted(named), sorted(other)
        """,
    )
    assert ignored == ["badjob.service"]
    assert named == ["bad@1.service"]
    assert other == ["bad@1.service"]


def test_of_many_that_fail_at_once_the_rest_is_counted(host: Lab) -> None:
    found, gone, took = run(
        host,
        """
        async def main(machine):
            await systemctl("reset-failed")
            names = [f"bad@{number:02}" for number in range(60)]
            await systemctl("start", *names, check=False)
            watched = Watched(machine, "service", unit="bad@*")
            began = time.monotonic()
            found = await watched.look()
            took = time.monotonic() - began
            unit = "/etc/systemd/system/bad@.service"
            os.rename(unit, f"{unit}.gone")
            await systemctl("daemon-reload")
            await systemctl("reset-failed")
            gone = await watched.look()
            os.rename(f"{unit}.gone", unit)
            await systemctl("daemon-reload")
            return found, gone, took
        """,
    )
    print(f"60 failed units: the first look took {took:.2f} s")
    assert len(found) == 51
    assert found["bad@*"]["summary"].startswith("10 more units have failed")
    assert list(gone) == ["bad@*"], "what is no longer there is not reported"
    assert gone["bad@*"]["status"] == "ok"


def test_what_runs_for_long_and_is_enabled_is_proposed_with_its_ladder(host: Lab) -> None:
    proposals = run(
        host,
        """
        async def main(machine):
            await systemctl("enable", "nginx")
            await systemctl("restart", "nginx", "phoenix")
            await systemctl("start", "badjob", check=False)
            await systemctl("start", "logrotate.timer")
            found = {}
            for kind in ("service", "disk", "memory", "clock", "updates", "process"):
                for proposal in await CHECKS[kind].propose(machine):
                    assert CHECKS[kind].model.model_validate(proposal.options)
                    found[proposal.name] = [dict(proposal.options), proposal.why]
            await systemctl("disable", "nginx")
            await systemctl("stop", "logrotate.timer")
            return found
        """,
    )
    options, why = proposals["nginx"]
    assert options == {
        "type": "service",
        "unit": "nginx.service",
        "ladder": [
            {
                "remedy": "restart-service",
                "options": {"unit": "nginx.service", "validate": ["nginx", "-t"]},
            }
        ],
    }
    assert "is enabled and runs" in why
    assert proposals["failed-units"][0] == {"type": "service", "unit": "*"}
    assert proposals["logrotate"][0] == {
        "type": "service",
        "unit": "logrotate.service",
        "succeeded_within": "2d",
    }
    assert proposals["memory"][0] == {"type": "memory"}
    assert proposals["updates"][0] == {"type": "updates"}
    for name in ("phoenix", "badjob", "clock", "dbus", "systemd-journald", "getty-tty1"):
        assert name not in proposals, f"{name} suits nobody"


# Processes


def test_the_death_of_a_worker_of_nginx_is_seen_and_its_replacement_too(host: Lab) -> None:
    counts = run(
        host,
        """
        async def main(machine):
            await systemctl("restart", "nginx")
            watched = Watched(machine, "process", name="nginx", user="www-data")
            await watched.watch()
            subject = "nginx of www-data"
            first = (await watched.look())[subject]
            os.kill(int(first["facts"]["Processes"].split(",")[0]), signal.SIGKILL)
            fewer = await watched.until(lambda f: f[subject]["measurements"]["processes_count"]
                                        < first["measurements"]["processes_count"])
            # nginx puts another in its place; the next table, a second later, has it.
            whole = await watched.poll(lambda f: f[subject]["measurements"]["processes_count"]
                                       == first["measurements"]["processes_count"])
            return [f["measurements"]["processes_count"] for f in
                    (first, fewer[subject], whole[subject])]
        """,
    )
    assert counts[1] == counts[0] - 1
    assert counts[2] == counts[0]


# The clock


def test_the_clock_is_kept_right_or_not_as_systemd_says_of_it(host: Lab) -> None:
    ours, container = run(
        host,
        """
        async def main(machine):
            from agent.host.timesync import read_discipline
            (finding,) = (await Watched(machine, "clock").look()).values()
            return read_discipline().synchronised, finding["summary"]
        """,
    )
    shown = host.run(["timedatectl", "show", "-p", "NTPSynchronized", "--value"]).stdout.strip()
    assert ours == (shown == "yes")
    assert "the machine around this container" in container


# Packages


def make_package(host: Lab, name: str, version: str, directory: str) -> None:
    """A package with nothing in it, made with the host's own dpkg-deb."""
    control = (
        f"Package: {name}\nVersion: {version}\nArchitecture: all\n"
        "Maintainer: Nobody <nobody@example.org>\nDescription: nothing\n"
    )
    place = f"/root/build/{name}-{version}"
    host.write(f"{place}/DEBIAN/control", control)
    host.run(["mkdir", "-p", directory])
    host.run(["dpkg-deb", "--build", place, f"{directory}/{name}_{version}_all.deb"])


PUBLISH = """
import hashlib, os, subprocess
root = '/srv/archive'
for suite, label in (('stable', 'Debian'), ('stable-security', 'Debian-Security')):
    place = f'{root}/dists/{suite}/main/binary-all'
    os.makedirs(place, exist_ok=True)
    lines = []
    pool = f'{root}/pool/{suite}'
    for name in sorted(os.listdir(pool)):
        data = open(f'{pool}/{name}', 'rb').read()
        control = subprocess.check_output(['dpkg-deb', '-f', f'{pool}/{name}'], text=True)
        lines.append(f'{control}Filename: pool/{suite}/{name}\\nSize: {len(data)}\\n'
                     f'SHA256: {hashlib.sha256(data).hexdigest()}\\n')
    text = '\\n'.join(lines)
    open(f'{place}/Packages', 'w').write(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    open(f'{root}/dists/{suite}/Release', 'w').write(
        f'Origin: {label}\\nLabel: {label}\\nSuite: {suite}\\nCodename: {suite}\\nVersion: 12\\n'
        'Architectures: all amd64 arm64\\nComponents: main\\nDate: Thu, 01 Jan 2026 00:00:00 UTC\\n'
        f'SHA256:\\n {digest} {len(text)} main/binary-all/Packages\\n')
"""


@pytest.fixture(scope="module")
def archive(host: Lab) -> Lab:
    """The host with an archive of its own: one security update waits, and one that is none."""
    for name in ("hm-plain", "hm-secure"):
        make_package(host, name, "1", "/root/old")
        host.run(["dpkg", "--install", f"/root/old/{name}_1_all.deb"])
    make_package(host, "hm-plain", "2", "/srv/archive/pool/stable")
    make_package(host, "hm-secure", "2", "/srv/archive/pool/stable-security")
    host.run(["python3", "-c", PUBLISH])
    host.run(["sh", "-c", "rm -f /etc/apt/sources.list /etc/apt/sources.list.d/*"])
    return host


def look_at_updates(host: Lab, **given: str) -> Any:
    return run(
        host,
        f"""
        async def main(machine):
            watched = Watched(machine, "updates", **{given!r})
            # What waits is counted from the first look on.
            await watched.look()
            return await watched.look()
        """,
    )


def test_a_host_that_never_asked_for_updates_cannot_tell(archive: Lab) -> None:
    found = look_at_updates(archive)["security updates"]
    assert (found["status"], found["cause"]) == ("warning", "stale")


def test_a_security_update_that_waits_is_told_and_another_is_not(archive: Lab) -> None:
    sources = "".join(
        f"deb [trusted=yes] file:/srv/archive {suite} main\n"
        for suite in ("stable", "stable-security")
    )
    archive.write("/etc/apt/sources.list", sources)
    archive.run(["apt-get", "update"])
    before = archive.run(["sh", "-c", "ls -lR /var/cache/apt; dpkg -l 'hm-*'"]).stdout
    found = look_at_updates(archive, security_within="1ms")["security updates"]
    assert (found["status"], found["cause"]) == ("warning", "security")
    assert found["summary"].startswith("a security update waits: hm-secure, since")
    assert found["measurements"]["waiting_count"] == 1
    after = archive.run(["sh", "-c", "ls -lR /var/cache/apt; dpkg -l 'hm-*'"]).stdout
    assert after == before, "a look changed what apt has"
    archive.run(["apt-get", "install", "--yes", "hm-secure"])
    found = look_at_updates(archive, security_within="1ms")["security updates"]
    assert (found["status"], found["summary"]) == ("ok", "no security update waits")


def test_a_reboot_that_is_asked_for_is_told_with_who_asks(archive: Lab) -> None:
    archive.write("/run/reboot-required", "*** System restart required ***\n")
    archive.write("/run/reboot-required.pkgs", "libc6\n")
    archive.run(["touch", "-d", "8 days ago", "/run/reboot-required"])
    found = look_at_updates(archive)["reboot"]
    archive.run(["rm", "/run/reboot-required", "/run/reboot-required.pkgs"])
    assert (found["status"], found["cause"]) == ("warning", "reboot")
    assert found["summary"] == "a reboot is asked for by libc6, since 8 d"


def test_a_service_that_still_runs_a_replaced_library_is_told_until_it_is_restarted(
    archive: Lab,
) -> None:
    mapped = ["sh", "-c", f"grep -q {OLD} /proc/$(systemctl show -P MainPID loads)/maps"]
    archive.run(["sh", "-c", f"cp $(ldconfig -p | grep -m1 -o '/.*libz.so.1$') {OLD}"])
    archive.run(["systemctl", "start", "loads"])
    archive.wait_for(mapped)
    whole = look_at_updates(archive, restart_within="1ms")["services"]
    # As dpkg does it: the new file is put in the old one's place.
    archive.run(["sh", "-c", f"cp {OLD} {OLD}.new && mv {OLD}.new {OLD}"])
    outdated = look_at_updates(archive, restart_within="1ms")["services"]
    archive.run(["systemctl", "restart", "loads"])
    archive.wait_for(mapped)
    healed = look_at_updates(archive, restart_within="1ms")["services"]
    archive.run(["systemctl", "stop", "loads"])
    assert whole["status"] == healed["status"] == "ok"
    assert (outdated["status"], outdated["cause"]) == ("warning", "outdated")
    assert outdated["summary"].startswith("loads.service still runs what was updated meanwhile")
