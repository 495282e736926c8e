"""The state has a place to go whatever happens to its directory."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.access import Role, Token
from agent.core.model import Decision, Host, Notice, Reason, Silence
from agent.errors import StoreError
from agent.store.history import History
from agent.store.home import Home
from agent.store.state import SCHEMA, State

ROOT = Path(__file__).parents[2]
SMALL_DISK = Path(__file__).with_name("small_disk.py")


class Place:
    """A state directory, a shelter, and a time that only tests move."""

    def __init__(self, base: Path) -> None:
        self.directory = base / "state"
        self.shelter = base / "shelter"
        self.now = 1000.0
        self.opened: list[Home] = []

    @property
    def file(self) -> Path:
        return self.directory / "state.db"

    def open(self) -> Home:
        home = Home(self.directory, self.shelter, clock=lambda: self.now)
        self.opened.append(home)
        History(self.directory / "history.db").close()
        return home

    def lived(self) -> None:
        """An agent was here, and committed notice n1."""
        home = self.open()
        commit(home, 1)
        home.close()
        self.opened.remove(home)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    for home in place.opened:
        home.close()


def commit(home: Home, number: int) -> None:
    notice = Notice(id=f"n{number}", route="ops", reason=Reason.AGENT, created=1.0, expires=9e9)
    host = home.state.load_host()
    new = Host(incidents=host.incidents, silences=host.silences, serial=number)
    home.state.save(host, Decision(host=new, notices=(notice,)))


def due(home: Home) -> list[str]:
    return [notice.id for notice in home.state.due_notices()]


def disk_error() -> StoreError:
    """What a state says whose filesystem has failed."""
    with pytest.raises(sqlite3.OperationalError) as found:
        sqlite3.connect("file:/proc/none?mode=ro", uri=True)
    error = StoreError("cannot write: it is broken")
    error.__cause__ = found.value
    return error


def test_a_first_start_is_no_loss(place: Place) -> None:
    home = place.open()
    assert home.state.created
    assert (home.lost, home.trouble, home.take_news()) == ("", "", [])


def test_what_was_committed_is_there_again(place: Place) -> None:
    place.lived()
    home = place.open()
    assert due(home) == ["n1"]
    assert (home.lost, home.trouble) == ("", "")


@pytest.mark.parametrize("left", [None, b""])
def test_a_state_that_is_gone_while_its_history_is_there_was_lost(
    place: Place, left: bytes | None
) -> None:
    place.lived()
    place.file.unlink()
    if left is not None:
        place.file.write_bytes(left)
    home = place.open()
    assert "is gone" in home.lost
    assert due(home) == []


def spoil_header(file: Path) -> None:
    file.write_bytes(b"no database" * 1000)


def spoil_page(file: Path) -> None:
    """A page of a table in the middle, as a broken sector leaves it."""
    with file.open("r+b") as handle:
        handle.seek(4096)
        handle.write(os.urandom(8 * 4096))


def spoil_row(file: Path) -> None:
    with sqlite3.connect(file) as db:
        db.execute("UPDATE notice SET body = '{\"id\": 1}'")
    db.close()


@pytest.mark.parametrize("spoil", [spoil_header, spoil_page, spoil_row])
def test_a_corrupt_state_is_kept_aside_and_begun_anew(place: Place, spoil: object) -> None:
    place.lived()
    spoil(place.file)
    before = place.file.read_bytes()
    home = place.open()
    (aside,) = place.directory.glob("state.db.corrupt-*Z")
    assert aside.read_bytes() == before
    assert "corrupt" in home.lost
    assert aside.name in home.lost
    assert home.trouble == ""
    commit(home, 2)
    home.close()
    place.opened.clear()
    # The next start finds a whole file: what was lost is for the host's own books to remember.
    assert place.open().lost == ""


def test_a_newer_schema_is_refused_and_not_touched(place: Place) -> None:
    place.lived()
    db = sqlite3.connect(place.file)
    db.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    db.close()
    before = {f.name: f.read_bytes() for f in place.directory.iterdir()}
    for _ in range(2):
        with pytest.raises(StoreError, match="install the newer hostmend again"):
            Home(place.directory, place.shelter)
    assert {f.name: f.read_bytes() for f in place.directory.iterdir()} == before


OPENS = """
import sys
from pathlib import Path
from agent.errors import StoreError
from agent.store.home import Home
try:
    Home(Path(sys.argv[1]), Path(sys.argv[2]))
except StoreError as error:
    print(error)
