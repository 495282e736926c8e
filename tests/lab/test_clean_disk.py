"""clean-disk on what real tools left behind: dnf, apt, journald, systemd-coredump, logrotate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from lab_runs import mend

from agent.lab import Lab, build

pytestmark = [pytest.mark.lab, pytest.mark.long]

#: They write what is cleaned; no ordinary lab has them.
PACKAGES = ("createrepo-c", "dnf", "logrotate", "rpm", "systemd-coredump")

JOURNAL_MB = 20

#: Through journald's own socket, so that its files are its own.
NOISE = """\
import os, socket
journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
journal.connect("/run/systemd/journal/socket")
for number in range(4000):
    journal.send(b"MESSAGE=noise " + os.urandom(1500).hex().encode() + b"\\nPRIORITY=6\\n")
"""

SPEC = """\
Name: lab
Version: 1
Release: 1
Summary: A package to have in a cache
License: none
BuildArch: noarch
%description
It holds nothing of use.
%install
mkdir -p %{buildroot}/opt/lab
head -c 3000000 /dev/urandom > %{buildroot}/opt/lab/blob
%files
/opt/lab/blob
"""

REPOSITORY = "[lab]\nname=lab\nbaseurl=http://127.0.0.1/repo\ngpgcheck=0\n"

#: What systemd-coredump(8) is told by the kernel (core(5)); its core is no real one, since where
#: cores go is the business of the one kernel that this host shares with the machine it is on.
CRASH = """\
sleep 600 >/dev/null 2>&1 &
head -c 2000000 /dev/urandom |
    /lib/systemd/systemd-coredump $! 0 0 11 "$(date +%s)" 9223372036854775808 lab 1
