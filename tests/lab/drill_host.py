"""A lab host with an agent that may be drilled, as an operator sets one up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lab_agent import LabAgent

from agent.lab import Lab

GUARD = Path(__file__).parents[2] / "deploy" / "hostmend-drill.service"
RECORD = "/var/lib/hostmend-drill/record.json"
TOKEN = "/root/drill.token"


def install_guard(lab: Lab) -> None:
    lab.write("/etc/systemd/system/hostmend-drill.service", GUARD.read_text())
    lab.run(["systemctl", "daemon-reload"])
    lab.run(["systemctl", "enable", "hostmend-drill"])


def allow(lab: Lab, lasts: str = "1h") -> None:
    lab.run(["hostmend", "drill", "allow", "--for", lasts])


def make_token(lab: Lab) -> str:
    """A token for drills alone; its secret is in a file of the host too."""
    made = lab.run(["hostmend", "token", "create", "gate", "--role", "driller"]).stdout.strip()
    lab.write(TOKEN, f"{made}\n", 0o600)
    return made


def order(
    lab: Lab, secret: str, fault: str, within: float = 120.0, **options: Any
) -> tuple[int, dict[str, Any]]:
    """POST /v1/drills over TCP with that token: status and body."""
    body = {"fault": fault, "options": options, "within_seconds": within}
    return ask(lab, secret, "POST", "/v1/drills", body)


def ask(
    lab: Lab, secret: str, method: str, path: str, body: Any = None
) -> tuple[int, dict[str, Any]]:
    curl = ["curl", "-sS", "-w", "\n%{http_code}", "-X", method]
    header = ["-H", f"Authorization: Bearer {secret}"]
    data = [] if body is None else ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
    answer = lab.run([*curl, *header, *data, f"http://127.0.0.1:8642{path}"]).stdout
    text, _, code = answer.rpartition("\n")
    return int(code), json.loads(text)


def drill(agent: LabAgent, number: int) -> dict[str, Any]:
    found: dict[str, Any] = agent.get(f"drills/d{number}")
    return found


def wait_for(agent: LabAgent, number: int, state: str) -> dict[str, Any]:
    def reached() -> dict[str, Any] | None:
        found = drill(agent, number)
        return found if found["state"] == state else None

    found: dict[str, Any] = agent.wait(reached, f"drill d{number} to be {state}")
    return found


def is_clean(lab: Lab) -> bool:
    """Nothing of a drill is left that it keeps itself."""
    asked = ["systemctl", "show", "-p", "ActiveState", "--value", "hostmend-drill"]
    idle = lab.run(asked).stdout.strip() in ("inactive", "failed")
    kept = lab.run(["sh", "-c", "ls -A /var/lib/hostmend-drill 2>/dev/null || true"]).stdout
    return idle and not kept.strip()
