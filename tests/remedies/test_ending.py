"""However a run ends, and whoever is killed: nothing of it is left."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from agent.clock import Clock
from agent.core.model import Changes, Outcome
from agent.errors import Conflict, Unavailable
from agent.host.cgroups import PREFIX, find_place
from agent.host.processes import is_alive, read_process, read_processes
from agent.remedies.client import JobRequest, attach, discard

ROOT = Path(__file__).resolve().parents[2]

#: A small agent: runs one request, prints what it hears.
AGENT = """
import asyncio, json, sys
from pathlib import Path
from agent.clock import Clock
from agent.core.model import Changes
from agent.remedies.client import JobRequest, prepare_runtime, run_job

given = json.loads(sys.argv[1])
given["remedy_dirs"] = tuple(map(Path, given["remedy_dirs"]))
given["runtime_dir"] = Path(given["runtime_dir"])
given["changes"] = Changes(given["changes"])
prepare_runtime(given["runtime_dir"])
asyncio.run(run_job(
    JobRequest(**given),
    on_event=lambda event: print(json.dumps(event), flush=True),
    cancel=asyncio.Event(),
    clock=Clock(),
))
"""


def start_agent(request: JobRequest) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", "-c", AGENT, json.dumps(asdict(request), default=str)],
        env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]},
        stdout=subprocess.PIPE,
    )


def write_stubborn(bench, stubborn, **more) -> None:
    """A remedy that starts what does not want to end, behind Ansible's back and before it."""
    command, _ = stubborn
    bench.write(
        f"""
        - name: Behind
          ansible.builtin.command: {{argv: [sh, -c, "{command} >/dev/null 2>&1 </dev/null &"]}}
        - name: Before
          ansible.builtin.command: {{argv: [sh, -c, "exec {command}"]}}
        """,
        **more,
    )


def list_zombies():
    """Ends of processes that came back to us and that nobody has taken note of."""
    own = os.getpid()
    return [p for p in read_processes().values() if p.parent == own and p.zombie]


async def test_a_run_that_ends_well_leaves_no_process_behind(bench, stubborn, until):
    command, alive = stubborn
    seen = []
    bench.write(f"""
        - ansible.builtin.command: {{argv: [sh, -c, "{command} >/dev/null 2>&1 </dev/null &"]}}
        - {{ansible.builtin.wait_for: {{timeout: 1}}}}
    """)
    bench.on_event = lambda event: seen.append(alive()) if event["event"] == "stats" else None
    result = await bench.run(bench.request())
    assert result.outcome is Outcome.OK
    assert seen[0]
    assert alive() == []
    assert list_zombies() == []


async def test_a_timed_out_run_leaves_no_process_behind(bench, stubborn):
    write_stubborn(bench, stubborn)
    result = await bench.run(bench.request(timeout=4.0))
    assert result.outcome is Outcome.TIMEOUT
    assert "4 s" in result.detail
    assert stubborn[1]() == []


async def test_a_cancelled_run_leaves_no_process_behind(bench, stubborn, until):
    write_stubborn(bench, stubborn)
    running = asyncio.ensure_future(bench.run(bench.request()))
    await until(lambda: len(stubborn[1]()) >= 4, "both commands run")
    bench.cancel.set()
    result = await running
    assert result.outcome is Outcome.CANCELLED
    assert stubborn[1]() == []


async def test_a_cancel_before_the_job_is_ready_is_not_lost(bench):
    bench.write("- ansible.builtin.command: {argv: [sleep, '60']}")
    bench.cancel.set()
    result = await bench.run(bench.request())
    assert result.outcome is Outcome.CANCELLED


async def test_a_shutdown_ends_the_run_and_waits_for_that(bench, stubborn, until):
    write_stubborn(bench, stubborn)
    running = asyncio.ensure_future(bench.run(bench.request()))
    await until(lambda: len(stubborn[1]()) >= 4, "both commands run")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert stubborn[1]() == []
    assert bench.alive() == []


