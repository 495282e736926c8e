"""Greetings and certificates of the real servers, on a host of their own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from authority import Authority, make_authority
from lab_agent import LabAgent

from agent.lab import PYTHON, Lab

CONFIGURATION = """\
version: 1
checks:
  ssh: {type: tcp, port: 22, protocol: ssh}
  smtp: {type: tcp, port: 25, protocol: smtp}
  smtp-tls: {type: tls, host: mx.lab.example, port: 25, starttls: smtp, connect: "127.0.0.1:25",
    ca_file: /etc/lab/authority.pem}
  imap: {type: tcp, port: 143, protocol: imap}
  imap-tls: {type: tls, host: mx.lab.example, port: 143, starttls: imap, connect: "127.0.0.1:143",
    ca_file: /etc/lab/authority.pem}
  imaps: {type: tls, host: mx.lab.example, port: 993, protocol: imap, connect: 127.0.0.1,
    ca_file: /etc/lab/authority.pem}
  pop3: {type: tcp, port: 110, protocol: pop3}
  pop3-tls: {type: tls, host: other.lab.example, port: 110, starttls: pop3,
    connect: "127.0.0.1:110", ca_file: /etc/lab/authority.pem}
  redis: {type: tcp, port: 6379, protocol: redis}
  redis-talk: {type: tcp, port: 6379, talk: [{send: "SET a b\\r\\n", expect: "+OK"},
    {send: "GET a\\r\\n", expect: "b"}]}
  mysql: {type: tcp, port: 3306, protocol: mysql}
  mysql-far: {type: tcp, host: 192.0.2.9, port: 3306, protocol: mysql}
  mysql-socket: {type: unix, path: /run/mysqld/mysqld.sock, protocol: mysql}
"""

DOVECOT = """\
protocols = imap pop3
ssl = yes
ssl_cert = </etc/lab/mx.pem
ssl_key = </etc/lab/mx.pem
listen = 127.0.0.1
passdb {
  driver = static
  args = nopassword=y
}
userdb {
  driver = static
  args = uid=nobody gid=nogroup home=/tmp
}
"""

MAIL = """\
[Service]
ExecStart=/usr/bin/python3 -m aiosmtpd -n -l 127.0.0.1:25 -c aiosmtpd.handlers.Sink \\
    --tlscert /etc/lab/mx.pem --tlskey /etc/lab/mx.pem --no-requiretls
