"""What package managers leave behind. Real packages: tests/lab/test_vitals.py."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.errors import Unavailable
from agent.host import packages
from agent.host.packages import (
    find_newer_kernel,
    find_outdated,
    find_reboots,
    list_security_updates,
    needs_reboot,
    parse_apt,
    parse_dnf,
    read_freshness,
)

#: As apt 2.6 of Debian 12 prints it.
APT = """\
Reading package lists...
Inst base-files [12.4+deb12u5] (12.4+deb12u12 Debian:12.12/stable [amd64])
Inst libssl3 [3.0.11-1~deb12u2] (3.0.17-1~deb12u3 Debian:12.12/stable, \
Debian-Security:12/stable-security [amd64])
Inst linux-image-6.1.0-40-amd64 (6.1.153-1 Debian-Security:12/stable-security [amd64])
Inst libc6 [2.35-0ubuntu3.1] (2.35-0ubuntu3.10 Ubuntu:22.04/jammy-security [amd64]) []
Conf libssl3 (3.0.17-1~deb12u3 Debian-Security:12/stable-security [amd64])
"""

#: As dnf 4 of RHEL 9 prints it.
DNF = """\
RHSA-2024:1129 Moderate/Sec.  curl-7.76.1-26.el9_3.3.x86_64
RHSA-2024:2447 Low/Sec.       openssl-libs-1:3.0.7-27.el9.x86_64
RHBA-2024:2500 bugfix         vim-minimal-2:8.2.2637-20.el9_1.x86_64
"""


def test_security_updates_are_told_from_others() -> None:
    assert parse_apt(APT) == {
        "libssl3": "3.0.17-1~deb12u3",
        "linux-image-6.1.0-40-amd64": "6.1.153-1",
        "libc6": "2.35-0ubuntu3.10",
    }
    assert parse_dnf(DNF) == {
        "curl": "7.76.1-26.el9_3.3.x86_64",
        "openssl-libs": "1:3.0.7-27.el9.x86_64",
    }


@pytest.mark.parametrize(
    "text", ["", "garbage\n\0", "Inst \nInst x\nInst (\n", "a/Sec.\n x/Sec. \n"]
)
def test_other_lines_are_no_updates(text: str) -> None:
    assert parse_apt(text) == {}
    assert parse_dnf(text) == {}


# Kernels


@pytest.fixture
def install(tmp_path: Path) -> Callable[..., None]:
    """Puts kernels where packages do."""

    def put(*releases: str, image: bool = True) -> None:
        for release in releases:
            (tmp_path / "modules" / release).mkdir(parents=True)
            if image:
                (tmp_path / "boot").mkdir(exist_ok=True)
                (tmp_path / "boot" / f"vmlinuz-{release}").touch()

    return put


@pytest.mark.parametrize(
    ("installed", "running", "newer"),
    [
        (["6.1.0-9-amd64", "6.1.0-18-amd64"], "6.1.0-9-amd64", "6.1.0-18-amd64"),
        (["6.1.0-9-amd64", "6.1.0-18-amd64"], "6.1.0-18-amd64", ""),
        (["6.1.0-9-amd64", "6.1.0-18-cloud-amd64"], "6.1.0-9-amd64", ""),
        (["6.1.0-9-amd64", "6.5.0-0.deb12.4-amd64"], "6.1.0-9-amd64", "6.5.0-0.deb12.4-amd64"),
        (["5.14.0-362.8.1.el9_3.x86_64", "5.14.0-427.el9_4.x86_64"],
         "5.14.0-362.8.1.el9_3.x86_64", "5.14.0-427.el9_4.x86_64"),
        (["5.15.0-91-generic", "5.15.0-1050-aws"], "5.15.0-91-generic", ""),
        (["6.1.0-18-amd64"], "6.18.44-from-outside", ""),
        ([], "6.1.0-18-amd64", ""),
    ],
)  # fmt: skip
def test_a_newer_kernel_of_the_same_flavour_waits_for_a_reboot(
    tmp_path: Path, install: Callable[..., None], installed: list[str], running: str, newer: str
) -> None:
    install(*installed)
    found = find_newer_kernel(running, modules=tmp_path / "modules", kernels=tmp_path / "boot")
    assert (found.why.split()[1] if found else "") == newer


def test_what_is_left_of_a_kernel_that_was_removed_is_no_kernel(
    tmp_path: Path, install: Callable[..., None]
) -> None:
    install("6.1.0-9-amd64")
    install("6.1.0-18-amd64", image=False)
    places = {"modules": tmp_path / "modules", "kernels": tmp_path / "boot"}
    assert find_newer_kernel("6.1.0-9-amd64", **places) is None


def test_who_asked_for_a_reboot_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = tmp_path / "reboot-required"
    monkeypatch.setattr(packages, "REBOOT_REQUIRED", mark)
    assert find_reboots(container=True) == []
    mark.write_text("*** System restart required ***\n")
    os.utime(mark, (1000, 1000))
    (found,) = find_reboots(container=True)
    assert (found.why, found.since) == ("a reboot is asked for", 1000)
    (tmp_path / "reboot-required.pkgs").write_text("libc6\nlinux-image-amd64\nlibc6\n")
    (found,) = find_reboots(container=True)
    assert found.why == "a reboot is asked for by libc6, linux-image-amd64"


# Programs that are asked


def program(tmp_path: Path, name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "bin"
    place.mkdir(exist_ok=True)
    (place / name).write_text(f"#!/bin/sh\n{text}\n")
    (place / name).chmod(0o755)
    path = f"{place}:/usr/bin:/bin"
    monkeypatch.setenv("PATH", path)
    monkeypatch.setattr("agent.host.command.ENVIRONMENT", {"PATH": path})


@pytest.mark.parametrize(
    ("text", "answer"),
    [("exit 0", False), ("exit 1", True), ("exit 2", None), ("sleep 1000", None)],
)
async def test_needs_restarting_answers_by_its_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, answer: bool | None
) -> None:
    program(tmp_path, "needs-restarting", text, monkeypatch)
    assert await needs_reboot(0.5 if "sleep" in text else 60) is answer


async def test_where_it_is_not_there_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert await needs_reboot(5) is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("echo 'E: The value is not there' >&2; exit 100", "E: The value is not there"),
        ("exit 3", "exit code 3"),
        ("sleep 1000", "has not answered for 0.5 s"),
    ],
)
async def test_a_manager_that_fails_or_hangs_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, why: str
) -> None:
    program(tmp_path, "apt-get", text, monkeypatch)
    with pytest.raises(Unavailable, match=f"cannot list updates: .*{why}"):
        await list_security_updates("apt-get", seconds=0.5 if "sleep" in text else 60)


async def test_garbage_of_a_manager_is_no_update(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, "apt-get", "head -c 100000 /dev/urandom", monkeypatch)
    assert await list_security_updates("apt-get", seconds=60) == {}


def test_lists_that_were_never_fetched_were_never_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists, status = tmp_path / "lists", tmp_path / "status"
    (lists / "partial").mkdir(parents=True)
    status.touch()
    for name, path in (("_LISTS", lists), ("_STATUS", status), ("_STAMP", tmp_path / "none")):
        monkeypatch.setattr(packages, name, path)
    assert read_freshness()[0] == 0.0
    (lists / "archive.example_debian_dists_bookworm_InRelease").touch()
    for path in (lists, lists / "partial"):
        os.utime(path, (5000, 5000))
    os.utime(status, (9000, 9000))
    assert read_freshness() == (5000, 9000)


# What still runs


HOLD = """
import mmap, sys
with open(sys.argv[1], 'rb') as file:
    kept = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ | mmap.PROT_EXEC)
