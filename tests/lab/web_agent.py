"""An agent that keeps nginx going on a lab host."""

from __future__ import annotations

from lab_agent import MAIL_ROUTE, LabAgent

from agent.lab import Lab

CONFIGURATION = f"""\
version: 1
policy: {{runs_per_hour: 1000}}
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


def install(lab: Lab) -> LabAgent:
    agent = LabAgent(lab)
    agent.install(CONFIGURATION)
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


def wait_for_end(agent: LabAgent, count: int = 1, seconds: float = 60.0) -> list[dict[str, object]]:
    def ended() -> list[dict[str, object]]:
        found = agent.try_json("incidents", "--all") or {"items": []}
        over = [i for i in found["items"] if i["state"] == "resolved"]
        return over if len(over) >= count else []

    return agent.wait(ended, f"{count} incidents to be resolved", seconds)
