"""The tree of the lab: where its packages come from, and that half a tree is none."""

from __future__ import annotations

import fcntl
import threading
from pathlib import Path

import pytest

from agent.errors import Unavailable
from agent.lab import build, machine, missing_for_lab
from agent.lab.mirror import find_mirror
from agent.lab.tree import _Builder

ONE_LINE = """\
# deb http://old.example/debian bookworm main
deb-src http://mirror.example/debian bookworm main
deb [arch=amd64 signed-by=/usr/share/keyrings/vendor.gpg] http://vendor.example/apt bookworm main
deb cdrom:[Debian]/ bookworm main
deb\thttp://mirror.example/debian  bookworm main contrib # the one
deb http://mirror.example/debian-security bookworm-security main
deb http://mirror.example/debian trixie main
"""
DEB822 = """\
# the old one
Types: deb
URIs: http://old.example/debian
Suites: bookworm
Components: main
Enabled: no

Types: deb deb-src
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
# the components
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc
 -----END PGP PUBLIC KEY BLOCK-----

Types: deb
URIs: http://vendor.example/apt
Suites: bookworm
Components: stable
"""


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("HOSTMEND_LAB_MIRROR", raising=False)
    (tmp_path / "sources.list.d").mkdir()
    return tmp_path


def test_the_mirror_is_read_from_one_line_sources(apt: Path) -> None:
    (apt / "sources.list").write_text(ONE_LINE)
    mirror = find_mirror(apt)
    assert mirror.uri == "http://mirror.example/debian"
    assert mirror.keyring is None
    assert "Suites: bookworm-security" in mirror.sources
    assert "vendor" not in mirror.sources
    assert "trixie" not in mirror.sources


def test_the_mirror_is_read_from_deb822_sources_with_its_key(apt: Path) -> None:
    (apt / "sources.list.d/debian.sources").write_text(DEB822)
    mirror = find_mirror(apt)
    assert mirror.uri == "http://mirror.example/debian"
    assert "Suites: bookworm bookworm-updates" in mirror.sources
    assert "Signed-By: \n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n" in mirror.sources
    assert "old" not in mirror.sources
    assert "vendor" not in mirror.sources


def test_a_machine_without_a_debian_mirror_is_told_the_way_out(
    apt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Unavailable, match="set HOSTMEND_LAB_MIRROR"):
        find_mirror(apt)
    monkeypatch.setenv("HOSTMEND_LAB_MIRROR", "http://chosen.example/debian")
    assert find_mirror(apt).uri == "http://chosen.example/debian"


def test_a_missing_tool_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "TOOLS", {"no-such-tool": "its-package", "sh": "dash"})
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert missing_for_lab() == "no-such-tool not found: apt-get install its-package"
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(Unavailable, match="cannot build a lab: it needs root"):
        build()


@pytest.mark.lab
def test_a_build_that_fails_leaves_no_tree_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOSTMEND_LAB_MIRROR", "http://127.0.0.1:1/debian")
    steps: list[str] = []
    with pytest.raises(Unavailable, match=r"debootstrap .* ended with 1"):
        build(tmp_path, progress=steps.append)
    assert [path.suffix for path in sorted((tmp_path / "trees").iterdir())] == [".lock", ".log"]
    assert "unpacking the base system" in steps[0]


@pytest.mark.lab
def test_a_second_builder_waits_for_the_first_and_takes_its_tree(tmp_path: Path) -> None:
    waits = threading.Event()
    found: list[Path] = []

    def build_too() -> None:
        found.append(build(tmp_path, requirements=(), progress=lambda _line: waits.set()))

    # The key is the lock's name, which a build that cannot begin tells.
    builder = threading.Thread(target=build_too)
    key = _key_of(tmp_path)
    with (tmp_path / f"trees/{key}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        builder.start()
        assert waits.wait(60)
        (tmp_path / "trees" / key).mkdir()
    builder.join(60)
    assert found == [tmp_path / "trees" / key]


def _key_of(cache: Path) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOSTMEND_LAB_MIRROR", "http://127.0.0.1:1/debian")
        with pytest.raises(Unavailable):
            build(cache, requirements=(), progress=lambda _line: None)
    (lock,) = (cache / "trees").glob("*.lock")
    return lock.stem


@pytest.mark.lab
def test_what_packages_set_in_the_kernel_does_not_reach_this_machine(
    lab_tree: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with (tmp_path / "lock").open("w") as lock:
        builder = _Builder(lab_tree, log, lock.fileno(), lambda _line: None)
        builder._inside(["sh", "-c", "cat /proc/sys/kernel/core_pattern"])
        # Its own value: where it could be written, nothing would change.
        same = 'read V < /proc/sys/kernel/core_pattern; echo "$V" > /proc/sys/kernel/core_pattern'
        with pytest.raises(Unavailable, match="Read-only file system"):
            builder._inside(["sh", "-c", same])


@pytest.mark.lab
def test_a_tree_that_is_there_is_not_built_again(lab_tree: Path) -> None:
    steps: list[str] = []
    assert build(progress=steps.append) == lab_tree
    assert steps == []