"""

#: An address of the host's own that is not loopback: no server counts errors of loopback.
FAR = "192.0.2.9"
SERVERS = ("ssh", "mail", "dovecot", "redis-server", "mariadb")


@pytest.fixture(scope="module")
def agent(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> LabAgent:
    authority = make_authority(tmp_path_factory.mktemp("authority"))
    write_certificates(lab, authority)
    lab.write("/etc/dovecot/dovecot.conf", DOVECOT)
    lab.write("/etc/systemd/system/mail.service", MAIL)
    lab.write("/etc/mysql/mariadb.conf.d/99-lab.cnf", "[mysqld]\nbind-address=0.0.0.0\n")
    lab.run(["ip", "address", "add", f"{FAR}/32", "dev", "lo"])
    lab.run(["sh", "-c", f"echo {FAR} far.lab.example >>/etc/hosts"])
    installed = LabAgent(lab)
    installed.install(CONFIGURATION)
    lab.write("/etc/systemd/system/mail.service", MAIL)
    lab.run(["systemctl", "daemon-reload"])
    lab.run(["systemctl", "start", *SERVERS], timeout=180)
    for port in (22, 25, 110, 143, 993, 3306, 6379):
        lab.wait_for(["sh", "-c", f"ss -Hltn sport = :{port} | grep -q ."])
    return installed


def write_certificates(lab: Lab, authority: Authority) -> None:
    authority.sign("mx.lab.example", ends=5.0)
    lab.write("/etc/lab/authority.pem", authority.file.read_text())
    lab.write("/etc/lab/mx.pem", (authority.directory / f"{authority.count}.pem").read_text())


def look(agent: LabAgent, *names: str) -> Mapping[str, Any]:
    """What `hostmend check` says of each: its one finding."""
    done = agent.lab.run(["hostmend", "check", "--json", *names], check=False)
    items = json.loads(done.stdout)["items"]
    assert [item["name"] for item in items if item["broken"]] == []
    # The agent itself is looked at too, unasked.
    return {item["name"]: item["findings"][0] for item in items if item["name"] != "self"}


def test_servers_that_serve_greet_and_show_their_certificates(agent: LabAgent) -> None:
    wanted = {
        "ssh": ("ok", ""), "smtp": ("ok", ""), "imap": ("ok", ""), "pop3": ("ok", ""),
        "redis": ("ok", ""), "redis-talk": ("ok", ""), "mysql": ("ok", ""),
        "mysql-socket": ("ok", ""), "mysql-far": ("ok", ""),
        "smtp-tls": ("warning", "expiring"), "imap-tls": ("warning", "expiring"),
        "imaps": ("warning", "expiring"), "pop3-tls": ("critical", "name"),
    }  # fmt: skip

    found = look(agent, *wanted)
    assert {name: (f["status"], f["cause"]) for name, f in found.items()} == wanted
    assert found["ssh"]["facts"]["Answer"].startswith("SSH-2.0-OpenSSH")
    assert "MariaDB" in found["mysql"]["facts"]["Answer"]
    assert "Dovecot" in found["imap"]["facts"]["Answer"]


def test_servers_that_are_there_and_serve_nobody_say_so(agent: LabAgent) -> None:
    lab = agent.lab
    lab.run(["mariadb", "-e", "set global max_connections=10"])
    holders = [lab.popen(["mariadb", "-e", "select sleep(60)"]) for _ in range(12)]
    try:
        finding = lab.wait_for(lambda: (f := look(agent, "mysql")["mysql"])["status"] != "ok" and f)
        assert finding["cause"] == "refusing"
        assert "error 1040: Too many connections" in finding["summary"]
    finally:
        for each in holders:
            each.kill()
            each.wait()
    lab.wait_for(lambda: look(agent, "mysql")["mysql"]["status"] == "ok")

    lab.run(["redis-cli", "config", "set", "requirepass", "word"])
    found = look(agent, "redis", "redis-talk")
    assert found["redis"]["status"] == "ok"
    assert found["redis-talk"]["cause"] == "unexpected"
    lab.run(["redis-cli", "-a", "word", "config", "set", "requirepass", ""])


def test_a_mysql_server_blocks_who_leaves_after_its_greeting_and_not_hostmend(
    agent: LabAgent,
) -> None:
    lab = agent.lab
    lab.run(["mariadb", "-e", "create user far@'%'; set global max_connect_errors=2; flush hosts"])
    for _ in range(5):
        assert look(agent, "mysql-far")["mysql-far"]["status"] == "ok"
    rude = f"import socket; s = socket.create_connection(('{FAR}', 3306)); s.recv(999)"
    for _ in range(5):
        lab.run(["python3", "-c", rude])
    finding = lab.wait_for(
        lambda: (f := look(agent, "mysql-far")["mysql-far"])["status"] != "ok" and f
    )
    assert "error 1129" in finding["summary"]
    lab.run(["mariadb", "-e", "flush hosts"])


def test_stopped_and_hung_servers_are_told_apart(agent: LabAgent) -> None:
    lab = agent.lab
    lab.run(["systemctl", "kill", "-s", "STOP", "redis-server"])
    lab.run(["systemctl", "stop", "mariadb"], timeout=120)
    try:
        found = look(agent, "redis", "mysql", "mysql-socket")
        assert found["redis"]["cause"] == "timeout"
        assert found["mysql"]["cause"] == "refused"
        assert found["mysql-socket"]["cause"] == "missing"
    finally:
        lab.run(["systemctl", "kill", "-s", "CONT", "redis-server"])


def test_what_listens_is_proposed(agent: LabAgent) -> None:
    program = Path("/root/propose.py")
    agent.lab.write(
        program,
        "import asyncio, json\n"
        "from agent.checks import CHECKS\n"
        "from agent.clock import Clock\n"
        "from agent.host.machine import Machine\n"
        "async def main():\n"
        "    machine = Machine(clock=Clock())\n"
        "    found = []\n"
        "    for name in ('tcp', 'unix'):\n"
        "        found += await CHECKS[name].propose(machine)\n"
        "    print(json.dumps([[p.name, p.why] for p in found]))\n"
        "asyncio.run(main())\n",
    )
    found = dict(json.loads(agent.lab.run([PYTHON, program]).stdout))
    assert found["ssh"] == "sshd listens on 0.0.0.0:22"
    assert found["redis"] == "redis-server listens on 127.0.0.1:6379"
    assert set(found) >= {"ssh", "redis", "imap", "pop3", "smtp"}
