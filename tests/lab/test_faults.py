"""Each fault on a real host: a check sees it, hostmend heals it where a host can, and its
undo leaves the host as it was."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from drill_host import allow, ask, install_guard, is_clean, make_token, order, wait_for
from lab_agent import LabAgent

from agent.lab import Lab, build

pytestmark = [pytest.mark.lab, pytest.mark.long]

DATA = "/srv/data"
LOGS = "/var/log/nginx"
CERT, KEY = "/etc/nginx/site.pem", "/etc/nginx/site.key"

CONFIGURATION = f"""\
version: 1
policy: {{runs_per_hour: 500}}
checks:
  web:
    type: service
    unit: nginx.service
    every: 2s
    stable_for: 2s
    attempts: 100
    depends_on: [weblog]
  weblog:
    type: log
    path: {LOGS}/access.log
    every: 1s
    confirm: 1 of 1
    stable_for: 2s
    ladder: [{{remedy: restore-log-directory}}]
  page:
    type: http
    url: http://127.0.0.1/
    every: 1s
    timeout: 1s
    confirm: 1 of 1
    stable_for: 2s
    attempts: 100
    ladder:
      - remedy: restart-service
        causes: [timeout, refused, reset]
        options: {{unit: nginx.service}}
  inodes:
    type: disk
    path: {DATA}
    every: 2s
    stable_for: 2s
    ladder: [{{remedy: clean-disk, options: {{log_directories: [{DATA}/log]}}}}]
  journal:
    type: journal
    every: 2s
    confirm: 1 of 1
    stable_for: 2s
    ladder: [{{remedy: repair-journal}}]
  hungry: {{type: service, unit: hungry.service, every: 1s, stable_for: 2s, attempts: 100}}
  leak:
    type: process
    command: "*/hog.py*"
    at_least: 0
    every: 1s
    critical: {{memory: 40M}}
    confirm: 1 of 1
    stable_for: 2s
    ladder: [{{remedy: restart-service, causes: [memory], options: {{unit: hungry.service}}}}]
  peer: {{type: tcp, host: 127.0.0.2, port: 80, every: 1s, timeout: 1s, confirm: 1 of 1}}
  certificate:
    type: certificate
    paths: [{CERT}]
    every: 1s
    confirm: 1 of 1
    stable_for: 2s
    ladder:
      - remedy: renew-certificate
        options:
          key: {KEY}
          command: [/usr/local/sbin/renew-site]
          validate: [nginx, -t]
          reload: nginx.service
"""

SITE = f"""\
server {{
    listen 443 ssl;
    ssl_certificate {CERT};
    ssl_certificate_key {KEY};
}}
"""
#: What an operator may have beside certbot and dehydrated: the same names and key, and a new end.
RENEW = f"""\
#!/bin/sh
set -e
openssl x509 -checkend 604800 -noout -in {CERT} && exit
openssl x509 -in {CERT} -x509toreq -copy_extensions copyall -signkey {KEY} |
openssl x509 -req -copy_extensions copyall -signkey {KEY} -days 90 -out {CERT}.new
mv {CERT}.new {CERT}
"""
HUNGRY = """\
[Service]
ExecStart=/bin/sleep infinity
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """nftables are what no ordinary lab has."""
    with Lab.boot(build(packages=["nftables"])) as host:
        yield host


@pytest.fixture(scope="module")
def agent(lab: Lab) -> LabAgent:
    lab.volume(DATA, "40M")
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "90"]
    names = ["-subj", "/CN=shop.example", "-addext", "subjectAltName=DNS:shop.example"]
    lab.run([*request, *names, "-keyout", KEY, "-out", CERT])
    lab.write("/etc/nginx/conf.d/site.conf", SITE)
    lab.write("/usr/local/sbin/renew-site", RENEW, 0o755)
    lab.write("/etc/systemd/system/hungry.service", HUNGRY)
    installed = LabAgent(lab)
    installed.install(CONFIGURATION)
    install_guard(lab)
    # overlayfs moves no directory of its lower layer.
    lab.run(["sh", "-c", f"cp -a {LOGS} {LOGS}.new && rm -r {LOGS} && mv {LOGS}.new {LOGS}"])
    lab.run(["mkdir", "-p", "/var/log/journal"])
    lab.run(["systemctl", "restart", "systemd-journald"])
    return installed


@pytest.fixture
def secret(agent: LabAgent) -> Iterator[str]:
    lab = agent.lab
    lab.run(["systemctl", "start", "nginx", "hungry"])
    allow(lab)
    agent.start()
    agent.wait(lambda: agent.check("web")["status"] == "ok", "a first look")
    before = take_stock(lab)
    yield make_token(lab)
    agent.wait(lambda: is_clean(lab), "the guard to be gone")
    assert take_stock(lab) == before
    agent.forget()


def take_stock(lab: Lab) -> str:
    """What a fault may have changed, as text."""
    said = [
        "systemctl is-active nginx hungry",
        "systemctl list-units --all --no-legend 'hostmend-drill-*'",
        "ls -d /run/systemd/system/*.d || true",
        f"find {DATA} {LOGS} /var/log/*.hostmend-drill* -printf '%p %m %u\\n' 2>/dev/null | sort",
        f"stat -c '%a %u %g' {CERT}; sha256sum {CERT}; ls -A /etc/nginx",
        "ls /var/log/journal/*/ /var/lib/hostmend | grep drill || true",
        "nft list tables",
        "pgrep -fc hog.py || true",
    ]
    return lab.run(["sh", "-c", "; ".join(said)]).stdout


