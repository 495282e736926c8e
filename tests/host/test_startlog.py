"""What a server logged since its present start, in a file of its own. The journal: tests/lab."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest

from agent.clock import Clock
from agent.host.machine import Machine
from agent.host.memory import Memory
from agent.host.startlog import StartLog
from agent.host.units import UnitState

BEGINS = re.compile(r"^.*starting server", re.MULTILINE)


def open_log(file: Path, memory: Memory, start: str = "1", began: float = 0.0) -> StartLog:
    state = UnitState(name="db.service", id="db.service", invocation_id=start, left_inactive=began)
    machine = Machine(clock=Clock(), memory=memory)
    # Only the file: this host's journal is not asked for a unit that is not there.
    return StartLog(machine=machine, state=state, file=str(file), begins=BEGINS)


async def read_file(log: StartLog) -> str:
    return await log._call(log._read_attempt_of_file)


def add(file: Path, *lines: str) -> None:
    with file.open("a") as opened:
        opened.writelines(f"{line}\n" for line in lines)


def write(file: Path, text: str) -> None:
    file.write_text(text)


def rotate(file: Path) -> None:
    file.rename(file.with_suffix(".1"))


def age(file: Path, seconds: float) -> None:
    then = file.stat().st_mtime - seconds
    os.utime(file, (then, then))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "db.log"


async def test_what_stands_before_the_last_start_belongs_to_another(file: Path) -> None:
    add(file, "starting server", "corrupt", "starting server", "ready")
    assert await open_log(file, Memory()).read_on() == "starting server\nready\n"
    assert await read_file(open_log(file, Memory())) == "starting server\nready\n"


async def test_each_line_is_read_once(file: Path) -> None:
    memory = Memory()
    add(file, "starting server")
    log = open_log(file, memory)
    await log.read_on()
    assert await log.read_on() == ""
    add(file, "one", "two")
    assert await log.read_on() == "one\ntwo\n"


async def test_a_start_that_comes_to_nothing_before_its_first_line_is_not_blamed_for_the_last_one(
    file: Path,
) -> None:
    memory = Memory()
    add(file, "starting server", "corrupt")
    await open_log(file, memory, "1").read_on()
    add(file, "no such option")
    assert await read_file(open_log(file, memory, "2")) == "no such option\n"
    # Looked at again, and when the next one is on its way.
    assert await read_file(open_log(file, memory, "2")) == "no such option\n"
    add(file, "starting server", "ready")
    assert await read_file(open_log(file, memory, "3")) == "starting server\nready\n"
    assert await open_log(file, memory, "3").read_on() == "starting server\nready\n"


async def test_a_file_that_was_not_written_to_since_the_start_says_nothing_of_it(
    file: Path,
) -> None:
    add(file, "starting server", "corrupt")
    age(file, 3600)
    began = time.monotonic()
    assert await read_file(open_log(file, Memory(), began=began)) == ""


async def test_a_file_that_was_rotated_or_emptied_is_read_from_its_beginning(file: Path) -> None:
    memory = Memory()
    add(file, "starting server", "a long line " * 20)
    log = open_log(file, memory)
    await log.read_on()
    write(file, "short\n")
    assert await log.read_on() == "short\n"
    rotate(file)
    add(file, "in the new file, which is longer than the one before it")
    assert "in the new file" in await log.read_on()


async def test_no_more_than_the_end_of_a_huge_file_is_read(file: Path) -> None:
    write(file, "x" * 99 + "\n" + ("y" * 99_999 + "\n") * 20)
    text = await open_log(file, Memory()).read_on()
    assert 0 < len(text) < 300_000
    assert "x" not in text


async def test_a_file_that_is_not_there_is_no_error(tmp_path: Path) -> None:
    assert await open_log(tmp_path / "none", Memory()).read_on() == ""
