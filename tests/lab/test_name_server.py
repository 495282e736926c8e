"""A real name server, and what the check makes of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from lab_agent import LabAgent

from agent.lab import Lab

CONFIGURATION = """\
version: 1
checks:
  shop: {type: dns, name: shop.lab, server: 127.0.0.1, expect: [192.0.2.7], others: false}
  turned: {type: dns, name: shop.lab, server: 127.0.0.1, expect: [192.0.2.8]}
  mail: {type: dns, name: shop.lab, record: MX, server: 127.0.0.1, expect: [10 mx.lab]}
  back: {type: dns, name: 192.0.2.7, record: PTR, server: 127.0.0.1, expect: [shop.lab]}
  nothing: {type: dns, name: nothing.lab, server: 127.0.0.1}
  blocked: {type: dns, name: nothing.lab, server: 127.0.0.1, code: NXDOMAIN}
  empty: {type: dns, name: shop.lab, record: AAAA, server: 127.0.0.1}
  long: {type: dns, name: long.lab, record: TXT, server: 127.0.0.1}
  long-udp: {type: dns, name: long.lab, record: TXT, server: 127.0.0.1, transport: udp}
  elsewhere: {type: dns, name: shop.example, server: 127.0.0.1}
  own: {type: dns, name: shop.lab}
"""

#: Twelve such records do not fit into a datagram.
TEXTS = "".join(f"txt-record=long.lab,{letter * 250}\n" for letter in "abcdefghijkl")
SERVER = f"""\
no-resolv
no-hosts
bind-interfaces
listen-address=127.0.0.1
local=/lab/
local=/example/
host-record=shop.lab,192.0.2.7
mx-host=shop.lab,mx.lab,10
{TEXTS}"""


@pytest.fixture(scope="module")
def agent(lab: Lab) -> LabAgent:
    lab.write("/etc/dnsmasq.conf", SERVER)
    lab.write(
        "/etc/systemd/system/names.service",
        "[Service]\nExecStart=/usr/sbin/dnsmasq -k --user=root\n",
    )
    lab.write("/etc/resolv.conf", "nameserver 127.0.0.1\n")
    installed = LabAgent(lab)
    installed.install(CONFIGURATION)
    lab.run(["systemctl", "start", "names"])
    lab.wait_for(["sh", "-c", "ss -Hltn sport = :53 | grep -q ."])
    return installed


def look(agent: LabAgent, *names: str) -> Mapping[str, Any]:
    done = agent.lab.run(["hostmend", "check", "--json", *names], check=False)
    items = json.loads(done.stdout)["items"]
    assert [item["name"] for item in items if item["broken"]] == []
    # The agent itself is looked at too, unasked.
    return {item["name"]: item["findings"][0] for item in items if item["name"] != "self"}


def test_a_real_name_server_is_judged(agent: LabAgent) -> None:
    found = look(agent)
    assert {name: (f["status"], f["cause"]) for name, f in found.items()} == {
        "shop": ("ok", ""), "turned": ("critical", "unexpected"), "mail": ("ok", ""),
        "back": ("ok", ""), "nothing": ("critical", "nxdomain"), "blocked": ("ok", ""),
        "empty": ("critical", "empty"), "long": ("ok", ""),
        "long-udp": ("critical", "truncated"), "elsewhere": ("critical", "nxdomain"),
        "own": ("ok", ""),
    }  # fmt: skip
    assert found["long"]["facts"]["From"] == "127.0.0.1:53 (TCP)"
    assert found["shop"]["facts"]["From"] == "127.0.0.1:53 (UDP)"


def test_a_stopped_and_a_hung_name_server_are_told_apart(agent: LabAgent) -> None:
    lab = agent.lab
    lab.run(["systemctl", "kill", "-s", "STOP", "names"])
    try:
        assert look(agent, "shop")["shop"]["cause"] == "timeout"
    finally:
        lab.run(["systemctl", "kill", "-s", "CONT", "names"])
    lab.run(["systemctl", "stop", "names"])
    assert look(agent, "shop")["shop"]["cause"] == "refused"