@pytest.mark.parametrize("whom", [("pid",), ("runner",), ("pid", "runner")])
async def test_a_killed_job_is_lost_and_nothing_of_it_is_left(bench, stubborn, until, whom):
    write_stubborn(bench, stubborn)
    running = asyncio.ensure_future(bench.run(bench.request()))
    await until(lambda: len(stubborn[1]()) >= 4, "both commands run")
    victims = [bench.of("started")[0][name] for name in whom]
    for victim in victims:
        os.kill(victim, signal.SIGSTOP)
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    result = await running
    assert result.outcome is Outcome.LOST
    assert stubborn[1]() == []
    assert bench.alive() == []
    assert list_zombies() == []


def kill_at_once(*victims: int) -> None:
    for victim in victims:
        os.kill(victim, signal.SIGSTOP)
    for victim in victims:
        os.kill(victim, signal.SIGKILL)


def own_groups(bench) -> set[Path]:
    """Those of this test's runs: other workers have theirs beside them."""
    tokens = {scratch.name for scratch in (bench.runtime / "scratch").iterdir()}
    found = find_place().glob(f"{PREFIX}*")
    return {group for group in found if group.name.removeprefix(PREFIX) in tokens}


def still_there(groups: set[Path]) -> set[Path]:
    return {group for group in groups if group.exists()}


# A control group takes root.
@pytest.mark.lab
async def test_what_hides_is_ended_though_runner_and_supervisor_died_at_once(bench, hidden, until):
    tasks, find = hidden
    bench.write(tasks)
    running = asyncio.ensure_future(bench.run(bench.request()))
    await until(
        lambda: find() and bench.tasks, "the hidden process runs, and nobody of its parents"
    )
    groups = own_groups(bench)
    assert len(groups) == 1
    started = bench.of("started")[0]
    kill_at_once(started["pid"], started["runner"])
    result = await running
    assert result.outcome is Outcome.LOST
    assert find() == []
    assert list_zombies() == []
    assert still_there(groups) == set()


@pytest.mark.lab
@pytest.mark.parametrize("changes", ["service", "data"])
async def test_what_hides_is_ended_by_the_next_agent_though_all_died_at_once(
    bench, hidden, until, changes
):
    tasks, find = hidden
    bench.write(tasks, changes=changes)
    request = bench.request()
    agent = start_agent(request)
    try:
        started = json.loads(agent.stdout.readline())
        await until(find, "the hidden process runs")
        await until(lambda: find_waiting(bench), "the playbook goes on")
        groups = own_groups(bench)
        assert len(groups) == 1
        kill_at_once(agent.pid, started["pid"], started["runner"])
    finally:
        agent.kill()
        agent.wait()
        agent.stdout.close()
    result = await attach(
        request.run_id, bench.runtime, on_event=bench.events.append,
        cancel=bench.cancel, clock=Clock(),
    )  # fmt: skip
    assert result.outcome is Outcome.LOST
    assert find() == []
    await until(lambda: still_there(groups) == set(), "no group is left")


@pytest.mark.lab
async def test_what_hides_is_ended_with_its_run(bench, hidden, until):
    tasks, find = hidden
    bench.write(tasks.replace("timeout: 50", "timeout: 5"))
    running = asyncio.ensure_future(bench.run(bench.request()))
    await until(find, "the hidden process runs")
    groups = own_groups(bench)
    assert len(groups) == 1
    result = await running
    assert result.outcome is Outcome.OK
    assert find() == []
    assert still_there(groups) == set()


async def test_a_run_needs_no_control_group(bench, stubborn, monkeypatch):
    def find_none():
        raise Unavailable("cannot make a control group: none is mounted")

    monkeypatch.setattr("agent.remedies.process.find_place", find_none)
    write_stubborn(bench, stubborn)
    result = await bench.run(bench.request(timeout=4.0))
    assert result.outcome is Outcome.TIMEOUT
    assert stubborn[1]() == []


