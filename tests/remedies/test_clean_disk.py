"""What clean-disk may remove, file by file. Whole runs: tests/lab/test_disk.py."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

PLAYBOOKS = Path(__file__).parents[2] / "playbooks"
DAY = 86_400


def load(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(path).stem, PLAYBOOKS / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


free_space = load("clean-disk/library/free_space.py")
make_ballast = load("make-ballast/library/make_ballast.py")


class Ample(free_space.Filesystem):
    """A filesystem whose target is reached after so many removals."""

    def __init__(self, point: Path, after: int = 1000) -> None:
        super().__init__(str(point), "full", 80.0)
        self.left = after
        self.files = len(list(point.rglob("*")))

    def measure(self) -> tuple[int, int, int, int]:
        there = len(list(Path(self.point).rglob("*")))
        return there * 4096, (self.files - there) * 4096, there, self.files - there

    def reached(self) -> bool:
        return self.measure()[3] >= self.left

    def settle(self) -> None:
        pass


def plant(directory: Path, *names: str, days: float = 30) -> None:
    for name in names:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        then = time.time() - days * DAY
        os.utime(path, (then, then))


def clean(
    directory: Path,
    *,
    point: Path | None = None,
    after: int = 1000,
    days: float = 7,
    preview: bool = False,
) -> set[str]:
    """Removes rotated logs; the names that are gone, or would be."""
    step = free_space.Step(Ample(point or directory, after), "logs", preview)
    step.remove(str(directory), free_space.is_rotated, days * DAY)
    return {Path(path).name for path in step.removed}


def test_rotated_logs_go_and_live_ones_stay(tmp_path: Path) -> None:
    plant(tmp_path, "app.log", "app.log.1", "app.log.2.gz", "app.log-20260101.gz", "syslog")
    plant(tmp_path, "syslog.10.gz")
    gone = {"app.log.1", "app.log.2.gz", "app.log-20260101.gz", "syslog.10.gz"}
    assert clean(tmp_path) == gone
    assert {path.name for path in tmp_path.iterdir()} == {"app.log", "syslog"}


@pytest.mark.parametrize(
    ("live", "name"),
    [
        ("audit.log", "audit.log.1"),
        ("audit.log", "audit.log.4.gz"),
        ("auth.log", "auth.log.2.gz"),
        ("secure", "secure-20260101.gz"),
        ("sudo.log", "sudo.log.2.gz"),
        ("wtmp", "wtmp.1"),
        ("btmp", "btmp.1"),
        ("shop.sql", "shop.sql.2.gz"),
        ("dump", "dump.1"),
        ("backup.tar", "backup.tar.1"),
        ("mariadb-bin", "mariadb-bin.000001"),
        ("mysql-bin", "mysql-bin.1"),
        ("mariadb-bin", "mariadb-bin.index"),
        ("ibdata1", "ibdata1"),
        ("ib_logfile0", "ib_logfile1"),
        ("000000010000000000000001", "000000010000000000000002"),
        ("app.log", "app.log.2"),
        ("app.log", "app.log.old"),
        ("app.log", "other.log.2.gz"),
        ("app.log", "app.log.gz"),
        ("app.log", "app.tar.gz"),
    ],
)
def test_what_is_no_rotated_log_stays_however_old(tmp_path: Path, live: str, name: str) -> None:
    plant(tmp_path, live, name, days=4000)
    assert clean(tmp_path) == set()


def test_links_directories_pipes_and_second_names_stay(tmp_path: Path) -> None:
    logs = tmp_path / "log"
    plant(logs, "app.log", "app.log.4.gz")
    plant(tmp_path, "precious")
    (logs / "app.log.2.gz").symlink_to(tmp_path / "precious")
    os.link(logs / "app.log.4.gz", tmp_path / "kept elsewhere")
    plant(logs, "app.log.5.gz/app.log.1", "below/app.log", "below/app.log.1")
    os.mkfifo(logs / "app.log.6.gz")
    os.utime(logs / "app.log.6.gz", (0, 0))
    assert clean(logs) == set()
    assert (tmp_path / "precious").read_text() == "precious"
    (tmp_path / "way").symlink_to(logs)
    plant(logs, "app.log.7.gz")
    assert clean(tmp_path / "way", point=tmp_path) == set()


def test_what_only_a_link_leads_to_stays_and_is_named(tmp_path: Path) -> None:
    real = tmp_path / "real"
    plant(real / "log", "app.log", "app.log.2.gz")
    (tmp_path / "srv").symlink_to(real)
    through = tmp_path / "srv/log"
    assert clean(through, point=tmp_path) == set()
    assert (real / "log/app.log.2.gz").exists()
    disk = Ample(tmp_path)
    assert [disk.holds(str(path)) for path in (real, through, tmp_path / "srv")] == [
        True, False, False,
    ]  # fmt: skip
    assert free_space.find_linked(disk, [str(through), str(real)]) == [str(through)]


#: Mounts within a namespace of its own, and prints what would be removed.
BEHIND_MOUNTS = """\
import sys
from pathlib import Path
from runpy import run_path

