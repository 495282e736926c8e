"""A state file of an older program is brought up to date, and one of a newer program left alone."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from agent.access import Action, Role, Token
from agent.errors import StoreError
from agent.store.state import _STEPS, KEPT_ACTIONS, SCHEMA, Listing, State

SCHEMA_1 = Path(__file__).parent / "schema-1.sql"
AT = 1769846400.0


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A file as the program with schema 1 left it."""
    path = tmp_path / "state.db"
    with sqlite3.connect(path) as db:
        db.executescript(SCHEMA_1.read_text())
    db.close()
    return path


def read_tables(path: Path) -> dict[str, str]:
    db = sqlite3.connect(path)
    found = dict(db.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))
    db.close()
    return {name: " ".join(sql.split()) for name, sql in found.items()}


def test_a_file_of_schema_1_keeps_everything_and_takes_tokens_and_actions(old: Path) -> None:
    state = State(old)
    host = state.load_host()
    assert [(i.id, i.check, i.subject) for i in host.incidents] == [("i1", "web", "nginx.service")]
    assert [s.id for s in host.silences] == ["s2"]
    assert host.serial == 2
    assert [t.why for t in state.list_transitions("i1")] == ["first failing look"]
    token = Token(id="", name="ci", role=Role.VIEWER, created=AT, created_by="root")
    assert state.add_token(token, "ab").id == "t1"
    assert state.add_action(Action(id="", at=AT, by="root", what="pause")).id == "a1"
    state.close()
    again = State(old)
    assert again.load_tokens() == ((replace(token, id="t1"), "ab"),)
    assert [action.id for action in again.list_actions(Listing())] == ["a1"]
    assert again.load_host() == host
    again.close()


def test_an_old_file_and_a_new_one_end_alike(old: Path, tmp_path: Path) -> None:
    State(old, reserve=0).close()
    new = tmp_path / "new.db"
    State(new, reserve=0).close()
    assert read_tables(old) == read_tables(new)
    for path in (old, new):
        db = sqlite3.connect(path)
        assert db.execute("PRAGMA user_version").fetchone() == (SCHEMA,)
        db.close()


def test_each_older_schema_is_brought_up_to_date(tmp_path: Path) -> None:
    new = tmp_path / "new.db"
    State(new, reserve=0).close()
    for version in range(1, SCHEMA):
        path = tmp_path / f"{version}.db"
        db = sqlite3.connect(path)
        db.executescript("".join(_STEPS[:version]))
        db.execute(f"PRAGMA user_version = {version}")
        db.close()
        State(path, reserve=0).close()
        assert read_tables(path) == read_tables(new)


def test_a_file_of_a_newer_program_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE later (id INTEGER)")
    db.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    db.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="install the newer hostmend again"):
        State(path)
    assert path.read_bytes() == before


def test_the_trail_keeps_the_latest(tmp_path: Path) -> None:
    state = State(tmp_path / "state.db", reserve=0)
    state._db.execute("PRAGMA synchronous = OFF")
    action = Action(id="", at=AT, by="root", what="pause")
    for _ in range(KEPT_ACTIONS + 5):
        last = state.add_action(action)
    found = state.list_actions(Listing(limit=KEPT_ACTIONS + 10))
    assert len(found) == KEPT_ACTIONS
    assert found[0] == last
    assert found[-1].id == "a6"
    state.close()
