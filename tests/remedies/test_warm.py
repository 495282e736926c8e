"""A playbook carried out by a process that had Ansible imported before."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from agent.core.model import Outcome
from agent.remedies.client import Spare, pack_modules, prepare_runtime
from agent.remedies.protocol import shelf_of
from agent.remedies.surroundings import choose_interpreter


@pytest.fixture
async def warm(bench, until):
    spare = Spare(bench.runtime)
    await spare.refill()
    await until(lambda: find_running(bench, "hostmend-play"), "there is a process for Ansible")
    yield spare
    await spare.close()


def find_running(bench, name: str) -> list[int]:
    """By the name of the process or a part of its command line."""
    found = []
    for pid in bench.alive():
        try:
            said = [Path(f"/proc/{pid}/{file}").read_text() for file in ("comm", "cmdline")]
            if name == said[0].strip() or name in said[1]:
                found.append(pid)
        except OSError:
            continue
    return found


async def test_a_warm_process_does_what_ansible_playbook_does(bench, warm, tmp_path):
    bench.write(
        f"""
        - {{name: Say, ansible.builtin.command: {{argv: [echo, "{{{{ it }}}}"]}}}}
        - {{name: Write, ansible.builtin.copy: {{dest: {tmp_path}/out, content: "{{{{ it }}}}"}}}}
        - {{name: Break, ansible.builtin.command: {{argv: [ls, /nowhere]}}}}
        """,
        options="{it: {type: str}}",
    )
    cold = []
    bench.on_event = lambda event: cold.extend(find_running(bench, "ansible.cli.playbook"))
    text = "{{ lookup('pipe', 'id') }}"
    result = await bench.run(bench.request(options={"it": text}), spare=warm)
    assert cold == []
    assert result.outcome is Outcome.FAILED
    assert "/nowhere" in result.detail
    assert [task["status"] for task in bench.tasks] == ["changed", "changed", "failed"]
    assert bench.tasks[0]["stdout"] == text
    assert (tmp_path / "out").read_text() == text


async def test_a_spare_that_is_not_wanted_any_more_is_ended_and_one_that_is_comes_back(
    bench, warm, until
):
    await warm.keep(False)
    assert not warm.alive
    await until(lambda: not bench.alive(), "nothing is left of it")
    await warm.refill()
    assert bench.alive() == [], "a run that ends must not bring it back"
    await asyncio.gather(*(warm.keep(True) for _ in range(3)), warm.refill())
    await until(lambda: find_running(bench, "hostmend-play"), "there is one again")
    assert len(find_running(bench, "hostmend-play")) == 1
    await warm.keep(False)


async def test_a_warm_preview_shows_the_diff(bench, warm, tmp_path):
    bench.write(f"- ansible.builtin.copy: {{dest: {tmp_path}/out, content: new}}")
    result = await bench.run(bench.request(preview=True), spare=warm)
    assert result.outcome is Outcome.OK, result.detail
    assert "+new" in bench.tasks[0]["diff"]
    assert not (tmp_path / "out").exists()


async def test_a_warm_run_is_ended_whole(bench, warm, stubborn, until):
    command, alive = stubborn
    bench.write(f"""
        - ansible.builtin.command: {{argv: [sh, -c, "{command} >/dev/null 2>&1 </dev/null &"]}}
        - ansible.builtin.command: {{argv: [sh, -c, "exec {command}"]}}
    """)
    running = asyncio.ensure_future(bench.run(bench.request(), spare=warm))
    await until(lambda: len(alive()) >= 4, "both commands run")
    bench.cancel.set()
    assert (await running).outcome is Outcome.CANCELLED
    assert alive() == []


async def test_the_real_ansible_playbook_takes_over_when_the_warm_process_died(bench, warm):
    bench.write("- ansible.builtin.command: {argv: ['true']}")
    [pid] = find_running(bench, "hostmend-play")
    os.kill(pid, signal.SIGKILL)
    cold = []
    bench.on_event = lambda event: cold.extend(find_running(bench, "ansible.cli.playbook"))
    result = await bench.run(bench.request(), spare=warm)
    assert result.outcome is Outcome.OK
    assert cold


async def test_a_warm_process_that_dies_at_work_fails_the_run(bench, warm, tmp_path, until):
    bench.write(f"- ansible.builtin.wait_for: {{path: {tmp_path}/none, sleep: 1, timeout: 50}}")
    [pid] = find_running(bench, "hostmend-play")
    running = asyncio.ensure_future(bench.run(bench.request(), spare=warm))
    await until(lambda: len(find_running(bench, "hostmend-play")) > 1, "its worker runs")
    os.kill(pid, signal.SIGKILL)
    result = await running
    assert result.outcome is Outcome.FAILED
    assert bench.alive() == []


async def test_collections_of_a_remedys_own_get_a_fresh_ansible(bench, warm, tmp_path):
    bench.write("- ansible.builtin.command: {argv: ['true']}", more=f"collections: [{tmp_path}]\n")
    cold = []
    bench.on_event = lambda event: cold.extend(find_running(bench, "ansible.cli.playbook"))
    result = await bench.run(bench.request(), spare=warm)
    assert result.outcome is Outcome.OK
    assert cold


async def test_modules_are_packed_once_for_all_runs(bench):
    bench.write("- ansible.builtin.command: {argv: ['true']}")
    await pack_modules(bench.runtime)
    [shelf] = shelf_of(bench.runtime).iterdir()
    assert (await bench.run(bench.request())).outcome is Outcome.OK
    # What is taken from there is what is run: no use can be made of these.
    for packed in shelf.iterdir():
        packed.write_bytes(b"broken")
    assert (await bench.run(bench.request())).outcome is Outcome.FAILED


def test_what_another_agent_packed_is_not_used(bench):
    (shelf_of(bench.runtime) / "1.0").mkdir()
    prepare_runtime(bench.runtime)
    assert list(shelf_of(bench.runtime).iterdir()) == []


def test_the_light_interpreter_can_be_executed(tmp_path):
    light = Path(choose_interpreter(tmp_path, None))
    assert light.name == "light_interpreter"
    assert os.access(light, os.X_OK)
    (tmp_path / "library").mkdir()
    assert choose_interpreter(tmp_path, None) != str(light)
    assert choose_interpreter(tmp_path, "/usr/bin/python3") == "/usr/bin/python3"