print(flush=True)
sys.stdin.read()
"""


def test_a_process_that_runs_a_replaced_library_is_found_by_its_unit(tmp_path: Path) -> None:
    """A real process with a real mapping; only which unit it is of stands in a file of ours."""
    library = tmp_path / "libold.so"
    shutil.copy("/bin/true", library)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(library)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (tmp_path / "new").write_bytes(b"new")
        (tmp_path / "new").replace(library)
        proc = tmp_path / "proc"
        place = proc / str(process.pid)
        place.mkdir(parents=True)
        (proc / "self").symlink_to("/proc/self")
        (place / "root").symlink_to("/")
        (place / "stat").write_bytes(Path(f"/proc/{process.pid}/stat").read_bytes())
        maps = Path(f"/proc/{process.pid}/maps").read_text()
        assert f"{library} (deleted)" in maps
        (place / "maps").write_text(maps.replace(str(tmp_path), "/usr/lib"))
        (place / "cgroup").write_text("0::/system.slice/web.service\n")
        assert find_outdated(proc) == {"web.service": ("/usr/lib/libold.so",)}
        (place / "cgroup").write_text("0::/user.slice/session-1.scope\n")
        assert find_outdated(proc) == {}
        (place / "cgroup").write_text("0::/system.slice/web.service\n")
        (place / "maps").write_text(maps)
        assert find_outdated(proc) == {}, "a file of the program's own is no library"
        (place / "root").unlink()
        (place / "root").symlink_to(tmp_path)
        (place / "maps").write_text(maps.replace(str(tmp_path), "/usr/lib"))
        assert find_outdated(proc) == {}, "a container has libraries of its own"
        process.kill()


async def test_this_machine_can_be_looked_at() -> None:
    found = await asyncio.to_thread(find_outdated)
    assert all(unit.endswith(".service") for unit in found)
