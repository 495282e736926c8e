"""Evidence is good to have: whatever happens to its file, nothing waits for it or fails with it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from agent.core.model import Evidence
from agent.store.history import KEPT_AUDITS, History


def add(history: History, text: str, at: float = 1.0) -> None:
    history.add_evidence("i1", "before", at, (Evidence(title="t", text=text),))


def texts(history: History) -> list[str]:
    return [kept.evidence.text for kept in history.list_evidence("i1")]


def test_a_file_that_is_no_database_is_kept_aside(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    path.write_bytes(b"no database" * 500)
    history = History(path)
    add(history, "a")
    assert texts(history) == ["a"]
    assert history.trouble == ""
    assert (tmp_path / "history.db.broken").exists()
    history.close()


def test_a_file_that_cannot_be_had_is_done_without_until_it_can(tmp_path: Path) -> None:
    place = tmp_path / "state"
    history = History(place / "history.db")
    add(history, "in memory")
    history.add_run_event("r7", 1, 1.0, {"event": "task"})
    assert "in memory only" in history.trouble
    assert texts(history) == ["in memory"]
    assert history.list_run_events("r7")[0]["event"] == "task"
    place.mkdir()
    history.tend()
    add(history, "in the file", 2.0)
    assert history.trouble == ""
    assert sorted(texts(history)) == ["in memory", "in the file"]
    assert history.find_last_number() == 7
    history.close()
    again = History(place / "history.db")
    assert texts(again) == ["in the file"]
    again.close()


def test_a_file_that_is_taken_away_is_made_again(tmp_path: Path) -> None:
    place = tmp_path / "state"
    place.mkdir()
    history = History(place / "history.db")
    shutil.rmtree(place)
    place.mkdir()
    history.tend()
    add(history, "a")
    history.close()
    assert texts(History(place / "history.db")) == ["a"]


def test_memory_is_not_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.store.history._IN_MEMORY", {"evidence": ("taken", 10)})
    history = History(tmp_path / "nowhere" / "history.db")
    for number in range(50):
        add(history, str(number), float(number))
    assert texts(history)[-1] == "49"
    assert len(texts(history)) <= 11
    history.close()


def test_what_is_old_is_forgotten(tmp_path: Path) -> None:
    history = History(tmp_path / "history.db")
    add(history, "old", 1.0)
    add(history, "new", 9.0)
    history.prune(5.0)
    assert texts(history) == ["new"]
    history.close()


def test_what_checks_remember_survives(tmp_path: Path) -> None:
    history = History(tmp_path / "history.db")
    history.remember("log", {"a": "1", "b": "2"})
    history.remember("log", {"a": None, "b": "3"})
    history.remember("mail", {"a": "4"})
    history.close()
    assert set(History(tmp_path / "history.db").list_memories()) == {
        ("log", "b", "3"),
        ("mail", "a", "4"),
    }


def test_audits_are_kept_newest_first_and_not_for_ever(tmp_path: Path) -> None:
    history = History(tmp_path / "history.db")
    for number in range(KEPT_AUDITS + 5):
        history.add_audit("pages" if number % 2 else "docs", float(number), f"body {number}")
    newest = history.list_audits(limit=2)
    assert [kept.body for kept in newest] == ["body 204", "body 203"]
    following = history.list_audits(limit=2, before=newest[-1].number, check="docs")
    assert [(kept.check, kept.body) for kept in following] == [
        ("docs", "body 202"),
        ("docs", "body 200"),
    ]
    assert len(history.list_audits(limit=1000)) == KEPT_AUDITS
    history.prune(200.0)
    assert len(history.list_audits(limit=1000)) == 5
    history.close()


def test_audits_are_kept_in_memory_while_there_is_no_file(tmp_path: Path) -> None:
    place = tmp_path / "state"
    history = History(place / "history.db")
    for number in range(50):
        history.add_audit("pages", float(number), str(number))
    assert [kept.body for kept in history.list_audits(limit=2)] == ["49", "48"]
    assert len(history.list_audits(limit=100)) < 20
    place.mkdir()
    history.tend()
    history.add_audit("pages", 50.0, "50")
    assert [kept.body for kept in history.list_audits(limit=2)] == ["50", "49"]
    history.close()
