"""Remedies for logs on a real host: what they mend, leave to a human, and never touch.

What each mends by its own test: test_remedies.py. What the checks say before: test_logs.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from lab_check import check_in
from lab_runs import RUNTIME, mend

from agent.lab import Lab

ERRORS = "/var/log/nginx/error.log"
NGINX = "/var/log/nginx"
VOLUME = "/var/log/volume"


@pytest.fixture
def host(lab: Lab) -> Iterator[Lab]:
    yield lab
    lab.run(["sh", "-c", f"umount -l {VOLUME} {NGINX}"], check=False)
    lab.run(
        ["rm", "-rf", RUNTIME, "/etc/tmpfiles.d/app.conf", "/var/log/app", "/var/log/elsewhere"]
    )
    lab.run(["sh", "-c", f"[ ! -L {NGINX} ] || rm {NGINX}"])
    lab.run(["install", "-d", "-o", "root", "-g", "adm", "-m", "755", NGINX])
    lab.run(["sh", "-c", "systemctl stop nginx 'writer*'; systemctl reset-failed"], check=False)


def state(lab: Lab, *paths: str) -> list[str]:
    done = lab.run(["stat", "--format=%U:%G %a", *paths], check=False)
    return done.stdout.splitlines()


# restore-log-directory


def test_a_directory_that_only_the_check_knew_comes_back_as_it_was_and_nginx_starts(
    host: Lab,
) -> None:
    with check_in(host, "log", path=ERRORS) as check:
        host.run(["rm", "-r", NGINX])
        assert host.run(["nginx", "-t"], check=False).returncode == 1
        finding = check.wait_for("directory")
        assert finding["facts"]["Last seen"] == "of root:adm, permissions 0755"
        given = {
            f"seen_{what}": finding["measurements"][f"directory_{what}"]
            for what in ("uid", "gid", "mode")
        }
    outcome, detail, _ = mend(host, "restore-log-directory", path=ERRORS, preview=True, **given)
    assert (outcome, state(host, NGINX)) == ("ok", []), detail
    outcome, detail, _ = mend(host, "restore-log-directory", path=ERRORS, **given)
    assert outcome == "ok", detail
    assert "made, as root:adm 0755" in detail
    # The log too, as logrotate would make it.
    assert state(host, NGINX, ERRORS) == ["root:adm 755", "www-data:adm 640"]
    host.run(["systemctl", "start", "nginx"])


@pytest.mark.parametrize(
    ("known", "wanted"),
    [
        ("echo 'd /var/log/app 2750 mysql adm -' > /etc/tmpfiles.d/app.conf", "mysql:adm 2750"),
        (
            "dpkg-statoverride --add redis adm 0700 /var/log/app",
            "redis:adm 700",
        ),
        (
            "systemd-run -q --unit=writer-app -p LogsDirectory=app -p LogsDirectoryMode=0711"
            " -p User=www-data -p Group=adm sleep 600",
            "www-data:adm 711",
        ),
    ],
    ids=["tmpfiles", "statoverride", "unit"],
)
def test_what_the_host_itself_says_is_right(host: Lab, known: str, wanted: str) -> None:
    host.run(["sh", "-c", known])
    try:
        host.run(["rm", "-rf", "/var/log/app"])
        # What the check saw is older than what is configured.
        given = {"seen_uid": 0.0, "seen_gid": 0.0, "seen_mode": float(0o755)}
        for _ in range(2):
            outcome, detail, _ = mend(
                host, "restore-log-directory", path="/var/log/app/app.log", **given
            )
            assert (outcome, state(host, "/var/log/app")) == ("ok", [wanted]), detail
        host.run(["chown", "root:root", "/var/log/app"])
        host.run(["chmod", "777", "/var/log/app"])
        outcome, detail, _ = mend(host, "restore-log-directory", path="/var/log/app/app.log")
        assert (outcome, state(host, "/var/log/app")) == ("ok", [wanted]), detail
        assert "changed from root:root" in detail
    finally:
        host.run(["dpkg-statoverride", "--remove", "/var/log/app"], check=False)


@pytest.mark.parametrize(
    ("broken", "path", "given", "words"),
    [
        (f"rm -r {NGINX}", ERRORS, {}, "apt-get install --reinstall nginx-common"),
        (
            f"rm -r {NGINX}",
            ERRORS,
            {"seen_uid": 0.0, "seen_gid": 0.0, "seen_mode": float(0o777)},
            "nothing on this host says whose",
        ),
        (
            f"rm -r {NGINX}; mkdir /var/log/elsewhere; ln -s /var/log/elsewhere {NGINX}",
            ERRORS,
            {"owner": "root", "group": "adm", "mode": "0755"},
            "is no directory but a link",
        ),
        ("true", "/var/log/app/deep/x.log", {}, "/var/log/app is missing too"),
        ("true", "/etc/app/x.log", {}, "is no directory that this remedy may bring back"),
        ("true", "/var/log/x.log", {}, "is no directory that this remedy may bring back"),
        ("true", "/var/log/journal/x.log", {}, "is no directory that this remedy may bring back"),
        (
            f"mkdir -p {VOLUME}; mount -t tmpfs -o ro none {VOLUME}",
            f"{VOLUME}/app/x.log",
            {"owner": "root", "group": "adm", "mode": "0755"},
            "is read-only (errno 30)",
        ),
        (
            "true",
            "/var/log/app/x.log",
            {"owner": "nobody-such", "group": "adm", "mode": "0755"},
            "names the user nobody-such",
        ),
    ],
    ids=[
        "unknown", "open-to-all", "link", "parent", "outside", "root", "journal", "read-only",
        "user",
    ],
)  # fmt: skip
def test_a_directory_of_which_it_is_not_sure_is_left_to_a_human(
    host: Lab, broken: str, path: str, given: dict[str, Any], words: str
) -> None:
    host.run(["sh", "-c", broken])
    outcome, detail, _ = mend(host, "restore-log-directory", path=path, **given)
    assert outcome == "needs_human", detail
    assert words in detail
    directory = path.rpartition("/")[0]
    if directory not in ("/var/log", "/var/log/journal") and "link" not in words:
        assert host.run(["test", "-e", directory], check=False).returncode != 0
    assert host.run(["sh", "-c", "ls -A /var/log/elsewhere 2>/dev/null || true"]).stdout == ""