"""


def test_a_second_agent_is_refused_even_while_the_first_is_sheltered(
    place: Place, tmp_path: Path
) -> None:
    home = place.open()
    command = [sys.executable, "-c", OPENS, str(place.directory), str(tmp_path / "other")]
    for flee in (False, True):
        if flee:
            assert home.flee(disk_error(), Host())
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        assert "another agent uses it" in done.stdout


def test_a_directory_that_others_may_write_to_is_refused(place: Place) -> None:
    place.directory.mkdir()
    place.directory.chmod(0o777)
    with pytest.raises(StoreError, match="chmod 700"):
        Home(place.directory, place.shelter)


def test_it_flees_once_and_comes_home_with_everything(place: Place) -> None:
    home = place.open()
    commit(home, 1)
    assert home.flee(disk_error(), home.state.load_host())
    assert home.state.path == place.shelter / "state.db"
    assert "in memory only" in home.trouble
    assert not home.flee(disk_error(), home.state.load_host())
    commit(home, 2)
    home.tend(Host())
    assert home.trouble, "it went home at once"
    place.now += 10.0
    home.tend(Host())
    assert (home.trouble, home.state.path) == ("", place.file)
    commit(home, 3)
    assert due(home) == ["n1", "n2", "n3"]
    news = home.take_news()
    assert ["in memory only" in n for n in news] == [True, False]
    assert home.take_news() == []
    assert not (place.shelter / "state.db").exists()
    home.close()
    place.opened.clear()
    assert due(place.open()) == ["n1", "n2", "n3"]


def test_a_disk_that_fails_again_and_again_is_tried_ever_more_slowly(place: Place) -> None:
    home = place.open()
    waits = []
    for _ in range(10):
        assert home.flee(disk_error(), Host())
        start = place.now
        while home.trouble:
            place.now += 5.0
            home.tend(Host())
        waits.append(place.now - start)
    assert waits[:4] == [10.0, 20.0, 40.0, 80.0]
    assert max(waits) == 600.0


def test_what_is_left_in_the_shelter_wins_when_it_is_newer(place: Place) -> None:
    home = place.open()
    commit(home, 1)
    assert home.flee(disk_error(), home.state.load_host())
    commit(home, 2)
    home.close()
    place.opened.clear()
    again = place.open()
    assert due(again) == ["n1", "n2"]
    assert (again.lost, again.state.path) == ("", place.file)
    again.close()
    place.opened.clear()
    # A copy that was left there and is older than the file does not.
    shutil.copy(place.file, place.shelter / "state.db")
    later = place.open()
    commit(later, 3)
    later.close()
    shutil.copy(place.file, place.directory / "newer.db")
    place.opened.clear()
    assert due(place.open()) == ["n1", "n2", "n3"]


def test_a_newer_shelter_makes_up_for_a_lost_file(place: Place) -> None:
    home = place.open()
    commit(home, 1)
    assert home.flee(disk_error(), home.state.load_host())
    home.close()
    place.opened.clear()
    spoil_header(place.file)
    again = place.open()
    assert due(again) == ["n1"]
    assert again.lost == ""


@pytest.mark.parametrize("all_of_it", [False, True])
def test_a_file_that_is_removed_while_in_use_is_written_again(
    place: Place, all_of_it: bool
) -> None:
    home = place.open()
    commit(home, 1)
    if all_of_it:
        shutil.rmtree(place.directory)
    else:
        place.file.unlink()
    commit(home, 2)
    home.tend(home.state.load_host())
    assert home.trouble == ""
    assert "removed or replaced" in home.take_news()[0]
    commit(home, 3)
    home.tend(home.state.load_host())
    assert home.take_news() == []
    assert (place.directory.stat().st_mode & 0o777) == 0o700
    home.close()
    place.opened.clear()
    again = place.open()
    assert due(again) == ["n1", "n2", "n3"]
    assert again.lost == ""


def test_a_file_that_is_put_in_its_place_is_kept_aside(place: Place) -> None:
    home = place.open()
    commit(home, 1)
    other = place.directory / "other.db"
    State(other, reserve=0).close()
    other.replace(place.file)
    home.tend(home.state.load_host())
    (aside,) = place.directory.glob("state.db.replaced-*Z")
    assert State(aside, reserve=0).due_notices() == ()
    assert due(home) == ["n1"]


def test_what_memory_began_again_is_joined_to_the_file_that_comes_back(place: Place) -> None:
    home = place.open()
    old = Silence(id="s9", starts=1.0, ends=2.0, by="me", checks=("*",))
    home.state.save(Host(), Decision(host=Host(silences=(old,))))
    commit(home, 1)
    token = home.state.add_token(
        Token(id="", name="ci", role=Role.VIEWER, created=1, created_by="x"), "ab"
    )
    ended = due(home)
    home.state.begin_again(place.shelter / "state.db", home.state.load_host())
    home._be_away(disk_error())
    assert due(home) == ended
    assert home.state.load_tokens() == ((token, "ab"),)
    host = home.state.load_host()
    silence = Silence(id="s2", starts=1.0, ends=2.0, by="me", checks=("*",))
    home.state.save(host, Decision(host=Host(silences=(silence,), serial=2)))
    commit(home, 3)
    place.now += 600.0
    home.tend(Host())
    assert (home.trouble, home.state.partial) == ("", False)
    assert due(home) == ["n1", "n3"]
    assert home.state.load_host().silences == (silence,)
    home.close()
    place.opened.clear()
    again = place.open()
    assert due(again) == ["n1", "n3"]
    assert again.state.load_tokens() == ((token, "ab"),)


CASES = {
    "a full tmpfs": ("tmpfs", "full", 200),
    "a full ext4": ("ext4", "full", 200),
    "an ext4 that became read-only": ("ext4", "read-only", 6),
    "an ext4 that answers nothing": ("ext4", "dead", 6),
    "a tmpfs that was full at the first start": ("tmpfs", "full at first", 6),
}


@pytest.mark.lab
@pytest.mark.parametrize("name", CASES)
def test_nothing_is_lost_on(name: str, tmp_path: Path) -> None:
    kind, what, count = CASES[name]
    command = ["unshare", "--mount", sys.executable, str(SMALL_DISK), str(tmp_path)]
    done = subprocess.run(
        [*command, kind, what, str(count)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    everything = [f"n{number}" for number in range(1, count + 1)]
    assert seen["due"] == everything
    assert seen["again"] == everything
    assert (seen["again_lost"], seen["fault"]) == ("", "")
    if what == "full":
        assert (seen["free"], seen["inodes"], seen["trouble"]) == (0, 0, "")
    else:
        assert "in memory only" in seen["trouble"]
        assert len(seen["news"]) == 1
