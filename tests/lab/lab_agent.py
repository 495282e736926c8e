"""An agent installed on a lab host, as an operator would have it, and what it says."""

from __future__ import annotations

import email
import email.policy
import json
import time
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from agent.lab import Lab

UNIT = Path(__file__).parents[2] / "deploy" / "hostmend.service"
SOCKET = "/run/hostmend/hostmend.sock"
MAILS = "/var/mail/hostmend"
#: Seconds that a slow machine with much else to do may take for what is waited for.
PATIENCE = 180.0

_MAIL_SERVER = """\
[Unit]
Description=A mail server that keeps what it takes
[Service]
ExecStart=/usr/bin/python3 -m aiosmtpd -n -l 127.0.0.1:25 -c aiosmtpd.handlers.Mailbox {mails}
"""

MAIL_ROUTE = (
    "mailto://127.0.0.1:25/?smtp=127.0.0.1&mode=insecure&from=hostmend@lab.example"
    "&to=ops@lab.example"
)


class LabAgent:
    """hostmend as a service of a lab host."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    def install(self, configuration: str) -> None:
        """Writes the configuration and the unit; starts nothing."""
        self.lab.run(["mkdir", "-p", "-m", "755", "/etc/hostmend"])
        self.lab.write("/etc/hostmend/hostmend.yml", configuration, 0o600)
        self.lab.write("/etc/systemd/system/hostmend.service", UNIT.read_text())
        self.lab.write("/etc/systemd/system/mail.service", _MAIL_SERVER.format(mails=MAILS))
        self.lab.run(["systemctl", "daemon-reload"])

    def start(self) -> None:
        self.lab.run(["systemctl", "restart", "hostmend"])
        self.wait(self.answers, "the agent to answer")

    def stop(self) -> None:
        self.lab.run(["systemctl", "stop", "hostmend"])

    def start_mail(self) -> None:
        self.lab.run(["systemctl", "start", "mail"])

    def forget(self) -> None:
        """Stops the agent and removes everything that it remembers."""
        self.stop()
        self.lab.run(["rm", "-rf", "/var/lib/hostmend", "/run/hostmend", MAILS])

    def run(self, *words: str, check: bool = True) -> str:
        """What `hostmend WORDS` prints."""
        return self.lab.run(["hostmend", *words], check=check).stdout

    def json(self, *words: str) -> Any:
        return json.loads(self.run(*words, "--json"))

    def get(self, path: str) -> Any:
        """What the API has at /v1/PATH. What is waited for is asked this way: the command would
        take a good part of a second of the processor each time.
        """
        url = f"http://agent/v1/{path}"
        return json.loads(self.lab.run(["curl", "-fsS", "--unix-socket", SOCKET, url]).stdout)

    def answers(self) -> bool:
        ask = ["curl", "-fsS", "--unix-socket", SOCKET, "http://agent/v1/status"]
        return self.lab.run(ask, check=False).returncode == 0

    def check(self, name: str) -> dict[str, Any]:
        """One check and what its last look saw."""
        found: dict[str, Any] = self.get(f"checks/{name}")
        return found

    def incidents(self) -> list[dict[str, Any]]:
        """Oldest first."""
        found: list[dict[str, Any]] = self.get("incidents?limit=500")["items"]
        return found[::-1]

    def runs(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get("runs?limit=500")["items"]
        return found[::-1]

    def mails(self) -> list[EmailMessage]:
        """What the mail server took, in the order of arrival."""
        listed = self.lab.run(["sh", "-c", f"ls -tr {MAILS}/new 2>/dev/null || true"]).stdout
        return [
            email.message_from_string(
                self.lab.read(f"{MAILS}/new/{name}"), policy=email.policy.default
            )
            for name in listed.split()
        ]

    def wait(self, what: Any, words: str, seconds: float = PATIENCE) -> Any:
        """Waits until `what()` is true; says what it waited for, and the agent's log, if never."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if found := what():
                return found
            time.sleep(0.2)
        log = self.lab.run(["journalctl", "-u", "hostmend", "-n", "60", "-o", "cat"]).stdout
        shown = [self.lab.run(["hostmend", w], check=False).stdout for w in ("status", "incidents")]
        story = self.lab.run(["hostmend", "incident", "show", "i1"], check=False).stdout
        raise AssertionError(
            "\n".join([f"waited {seconds:g} s for {words}", *shown, story, "its log:", log])
        )


def body_of(mail: EmailMessage) -> str:
    part = mail.get_body(("plain", "html"))
    assert part is not None
    return str(part.get_content())
