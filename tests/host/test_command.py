"""Programs that answer: what is kept of them, whose rights they have, and how they end."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from agent.errors import Unavailable
from agent.host.command import run_command


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def wait_for_end(pid: int) -> None:
    end = time.monotonic() + 60
    while is_alive(pid):
        assert time.monotonic() < end
        time.sleep(0.01)


async def test_what_is_printed_and_the_code_come_back() -> None:
    done = await run_command(["sh", "-c", "cat; echo bad >&2; exit 3"], seconds=60, given="hello")
    assert (done.code, done.out, done.err, done.said) == (3, "hello", "bad\n", "bad")


async def test_one_that_hangs_is_killed_with_all_of_its_group_and_what_it_said_is_kept() -> None:
    script = "trap '' TERM; echo early; sleep 300 & echo $!; echo $$; wait"
    done = await run_command(["sh", "-c", script], seconds=0.5)
    assert done.code is None
    early, child, own = done.out.split()
    assert early == "early"
    wait_for_end(int(child))
    wait_for_end(int(own))


async def test_one_that_leaves_a_child_with_its_output_open_is_not_waited_for() -> None:
    done = await run_command(["sh", "-c", "sleep 300 & echo $!"], seconds=0.5)
    assert done.code is None
    wait_for_end(int(done.out))


async def test_endless_output_is_kept_in_part_only() -> None:
    done = await run_command(["sh", "-c", "yes | head -c 3000000"], seconds=60, most_bytes=1000)
    assert (done.code, len(done.out)) == (0, 1000)


async def test_nothing_of_the_agents_own_environment_is_handed_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SECRET", "x")
    done = await run_command(["env"], seconds=60, environment={"MORE": "y"})
    names = {line.partition("=")[0] for line in done.out.splitlines()}
    assert names - {"PWD", "SHLVL", "_"} == {"PATH", "LC_ALL", "HOME", "MORE"}


async def test_a_program_or_a_user_that_is_not_there_says_so() -> None:
    with pytest.raises(Unavailable, match="cannot run no-such-program: No such file"):
        await run_command(["no-such-program"], seconds=60)
    with pytest.raises(Unavailable, match="cannot run true: there is no user no-such-user"):
        await run_command(["true"], seconds=60, user="no-such-user")


async def test_one_that_reads_nothing_of_what_it_is_given_is_no_failure() -> None:
    done = await run_command(["true"], seconds=60, given="x" * 1_000_000)
    assert done.code == 0


async def test_it_has_the_rights_and_groups_of_its_user_only() -> None:
    code = "import os; print(os.getuid(), os.geteuid(), os.getgid(), 0 in os.getgroups())"
    if os.geteuid() != 0:
        with pytest.raises(Unavailable, match="hostmend is not root and cannot become nobody"):
            await run_command(["true"], seconds=60, user="nobody")
        return
    done = await run_command(["/usr/bin/python3", "-c", code], seconds=60, user="nobody")
    user, effective, group, roots = done.out.split()
    assert user == effective != "0"
    assert group != "0"
    assert roots == "False"