kill $!
"""

ROTATE = """\
/var/log/shop.log /var/log/auth.log {
    rotate 9
    compress
    create
}
/var/log/dated.log {
    rotate 9
    compress
    dateext
    create
}
"""

#: systemd-tmpfiles looks at four times of a file, of which only this one can be set back.
TMPFILES = """\
e /var/cache/app - - - m:1d
e /srv/app - - - m:1d
"""

OLD = "60 days ago"
STORAGE = """\
[storage]
driver = "vfs"
runroot = "/run/containers/storage"
graphroot = "/var/lib/containers/storage"
"""
#: Looks like an old rotated log with its live one beside it, where none may be removed.
NEVER = {
    "/var/lib/mysql": "a data directory",
    "/var/lib/postgresql/15/main/pg_wal": "a write-ahead log",
    "/var/lib/docker/volumes/shop/_data": "a container's volume",
    "/var/lib/containers/storage/volumes/shop/_data": "a container's volume",
    "/var/lib/redis": "a data directory",
    "/var/mail": "mail",
    "/var/spool/mail": "mail",
    "/var/backups": "backups",
    "/var/log/audit": "the audit log",
    "/var/log/journal": "the journal, which has a way of its own",
    "/var/cache/shop": "no cache that the host's rules let go",
    "/tmp/shop": "somebody's temporary files",
    "/var/tmp/shop": "somebody's temporary files",
    "/etc/shop": "configuration",
    "/root/shop": "root's own",
    "/usr/local/share/shop": "a program's",
    "/srv/linked": "behind a link: /var/log/linked leads there",
    "/srv/bound": "bound to /var/log/bound",
    "/var/log/bound": "behind a bind mount",
    "/var/log/other": "on another filesystem",
    "/var/log/shop/below": "below a directory of logs, and not named",
    "/home/shop/logs": "not named by anybody",
}
#: Every place is named to the remedy as one of logs, but for these.
UNNAMED = {"/srv/linked", "/srv/bound", "/var/log/shop/below", "/home/shop/logs"}
#: What belongs to a database, or tells of who did what, among logs that may go.
AMONG_LOGS = (
    "ib_logfile0", "ib_logfile1", "ibdata1", "ibtmp1", "undo_001", "mariadb-bin.000001",
    "mariadb-bin.index", "mysql-bin.1", "relay-bin.000002", "000000010000000000000002",
    "dump.sql", "dump.sql.1.gz", "backup.tar", "backup.tar.1", "shop.mbox", "shop.mbox.1",
    "audit.log", "audit.log.1", "secure", "secure-20260101.gz", "wtmp", "wtmp.1", "btmp", "btmp.1",
    "sudo.log", "sudo.log.1.gz", "live.log", "orphan.log.1", "appendonly.aof.1.incr.aof",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Cleaned:
    lab: Lab
    detail: str
    #: Sums of all that must never be touched, before.
    before: str

    def exists(self, path: str) -> bool:
        """`path` may hold wildcards of the shell."""
        return self.lab.run(["sh", "-c", f"ls -d {path}"], check=False).returncode == 0


def plant(lab: Lab, directory: str) -> None:
    lab.write(f"{directory}/app.log", "live\n")
    for name in ("app.log.1", "app.log.2.gz"):
        lab.write(f"{directory}/{name}", f"this is {directory}/{name}\n")
    lab.run(["touch", "-d", OLD, *(f"{directory}/app.log{end}" for end in (".1", ".2.gz"))])


def list_untouchable() -> list[str]:
    names = ("app.log", "app.log.1", "app.log.2.gz")
    return [
        *(f"{directory}/{name}" for directory in NEVER for name in names),
        *(f"/var/log/shop/{name}" for name in AMONG_LOGS),
    ]


def fingerprint(lab: Lab) -> str:
    return lab.run(["sha256sum", *list_untouchable()], check=False).stdout


def fill_caches(lab: Lab) -> None:
    lab.write("/root/lab.spec", SPEC)
    lab.run(["rpmbuild", "-bb", "/root/lab.spec"])
    make = "mkdir -p /var/www/html/repo && mv /root/rpmbuild/RPMS/noarch/*.rpm /var/www/html/repo"
    lab.run(["sh", "-c", f"{make} && createrepo_c -q /var/www/html/repo"])
    lab.write("/etc/yum.repos.d/lab.repo", REPOSITORY)
    lab.run(["systemctl", "start", "nginx"])
    lab.run(["dnf", "-y", "--releasever=1", "install", "--downloadonly", "lab"])
    lab.write("/root/deb/DEBIAN/control", "Package: lab\nVersion: 1\nArchitecture: all\n"
              "Maintainer: lab <lab@lab.example>\nDescription: lab\n")  # fmt: skip
    lab.run(["sh", "-c", "head -c 3000000 /dev/urandom > /root/deb/blob"])
    lab.run(["dpkg-deb", "--build", "/root/deb", "/var/cache/apt/archives/lab_1_all.deb"])


def crash_twice(lab: Lab) -> None:
    """Two core dumps, the first of them three days old."""
    cores = "/var/lib/systemd/coredump"
    for number in (1, 2):
        lab.run(["sh", "-c", CRASH])
        lab.wait_for(["sh", "-c", f"test $(ls {cores}/core.sleep.*.zst | wc -l) -eq {number}"])
        if number == 1:
            lab.run(["sh", "-c", f"touch -d '3 days ago' {cores}/core.*"])


def install_kernels(lab: Lab) -> None:
    """Four kernels that nobody asked for, and a library likewise: apt would remove some of them."""
    for version in ("5.10.0-1", "5.10.0-2", "6.1.0-1", "6.1.0-2", "lib"):
        name = f"linux-image-{version}-amd64" if version != "lib" else "libunwanted1"
        control = (
            # Apt tells the kernels of a host apart by the versions of their packages.
            f"Package: {name}\nVersion: 1{version}\nArchitecture: amd64\nSection: kernel\n"
            "Maintainer: lab <lab@lab.example>\nDescription: lab\n"
        )
        lab.run(["rm", "-rf", "/root/deb"])
        lab.write("/root/deb/DEBIAN/control", control)
        if version != "lib":
            lab.write(f"/root/deb/boot/vmlinuz-{version}-amd64", "a kernel\n" * 600_000)
        lab.run(["dpkg-deb", "--build", "/root/deb", "/root/lab.deb"])
        lab.run(["dpkg", "--install", "/root/lab.deb"])
        lab.run(["apt-mark", "auto", name])
    lab.run(["rm", "-rf", "/root/deb", "/root/lab.deb"])


def import_images(lab: Lab) -> None:
    """An image of Podman that nothing refers to, and one that has a name."""
    # The one driver that works on the layers of a lab.
    lab.write("/etc/containers/storage.conf", STORAGE)
    for size, name in ((5_000_000, ""), (1000, "kept:1")):
        blob = f"head -c {size} /dev/urandom > /root/blob && tar --create --directory=/root blob"
        lab.run(["sh", "-c", f"{blob} | podman import - {name}; rm /root/blob"])


def write_journal(lab: Lab) -> None:
    lab.write("/root/noise.py", NOISE)
    for _ in range(5):
        lab.run(["python3", "/root/noise.py"])
        lab.run(["journalctl", "--sync"])
        lab.run(["journalctl", "--rotate"])
    lab.run(["sh", "-c", "echo canary | systemd-cat"])
    lab.run(["journalctl", "--sync"])
    # The journal of a host whose logs are collected here.
    copy = "mkdir /var/log/journal/0123456789abcdef0123456789abcdef && cp $(ls /var/log/journal/"
    other = "/*@*.journal | head -n 1) /var/log/journal/0123456789abcdef0123456789abcdef/"
    lab.run(["sh", "-c", f"{copy}$(cat /etc/machine-id){other}"])


def rotate_logs(lab: Lab) -> None:
    """Three rotations of two logs, and one by date, which comes once a day; all of them old but the
    last of one log."""
    lab.write("/root/logrotate.conf", ROTATE)
    for number in (1, 2, 3):
        for name in ("shop", "auth", "dated"):
            lab.write(f"/var/log/{name}.log", f"{name} {number}\n" * 10_000)
        lab.run(["logrotate", "--force", "/root/logrotate.conf"], check=number == 1)
    lab.run(["sh", "-c", f"touch -d '{OLD}' /var/log/*.log.*.gz /var/log/*.log-*.gz"])
    lab.run(["touch", "/var/log/shop.log.1.gz"])


@pytest.fixture(scope="module")
def cleaned() -> Iterator[Cleaned]:
    """A host with what may go and much that may not, all on a full `/`, after one run."""
    with Lab.boot(build(packages=PACKAGES), size="400m") as lab:
        fill_caches(lab)
        crash_twice(lab)
        write_journal(lab)
        rotate_logs(lab)
        install_kernels(lab)
        import_images(lab)
        for path in ("/srv/shop/cache/a/old", "/srv/shop/cache/young", "/srv/shop/data/old"):
            lab.write(path, path)
        lab.run(["touch", "-d", OLD, "/srv/shop/cache/a/old", "/srv/shop/data/old"])
        lab.write("/etc/tmpfiles.d/app.conf", TMPFILES)
        for path in ("/var/cache/app/old", "/var/cache/app/young", "/srv/app/old"):
            lab.write(path, path)
        lab.run(["touch", "-d", OLD, "/var/cache/app/old", "/srv/app/old"])
        lab.run(["mkdir", "-p", "/var/log/bound", "/var/log/other", "/srv/bound"])
        lab.run(["mount", "-t", "tmpfs", "other", "/var/log/other"])
        lab.run(["mount", "--bind", "/srv/bound", "/var/log/bound"])
        lab.run(["ln", "-s", "/srv/linked", "/var/log/linked"])
        for directory in NEVER:
            plant(lab, directory)
        for name in AMONG_LOGS:
            lab.write(f"/var/log/shop/{name}", f"this is {name}\n")
        lab.run(["sh", "-c", f"touch -d '{OLD}' /var/log/shop/*"])
        lab.run(["rm", "-rf", "/root/rpmbuild", "/root/deb"])
        lab.run(["sh", "-c", "dd if=/dev/zero of=/srv/fill bs=64k || true"])
        assert lab.run(["df", "--output=avail", "/"]).stdout.split()[-1] == "0"
        before = fingerprint(lab)
        outcome, detail, _ = mend(
            lab,
            "clean-disk",
            filesystem="/",
            # Out of reach, so that no step is left out.
            target_percent=0,
            journal_keep_mb=JOURNAL_MB,
            caches=["/srv/shop/cache", "/srv/shop/data"],
            images=True,
            old_kernels=True,
            log_directories=["/var/log", "/var/log/shop", "/var/log/linked",
                             *(path for path in NEVER if path not in UNNAMED)],
        )  # fmt: skip
        assert outcome == "needs_human", detail
        yield Cleaned(lab=lab, detail=detail, before=before)


def test_nothing_that_must_stay_was_touched(cleaned: Cleaned, subtests: pytest.Subtests) -> None:
    after = dict(reversed(line.split("  ", 1)) for line in fingerprint(cleaned.lab).splitlines())
    before = dict(reversed(line.split("  ", 1)) for line in cleaned.before.splitlines())
    assert len(before) == len(list_untouchable())
    for path in list_untouchable():
        with subtests.test(path, why=NEVER.get(str(Path(path).parent), "")):
            assert after.get(path) == before[path]


def test_a_place_that_a_link_leads_to_is_left_alone_and_named(cleaned: Cleaned) -> None:
    assert "left alone, for a link leads there: /var/log/linked" in cleaned.detail


def test_apts_cache_is_emptied(cleaned: Cleaned) -> None:
    assert "apt's package cache" in cleaned.detail
    assert not cleaned.exists("/var/cache/apt/archives/*.deb")
    assert cleaned.exists("/var/cache/apt/archives/lock")


def test_dnfs_packages_go_and_what_it_knows_of_its_sources_stays(cleaned: Cleaned) -> None:
    assert "dnf's package cache" in cleaned.detail
    assert not cleaned.exists("/var/cache/dnf/*/packages/*.rpm")
    assert cleaned.exists("/var/cache/dnf/*/repodata/repomd.xml")


def test_the_hosts_own_rules_are_kept_to_in_caches_alone(cleaned: Cleaned) -> None:
    assert not cleaned.exists("/var/cache/app/old")
    assert cleaned.exists("/var/cache/app/young")
    assert cleaned.exists("/srv/app/old")


def test_the_journal_is_vacuumed_down_to_what_must_stay(cleaned: Cleaned) -> None:
    lab = cleaned.lab
    assert "archived journal" in cleaned.detail
    machine = lab.read("/etc/machine-id").strip()
    used = int(lab.run(["du", "-sm", f"/var/log/journal/{machine}"]).stdout.split()[0])
    # A file of the journal has 8 MB: so much more may have gone.
    assert JOURNAL_MB - 10 <= used <= JOURNAL_MB
    assert lab.run(["journalctl", "--grep=^canary$", "-o", "cat"]).stdout == "canary\n"
    lab.run(["journalctl", "--verify"])
    assert cleaned.exists("/var/log/journal/0123456789abcdef0123456789abcdef/*.journal")


def test_old_core_dumps_go_and_young_ones_stay(cleaned: Cleaned) -> None:
    assert "core dumps" in cleaned.detail
    assert cleaned.exists("/var/lib/systemd/coredump/core.sleep.*.zst")
    old = ["find", "/var/lib/systemd/coredump", "-name", "core.*", "-mtime", "+1"]
    assert cleaned.lab.run(old).stdout == ""


def test_what_logrotate_rotated_goes_when_it_is_old(cleaned: Cleaned) -> None:
    assert "rotated logs" in cleaned.detail
    for gone in ("/var/log/shop.log.2.gz", "/var/log/shop.log.3.gz", "/var/log/dated.log-*.gz"):
        assert not cleaned.exists(gone)
    for kept in ("/var/log/shop.log", "/var/log/shop.log.1.gz", "/var/log/dated.log"):
        assert cleaned.exists(kept)
    # It tells who logged in.
    assert cleaned.exists("/var/log/auth.log.3.gz")


def test_caches_that_were_named_are_emptied_and_nothing_that_is_none(cleaned: Cleaned) -> None:
    assert "caches" in cleaned.detail
    assert not cleaned.exists("/srv/shop/cache/a/old")
    assert cleaned.exists("/srv/shop/cache/young")
    assert cleaned.exists("/srv/shop/data/old")
    assert "/srv/shop/data is not called a cache, and is left alone" in cleaned.detail


def test_kernels_that_apt_lets_go_are_removed_and_no_other_package(cleaned: Cleaned) -> None:
    assert "old kernels" in cleaned.detail
    there = cleaned.lab.run(["sh", "-c", "ls /boot"]).stdout
    assert "vmlinuz-5.10.0-1-amd64" not in there
    assert "vmlinuz-6.1.0-2-amd64" in there
    assert cleaned.lab.run(["dpkg", "--status", "libunwanted1"]).returncode == 0
    assert cleaned.lab.run(["dpkg", "--audit"]).stdout == ""


def test_images_without_a_name_are_removed_and_others_stay(cleaned: Cleaned) -> None:
    assert "Podman's dangling images" in cleaned.detail
    left = cleaned.lab.run(["podman", "images", "--all", "--format={{.Repository}}"]).stdout
    assert left.split() == ["localhost/kept"]
