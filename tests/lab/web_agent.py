"""An agent that keeps nginx going on a lab host."""

from __future__ import annotations

from lab_agent import MAIL_ROUTE, LabAgent

from agent.lab import Lab

CONFIGURATION = f"""\
version: 1
policy: {{runs_per_hour: 1000, storm: {{group_wait: GROUP_WAIT}}}}
checks:
  web:
    type: service
    unit: nginx.service
    every: 2s
    stable_for: 1s
    cool_down: 500ms
    ladder:
      - {{remedy: restart-service, attempts: 100,
         options: {{unit: nginx.service, validate: [nginx, -t]}}}}
routes:
  ops:
    url: "{MAIL_ROUTE}"
    reasons: [opened, approval, escalated, held, healed, ended]
"""


def install(lab: Lab, *, group_wait: str = "10m") -> LabAgent:
    """With nginx and a mail server; what is mended within `group_wait` is told once, as healed."""
    agent = LabAgent(lab)
    agent.install(CONFIGURATION.replace("GROUP_WAIT", group_wait))
    lab.run(["systemctl", "enable", "hostmend", "nginx"])
    lab.run(["systemctl", "start", "nginx"])
    agent.start_mail()
    agent.start()
    return agent


def kill_nginx(lab: Lab) -> None:
    lab.run(["systemctl", "kill", "-s", "KILL", "--kill-who=all", "nginx"])


def is_served(lab: Lab) -> bool:
    answer = lab.run(["curl", "-fsS", "-o", "/dev/null", "http://127.0.0.1/"], check=False)
    return answer.returncode == 0


def wait_for_end(agent: LabAgent, count: int = 1) -> None:
    def ended() -> bool:
        return sum(i["state"] == "resolved" for i in agent.incidents()) >= count

    agent.wait(ended, f"{count} incidents to be resolved")


def wait_for_mail(agent: LabAgent, reason: str) -> None:
    """Until it arrived, and nothing else is due."""

    def told() -> bool:
        arrived = any(mail["Subject"].startswith(f"[{reason}]") for mail in agent.mails())
        return arrived and agent.get("status")["notices_due"] == 0

    agent.wait(told, f"the mail that is {reason}")
