"""Whatever a look saw, what goes on from it is text and numbers that everything can take."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.cleaning import (
    LONGEST_EVIDENCE,
    LONGEST_FACT,
    LONGEST_SENTENCE,
    LONGEST_SUBJECT,
    LONGEST_WORD,
    MOST,
    clean_evidence,
    clean_finding,
    clean_line,
)
from agent.core.model import Evidence, Finding, Status

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=40) | st.builds(
    lambda text, times: text * times,
    st.text(st.characters(exclude_categories=()), min_size=1, max_size=4),
    st.sampled_from([100, 5_000]),
)
ANY_NUMBER = st.floats() | st.integers(-(10**400), 10**400) | st.booleans()
ANY_FINDING = st.builds(
    Finding,
    subject=ANY_TEXT,
    status=st.sampled_from(Status),
    cause=ANY_TEXT,
    summary=ANY_TEXT,
    measurements=st.dictionaries(ANY_TEXT, ANY_NUMBER, max_size=3),
    facts=st.dictionaries(ANY_TEXT, ANY_TEXT, max_size=3),
    since=st.none() | st.floats(),
    transition=ANY_TEXT,
    resource=ANY_TEXT,
    implicates=st.lists(ANY_TEXT, max_size=3).map(tuple),
)
PLAIN = Finding(
    subject="/srv/my  data",
    status=Status.CRITICAL,
    cause="full",
    summary="/srv is 97 % full — größer als erlaubt",
    measurements={"used_percent": 97.0},
    facts={"Log": "one\n\ttwo"},
    since=5.0,
    resource="filesystem:/srv",
    implicates=("unit:a.service",),
)


@given(ANY_FINDING)
def test_every_finding_becomes_one_that_everything_can_take(finding: Finding) -> None:
    cleaned = clean_finding(finding, 1000.0)
    json.dumps(asdict(cleaned), allow_nan=False, ensure_ascii=False).encode()
    assert clean_finding(cleaned, 1000.0) is cleaned
    assert cleaned.since is None or 0 <= cleaned.since <= 1000.0
    for name in (cleaned.subject, cleaned.resource, *cleaned.implicates):
        assert len(name) <= LONGEST_SUBJECT
        assert "\n" not in name
    assert len(cleaned.summary) <= LONGEST_SENTENCE
    assert max(len(cleaned.cause), len(cleaned.transition)) <= LONGEST_WORD
    assert all(len(k) <= LONGEST_WORD and len(v) <= LONGEST_FACT for k, v in cleaned.facts.items())
    assert all(math.isfinite(number) for number in cleaned.measurements.values())


@given(ANY_TEXT, ANY_TEXT)
def test_what_differed_still_differs(one: str, other: str) -> None:
    first, second = (
        clean_finding(replace(PLAIN, subject=subject), 1000.0).subject for subject in (one, other)
    )
    assert (first == second) is (one == other)


def test_an_ordinary_finding_stays_what_it_is() -> None:
    assert clean_finding(PLAIN, 1000.0) is PLAIN


@pytest.mark.parametrize(
    ("what", "cleaned"),
    [
        ({"measurements": {"a": math.inf, "b": -math.inf, "c": math.nan, "d": 1.0}},
         {"measurements": {"d": 1.0}}),
        ({"measurements": {"a": 10**400, "b": 3}}, {"measurements": {"b": 3.0}}),
        ({"measurements": {"a": "much", "b": None}}, {"measurements": {}}),
        ({"summary": "a\x1b[31mred\x00\nline\u202e  x"}, {"summary": "ared line x"}),
        ({"facts": {"a\nb": "x\x07\r\ny"}}, {"facts": {"a b": "x\ny"}}),
        ({"subject": "/srv/\udcff"}, {"subject": "/srv/\ufffd (35daa149)"}),
        ({"since": math.nan}, {"since": None}),
        ({"since": 1000.5}, {"since": None}),
        ({"since": -1.0}, {"since": None}),
        ({"since": 1000.0}, {"since": 1000.0}),
        ({"implicates": ("unit:a\nb",) * 200}, {"implicates": ("unit:a b (a7c55bef)",) * MOST}),
        ({"facts": {str(n): "" for n in range(200)}}, {"facts": {str(n): "" for n in range(MOST)}}),
    ],
)  # fmt: skip
def test_what_is_no_text_or_number_is_made_one_or_left_out(
    what: dict[str, Any], cleaned: dict[str, Any]
) -> None:
    assert clean_finding(replace(PLAIN, **what), 1000.0) == replace(PLAIN, **cleaned)


def test_a_line_is_cut_where_it_is_too_long() -> None:
    assert clean_line("x" * 2000) == "x" * 999 + "…"
    assert clean_line("one\n two", 5) == "one…"


def test_evidence_keeps_its_lines() -> None:
    evidence = Evidence(title="Log\nof\udcff", text="a\r\n\tb\x1b[0m\udcff" + "x" * 100_000)
    cleaned = clean_evidence(evidence)
    assert cleaned.title == "Log of\ufffd"
    assert cleaned.text.startswith("a\n\tb\ufffdxxx")
    assert len(cleaned.text) <= LONGEST_EVIDENCE
