"""A rehearsal as data, and as JUnit XML: one case for each gate."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from agent.audit.report_junit import clean_xml
from agent.core.model import Instant
from agent.rehearsal.drills import DrillTale
from agent.rehearsal.rehearsal import Rehearsal
from agent.rehearsal.statistics import quantile
from agent.rehearsal.verdict import Gate, Outcome, Pair

#: The format of the data; counted up when something in it changes its meaning.
FORMAT = 1
#: Pairs that are written out, those that went badly first.
_PAIRS = 200
_QUANTILES = (0.5, 0.9, 0.95, 0.99)


def describe_rehearsal(rehearsal: Rehearsal) -> dict[str, Any]:
    """Everything that a program wants to know of it, of plain values."""
    verdict, measured = rehearsal.verdict, rehearsal.measured
    return {
        "format": FORMAT,
        "verdict": verdict.outcome.value,
        "headline": verdict.headline,
        "candidate": rehearsal.candidate,
        "baseline": rehearsal.baseline,
        "began": write_instant(rehearsal.began),
        "ended": write_instant(rehearsal.ended),
        "aborted": measured.aborted,
        "gates": [_describe_gate(gate) for gate in verdict.gates],
        "pairs_count": len(measured.pairs),
        "detectable_ratio": verdict.detectable,
        "lateness_seconds": measured.lateness,
        "traffic": {
            "lines_count": rehearsal.lines,
            "skipped": {why.value: count for why, count in sorted(rehearsal.skipped.items())},
            "groups": dict(list(rehearsal.groups.items())[:100]),
            "rate_per_second": rehearsal.schedule.rate,
            "spacing": rehearsal.schedule.spacing,
        },
        "response_seconds": {
            side: _describe_times([getattr(pair, side).seconds for pair in measured.pairs])
            for side in ("baseline", "candidate")
        },
        "pairs": [_describe_pair(pair) for pair in pick_worst(measured.pairs, _PAIRS)],
        "drills": [_describe_drill(t) for t in rehearsal.drilled.tales]
        if rehearsal.drilled
        else [],
    }


def write_json(rehearsal: Rehearsal) -> str:
    return json.dumps(describe_rehearsal(rehearsal), indent=2, allow_nan=False, default=str)


def write_instant(at: Instant) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


def pick_worst(pairs: Sequence[Pair], most: int) -> list[Pair]:
    """Pairs that failed on the candidate alone first, then those that became slowest."""

    def badness(pair: Pair) -> tuple[bool, float]:
        alone = pair.candidate.failed and not pair.baseline.failed
        return alone, pair.candidate.seconds - pair.baseline.seconds

    return sorted(pairs, key=badness, reverse=True)[:most]


def _describe_gate(gate: Gate) -> dict[str, Any]:
    return {
        "name": gate.name,
        "outcome": gate.outcome.value,
        "blocking": gate.blocking,
        "summary": gate.summary,
        "observed": gate.observed,
        "limit": gate.limit,
        "interval": asdict(gate.interval) if gate.interval else None,
        "count": gate.count,
        "cases": list(gate.cases),
    }


def _describe_times(seconds: list[float]) -> dict[str, float]:
    if not seconds:
        return {}
    return {f"p{100 * share:g}": round(quantile(seconds, share), 6) for share in _QUANTILES}


def _describe_pair(pair: Pair) -> dict[str, Any]:
    return {
        "at_seconds": round(pair.at, 3),
        "target": pair.target,
        **{
            side: {
                "status": answer.status,
                "seconds": round(answer.seconds, 6),
                "error": answer.error,
                "elsewhere": answer.elsewhere,
            }
            for side, answer in (("baseline", pair.baseline), ("candidate", pair.candidate))
        },
    }


def _describe_drill(tale: DrillTale) -> dict[str, Any]:
    return {
        "id": tale.id,
        "fault": tale.order.fault,
        "options": dict(tale.order.options),
        "outcome": tale.outcome or None,
        "detail": tale.detail,
        "within_seconds": tale.order.within,
        "began_seconds": round(tale.began, 3),
        "ended_seconds": round(tale.ended, 3),
        "steps_seconds": {name: round(at, 3) for name, at in tale.steps.items()},
    }


def write_junit(rehearsal: Rehearsal) -> str:
    """One suite, a case for each gate. A gate that only warns never fails a case."""
    gates = rehearsal.verdict.gates
    failed = [g for g in gates if g.blocking and g.outcome is Outcome.FAIL]
    open_ = [g for g in gates if g.outcome is Outcome.INCONCLUSIVE]
    suite = ET.Element(
        "testsuite",
        name=clean_xml(f"rehearsal of {rehearsal.candidate}"),
        tests=str(len(gates)),
        failures=str(len(failed)),
        errors=str(len(open_)),
        skipped="0",
        time=f"{rehearsal.ended - rehearsal.began:.3f}",
        timestamp=write_instant(rehearsal.began),
    )
    for gate in gates:
        case = ET.SubElement(suite, "testcase", classname="rehearsal", name=clean_xml(gate.name))
        text = clean_xml("\n".join((gate.summary, *gate.cases)))
        if gate in failed:
            ET.SubElement(case, "failure", message=clean_xml(gate.summary)).text = text
        elif gate in open_:
            ET.SubElement(case, "error", message=clean_xml(gate.summary)).text = text
        else:
            ET.SubElement(case, "system-out").text = text
    ET.SubElement(suite, "system-out").text = clean_xml(rehearsal.verdict.headline)
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, "unicode") + "\n"