@pytest.mark.lab
async def test_a_group_that_is_not_the_jobs_own_is_never_ended(bench, tmp_path):
    """Whatever stands in a run's directory: a group of others would be ended as a whole."""
    other = find_place() / f"{PREFIX}{tmp_path.name}"
    other.mkdir()
    sleeper = await asyncio.create_subprocess_exec("sleep", "300")
    try:
        (other / "cgroup.procs").write_text(str(sleeper.pid))
        place = bench.runtime / "runs/run-9"
        place.mkdir()
        gone = {"pid": 2**22, "started": 0, "runner": 2**22, "runner_started": 0}
        identity = {**gone, "token": "abc", "group": str(other), "changes": "service"}
        (place / "job.json").write_text(json.dumps(identity))
        result = await attach(
            "run-9", bench.runtime, on_event=bench.events.append,
            cancel=bench.cancel, clock=Clock(),
        )  # fmt: skip
        assert result.outcome is Outcome.LOST
        assert sleeper.returncode is None
    finally:
        sleeper.kill()
        await sleeper.wait()
        other.rmdir()


async def test_a_job_that_hangs_is_ended_from_outside(bench, stubborn, until):
    write_stubborn(bench, stubborn)
    running = asyncio.ensure_future(bench.run(bench.request(timeout=2.0), grace=2.0))
    await until(lambda: bench.of("started"), "started")
    os.kill(bench.of("started")[0]["pid"], signal.SIGSTOP)
    result = await running
    assert result.outcome is Outcome.TIMEOUT
    assert "from outside" in result.detail
    assert stubborn[1]() == []


@pytest.mark.parametrize("with_job", [False, True])
async def test_the_agents_death_ends_the_run(bench, stubborn, until, with_job):
    write_stubborn(bench, stubborn)
    request = bench.request()
    agent = start_agent(request)
    try:
        started = json.loads(agent.stdout.readline())
        await until(lambda: len(stubborn[1]()) >= 4, "both commands run")
        victims = [agent.pid, *([started["pid"]] if with_job else [])]
        for victim in victims:
            os.kill(victim, signal.SIGSTOP)
        for victim in victims:
            os.kill(victim, signal.SIGKILL)
        await until(lambda: not stubborn[1]() and not bench.alive(), "everything ended")
    finally:
        agent.kill()
        agent.wait()
        agent.stdout.close()
    result = await attach(
        request.run_id, bench.runtime, on_event=bench.events.append,
        cancel=bench.cancel, clock=Clock(),
    )  # fmt: skip
    assert result.outcome is Outcome.LOST


async def test_a_run_that_changes_data_survives_the_agents_death(bench, tmp_path, until):
    gate, mark = tmp_path / "gate", tmp_path / "mark"
    bench.write(
        f"""
        - {{name: First, ansible.builtin.command: {{argv: ["true"]}}}}
        - {{name: Long, ansible.builtin.wait_for: {{path: {gate}, sleep: 1, timeout: 50}}}}
        - {{name: Last, ansible.builtin.file: {{path: {mark}, state: touch}}}}
        """,
        changes="data",
    )
    request = bench.request(timeout=1.0)
    agent = start_agent(request)
    try:
        heard = [json.loads(agent.stdout.readline())]
        while heard[-1]["event"] != "task":
            heard.append(json.loads(agent.stdout.readline()))
        agent.send_signal(signal.SIGKILL)
    finally:
        agent.wait()
        agent.stdout.close()
    job = read_process(heard[0]["pid"])
    assert job
    with pytest.raises(Conflict):
        discard(request.run_id, bench.runtime)

    following = asyncio.ensure_future(
        attach(
            request.run_id, bench.runtime, on_event=bench.events.append,
            cancel=bench.cancel, clock=Clock(),
        )
    )  # fmt: skip
    await until(lambda: bench.of("overdue"), "the timeout is told, and the run goes on")
    assert is_alive(job.pid, job.started)
    gate.touch()
    result = await asyncio.wait_for(following, 50)
    assert result.outcome is Outcome.OK
    assert mark.exists()
    assert [task["task"] for task in bench.tasks] == ["First", "Long", "Last"]

    again = await attach(
        request.run_id, bench.runtime, on_event=bench.events.append,
        cancel=bench.cancel, clock=Clock(),
    )  # fmt: skip
    assert (again.outcome, again.stats) == (Outcome.OK, result.stats)
    discard(request.run_id, bench.runtime)


