"""What is committed is read back as it was, whatever happens to who wrote it."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_values import build

from agent.core.model import (
    Decision,
    Doubt,
    Finding,
    Host,
    Incident,
    Notice,
    NoticeState,
    Pause,
    Reason,
    Run,
    Silence,
    Status,
    Storm,
    Transition,
)
from agent.core.model import State as Stage
from agent.errors import StoreError
from agent.store.state import KEPT, Listing, State

ROOT = Path(__file__).parents[2]
CHILD = Path(__file__).with_name("committing_child.py")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


def reopen(state: State) -> State:
    path = state.path
    state.close()
    return State(path, reserve=0)


def incident(number: int, **changes: object) -> Incident:
    finding = Finding(subject="x", status=Status.CRITICAL)
    fields = {
        "id": f"i{number}", "check": "web", "subject": "x", "state": Stage.OPEN,
        "finding": finding, "looked": 1.0, "before": finding, "began": 1.0, "opened": 1.0,
        "entered": 1.0, "seen": 1.0, "look_ended": 1.0,
    }  # fmt: skip
    return Incident(**{**fields, **changes})


def notice(number: int, **changes: object) -> Notice:
    fields = {
        "id": f"n{number}", "route": "ops", "reason": Reason.OPENED, "created": 1.0,
        "expires": 9e9,
    }  # fmt: skip
    return Notice(**{**fields, **changes})


some_host = build(
    Host,
    incidents=st.lists(build(Incident), max_size=2).map(
        lambda found: tuple(
            replace(item, id=f"i{n}", state=Stage.OPEN) for n, item in enumerate(found, 1)
        )
    ),
    runs=st.lists(build(Run), max_size=2).map(
        lambda found: tuple(replace(item, id=f"r{n}") for n, item in enumerate(found, 11))
    ),
    silences=st.lists(build(Silence), max_size=2).map(
        lambda found: tuple(replace(item, id=f"s{n}") for n, item in enumerate(found, 21))
    ),
    looked=st.just({}),
    transition=st.just(""),
    transition_seen=st.none(),
    wall_ahead=st.just(0.0),
)


@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(host=some_host, notices=st.lists(build(Notice), max_size=2), passed=build(Transition))
def test_every_field_is_read_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory,
    host: Host,
    notices: list[Notice],
    passed: Transition,
) -> None:
    state = State(tmp_path_factory.mktemp("state") / "state.db", reserve=0)
    due = tuple(
        replace(item, id=f"n{n}", state=NoticeState.DUE) for n, item in enumerate(notices, 31)
    )
    passed = replace(passed, incident="i1")
    state.save(Host(), Decision(host=host, notices=due, transitions=(passed,)))
    assert state.due_notices() == due
    again = reopen(state)
    assert again.load_host() == host
    assert again.due_notices() == due
    assert again.list_notices(Listing()) == due[::-1]
    assert again.list_transitions("i1") == (passed,)
    assert again.find_fault() == ""
    # And everything can be taken back.
    again.save(host, Decision(host=Host(serial=host.serial)))
    last = reopen(again)
    kept = last.load_host()
    assert (kept.storm, kept.paused, kept.doubt, kept.silences) == (None, None, None, ())
    last.close()


def test_what_no_text_can_hold_is_kept_as_near_as_it_can_be(path: Path) -> None:
    state = State(path, reserve=0)
    finding = Finding(
        subject="/srv/\udcff", status=Status.CRITICAL, measurements={"load": float("inf")}
    )
    state.save(Host(), Decision(host=Host(incidents=(incident(1, finding=finding),))))
    again = reopen(state)
    assert again.find_fault() == ""
    (kept,) = again.load_host().incidents
    assert kept.finding.subject == "/srv/?"
    assert kept.finding.measurements == {"load": float("inf")}
    again.close()


def test_what_ended_long_ago_is_forgotten_and_what_lives_never(path: Path) -> None:
    state = State(path, reserve=0)
    state._db.execute("PRAGMA synchronous = OFF")
    live, waits = incident(1), notice(2)
    host = Host(incidents=(live,))
    state.save(Host(), Decision(host=host, notices=(waits,)))
    for number in range(10, 10 + KEPT + 50):
        ended = incident(number, state=Stage.RESOLVED)
        step = Transition(incident=ended.id, at=1.0, old=None, new=Stage.PENDING, why="")
        state.save(host, Decision(host=host, ended=(ended,), transitions=(step,)))
    kept = state.list_incidents(Listing(limit=10_000))
    assert len(kept) == KEPT + 1
    assert kept[0].id == f"i{10 + KEPT + 49}"
    assert kept[-1].id == live.id
    assert state.list_transitions("i10") == ()
    assert len(state.list_transitions(kept[0].id)) == 1
    assert state.due_notices() == (waits,)
    state.close()


def test_lists_are_newest_first_in_parts_and_by_column(path: Path) -> None:
    state = State(path, reserve=0)
    host = Host(incidents=tuple(incident(n, check="web" if n % 2 else "db") for n in range(1, 8)))
    state.save(Host(), Decision(host=host))
    whole = state.list_incidents(Listing())
    assert [i.id for i in whole] == ["i7", "i6", "i5", "i4", "i3", "i2", "i1"]
    assert state.list_incidents(Listing(limit=2, before="i6")) == whole[2:4]
    web = state.list_incidents(Listing(where={"check_name": "web"}))
    assert [i.id for i in web] == ["i7", "i5", "i3", "i1"]
    dropped = incident(9, opened=None, state=Stage.RESOLVED)
    state.save(host, Decision(host=host, ended=(dropped,)))
    assert state.list_incidents(Listing()) == whole
    assert state.list_incidents(Listing(), dropped=True) == (dropped, *whole)
    with pytest.raises(StoreError, match="such as i17"):
        state.find_incident("i1; drop")
    state.close()


def test_a_delivered_notice_is_not_marked_again(path: Path) -> None:
    state = State(path, reserve=0)
    state.save(Host(), Decision(host=Host(), notices=(notice(1),)))
    done = notice(1, state=NoticeState.DELIVERED, attempts=1)
    state.update_notice(done)
    state.update_notice(notice(1, attempts=7))
    assert state.list_notices(Listing()) == (done,)
    assert state.count_due() == 0
    assert reopen(state).due_notices() == ()


def test_nothing_is_written_when_nothing_changed(path: Path) -> None:
    state = State(path, reserve=0)
    host = Host(incidents=(incident(1),), paused=Pause(by="me", since=1.0))
    assert state.save(Host(), Decision(host=host))
    before = state.commits
    assert not state.save(host, Decision(host=replace(host)))
    assert state.commits == before
    assert state.save(host, Decision(host=replace(host, storm=Storm(since=1.0))))
    assert state.save(host, Decision(host=replace(host, doubt=Doubt(why="?", since=1.0))))
    assert state.commits == before + 2
    assert reopen(state).commits == before + 2


OPENS = """
import sys
from pathlib import Path
from agent.errors import StoreError
from agent.store.state import State
try:
    State(Path(sys.argv[1]))
