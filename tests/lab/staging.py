"""A production and a staging host side by side, each with a shop, joined by a line of their own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from drill_host import allow, install_guard, make_token
from lab_agent import LabAgent

from agent.lab import Lab

PRODUCTION, STAGING = "10.99.0.1", "10.99.0.2"
PATHS = ["/news", "/goods", "/cart", "/search", "/help", "/about"]
#: Asked so seldom that a rehearsal is not ended early when it fails.
RARE = "/terms"
UNIT = "shop.service"

#: Answers every page after 10 ms, but for what /root/shop.json says of it.
SHOP = """\
import http.server, json, time

RULES = json.load(open("/root/shop.json"))
PATHS = ["/", "/news", "/goods", "/cart", "/search", "/help", "/about", "/terms"]


class Shop(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = self.path.partition("?")[0]
        rule = RULES.get(path, {})
        time.sleep(0.01 + rule.get("seconds", 0))
        links = "".join(f"<a href='{each}'>{each}</a>" for each in PATHS)
        body = f"<!doctype html><title>Shop</title>{links}".encode()
        self.send_response(rule.get("status", 200 if path in PATHS else 404))
        if "location" in rule:
            self.send_header("Location", rule["location"])
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if self.command == "GET" else b"")

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("0.0.0.0", 80), Shop).serve_forever()
"""

SHOP_UNIT = """\
[Service]
ExecStart=/usr/bin/python3 /root/shop.py
"""

LISTEN = f"[Service]\nEnvironment=HOSTMEND_LISTEN={STAGING}:8642 HOSTMEND_ALLOW_PLAIN=1\n"

WATCHED = f"""\
version: 1
policy: {{runs_per_hour: 500}}
checks:
  shop: {{type: service, unit: {UNIT}, every: 2s, stable_for: 2s, cool_down: 1s, attempts: 100}}
"""
#: Whatever its name says, nobody looks at the shop.
UNWATCHED = "version: 1\nchecks:\n  disk: {type: disk, path: /, every: 5s}\n"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The two hosts. Made by `join`."""

    production: Lab
    staging: Lab
    agent: LabAgent

    def release(self, rules: Mapping[str, Mapping[str, Any]], configuration: str = WATCHED) -> None:
        """Puts a release of the shop, and of its watchdog, on the staging host."""
        self.staging.write("/root/shop.json", json.dumps(rules))
        self.staging.run(["systemctl", "restart", "shop"])
        self.staging.wait_for(["curl", "-s", "-o", "/dev/null", "http://127.0.0.1/"])
        self.staging.write("/etc/hostmend/hostmend.yml", configuration, 0o600)
        self.agent.run("reload")
        self.agent.wait(lambda: not self.agent.get("status")["incidents"], "a quiet host")

    def command(self, *options: str, pairs: int = 400) -> list[str]:
        """`hostmend rehearse`, as it is said on the production host."""
        return [
            *("hostmend", "rehearse", f"http://{STAGING}", "--baseline", f"http://{PRODUCTION}"),
            *("--traffic", "/root/access.log", "--pairs", str(pairs), "--speed", "1000"),
            # Loose enough for a machine that has other work.
            *("--max-rate", "40", "--slower", "100", "--json", *options),
        ]

    def drills(self, within: str = "30s", fault: str = f"kill-service unit={UNIT}") -> list[str]:
        return [
            *("--candidate-agent", f"http://{STAGING}:8642"),
            *("--candidate-token-file", "/root/staging.token"),
            *("--drill", fault, "--drill-within", within),
        ]

    def rehearse(self, *options: str, pairs: int = 400) -> tuple[int, dict[str, Any]]:
        """Exit code and report. What is inconclusive is tried again, as a pipeline does it."""
        for _ in range(5):
            done = self.production.run(
                self.command(*options, pairs=pairs), check=False, timeout=600, env=PLAIN
            )
            assert done.returncode in (0, 1, 3, 4), done.stderr
            if done.returncode != 3:
                break
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)


#: The line between them is theirs alone.
PLAIN = {"HOSTMEND_ALLOW_PLAIN": "1"}


def failing(report: Mapping[str, Any]) -> set[str]:
    return {g["name"] for g in report["gates"] if g["outcome"] == "fail" and g["blocking"]}


def join(production: Lab, staging: Lab) -> Pair:
    """Joins them by a pair of interfaces that never are in this machine's own network."""
    inside = ["nsenter", "-t", str(production.init), "-n", "ip", "link", "add", "line"]
    other = ["type", "veth", "peer", "name", "line", "netns", str(staging.init)]
    subprocess.run([*inside, *other], check=True)
    for host, address in ((production, PRODUCTION), (staging, STAGING)):
        host.run(["ip", "address", "add", f"{address}/24", "dev", "line"])
        host.run(["ip", "link", "set", "line", "up"])
        host.write("/root/shop.py", SHOP)
        host.write("/root/shop.json", "{}")
        host.write(f"/etc/systemd/system/{UNIT}", SHOP_UNIT)
        host.run(["systemctl", "daemon-reload"])
        host.run(["systemctl", "start", "shop"])
    lines = [
        f"198.51.100.{n % 9} - - [22/Jan/2019:03:{n // 60 % 60:02}:{n % 60:02} +0330] "
        f'"GET {PATHS[n % 6] if n % 16 else RARE}?n={n} HTTP/1.1" 200 52 "-" "Mozilla/5.0"\n'
        for n in range(480)
    ]
    production.write("/root/access.log", "".join(lines))
    agent = LabAgent(staging)
    agent.install(WATCHED)
    staging.write("/etc/systemd/system/hostmend.service.d/listen.conf", LISTEN)
    install_guard(staging)
    staging.run(["systemctl", "enable", "hostmend"])
    agent.start()
    allow(staging)
    production.write("/root/staging.token", f"{make_token(staging)}\n", 0o600)
    return Pair(production=production, staging=staging, agent=agent)