async def test_a_data_run_goes_on_without_its_supervisor(bench, tmp_path, until):
    gate, mark = tmp_path / "gate", tmp_path / "mark"
    bench.write(
        f"""
        - {{name: Long, ansible.builtin.wait_for: {{path: {gate}, sleep: 1, timeout: 50}}}}
        - {{name: Last, ansible.builtin.file: {{path: {mark}, state: touch}}}}
        """,
        changes="data",
    )
    running = asyncio.ensure_future(bench.run(bench.request()))
    await until(lambda: bench.of("started"), "started")
    await until(lambda: find_waiting(bench), "the first task runs")
    os.kill(bench.of("started")[0]["pid"], signal.SIGKILL)
    gate.touch()
    result = await running
    assert result.outcome is Outcome.OK
    assert mark.exists()


def find_waiting(bench) -> bool:
    """Ansible's own process has begun a task: it has a worker beside it."""
    names = []
    for pid in bench.alive():
        with contextlib.suppress(OSError):
            names.append(Path(f"/proc/{pid}/comm").read_text())
    return names.count("hostmend-play\n") > 1


@pytest.mark.parametrize("attached", [False, True])
async def test_an_explicit_cancel_ends_a_data_run(bench, stubborn, until, attached):
    write_stubborn(bench, stubborn, changes="data")
    request = bench.request()
    if attached:
        agent = start_agent(request)
        agent.stdout.readline()
        agent.kill()
        agent.wait()
        agent.stdout.close()
        running = asyncio.ensure_future(
            attach(
                request.run_id, bench.runtime, on_event=bench.events.append,
                cancel=bench.cancel, clock=Clock(),
            )
        )  # fmt: skip
    else:
        running = asyncio.ensure_future(bench.run(request))
    await until(lambda: len(stubborn[1]()) >= 4, "both commands run")
    bench.cancel.set()
    result = await running
    assert result.outcome is Outcome.CANCELLED
    assert stubborn[1]() == []


async def test_a_shutdown_leaves_a_data_run_to_itself(bench, tmp_path, until):
    gate = tmp_path / "gate"
    bench.write(
        f"- {{ansible.builtin.wait_for: {{path: {gate}, sleep: 1, timeout: 50}}}}",
        changes="data",
    )
    request = bench.request()
    running = asyncio.ensure_future(bench.run(request))
    await until(lambda: bench.of("started"), "started")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    started = bench.of("started")[0]
    assert started["changes"] == Changes.DATA
    assert read_process(started["pid"])
    gate.touch()
    result = await attach(
        request.run_id, bench.runtime, on_event=bench.events.append,
        cancel=asyncio.Event(), clock=Clock(),
    )  # fmt: skip
    assert result.outcome is Outcome.OK
    assert read_process(started["pid"]) is None


async def test_a_preview_of_a_data_remedy_ends_with_the_agent(bench, until, tmp_path):
    wait = f"ansible.builtin.wait_for: {{path: {tmp_path}/none, timeout: 50}}"
    bench.write(f"- {{{wait}, check_mode: false}}", changes="data")
    agent = start_agent(bench.request(preview=True))
    try:
        agent.stdout.readline()
        agent.kill()
        await until(lambda: not bench.alive(), "everything ended")
    finally:
        agent.wait()
        agent.stdout.close()


async def test_nothing_is_known_of_a_run_that_never_was(bench):
    result = await attach(
        "never", bench.runtime, on_event=bench.events.append, cancel=bench.cancel, clock=Clock()
    )
    assert result.outcome is Outcome.LOST
    discard("never", bench.runtime)
