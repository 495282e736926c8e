"""The module of renew-certificate: whose a certificate is, when its client is started, and what is
made of what that did. With certbot, dehydrated and an authority: tests/lab/test_renewal.py."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

LIBRARY = Path(__file__).parents[2] / "playbooks" / "renew-certificate" / "library"
DAY = 86400


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "renew_certificate", LIBRARY / "renew_certificate.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


module = load()


def make(place: Path, days: int) -> None:
    """A key and a certificate of that key in a directory."""
    place.mkdir(parents=True, exist_ok=True)
    key, certificate = place / "privkey.pem", place / "fullchain.pem"
    argv: list[str | Path] = ["openssl", "req", "-x509", "-newkey", "ec", "-nodes"]
    argv += ["-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", "/CN=shop.example"]
    argv += ["-days", str(days), "-keyout", key, "-out", certificate]
    subprocess.run(argv, check=True, capture_output=True)


class Host:
    """Certificates in a directory, and a command that renews one."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.live = root / "live"
        self.path = self.live / "fullchain.pem"
        self.ready = root / "ready"
        self.client = root / "renew"
        self.started = root / "started"
        make(self.live, days=1)
        make(self.ready, days=90)
        self.has_client("cp ready/* live/; echo renewed")

    def has_client(self, script: str) -> None:
        self.client.write_text(f"#!/bin/sh\ncd {self.root}\ntouch {self.started}\n{script}\n")
        self.client.chmod(0o755)

    def renew(self, *, preview: bool = False, **given: Any) -> Any:
        options = {
            "path": str(self.path),
            "key": None,
            "command": [str(self.client)],
            "seen_seconds": float(DAY),
            **given,
        }
        return module.renew(options, preview)

    def refuses(self, match: str, **given: Any) -> None:
        """A human is asked, and no client is started."""
        with pytest.raises(module.NeedsHumanError, match=match):
            self.renew(**given)
        assert not self.started.exists()


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(module, "RENEWALS", str(tmp_path / "renewal"))
    monkeypatch.setattr(module, "CERTBOT_PLACES", (str(tmp_path / "certbot"),))
    monkeypatch.setattr(module, "PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    monkeypatch.setattr(module, "CONTAINER", ())
    monkeypatch.setattr(module, "read_clock_error", lambda: 0.5)
    monkeypatch.setattr(module, "WAIT_LIMIT", 0)
    (tmp_path / "bin").mkdir()
    return Host(tmp_path)


def has_program(host: Host, name: str, script: str) -> None:
    program = host.root / "bin" / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


# What is made of the client's work


def test_a_new_certificate_with_its_own_key_is_what_servers_should_read(host: Host) -> None:
    done = host.renew()
    assert (done.changed, done.reread, done.needs_human) == (True, True, False)
    assert f"renew renewed {host.path}, which now ends at" in done.msg


def test_without_a_client_that_finds_it_due_the_second_run_changes_nothing(host: Host) -> None:
    host.renew(seen_seconds=None)
    host.has_client("echo not due")
    done = host.renew(seen_seconds=None)
    assert (done.changed, done.reread, done.needs_human) == (False, False, False)
    assert "is not due" in done.msg


def test_what_was_renewed_since_the_look_is_only_read_again(host: Host) -> None:
    shutil.copytree(host.ready, host.live, dirs_exist_ok=True)
    done = host.renew()
    assert (done.changed, done.reread, done.needs_human) == (False, True, False)
    assert "was renewed already" in done.msg
    assert not host.started.exists()


def test_a_client_that_finds_a_failing_certificate_not_due_is_for_a_human(host: Host) -> None:
    host.has_client("echo Certificate not yet due for renewal")
    done = host.renew()
    assert (done.changed, done.reread, done.needs_human) == (False, False, True)
    assert "never forced" in done.msg
    assert "not yet due for renewal" in done.msg


def test_a_client_that_fails_is_for_a_human_with_the_end_of_its_words(host: Host) -> None:
    host.has_client("seq 1 5000; echo the authority does not answer; exit 3")
    done = host.renew()
    assert (done.changed, done.reread, done.needs_human) == (False, False, True)
    assert "ended with exit code 3" in done.msg
    assert f"try {host.client}" in done.msg
    assert done.msg.endswith("the authority does not answer")
    assert len(done.msg) < 2000


def test_a_client_that_hangs_is_ended_with_all_that_it_started(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLIENT_LIMIT", 1)
    # What it started is deaf to the gentler signal.
    host.has_client("(trap '' TERM; exec sleep 300) & echo $! > child; wait")
    done = host.renew()
    assert done.needs_human
    assert "took too long" in done.msg
    child = Path(f"/proc/{(host.root / 'child').read_text().strip()}/stat")
    deadline = time.monotonic() + 60
    while child.exists() and child.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_nobody_waits_for_what_a_client_leaves_running(host: Host) -> None:
    host.has_client("cp ready/* live/; sleep 300 & echo $! > child")
    try:
        assert host.renew().reread
    finally:
        os.kill(int((host.root / "child").read_text()), 9)


def test_a_new_certificate_with_another_key_is_told_to_no_server(host: Host) -> None:
    host.has_client("cp ready/fullchain.pem live/")
    done = host.renew()
    assert (done.changed, done.reread, done.needs_human) == (True, False, True)
    assert f"the key {host.live}/privkey.pem is not its own" in done.msg


def test_a_new_certificate_that_ends_no_later_is_for_a_human(host: Host) -> None:
    make(host.ready, days=1)
    host.has_client("cp ready/* live/")
    done = host.renew()
    assert (done.changed, done.reread, done.needs_human) == (True, False, True)
    assert "all the same it ends at" in done.msg


def test_a_renewal_whose_client_fails_afterwards_is_served_and_told(host: Host) -> None:
    host.has_client("cp ready/* live/; echo hook failed; exit 1")
    done = host.renew()
    assert (done.changed, done.reread, done.needs_human) == (True, True, True)
    assert "hook failed" in done.msg


def test_a_key_that_nobody_knows_is_said(host: Host) -> None:
    (host.live / "privkey.pem").unlink()
    host.has_client("cp ready/fullchain.pem live/")
    done = host.renew()
    assert done.reread
    assert "they were not tried together" in done.msg


def test_a_client_has_nothing_of_ansibles_surroundings(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    host.has_client("env; exit 1")
    said = host.renew().msg
    assert "PYTHONPATH" not in said
    assert "HOME=/" in said


# Gates


def test_a_clock_that_nobody_keeps_stops_it(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "read_clock_error", lambda: 16.0)
    host.refuses("clock of this host is not synchronised")
    # That of a container is another machine's.
    monkeypatch.setattr(module, "CONTAINER", (str(host.root),))
    assert host.renew().changed


def test_a_certificate_that_has_not_begun_shows_a_wrong_clock(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr(module.time, "time", lambda: now - 40 * DAY)
    host.refuses("so the clock of this host is wrong")


def test_the_kernel_says_how_wrong_its_clock_may_be() -> None:
    assert load().read_clock_error() > 0


class Room(NamedTuple):
    f_flag: int = 0
    f_bfree: int = 1000
    f_frsize: int = 4096
    f_files: int = 1000
    f_ffree: int = 1000


FINE = Room()


@pytest.mark.parametrize(
    ("room", "match"),
    [
        (FINE._replace(f_flag=os.ST_RDONLY), "is read-only"),
        (FINE._replace(f_bfree=255), "there is no room"),
        (FINE._replace(f_ffree=0), "there is no room"),
    ],
)
def test_a_filesystem_that_cannot_take_it_stops_it(
    host: Host, monkeypatch: pytest.MonkeyPatch, room: Room, match: str
) -> None:
    monkeypatch.setattr(module.os, "statvfs", lambda _: room)
    host.refuses(match)
    # Some filesystems count no inodes.
    monkeypatch.setattr(module.os, "statvfs", lambda _: FINE._replace(f_files=0, f_ffree=0))
    assert host.renew().changed


def test_a_preview_starts_no_client_and_says_which_it_would(host: Host) -> None:
    done = host.renew(preview=True)
    assert (done.changed, done.needs_human) == (False, False)
    assert done.msg.startswith(f"would run {host.client}")
    assert not host.started.exists()


@pytest.mark.parametrize(
    ("content", "match"), [("no certificate\n", "holds no certificate"), (None, "cannot read")]
)
def test_what_is_no_certificate_is_for_a_human(host: Host, content: str | None, match: str) -> None:
    host.path.unlink()
    if content is not None:
        host.path.write_text(content)
    host.refuses(match)


def test_a_pipe_in_its_place_is_not_waited_for(host: Host) -> None:
    host.path.unlink()
    os.mkfifo(host.path)
    host.refuses("is no file")


# Whose it is


def renewal(host: Host, name: str = "shop") -> Path:
    """A renewal's configuration as certbot 2.1 writes it."""
    file = host.root / "renewal" / f"{name}.conf"
    file.parent.mkdir(exist_ok=True)
    file.write_text(
        "# renew_before_expiry = 30 days\nversion = 2.1.0\n"
        f"archive_dir = {host.root}/archive/{name}\ncert = {host.live}/cert.pem\n"
        f"privkey = {host.live}/privkey.pem\nchain = {host.live}/chain.pem\n"
        f"fullchain = {host.path}\n\n# Options used in the renewal process\n[renewalparams]\n"
        "account = 0\nfullchain = /elsewhere.pem\n"
    )
    return file


def client_of(host: Host, path: Path, command: list[str] | None = None) -> Any:
    return module.find_client(str(path), {"command": command, "key": None})


def test_a_certificate_that_nobody_renews_is_for_a_human(host: Host) -> None:
    host.refuses("nothing on this host says that it renews", command=None)


def test_certbot_renews_what_its_configuration_names_and_what_leads_there(host: Host) -> None:
    renewal(host)
    has_program(host, "certbot", "exit 0")
    link = host.root / "link.pem"
    link.symlink_to(host.path)
    for path in (host.path, link):
        client = client_of(host, path, [str(host.client)])
        assert client.name == "certbot"
        assert client.argv[1:4] == ["renew", "--cert-name", "shop"]
        assert not [word for word in client.argv if "force" in word]
        assert client.key == f"{host.live}/privkey.pem"
    # A copy that something else makes is not certbot's.
    copy = host.root / "copy.pem"
    shutil.copy(host.path, copy)
    assert client_of(host, copy, [str(host.client)]).name == "renew"


def test_certbots_certificate_without_certbot_is_for_a_human(host: Host) -> None:
    renewal(host)
    host.refuses("there is no certbot on this host any more")


@pytest.mark.parametrize("held", [True, False])
def test_another_run_of_certbot_is_known_by_a_lock_that_somebody_holds(
    host: Host, held: bool
) -> None:
    renewal(host)
    has_program(host, "certbot", f"exec {host.client}")
    lock = host.root / "certbot" / ".certbot.lock"
    lock.parent.mkdir()
    # One of a run that was killed is there and held by nobody.
    lock.touch()
    if not held:
        assert host.renew().changed
        return
    hold = "import fcntl, os, sys; fcntl.lockf(os.open(sys.argv[1], os.O_WRONLY), fcntl.LOCK_EX);"
    hold += "print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdout.readline()
        host.refuses(f"another run of certbot is at work: process {holder.pid} holds")
        holder.stdin.close()


DEHYDRATED = """
[ "$1" = --env ] || exit 9
echo '# dehydrated configuration'
echo 'declare -- CERTDIR="{root}/certs"'
echo 'declare -- LOCKFILE="{root}/lock"'
"""


@pytest.fixture
def dehydrated(host: Host) -> Callable[[str], Path]:
    """A certificate of dehydrated under that name, as links to what it made last."""
    has_program(host, "dehydrated", DEHYDRATED.format(root=host.root))

    def add(name: str) -> Path:
        place = host.root / "certs" / "shop.example"
        make(place, days=1)
        (place / "fullchain.pem").rename(place / name.replace(".pem", "-1700000000.pem"))
        (place / name).symlink_to(name.replace(".pem", "-1700000000.pem"))
        return place / name

    return add


@pytest.mark.parametrize("name", ["fullchain.pem", "cert.pem"])
def test_dehydrated_renews_what_lies_in_its_directory(
    host: Host, dehydrated: Callable[[str], Path], name: str
) -> None:
    path = dehydrated(name)
    link = host.root / "link.pem"
    link.symlink_to(path)
    for each in (path, link):
        client = client_of(host, each)
        assert client.name == "dehydrated"
        # Never one name alone: the certificate would lose its others.
        assert client.argv[1:] == ["--cron", "--keep-going"]
        assert client.key == str(path.parent / "privkey.pem")
    host.refuses("nothing on this host says", command=None)


def test_a_lock_of_dehydrated_stops_it(host: Host, dehydrated: Callable[[str], Path]) -> None:
    path = dehydrated("fullchain.pem")
    (host.root / "lock").touch()
    host.refuses("another run of dehydrated is at work: .*/lock is there", path=str(path))
