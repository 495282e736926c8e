"""What remedies that change data share: how a server ended last, and what a copy is of."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

PLAYBOOKS = Path(__file__).parents[2] / "playbooks"
SHARED = PLAYBOOKS / "_shared"


def load(name: str, directory: Path = SHARED) -> ModuleType:
    """As Ansible has it: what is shared is found below its own module_utils."""
    full = f"ansible.module_utils.{name}"
    spec = importlib.util.spec_from_file_location(full, directory / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[full] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


data = load("data_directory")
mariadb = load("mariadb_server")
load("mariadb_client")
copy_data = load("copy_data")
relay_log = load("relay_log", PLAYBOOKS / "reset-mariadb-relay-log" / "library")

STAMP = "2026-11-26 13:57:10 0 "
BEGIN = (
    STAMP + "[Note] Starting MariaDB 10.11.19-MariaDB-0+deb12u1-log source revision 58 as process 9"
)
READY = STAMP + "[Note] /usr/sbin/mariadbd: ready for connections."
ENDED = STAMP + "[Note] /usr/sbin/mariadbd: Shutdown complete"
ABORT = STAMP + "[ERROR] Aborting"
OTHER = STAMP + "[Note] InnoDB: Starting shutdown..."


def judge(*lines: str) -> tuple[bool, str]:
    found = data.judge_last_stop(reversed(lines), mariadb.WORDS)
    return found.clean, found.why


@pytest.mark.parametrize(
    ("name", "lines", "clean", "why"),
    [
        ("a stop in order", [BEGIN, READY, OTHER, ENDED], True, "in order"),
        ("then starts that gave up", [BEGIN, READY, ENDED, BEGIN, ABORT, BEGIN, ABORT], True, ""),
        ("a crash", [BEGIN, READY, OTHER], False, "crashed or was killed"),
        ("an end of an earlier start", [BEGIN, READY, ENDED, BEGIN, READY], False, "crashed"),
        ("a crash, then starts that gave up", [BEGIN, READY, BEGIN, ABORT], False, "crashed"),
        ("an end before it was ready", [BEGIN, ENDED, READY], False, "crashed"),
        ("a start that was killed", [BEGIN, READY, ENDED, BEGIN, OTHER], False, "from outside"),
        ("a log that begins too late", [OTHER, ENDED], False, "does not reach back"),
        ("only starts that gave up", [BEGIN, ABORT], False, "does not reach back"),
        ("no log", [], False, "does not reach back"),
        (
            "a name that pretends to be an end",
            [BEGIN, READY, f"{STAMP}[Warning] Access denied for user '{ENDED}"],
            False,
            "crashed",
        ),
    ],
)
def test_only_a_start_that_logged_its_own_end_ended_in_order(
    name: str, lines: list[str], clean: bool, why: str
) -> None:
    found = judge(*lines)
    assert found[0] is clean, name
    assert why in found[1]


def test_a_log_is_read_from_its_end(tmp_path: Path) -> None:
    file = tmp_path / "log"
    lines = [f"line {number} {'x' * (number % 37)}" for number in range(500)]
    for text in ("\n".join(lines), "\n".join(lines) + "\n"):
        file.write_text(text)
        for block in (16, 64, 4096, 1 << 20):
            found = [line for line in data.read_file_backwards(str(file), block) if line]
            assert list(reversed(found)) == lines


def plant(root: Path) -> Path:
    source = root / "data"
    (source / "shop").mkdir(parents=True)
    (source / "shop" / "orders.MYD").write_bytes(b"rows" * 1000)
    (source / "ibdata1").write_bytes(b"pages")
    (source / "shop" / "here").symlink_to("orders.MYD")
    os.mkfifo(source / "pipe")
    return source


def test_a_state_is_named_by_all_that_lies_there(tmp_path: Path) -> None:
    source = plant(tmp_path)
    first = data.Tree(source).digest()
    assert data.Tree(source).digest() == first
    for change in (
        lambda: (source / "ibdata1").write_bytes(b"PAGES"),
        lambda: (source / "ibdata1").chmod(0o600),
        lambda: (source / "more").write_bytes(b""),
        lambda: (source / "ibdata1").rename(source / "ibdata2"),
        lambda: (source / "empty").mkdir(),
    ):
        change()
        later = data.Tree(source).digest()
        assert later != first
        first = later


def test_a_link_that_leads_out_makes_no_whole_copy(tmp_path: Path) -> None:
    source = plant(tmp_path)
    (source / "shop" / "far").symlink_to(tmp_path)
    with pytest.raises(data.Refused, match="would not be whole"):
        data.Tree(source)


def test_a_copy_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, place = plant(tmp_path), tmp_path / "copy"
    tree = data.Tree(source)
    copy_data.make_copy(str(source), tree, str(place), {"state": tree.digest()})
    assert data.Tree(place / "data").digest() == tree.digest()
    check = ["sha256sum", "--quiet", "--check", "SHA256SUMS"]
    subprocess.run(check, cwd=place, check=True)
    assert copy_data.find_same([str(place)], tree.digest()) == str(place)
    (place / "data" / "ibdata1").write_bytes(b"other")
    assert copy_data.find_same([str(place)], tree.digest()) == ""

    def damage(tree: object, copy: object) -> None:
        raise data.Refused("it differs")

    monkeypatch.setattr(copy_data, "compare", damage)
    with pytest.raises(data.Refused, match="it differs"):
        copy_data.make_copy(str(source), tree, str(tmp_path / "second"), {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "data"]


def test_a_copy_with_another_content_is_none(tmp_path: Path) -> None:
    one, two = plant(tmp_path / "one"), plant(tmp_path / "two")
    subprocess.run(["cp", "-a", "--no-target-directory", one, two], check=True)
    copy_data.compare(data.Tree(one), data.Tree(two))
    times = (one / "ibdata1").stat()
    (two / "ibdata1").write_bytes(b"pagez")
    os.utime(two / "ibdata1", ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(data.Refused, match="ibdata1 differs"):
        copy_data.compare(data.Tree(one), data.Tree(two))


def test_whoever_works_in_a_directory_is_found(tmp_path: Path) -> None:
    assert data.find_users([tmp_path]) == []
    with subprocess.Popen(["sleep", "600"], cwd=tmp_path) as sleeper:
        try:
            assert data.find_users([tmp_path]) == [f"{sleeper.pid} (sleep)"]
        finally:
            sleeper.kill()
    file = tmp_path / "open"
    with (
        file.open("w") as opened,
        subprocess.Popen(["sleep", "600"], cwd="/", stdout=opened) as sleeper,
    ):
        try:
            assert data.find_users([tmp_path]) == [f"{sleeper.pid} (sleep)"]
        finally:
            sleeper.kill()


@pytest.mark.parametrize(
    ("words", "base", "index"),
    [
        ([], "", None),
        (["log_bin=/var/log/mysql/bin"], "/var/log/mysql/bin", "/var/log/mysql/bin.index"),
        (["log-bin=bin.log"], "DATA/bin", "DATA/bin.index"),
        (["log-bin=bin", "log-bin-index=list.idx"], "DATA/bin", "DATA/list.idx"),
        (["log-bin=bin", "log-bin-index=list"], "DATA/bin", "DATA/list.index"),
        (["log-bin", "log-basename=db"], "DATA/db-bin", "DATA/db-bin.index"),
        (["log-bin=bin", "skip-log-bin"], "", None),
        (["loose-log-bin=bin"], "DATA/bin", "DATA/bin.index"),
    ],
)
def test_the_place_of_binary_logs_is_read_as_the_server_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], base: str, index: str | None
) -> None:
    (tmp_path / "mysql").mkdir()
    told = {"LoadState": "loaded", "ActiveState": "failed", "ExecStart": "/usr/sbin/mariadbd"}
    printed = "".join(f"--{word}\n" for word in (f"datadir={tmp_path}", *words))
    monkeypatch.setattr(mariadb, "ask_unit", lambda *_: told)
    done = subprocess.CompletedProcess([], 0, printed, "")
    monkeypatch.setattr(mariadb, "run", lambda *_: done)
    server = mariadb.Server("mariadb.service")
    server.check_whole()
    assert server.log_base == base.replace("DATA", str(tmp_path))
    if index:
        assert server.log_index == index.replace("DATA", str(tmp_path))
    told["ExecStart"] = "/usr/sbin/mariadbd --datadir=/elsewhere"
    with pytest.raises(data.Refused, match="command line"):
        mariadb.Server("mariadb.service")


def test_only_what_is_named_is_copied_with_the_directories_above_it(tmp_path: Path) -> None:
    source = plant(tmp_path)
    tree = data.Tree(source, ["shop/orders.MYD"])
    assert tree.entries.keys() == {"shop", "shop/orders.MYD"}
    (source / "ibdata1").write_bytes(b"changes meanwhile")
    copy_data.make_copy(str(source), tree, str(tmp_path / "copy"), {}, in_use=True)
    assert data.Tree(tmp_path / "copy" / "data").digest() == tree.digest()


@pytest.mark.parametrize(
    ("gtid", "running", "why"),
    [
        ("No", "Yes", "does not use GTID"),
        ("Slave_Pos", "Connecting", "out of reach"),
        ("Slave_Pos", "No", "out of reach"),
        ("Slave_Pos", "Yes", ""),
        ("Current_Pos", "Yes", ""),
    ],
)
def test_a_relay_log_is_thrown_away_only_where_it_can_be_fetched(
    gtid: str, running: str, why: str
) -> None:
    source = {"Using_Gtid": gtid, "Slave_IO_Running": running, "Last_IO_Error": ""}
    if why:
        with pytest.raises(data.Refused, match=why):
            relay_log.check_gates(source)
    else:
        relay_log.check_gates(source)
