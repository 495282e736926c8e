"""A rehearsal from its plan to its verdict: is it safe, pages, traffic, judgement."""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from agent.audit.client import order_audit
from agent.audit.credentials import read_credentials
from agent.audit.order import Order
from agent.audit.plan import Plan as AuditPlan
from agent.audit.result import Audit
from agent.core.model import Instant, Seconds
from agent.errors import Conflict, Unavailable
from agent.host.http import HttpClient
from agent.host.names import Names
from agent.host.tls import Trust
from agent.host.url import is_address, parse_url, read_address
from agent.rehearsal.drills import Candidate, Drilled, DrillOrder, judge_drills, run_drills
from agent.rehearsal.pages import judge_pages
from agent.rehearsal.replay import Caution, replay
from agent.rehearsal.side import Side
from agent.rehearsal.traffic import (
    Asked,
    Schedule,
    Skipped,
    Traffic,
    count_groups,
    make_schedule,
    read_logs,
    sample,
)
from agent.rehearsal.verdict import Gate, Limits, Measured, Outcome, Verdict, judge

#: While a fault is there: the longest answer in seconds, and requests under way at once.
_DRILL_TIMEOUT = 5.0
_DRILL_IN_FLIGHT = 512

#: Told what happens: a word for the stage, how much is done, of how much.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is rehearsed. Addresses may hold secrets and are never shown as they are."""

    candidate: str = field(repr=False)
    baseline: str = field(repr=False)
    #: Connect there, whatever the names' own addresses are.
    candidate_at: str = ""
    baseline_at: str = ""
    #: Access logs, in their order.
    traffic: tuple[Path, ...] = ()
    #: `METHOD target` of writes that are asked too, as regular expressions.
    allow: tuple[str, ...] = ()
    #: Requests that are asked of both sides.
    pairs: int = 1000
    #: Times faster than the log.
    speed: float = 1.0
    #: Most pairs a second.
    ceiling: float = 20.0
    timeout: Seconds = 30.0
    #: Audit both sides first.
    pages: bool = True
    verify: bool = True
    #: Certificates of the authorities to trust, PEM.
    ca_file: Path | None = None
    #: A file with headers for the candidate alone (`agent.audit.credentials`).
    credentials: Path | None = None
    #: Both sides may be one host.
    same_host: bool = False
    limits: Limits = field(default_factory=Limits)
    caution: Caution = field(default_factory=Caution)
    seed: int = 1
    #: Faults for the candidate, one after the other, while traffic goes on.
    drills: tuple[DrillOrder, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """What came of it."""

    began: Instant
    ended: Instant
    candidate: str
    baseline: str
    verdict: Verdict
    measured: Measured
    #: Lines of the logs, and why some were not asked.
    lines: int
    skipped: Mapping[Skipped, int]
    schedule: Schedule
    #: Kinds of requests, the most frequent first.
    groups: Mapping[str, int]
    audits: tuple[Audit, Audit] | None = None
    drilled: Drilled | None = None


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What a rehearsal would ask, without asking it."""

    lines: int
    skipped: Mapping[Skipped, int]
    requests: int
    groups: Mapping[str, int]
    seconds: Seconds
    rate: float
    spacing: str


def read_traffic(plan: Plan) -> tuple[Traffic, Schedule]:
    """The requests that will be asked, sampled, and when. Raises Conflict for unreadable logs."""
    patterns = [re.compile(pattern) for pattern in plan.allow]
    try:
        traffic = read_logs(plan.traffic, allow=patterns, salt=secrets.token_bytes(16))
    except (OSError, EOFError) as error:
        why = getattr(error, "strerror", None) or str(error)
        place = getattr(error, "filename", None) or ", ".join(map(str, plan.traffic))
        raise Conflict(f"cannot read the traffic in {place}: {why}") from error
    traffic.requests = sample(traffic.requests, plan.pairs, seed=plan.seed)
    schedule = make_schedule(
        traffic.requests, speed=plan.speed, ceiling=plan.ceiling, backwards=traffic.backwards
    )
    return traffic, schedule


def preview(plan: Plan) -> Preview:
    """For `--dry-run`: counts what would be asked."""
    traffic, schedule = read_traffic(plan)
    return Preview(
        lines=traffic.lines,
        skipped=dict(traffic.skipped),
        requests=len(traffic.requests),
        groups=dict(count_groups(traffic.requests).most_common()),
        seconds=schedule.due[-1] if schedule.due else 0.0,
        rate=schedule.rate,
        spacing=schedule.spacing,
    )


async def rehearse(
    plan: Plan,
    *,
    progress: Progress = lambda _stage, _done, _of: None,
    agent: Candidate | None = None,
) -> Rehearsal:
    """Tries the candidate beside the baseline. `agent`: the candidate's own, for drills.

    Raises Conflict where it would not be safe (both sides are one host) or the logs cannot be
    read, and Unavailable where this host itself cannot ask.
    """
    began = time.time()
    traffic, schedule = read_traffic(plan)
    names = Names()
    baseline = _make_side(plan, plan.baseline, plan.baseline_at)
    headers = read_credentials(str(plan.credentials)) if plan.credentials else {}
    candidate = _make_side(plan, plan.candidate, plan.candidate_at, headers)
    await refuse_one_host(plan, names, baseline, candidate)
    audits = await _audit_both(plan, progress) if plan.pages else None
    gates: tuple[Gate, ...] = judge_pages(*audits) if audits else ()
    client = HttpClient(resolve=names.resolve)
    measured = await replay(
        traffic.requests,
        schedule,
        baseline=lambda asked: baseline.ask(client, asked),
        candidate=lambda asked: candidate.ask(client, asked),
        caution=plan.caution,
        seed=plan.seed,
        progress=lambda done, of: progress("traffic", done, of),
    )
    drilled = None
    if plan.drills and agent is not None and not measured.aborted:
        drilled = await _drill(
            plan, agent, traffic, schedule, client, (baseline, candidate), progress
        )
        gates += judge_drills(drilled)
    measured = replace(measured, others=gates)
    return Rehearsal(
        began=began,
        ended=time.time(),
        candidate=_show(candidate),
        baseline=_show(baseline),
        verdict=judge(measured, plan.limits, seed=plan.seed),
        measured=measured,
        lines=traffic.lines,
        skipped=dict(traffic.skipped),
        schedule=schedule,
        groups=dict(count_groups(traffic.requests).most_common()),
        audits=audits,
        drilled=drilled,
    )


async def _drill(
    plan: Plan,
    agent: Candidate,
    traffic: Traffic,
    schedule: Schedule,
    client: HttpClient,
    sides: tuple[Side, Side],
    progress: Progress,
) -> Drilled:
    """Drills with traffic of their own: it is expected to fail for a while, and says nothing of the
    release itself."""
    # What hangs must not keep what follows from being asked.
    patience = min(plan.timeout, _DRILL_TIMEOUT)
    theirs, ours = (replace(side, timeout=patience) for side in sides)
    caution = replace(plan.caution, errors=1.0, in_flight=_DRILL_IN_FLIGHT, noise_every=0)

    async def ask(requests: Sequence[Asked], due: Schedule, stop: asyncio.Event) -> Measured:
        return await replay(
            requests,
            due,
            baseline=lambda asked: theirs.ask(client, asked),
            candidate=lambda asked: ours.ask(client, asked),
            caution=caution,
            seed=plan.seed,
            stop=stop,
        )

    return await run_drills(
        plan.drills,
        agent,
        requests=traffic.requests,
        schedule=schedule,
        ask=ask,
        progress=lambda done, of: progress("drills", done, of),
    )


def _make_side(plan: Plan, url: str, at: str, headers: Mapping[str, str] | None = None) -> Side:
    address, port = read_address(at) if at else ("", None)
    parsed = parse_url(url)
    return Side(
        url=parsed,
        address=address,
        port=port if port is not None else None,
        trust=Trust(verify=plan.verify, ca_file=plan.ca_file, speaks=("http/1.1",)),
        headers=dict(headers or {}),
        timeout=plan.timeout,
    )


def _show(side: Side) -> str:
    return f"{side.url.scheme}://{side.url.authority}"


async def refuse_one_host(plan: Plan, names: Names, baseline: Side, candidate: Side) -> None:
    """Raises Conflict where both sides are one: production would be its own candidate."""
    if plan.same_host:
        return
    places = []
    for side in (baseline, candidate):
        port = side.port or side.url.port
        if side.address:
            addresses: tuple[str, ...] = (side.address,)
        elif is_address(side.url.host):
            addresses = (side.url.host,)
        else:
            addresses = ()
            with contextlib.suppress(Unavailable):
                addresses = await names.resolve(side.url.host)
        places.append({(address, port) for address in addresses})
    if shared := places[0] & places[1]:
        address, port = sorted(shared)[0]
        raise Conflict(
            f"cannot rehearse {_show(candidate)}: it is {address} port {port}, and so is the "
            "baseline; name the candidate's own address with --candidate-at, or say --same-host"
        )


async def _audit_both(plan: Plan, progress: Progress) -> tuple[Audit, Audit]:
    found = []
    for stage, url, at, credentials in (
        ("pages of the baseline", plan.baseline, plan.baseline_at, None),
        ("pages of the candidate", plan.candidate, plan.candidate_at, plan.credentials),
    ):
        order = Order(
            plan=AuditPlan(
                url=url,
                connect=at,
                verify=plan.verify,
                ca_file=str(plan.ca_file.absolute()) if plan.ca_file else "",
                credentials=str(credentials.absolute()) if credentials else "",
                max_rate=plan.ceiling,
            )
        )

        def tell(counts: Mapping[str, int], stage: str = stage) -> None:
            progress(stage, counts["asked"], counts["asked"] + counts["waiting"])

        found.append(await order_audit(order, on_progress=tell))
        await asyncio.sleep(0)
    return found[0], found[1]


def exit_code(rehearsal: Rehearsal) -> int:
    """0 pass, 1 fail, 3 inconclusive, 4 aborted for safety."""
    if rehearsal.measured.aborted:
        return 4
    return {Outcome.PASS: 0, Outcome.FAIL: 1, Outcome.INCONCLUSIVE: 3}[rehearsal.verdict.outcome]