def run_drill(agent: LabAgent, secret: str, fault: str, **options: Any) -> dict[str, Any]:
    status, answer = order(agent.lab, secret, fault, within=90, **options)
    assert status == 202, answer
    return wait_for(agent, int(answer["id"][1:]), "ended")


def test_a_service_that_hangs_is_restarted(agent: LabAgent, secret: str) -> None:
    found = run_drill(agent, secret, "stop-service-hard", unit="nginx.service")
    assert found["outcome"] == "passed", found


def test_inodes_that_are_used_up_are_freed(agent: LabAgent, secret: str) -> None:
    lab = agent.lab
    # Most inodes are taken by old logs, which nobody misses.
    plant = (
        f"mkdir -p {DATA}/log && cd {DATA}/log && touch -d '60 days ago' app.log "
        "$(seq -f 'app.log.%g.gz' 1 9000) && touch app.log"
    )
    lab.run(["sh", "-c", plant])
    found = run_drill(agent, secret, "exhaust-inodes", path=DATA)
    assert found["outcome"] == "passed", found
    lab.run(["rm", "-rf", f"{DATA}/log"])


def test_a_corrupt_journal_is_repaired(agent: LabAgent, secret: str) -> None:
    found = run_drill(agent, secret, "corrupt-journal")
    assert found["outcome"] == "passed", found
    assert agent.lab.run(["journalctl", "--verify"], check=False).returncode == 0


def test_a_log_directory_that_is_gone_comes_back_with_all_that_was_logged(
    agent: LabAgent, secret: str
) -> None:
    lab = agent.lab
    lab.run(["sh", "-c", f"echo before >> {LOGS}/access.log"])
    found = run_drill(agent, secret, "break-log-directory", unit="nginx.service", path=LOGS)
    assert found["outcome"] == "passed", found
    agent.wait(lambda: is_clean(lab), "the guard to be gone")
    kept = lab.read(f"{LOGS}/access.log").splitlines()
    assert "before" in kept
    lab.run(["curl", "-fsS", "-o", "/dev/null", "http://127.0.0.1/?after-it"])
    agent.wait(lambda: "?after-it" in lab.read(f"{LOGS}/access.log"), "a line behind the old ones")
    logged = lab.read(f"{LOGS}/access.log").splitlines()
    assert logged[: len(kept)] == kept


def test_memory_that_a_service_leaks_is_gone_with_its_restart(agent: LabAgent, secret: str) -> None:
    found = run_drill(agent, secret, "fill-memory", unit="hungry.service", at_most_bytes=60 << 20)
    assert found["outcome"] == "passed", found
    assert [run["remedy"] for run in agent.runs()] == ["restart-service"]


def test_memory_of_the_host_is_given_back(agent: LabAgent, secret: str) -> None:
    lab = agent.lab
    status, answer = order(lab, secret, "fill-memory", within=600, at_most_bytes=44 << 20)
    assert status == 202, answer
    number = int(answer["id"][1:])
    wait_for(agent, number, "under way")
    pid = lab.read("/var/lib/hostmend-drill/keep/hog").split()[0]
    assert "hostmend-drill-memory.service" in lab.read(f"/proc/{pid}/cgroup")
    assert lab.read(f"/proc/{pid}/oom_score_adj").strip() == "1000"
    ask(lab, secret, "DELETE", f"/v1/drills/d{number}")
    wait_for(agent, number, "ended")
    assert lab.run(["test", "-e", f"/proc/{pid}"], check=False).returncode == 1


def test_a_peer_that_answers_no_more_is_seen(agent: LabAgent, secret: str) -> None:
    found = run_to_detection(agent, secret, "drop-network", "peer", address="127.0.0.2", port=80)
    assert found["cause"] == "timeout"


def test_a_certificate_that_ended_is_renewed_and_stays(agent: LabAgent, secret: str) -> None:
    lab = agent.lab
    kept = lab.read(CERT)
    found = run_drill(agent, secret, "expire-certificate", path=CERT, key=KEY, unit="nginx.service")
    assert found["outcome"] == "passed", found
    agent.wait(lambda: is_clean(lab), "the guard to be gone")
    assert lab.read(CERT) != kept
    shown = lab.run(["openssl", "s_client", "-connect", "127.0.0.1:443"], input="").stdout
    lab.run(["openssl", "x509", "-checkend", "604800", "-noout"], input=shown)
    lab.write("/root/kept.pem", kept)
    lab.run(["cp", "/root/kept.pem", CERT])
    lab.run(["systemctl", "reload", "nginx"])


def run_to_detection(
    agent: LabAgent, secret: str, fault: str, check: str, **options: Any
) -> dict[str, Any]:
    """The finding of a fault that no remedy is configured for; then the drill is ended."""
    status, answer = order(agent.lab, secret, fault, within=600, **options)
    assert status == 202, answer

    def find() -> dict[str, Any] | None:
        found = agent.check(check)["findings"]
        return next((each for each in found if each["status"] == "critical"), None)

    seen: dict[str, Any] = agent.wait(find, f"{check} to see {fault}")
    number = int(answer["id"][1:])
    ask(agent.lab, secret, "DELETE", f"/v1/drills/d{number}")
    ended = wait_for(agent, number, "ended")
    assert ended["undone"]
    agent.wait(lambda: agent.check(check)["status"] == "ok", f"{check} to be well again")
    return seen
