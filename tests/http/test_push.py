"""Reports: what is taken, from whom, and what is answered."""

from __future__ import annotations

from typing import Any

import pytest
from fake_agent import START, make_finding

from agent.agent import CheckStatus, Role
from agent.core.model import Status


@pytest.fixture
def backup(agent: Any) -> CheckStatus:
    check = CheckStatus(
        name="backup", type="push", every=10.0, depends_on=(), ladder=(), mode="auto", labels={},
        looked=START, took=0.0, findings=(make_finding(Status.OK),), broken="", status="ok",
        incidents=(),
    )  # fmt: skip
    agent.check_list["backup"] = check
    return check


async def test_a_report_is_taken_whole(web, backup) -> None:
    order = {
        "status": "critical", "subject": "db1", "cause": "failed", "summary": "no space",
        "measurements": {"copied_bytes": 12.5}, "facts": {"Target": "nas"}, "output": "tail\n",
    }  # fmt: skip
    answer = await web.unix.post("/v1/checks/backup/findings", json=order)
    assert answer.json() == {"check": "backup", "status": "critical"}
    ((name, report, by),) = web.agent.reports
    assert name == "backup"
    assert report.status is Status.CRITICAL
    assert (report.subject, report.summary, report.output) == ("db1", "no space", "tail\n")
    assert (dict(report.measurements), dict(report.facts)) == (
        {"copied_bytes": 12.5},
        {"Target": "nas"},
    )
    assert "uid" in by


@pytest.mark.parametrize(
    "order",
    [
        {},
        {"status": "fine"},
        {"status": "ok", "what": "x"},
        {"status": "ok", "cause": "Not A Word"},
        {"status": "ok", "measurements": {"a": "1"}},
        {"status": "ok", "measurements": {"A-b": 1}},
        {"status": "ok", "summary": "x" * 1001},
        {"status": "ok", "output": "x" * 16385},
        {"status": "ok", "facts": {str(n): "x" for n in range(21)}},
    ],
    ids=str,
)
async def test_what_is_no_report_is_refused(web, backup, order) -> None:
    answer = await web.unix.post("/v1/checks/backup/findings", json=order)
    assert answer.status_code == 422
    assert web.agent.reports == []


async def test_a_report_that_was_sent_twice_is_taken_once(web, backup) -> None:
    for _ in range(2):
        answer = await web.unix.post(
            "/v1/checks/backup/findings",
            json={"status": "warning"},
            headers={"Idempotency-Key": "k1"},
        )
        assert answer.status_code == 200
    assert len(web.agent.reports) == 1


async def test_a_reporter_reports_and_sees_nothing(web, backup) -> None:
    token = await web.agent.create_token("cron", role=Role.REPORTER, by="tester")
    headers = {"Authorization": f"Bearer {token.secret}"}
    order = {"status": "ok"}
    answer = await web.tcp.post("/v1/checks/backup/findings", json=order, headers=headers)
    assert answer.json() == {"check": "backup", "status": "ok"}
    assert web.agent.reports[0][2] == f"token cron ({token.token.id})"
    assert (await web.tcp.get("/v1/checks/backup", headers=headers)).status_code == 403
    assert (await web.tcp.post("/v1/pause", headers=headers)).status_code == 403
    viewer = await web.agent.create_token("tv", role=Role.VIEWER, by="tester")
    headers = {"Authorization": f"Bearer {viewer.secret}"}
    answer = await web.tcp.post("/v1/checks/backup/findings", json=order, headers=headers)
    assert answer.status_code == 403


async def test_the_trail_has_no_room_for_reports(web, backup) -> None:
    await web.unix.post("/v1/checks/backup/findings", json={"status": "ok"})
    await web.unix.post("/v1/hooks/alertmanager", json={"alerts": []})
    assert web.agent.action_list == {}


#: As Alertmanager 0.27 sends it.
POSTED = {
    "version": "4",
    "groupKey": '{}:{alertname="DiskFull"}',
    "truncatedAlerts": 0,
    "status": "firing",
    "receiver": "hostmend",
    "groupLabels": {"alertname": "DiskFull"},
    "commonLabels": {"alertname": "DiskFull"},
    "commonAnnotations": {},
    "externalURL": "http://alerts.example:9093",
    "alerts": [
        {
            "status": "firing",
            "labels": {"alertname": "DiskFull", "severity": "critical"},
            "annotations": {"summary": "no room"},
            "startsAt": "2026-01-31T08:00:00.123456789Z",
            "endsAt": "0001-01-01T00:00:00Z",
            "generatorURL": "http://prometheus.example/graph?g0.expr=up",
            "fingerprint": "abc",
        },
        {
            "status": "resolved",
            "labels": {"alertname": "Slow"},
            "annotations": {},
            "startsAt": "0001-01-01T00:00:00Z",
            "endsAt": "2026-01-31T08:00:00Z",
            "generatorURL": "",
            "fingerprint": "def",
        },
    ],
}


async def test_what_an_alertmanager_posts_is_taken(web) -> None:
    answer = await web.unix.post("/v1/hooks/alertmanager", json=POSTED)
    assert answer.json() == {"checks": {"alerts": 2}, "ignored": 0}
    full, slow = web.agent.alerts
    assert full.firing
    assert full.labels == {"alertname": "DiskFull", "severity": "critical"}
    assert full.since is not None
    assert abs(full.since - START) < 1
    assert full.link.startswith("http://prometheus.example/")
    assert not slow.firing
    assert slow.since is None


@pytest.mark.parametrize("body", [{}, {"alerts": [{}]}, {"alerts": [{"status": "on"}]}], ids=str)
async def test_what_no_alertmanager_posts_is_refused(web, body) -> None:
    assert (await web.unix.post("/v1/hooks/alertmanager", json=body)).status_code == 422
    assert web.agent.alerts == []
