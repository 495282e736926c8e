"""Whole runs: real processes, real Ansible."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import signal
from pathlib import Path

import pytest

from agent.core.model import Outcome
from agent.remedies.client import Spare, discard


async def test_a_run_that_succeeds_tells_its_tasks_and_counts(bench):
    bench.write("- {name: Say it, ansible.builtin.command: {argv: [echo, well]}}")
    result = await bench.run(bench.request())
    assert result.outcome is Outcome.OK
    assert result.stats == {
        "ok": 1, "changed": 1, "failures": 0, "unreachable": 0,
        "skipped": 0, "rescued": 0, "ignored": 0,
    }  # fmt: skip
    assert [event["event"] for event in bench.events] == ["started", "task", "stats", "ended"]
    assert result.events_count == 4
    [task] = bench.tasks
    assert (task["task"], task["status"], task["rc"], task["stdout"]) == (
        "Say it", "changed", 0, "well",
    )  # fmt: skip
    assert result.stats_at is not None
    assert result.stats_at <= result.ended


async def test_events_arrive_while_the_playbook_is_still_running(bench, tmp_path):
    gate = tmp_path / "gate"
    bench.write(f"""
        - {{name: First, ansible.builtin.command: {{argv: ["true"]}}}}
        - {{name: Second, ansible.builtin.wait_for: {{path: {gate}, sleep: 1, timeout: 50}}}}
    """)

    seen = []

    def open_gate(event):
        if event["event"] == "task":
            seen.append(gate.exists())
            gate.touch()

    bench.on_event = open_gate
    result = await bench.run(bench.request())
    assert result.outcome is Outcome.OK
    assert seen == [False, True]


async def test_a_failing_task_fails_the_run_and_says_why(bench):
    bench.write("- {name: Break, ansible.builtin.command: {argv: [ls, /nowhere]}}")
    result = await bench.run(bench.request())
    assert result.outcome is Outcome.FAILED
    assert "task 'Break' failed" in result.detail
    assert "/nowhere" in result.detail
    assert bench.tasks[0]["status"] == "failed"


async def test_a_failure_that_the_playbook_ignores_is_none(bench):
    bench.write("""
        - {name: Try, ansible.builtin.command: {argv: ["false"]}, ignore_errors: true}
        - {name: Go on, ansible.builtin.command: {argv: ["true"]}}
    """)
    result = await bench.run(bench.request())
    assert result.outcome is Outcome.OK
    assert [task["status"] for task in bench.tasks] == ["ignored", "changed"]


async def test_a_playbook_without_a_task_done_is_no_success(bench):
    bench.write("- {ansible.builtin.command: {argv: ['true']}, when: false}")
    result = await bench.run(bench.request())
    assert result.outcome is Outcome.FAILED
    assert "no task" in result.detail


async def test_a_playbook_that_ansible_cannot_read_fails_with_its_words(bench):
    bench.write("- {name: Odd, ansible.builtin.nothing_like_this: {}}")
    result = await bench.run(bench.request())
    assert result.outcome is Outcome.FAILED
    assert "nothing_like_this" in result.detail


async def test_a_playbook_can_ask_for_a_human(bench):
    bench.write("""
        - ansible.builtin.set_stats: {data: {hostmend_needs_human: The disk is dying.}}
    """)
    result = await bench.run(bench.request())
    assert (result.outcome, result.detail) == (Outcome.NEEDS_HUMAN, "The disk is dying.")


async def test_a_preview_changes_nothing_and_shows_the_diff(bench, tmp_path):
    target = tmp_path / "motd"
    target.write_text("old line\npassword = hunter2\n")
    bench.write(f"""
        - ansible.builtin.copy: {{dest: {target}, content: "new line\\npassword = hunter3\\n"}}
        - {{name: Skipped, ansible.builtin.command: {{argv: ["true"]}}}}
        - name: Really
          ansible.builtin.command: {{argv: ["true"]}}
          check_mode: false
    """)
    result = await bench.run(bench.request(preview=True))
    assert result.outcome is Outcome.OK
    assert target.read_text().startswith("old line")
    copy, skipped, really = bench.tasks
    assert "-old line" in copy["diff"]
    assert "+new line" in copy["diff"]
    assert "hunter" not in json.dumps(bench.events)
    assert skipped["status"] == "skipped"
    assert really["check_mode_false"] is True
    assert "check_mode_false" not in copy
    assert bench.of("started")[0]["unchecked"] == 1


async def test_a_preview_in_which_everything_is_skipped_ends_well(bench):
    bench.write("- {ansible.builtin.command: {argv: ['true']}}")
    assert (await bench.run(bench.request(preview=True))).outcome is Outcome.OK


async def test_the_hosts_ansible_cfg_does_not_leak_in(bench, tmp_path, monkeypatch):
    config = "[defaults]\nstdout_callback = nothing_like_this\nbecome = true\nforks = 0\n"
    for place in (tmp_path, bench.playbooks):
        (place / "ansible.cfg").write_text(config)
    (tmp_path / ".ansible.cfg").write_text(config)
    path = bench.write("""
        - ansible.builtin.debug:
            msg: "{{ q('config', 'DEFAULT_FORKS', 'CONFIG_FILE') }}"
        - ansible.builtin.debug: {msg: "{{ ansible_config_file }}"}
    """)
    (path / "ansible.cfg").write_text(config)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ANSIBLE_CONFIG", str(tmp_path / "ansible.cfg"))
    monkeypatch.setenv("ANSIBLE_FORKS", "0")
    monkeypatch.chdir(tmp_path)
    result = await bench.run(bench.request())
    assert result.outcome is Outcome.OK, result.detail
    assert bench.tasks[1]["msg"].endswith("agent/remedies/ansible.cfg")


async def test_nothing_of_options_and_environment_is_kept(bench, monkeypatch):
    monkeypatch.setenv("SECRET_OF_THE_AGENT", "sesame")
    bench.write(
        """
        - {name: Env, ansible.builtin.command: {argv: [env]}}
        - {ansible.builtin.command: {argv: [test, -n, "{{ key }}"]}}
        """,
        options="{key: {type: str, no_log: true}}",
    )
    request = bench.request(options={"key": "open-barley"})
    result = await bench.run(request)
    assert result.outcome is Outcome.OK
    assert "sesame" not in bench.tasks[0]["stdout"]
    kept = [path for path in bench.runtime.rglob("*") if path.is_file()]
    assert {path.name for path in kept} == {"job.json", "events.jsonl", "result.json"}
    for path in kept:
        text = path.read_text()
        assert "open-barley" not in text
        assert "sesame" not in text
    assert "open-barley" not in json.dumps(bench.events)
    discard(request.run_id, bench.runtime)
    assert list((bench.runtime / "runs").iterdir()) == []


def read_command_lines(pids):
    lines = []
    for pid in pids:
        with contextlib.suppress(OSError):
            lines.append(Path(f"/proc/{pid}/cmdline").read_bytes())
    return lines


async def test_options_never_stand_in_the_list_of_processes(bench, tmp_path, until):
    gate = tmp_path / "gate"
    bench.write(
        f"""
        - {{ansible.builtin.command: {{argv: ["true"]}}}}
        - {{ansible.builtin.wait_for: {{path: {gate}, sleep: 1, timeout: 50}}}}
        """,
        options="{word: {type: str}}",
    )
    running = asyncio.ensure_future(bench.run(bench.request(options={"word": "unmistakable"})))
    await until(lambda: bench.tasks, "the playbook runs")
    lines = read_command_lines(bench.alive())
    gate.touch()
    assert (await running).outcome is Outcome.OK
    assert any(b"warm_client.py" in line for line in lines)
    assert not any(b"unmistakable" in line for line in lines)


async def test_text_that_pretends_to_be_an_event_is_not_taken_for_one(bench, tmp_path):
    forged = {
        "uuid": "11111111-2222-3333-4444-555555555555",
        "event": "playbook_on_stats",
        "event_data": {"ok": {"localhost": 1}, "artifact_data": {"hostmend_needs_human": "obey"}},
    }
    code = base64.b64encode(json.dumps(forged).encode()).decode()
    token = f"\x1b[K{code}\x1b[{len(code)}D\x1b[K"
    target = tmp_path / "page"
    target.write_text(f"before\n{token}\nafter {token}\n")
    bench.write(f"""
        - ansible.builtin.copy: {{dest: {target}, content: "fine"}}
        - {{name: Last, ansible.builtin.command: {{argv: ["true"]}}, check_mode: false}}
    """)
    result = await bench.run(bench.request(preview=True))
    assert result.outcome is Outcome.OK, result.detail
    assert [task["status"] for task in bench.tasks] == ["changed", "changed"]
    assert len(bench.of("stats")) == 1
    assert "\x1b" not in "".join(str(event) for event in bench.events)


async def test_control_characters_in_output_are_not_shown(bench):
    bench.write(r"""
        - ansible.builtin.command: {argv: [printf, "a\\033[31mred\\033]0;title\\007\\b\\rb"]}
    """)
    await bench.run(bench.request())
    assert bench.tasks[0]["stdout"] == "ared\nb"


async def test_output_without_end_is_cut(bench):
    bench.write("- ansible.builtin.command: {argv: [seq, '100000']}")
    result = await bench.run(bench.request())
    assert result.outcome is Outcome.OK
    assert len(bench.tasks[0]["stdout"]) < 17_000
    assert "left out" in bench.tasks[0]["stdout"]


async def test_a_changed_playbook_is_refused(bench):
    path = bench.write("- ansible.builtin.command: {argv: ['true']}")
    request = bench.request()
    with (path / "playbook.yml").open("a") as file:
        file.write("    - ansible.builtin.command: {argv: ['false']}\n")
    result = await bench.run(request)
    assert result.outcome is Outcome.FAILED
    assert "has changed since the run was planned" in result.detail
    assert bench.tasks == []


async def test_the_job_checks_options_and_owners_again(bench):
    path = bench.write("- ansible.builtin.command: {argv: ['true']}")
    request = bench.request(options={"made_up": 1})
    result = await bench.run(request)
    assert result.outcome is Outcome.FAILED
    assert "no option made_up" in result.detail
    request = bench.request()
    (path / "playbook.yml").chmod(0o666)
    result = await bench.run(request)
    assert result.outcome is Outcome.FAILED
    assert "may be written to by others" in result.detail


async def test_one_run_id_is_never_run_twice(bench, tmp_path):
    mark = tmp_path / "mark"
    bench.write(f"""
        - ansible.builtin.command:
            argv: [python3, -c, "open('{mark}', 'a').write('x')"]
    """)
    request = bench.request()
    assert (await bench.run(request)).outcome is Outcome.OK
    again = await bench.run(request)
    assert again.outcome is Outcome.FAILED
    assert "was started before" in again.detail
    assert mark.read_text() == "x"


async def test_a_spare_job_is_used_and_replaced(bench, until):
    bench.write("- ansible.builtin.command: {argv: ['true']}")
    spare = Spare(bench.runtime)
    await spare.refill()
    # exec(2) closes the pipe that Popen waits for a moment before the environment can be read.
    await until(bench.alive, "the job can be seen")
    ready = bench.alive()
    result = await bench.run(bench.request(), spare=spare)
    assert result.outcome is Outcome.OK
    assert bench.of("started")[0]["pid"] in ready
    assert bench.alive() == []
    await spare.refill()
    assert (await bench.run(bench.request(), spare=spare)).outcome is Outcome.OK
    await spare.refill()
    await spare.close()
    assert bench.alive() == []


async def test_a_spare_job_that_died_is_no_obstacle(bench, until):
    bench.write("- ansible.builtin.command: {argv: ['true']}")
    spare = Spare(bench.runtime)
    await spare.refill()
    await until(bench.alive, "the job can be seen")
    for pid in bench.alive():
        os.kill(pid, signal.SIGKILL)
    assert (await bench.run(bench.request(), spare=spare)).outcome is Outcome.OK
    await spare.refill()
    assert (await bench.run(bench.request(), spare=spare)).outcome is Outcome.OK
    await spare.close()


@pytest.mark.parametrize("interpreter", ["", "interpreter: /usr/bin/python3\n"])
async def test_modules_run_with_the_interpreter_that_the_remedy_names(bench, interpreter):
    bench.write(
        """
        - ansible.builtin.setup: {gather_subset: [python, "!all", "!min"]}
        - ansible.builtin.debug: {msg: "{{ ansible_facts.python.executable }}"}
        """,
        more=interpreter,
    )
    result = await bench.run(bench.request())
    assert result.outcome is Outcome.OK, result.detail
    assert bench.tasks[1]["msg"].startswith("/usr/bin/python3") is bool(interpreter)


async def test_a_remedy_may_bring_modules_of_its_own(bench):
    path = bench.write("- own_module: {}")
    (path / "library").mkdir()
    (path / "library" / "own_module.py").write_text(
        "from ansible.module_utils.basic import AnsibleModule\n"
        "AnsibleModule(argument_spec={}).exit_json(msg='mine')\n"
    )
    for entry in path.rglob("*"):
        entry.chmod(0o755 if entry.is_dir() else 0o644)
    result = await bench.run(bench.request())
    assert result.outcome is Outcome.OK, result.detail
    assert bench.tasks[0]["msg"] == "mine"


async def test_what_listens_to_events_cannot_break_the_run(bench):
    bench.write("- ansible.builtin.command: {argv: ['true']}")

    def refuse(event):
        raise RuntimeError("no")

    bench.on_event = refuse
    assert (await bench.run(bench.request())).outcome is Outcome.OK


async def test_what_a_playbook_says_that_it_did_is_the_detail_of_its_run(bench):
    bench.write("""
        - ansible.builtin.set_stats: {data: {hostmend_did: "freed 12 MB\\e[31m"}}
    """)
    result = await bench.run(bench.request())
    assert (result.outcome, result.detail) == (Outcome.OK, "freed 12 MB")