module, mount, place = sys.argv[1:]
free_space = run_path(module)
filesystem = free_space["Filesystem"](mount, "full", 0.0)
step = free_space["Step"](filesystem, "logs", False)
step.remove(place, free_space["is_rotated"], 0)
print([filesystem.holds(place), step.removed])
"""


@pytest.mark.lab
@pytest.mark.parametrize(
    ("mount", "left"),
    [
        ("mount --bind {home}/data {home}/log", True),
        ("mount -t tmpfs none {home}/log; touch -d @0 {home}/log/a {home}/log/a.2.gz", True),
        ("mount --bind {home}/data/a.2.gz {home}/log/a.2.gz", True),
        ("true", False),
    ],
    ids=["a directory bound over it", "another filesystem", "a file bound over it", "nothing"],
)
def test_what_is_mounted_over_it_stays(tmp_path: Path, mount: str, left: bool) -> None:
    home = tmp_path.resolve()
    plant(home / "data", "a", "a.2.gz")
    plant(home / "log", "a", "a.2.gz")
    module = PLAYBOOKS / "clean-disk/library/free_space.py"
    root = subprocess.run(
        ["findmnt", "-no", "TARGET", "-T", home], capture_output=True, text=True, check=True
    ).stdout.strip()
    script = f'{mount.format(home=home)}; exec "$@"'
    words = [sys.executable, "-c", BEHIND_MOUNTS, str(module), root, f"{home}/log"]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", script, "sh", *words],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.count("a.2.gz") == (0 if left else 1)
    assert (home / "data/a.2.gz").exists()
    assert (home / "log/a.2.gz").exists() == left


def test_young_ones_stay(tmp_path: Path) -> None:
    plant(tmp_path, "app.log", "app.log.2.gz")
    plant(tmp_path, "app.log.1", days=6)
    assert clean(tmp_path, days=7) == {"app.log.2.gz"}


def test_the_oldest_go_first_and_no_more_than_needed(tmp_path: Path) -> None:
    plant(tmp_path, "app.log")
    for number in range(1, 9):
        plant(tmp_path, f"app.log.{number}.gz", days=10 + number)
    assert clean(tmp_path, after=3) == {"app.log.8.gz", "app.log.7.gz", "app.log.6.gz"}


def test_a_preview_names_what_would_go_and_removes_nothing(tmp_path: Path) -> None:
    plant(tmp_path, "app.log", "app.log.1")
    assert clean(tmp_path, preview=True) == {"app.log.1"}
    assert (tmp_path / "app.log.1").exists()


@pytest.mark.parametrize(
    "path",
    [
        "/var/lib/mysql", "/var/lib/docker/volumes", "/var/lib/postgresql/15/main/pg_wal",
        "/var/backups", "/var/mail", "/var/spool/mail", "/tmp", "/tmp/log", "/var/tmp", "/etc",
        "/usr/share", "/root", "/var/log/audit", "/var/log/journal", "/var/log/../lib/mysql",
        "/run", "/boot",
    ],
)  # fmt: skip
def test_no_option_makes_logs_of_what_lies_here(path: str) -> None:
    assert free_space.is_forbidden(path)


def test_a_link_into_a_forbidden_place_is_forbidden(tmp_path: Path) -> None:
    link = tmp_path / "log"
    link.symlink_to("/var/lib")
    assert free_space.is_forbidden(str(link))


@pytest.mark.parametrize("path", ["/var/log", "/var/log/nginx", "/srv/app/log", "/home/app/log"])
def test_logs_may_be_removed_here(path: str) -> None:
    assert not free_space.is_forbidden(path)


def test_only_a_ballast_of_hostmend_is_spent(tmp_path: Path) -> None:
    ballast, data = tmp_path / "ballast", tmp_path / "ibdata1"
    make_ballast.make(str(ballast), 2**20)
    assert ballast.stat().st_blocks * 512 >= 2**20
    assert make_ballast.read_size(str(ballast)) == 2**20
    data.write_text("data")
    (tmp_path / "link").symlink_to(data)
    for wrong in (data, tmp_path / "link", tmp_path, tmp_path / "none"):
        step = free_space.Step(Ample(tmp_path), "ballast", preview=False)
        free_space.spend(step, str(wrong))
        assert step.removed == []
        assert step.skipped
    step = free_space.Step(Ample(tmp_path), "ballast", preview=False)
    free_space.spend(step, str(ballast))
    assert step.removed == [str(ballast)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ibdata1", "link"]


def test_a_ballast_never_takes_the_place_of_a_file(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.write_text("data")
    with pytest.raises(ValueError, match="no ballast"):
        make_ballast.read_size(str(data))
    assert make_ballast.read_size(str(tmp_path / "none")) is None


def test_a_ballast_that_would_fill_the_disk_is_not_made(tmp_path: Path) -> None:
    assert "% full" in make_ballast.why_too_large(str(tmp_path), 2**60)
    assert make_ballast.why_too_large(str(tmp_path), 1) == ""


def test_the_report_names_what_was_freed_by_kind(tmp_path: Path) -> None:
    filesystem = Ample(tmp_path, after=0)
    filesystem.used_percent = lambda: 79.6  # type: ignore[attr-defined]
    steps = [
        {"category": "rotated logs", "freed_bytes": 12 * 2**20, "freed_inodes": 3, "notes": []},
        {"category": "core dumps", "freed_bytes": 0, "freed_inodes": 0, "notes": ["a note"]},
        {"skipped": True},
    ]
    told = free_space.report(filesystem, steps, preview=False)
    assert told["msg"] == (
        f"freed 12 MB on {tmp_path} (rotated logs 12 MB); 80 % of its room is used, "
        f"80 % is the target; a note"
    )
    assert not told["needs_human"]


def test_a_human_is_asked_when_the_target_is_not_reached_or_the_ballast_is_gone(
    tmp_path: Path,
) -> None:
    plant(tmp_path, "big/file")
    (tmp_path / "big/file").write_bytes(bytes(2**20))
    full = Ample(tmp_path, after=9)
    full.used_percent = lambda: 99.0  # type: ignore[attr-defined]
    told = free_space.report(full, [], preview=False)
    assert told["needs_human"]
    assert f"nothing could be freed on {tmp_path}: 99 % of its room is used" in told["msg"]
    assert f"the largest directories: {tmp_path}/big" in told["msg"]
    done = Ample(tmp_path, after=0)
    done.used_percent = lambda: 50.0  # type: ignore[attr-defined]
    ballast = [{"category": "ballast", "freed_bytes": 2**30, "freed_inodes": 1, "notes": []}]
    told = free_space.report(done, ballast, preview=False)
    assert told["needs_human"]
    assert "buys time and cures nothing" in told["msg"]


@pytest.mark.parametrize(
    ("path", "is_one"),
    [
        ("/srv/shop/cache", True),
        ("/var/cache/nginx", True),
        ("/var/www/shop/var/cache/prod", True),
        ("/home/shop/.cache", True),
        ("/srv/page_cache", True),
        ("/srv/Cache.old", True),
        ("/var/cache", False),
        ("/var/cache/apt/archives", False),
        ("/srv/shop", False),
        ("/var/lib/mysql", False),
        ("/srv/cachet", False),
        ("/etc/cache", False),
        ("/usr/share/cache", False),
        ("/srv/cache/..", False),
    ],
)
def test_only_what_is_called_a_cache_is_emptied_as_one(path: str, is_one: bool) -> None:
    assert free_space.is_cache(path) is is_one


def test_old_files_of_a_cache_go_wherever_below_it_and_links_lead_nowhere(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    plant(cache, "a", "b/c", "b/d/e")
    plant(cache, "young", days=0)
    plant(tmp_path, "precious/a")
    (cache / "away").symlink_to(tmp_path / "precious")
    step = free_space.Step(Ample(tmp_path), "caches", preview=False)
    step.remove_below(str(cache), DAY)
    assert {Path(path).name for path in step.removed} == {"a", "c", "e"}
    assert (cache / "young").exists()
    assert (cache / "b/d").is_dir()
    assert (tmp_path / "precious/a").exists()


SIMULATED = """\
Reading package lists...
Remv linux-image-6.1.0-18-amd64 [6.1.76-1]
Remv linux-headers-6.1.0-18-amd64 [6.1.76-1]
Remv linux-headers-6.1.0-18-common [6.1.76-1]
Remv linux-image-6.1.0-20-amd64 [6.1.85-1]
Remv linux-image-unsigned-6.1.0-21-amd64 [6.1.90-1]
Remv linux-libc-dev [6.1.76-1]
Remv libfoo1 [1.0]
"""


def test_kernels_go_but_for_the_running_and_the_newest_and_no_other_package() -> None:
    images = ["6.1.0-18-amd64", "6.1.0-20-amd64", "6.1.0-21-amd64"]
    assert free_space.pick_kernels(SIMULATED, "6.1.0-20-amd64", images) == [
        "linux-image-6.1.0-18-amd64",
        "linux-headers-6.1.0-18-amd64",
        "linux-headers-6.1.0-18-common",
    ]
    assert free_space.pick_kernels("", "6.1.0-20-amd64", images) == []


def test_the_newest_kernel_is_the_newest_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["vmlinuz-6.1.0-9-amd64", "vmlinuz-6.1.0-21-amd64", "initrd.img-7", "config-8"]
    monkeypatch.setattr(os, "listdir", lambda _path: names)
    assert free_space.list_images() == ["6.1.0-9-amd64", "6.1.0-21-amd64"]