except StoreError as error:
    print(error)
"""


def test_another_process_is_kept_out_until_the_first_ends(path: Path) -> None:
    state = State(path, reserve=0)
    command = [sys.executable, "-c", OPENS, str(path)]
    refused = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "another agent uses it" in refused.stdout
    state.close()
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == ""


@pytest.mark.parametrize("room", [1 << 16, 1 << 20])
def test_room_is_kept_in_the_file_and_in_its_journal(path: Path, room: int) -> None:
    state = State(path, reserve=room)
    assert state.keep_reserve()
    journal = path.with_name("state.db-journal")
    size = path.stat().st_size
    assert size >= room
    assert journal.stat().st_size >= room
    assert state.keep_reserve()
    assert path.stat().st_size == size
    state.save(Host(), Decision(host=Host(serial=1)))
    state.close()
    # Not even an agent that starts on a full disk has to find room for its journal.
    assert journal.stat().st_size >= room


def test_a_reserve_that_was_interrupted_is_made_again(path: Path) -> None:
    state = State(path, reserve=1 << 16)
    state._db.execute("CREATE TABLE reserve (body BLOB)")
    assert state.keep_reserve()
    tables = state._rows("SELECT name FROM sqlite_master WHERE name = 'reserve'")
    assert tables == []
    state.close()


def test_each_commit_survives_the_death_of_who_made_it(path: Path) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    last = 0
    for _ in range(8):
        with subprocess.Popen(
            [sys.executable, str(CHILD), str(path)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        ) as child:
            assert child.stdout is not None
            line = child.stdout.readline()
            time.sleep(rng.uniform(0.0, 0.15))
            child.send_signal(signal.SIGKILL)
            said = [int(n) for n in (line + child.stdout.read()).split("\n")[:-1] if n]
        assert said, "the child committed nothing"
        assert said[0] > last
        db = sqlite3.connect(path)
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        db.close()
        state = State(path, reserve=0)
        host = state.load_host()
        everything = Listing(limit=10**6)
        numbers = sorted(
            int(item.id[1:])
            for item in (
                *state.list_incidents(everything, dropped=True),
                *state.list_notices(everything),
            )
        )
        # The last commit may have been made and not been said.
        assert host.serial >= said[-1]
        assert len(numbers) == len(set(numbers))
        assert set(numbers) >= set(range(max(1, host.serial - KEPT), host.serial + 1))
        last = host.serial
        state.close()
