"""Plugins: good, bad, hung, hostile, and never anything left of them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.checks.plugin import PLUGIN, PluginOptions, gather, look
from agent.clock import Clock
from agent.config import load_config, show_config
from agent.core.model import Finding
from agent.errors import Unavailable
from agent.host.leash import find_user
from agent.host.machine import Machine
from agent.host.processes import Process, become_subreaper, read_children, read_processes
from agent.host.warden import MARK
from agent.remedies.catalog import SHIPPED, Catalog

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def machine() -> AsyncIterator[Machine]:
    machine = Machine(clock=Clock())
    yield machine
    await machine.close()


async def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def options(*command: str, **fields: Any) -> PluginOptions:
    return PluginOptions.model_validate(
        {"type": "plugin", "timeout": "60s", "command": list(command), **fields}, strict=False
    )


async def see(machine: Machine, script: str, **fields: Any) -> Finding:
    """One look with a plugin that is a shell script."""
    (finding,) = await look(options("/bin/sh", "-c", script, **fields), machine)
    return finding


def verdict(finding: Finding) -> tuple[str, str]:
    return finding.status.value, finding.cause


def find_alive(word: str) -> list[Process]:
    """Processes with this word on their command lines."""
    found = []
    for process in read_processes().values():
        try:
            words = Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if any(word.encode() in each for each in words) and process.pid != os.getpid():
            found.append(process)
    return found


@pytest.fixture
def word() -> Iterator[str]:
    """A word by which the processes of one test are known; none may be left at its end."""
    word = f"w{uuid.uuid4().hex}"
    yield word
    deadline = time.monotonic() + 30
    while (alive := find_alive(word)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert alive == []
    assert [process for process in read_children() if process.zombie] == []


# What plugins say


@pytest.mark.parametrize(
    ("sentence", "script", "wanted", "summary"),
    [
        ("all is well", "echo fine", ("ok", ""), "fine"),
        ("it needs a look", "echo 'odd | a=1'; exit 1", ("warning", "warning"), "odd"),
        ("it fails", "echo bad; echo more; exit 2", ("critical", "critical"), "bad"),
        ("it cannot tell", "echo what; exit 3", ("unknown", "unknown"), "what"),
        ("not so", "exit 4", ("unknown", "broken"), "sh ended with exit code 4: (no output)"),
        ("it dies", "echo x; kill -9 $$", ("unknown", "broken"), "sh was ended by signal 9: x"),
        ("it says nothing", "exit 2", ("critical", "critical"), "(no output)"),
        ("it says it elsewhere", "echo no >&2; exit 2", ("critical", "critical"), "no"),
        ("it says it twice", "echo a; echo b >&2; exit 1", ("warning", "warning"), "a"),
        ("colours do nothing", r"printf '\033[31mred\033[0m\a'", ("ok", ""), "red"),
        ("no text is text", r"printf '\377\376ok'", ("ok", ""), "\ufffd\ufffdok"),
    ],
)  # fmt: skip
async def test_the_exit_code_is_the_status(
    sentence: str, script: str, wanted: tuple[str, str], summary: str, machine: Machine
) -> None:
    finding = await see(machine, script)
    assert verdict(finding) == wanted
    assert finding.summary == summary
    assert finding.subject == "sh"


async def test_performance_data_become_measurements(machine: Machine) -> None:
    finding = await see(
        machine, "echo \"LOAD | load1=12;5;10;0 '/var'=5MB what\"; exit 2", subject="load of it"
    )
    assert finding.subject == "load of it"
    assert finding.measurements["load1_count"] == 12
    assert finding.measurements["var_bytes"] == 5_000_000
    assert finding.measurements["exit_code"] == 2
    assert finding.measurements["run_seconds"] > 0
    assert finding.facts["Beyond its limits"] == "load1 = 12 (critical: over 10)"
    assert finding.facts["Unreadable performance data"] == "what"


async def test_evidence_is_all_that_it_prints(machine: Machine) -> None:
    asked = options("/bin/sh", "-c", "echo one; echo two; echo three >&2; exit 1")
    (finding,) = await look(asked, machine)
    (evidence,) = await gather(asked, finding, machine)
    assert "Exit code: 1" in evidence.text
    assert evidence.text.endswith("one\ntwo\n")


# How they are run


async def test_no_shell_reads_the_arguments(machine: Machine) -> None:
    (finding,) = await look(options("/bin/echo", "$(id) `id`; id > /x & *"), machine)
    assert finding.summary == "$(id) `id`; id > /x & *"


async def test_the_environment_is_made_from_scratch(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENT_SECRET", "x")
    script = "env | sort | tr '\\n' ' '; pwd; cat; umask"
    finding = await see(machine, script, environment={"PGHOST": "db"})
    names = {word.partition("=")[0] for word in finding.summary.split() if "=" in word}
    assert names <= {"HOME", "LC_ALL", "LOGNAME", "PATH", "PGHOST", "PWD", "USER", MARK}
    assert "PGHOST=db" in finding.summary
    assert finding.summary.split()[-1] == "/"


async def test_who_it_runs_as(machine: Machine) -> None:
    finding = await see(machine, "id -un; exit 0")
    if os.geteuid() != 0:
        assert finding.summary == find_user_name()
        (found,) = await look(options("/bin/true", user="root"), machine)
        assert verdict(found) == ("unknown", "unavailable")
        assert "hostmend does not run as root" in found.summary
        return
    assert finding.summary == "nobody"
    finding = await see(machine, "echo $(id -un) $(id -Gn) $HOME", user="daemon")
    assert finding.summary == "daemon daemon /usr/sbin"
    assert (await see(machine, "id -un", user="root")).summary == "root"


def find_user_name() -> str:
    rows = [line.split(":") for line in Path("/etc/passwd").read_text().splitlines()]
    return next(row[0] for row in rows if row[2] == str(os.geteuid()))


async def test_root_runs_no_program_that_others_may_change(
    machine: Machine, tmp_path: Path
) -> None:
    program = tmp_path / "check_it"
    program.write_text("#!/bin/sh\nid -un\n")
    program.chmod(0o757)
    user = find_user_name()
    (finding,) = await look(options(str(program), user=user), machine)
    if user == "root":
        assert verdict(finding) == ("unknown", "unavailable")
        assert f"others than root may change {program}" in finding.summary
        program.chmod(0o755)
        (finding,) = await look(options(str(program), user=user), machine)
    assert finding.summary == user


def test_groups_come_from_the_files_themselves(tmp_path: Path) -> None:
    (tmp_path / "passwd").write_text("web:x:33:33:www:/var/www:/bin/sh\nbad:x\n")
    (tmp_path / "group").write_text("adm:x:4:root,web\nweb:x:33:\nssl:x:9:webs\nx\n")
    user = find_user("web", tmp_path / "passwd")
    assert (user.uid, user.gid, user.groups, user.home) == (33, 33, (33, 4), "/var/www")
    with pytest.raises(Unavailable, match="there is no such user"):
        find_user("nobody", tmp_path / "passwd")
    with pytest.raises(Unavailable, match="cannot be read"):
        find_user("web", tmp_path / "nowhere" / "passwd")


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("/nowhere/check_x", "No such file"),
        ("/etc/passwd", "Permission denied"),
        ("/etc", "Permission denied"),
    ],
)
async def test_what_cannot_be_run_is_unavailable(
    program: str, words: str, machine: Machine
) -> None:
    (finding,) = await look(options(program), machine)
    assert verdict(finding) == ("unknown", "unavailable")
    assert words in finding.summary


# How they end

#: What plugins do that are not done in time, as shell scripts; {word} marks what they start.
HANGS = {
    "sleeps": "echo begun; sleep 1000; : {word}",
    "ignores to be asked": "trap '' TERM INT HUP; echo begun; sleep 1000; : {word}",
    "starts others": "sleep 1000 & sleep 1000 & echo begun; wait; : {word}",
    "starts others in a session of their own": (
        "setsid sh -c 'sleep 1000 & wait; : {word}' & echo begun; sleep 1000; : {word}"
    ),
    "starts others that forget where they come from": (
        "(env -i setsid sh -c 'sleep 1000; : {word}' &) ; echo begun; sleep 1000; : {word}"
    ),
    "hangs with its output closed": "echo begun; exec >&- 2>&-; sleep 1000; : {word}",
}


@pytest.mark.parametrize("sentence", HANGS)
async def test_a_plugin_past_its_time_is_ended_with_all_that_it_started(
    sentence: str, machine: Machine, word: str
) -> None:
    finding = await see(machine, HANGS[sentence].replace("{word}", word), timeout="500ms")
    assert verdict(finding) == ("unknown", "timeout")
    assert "did not end within" in finding.summary


LEFT = {
    "in its group": "sh -c 'sleep 1000; : {word}' &",
    "in a group of its own": "set -m; sh -c 'sleep 1000; : {word}' & ",
    "in a session of its own": "setsid sh -c 'sleep 1000; : {word}' &",
    "as a daemon": (
        'python3 -c "import os, time; os.fork() and os._exit(0); os.setsid(); '
        "os.fork() and os._exit(0); [os.close(n) for n in range(3)]; time.sleep(1000); '{word}'\""
    ),
}


@pytest.mark.parametrize("sentence", LEFT)
async def test_what_a_plugin_leaves_behind_is_ended(
    sentence: str, machine: Machine, word: str
) -> None:
    script = LEFT[sentence].replace("{word}", word).replace("python3", sys.executable)
    if os.geteuid() == 0:
        # Not every user may run the Python of these tests.
        finding = await see(machine, f"{script}\necho done", user="root")
    else:
        finding = await see(machine, f"{script}\necho done")
    assert verdict(finding) == ("ok", "")
    assert finding.summary == "done"


async def test_one_that_holds_the_output_open_does_not_hold_up_the_look(
    machine: Machine, word: str
) -> None:
    apart = "while [ $(ps -o sid= -p $!) = $(ps -o sid= -p $$) ]; do :; done"
    script = f"setsid sh -c 'sleep 1000; : {word}' & {apart}; echo done; exit 1"
    finding = await see(machine, script)
    assert verdict(finding) == ("warning", "warning")
    assert finding.facts["Left behind"] == "1 processes, which were ended"


@pytest.mark.parametrize("stream", ["1", "2"])
async def test_a_plugin_that_never_stops_talking_is_ended(
    stream: str, machine: Machine, word: str
) -> None:
    finding = await see(machine, f"yes {word} >&{stream}", output_limit=10_000)
    assert verdict(finding) == ("unknown", "output")
    assert "printed more than 10000 bytes" in finding.summary


async def test_a_look_that_is_given_up_ends_its_plugin(machine: Machine, word: str) -> None:
    looking = asyncio.ensure_future(see(machine, f"setsid sleep 1000 & sleep 1000; : {word}"))
    await wait_for(lambda: bool(find_alive(word)))
    looking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await looking


async def test_many_plugins_at_once_do_not_end_each_other(machine: Machine) -> None:
    scripts = [f"sleep 0.{n % 5}; setsid sleep 0.2 & echo {n}; exit {n % 4}" for n in range(40)]
    found = await asyncio.gather(*(see(machine, script) for script in scripts))
    assert [finding.summary for finding in found] == [str(n) for n in range(40)]
    assert [finding.measurements["exit_code"] for finding in found] == [n % 4 for n in range(40)]
    assert [process for process in read_children() if process.zombie] == []


async def test_what_runs_ends_with_the_agent(word: str, tmp_path: Path) -> None:
    program = (
        "import asyncio, sys\n"
        "from agent.host.leash import Leash, Program\n"
        "script = sys.argv[1]\n"
        "asyncio.run(Leash().run(Program(argv=('/bin/sh', '-c', script)), 600))\n"
    )
    script = f"env -i setsid sh -c 'sleep 1000; : {word}' & sleep 1000; : {word}"
    argv = [sys.executable, "-c", program, script]
    agent = subprocess.Popen(argv, cwd=ROOT)  # noqa: ASYNC220 - it is to be killed, not awaited
    try:
        await wait_for(lambda: len(find_alive(word)) >= 3)
    finally:
        agent.kill()
        agent.wait()


async def test_a_warden_that_is_killed_is_replaced(machine: Machine, word: str) -> None:
    become_subreaper()
    looking = asyncio.ensure_future(see(machine, f"setsid sleep 1000; : {word}"))
    await wait_for(lambda: bool(find_alive(word)))
    # What it forked has its command line until it begins another program.
    found = min(find_alive(word), key=lambda process: (process.started, process.pid))
    os.kill(found.parent, signal.SIGKILL)
    finding = await looking
    assert verdict(finding) == ("unknown", "unavailable")
    assert "went away" in finding.summary
    assert verdict(await see(machine, "echo fine")) == ("ok", "")


# What is shown of secrets


async def test_secrets_are_shown_nowhere(machine: Machine, tmp_path: Path) -> None:
    command = [
        "/bin/sh",
        "-c",
        "echo $0 $1 $2 $3 $TOKEN; exit 1",
        "--password",
        "hunter22",
        "--api-key=abc-key",
        "plain",
    ]
    asked = options(*command, environment={"TOKEN": "tok-1234", "PLACE": "here"})
    (finding,) = await look(asked, machine)
    assert finding.summary.replace("***", "***") == "--password *** --api-key=*** plain ***"
    (evidence,) = await gather(asked, finding, machine)
    path = tmp_path / "hostmend.yml"
    path.write_text(
        f"checks: {{a: {{type: plugin, command: {command!r}, environment: "
        "{TOKEN: tok-1234, PLACE: here}}}\n"
    )
    config = load_config(path, catalog=Catalog.load((SHIPPED,)))
    shown = show_config(config) + repr(config.checks) + evidence.text + repr(finding)
    assert not [secret for secret in ("hunter22", "abc-key", "tok-1234") if secret in shown]
    assert "PLACE: here" in shown


def test_what_a_plugin_check_begins_with() -> None:
    assert PLUGIN.defaults == {"every": "1m", "timeout": "30s"}
