"""Conditions: what they mean, and what is said of those that mean nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.host.conditions import LONGEST, Condition, parse_condition


@dataclass(frozen=True, kw_only=True)
class Given:
    """An answer, as conditions see it."""

    status: int = 200
    response_seconds: float = 0.25
    certificate_expires_seconds: float | None = 36 * 3600.0
    text: str = ""
    cut: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def body_length(self) -> int:
        return len(self.text.encode())

    def header(self, name: str) -> str | None:
        return self.headers.get(name.lower())


BODY = json.dumps(
    {
        "status": "degraded",
        "ok": False,
        "queue": 120,
        "load": 0.5,
        "nothing": None,
        "odd name": 1,
        "nodes": [{"id": "a"}, {"id": "b"}],
        "text": "5",
        "empty": {},
    }
)
JSON = Given(text=BODY, headers={"x-cache": "MISS", "x-count": "7", "set-cookie": "id=secret"})

HOLDS = [
    ("[STATUS] == 200", Given(), True),
    ("[STATUS] != 200", Given(), False),
    ("[STATUS] >= 500", Given(status=500), True),
    ("[STATUS] > 500", Given(status=500), False),
    ("[STATUS] <= 404", Given(status=404), True),
    ("[STATUS] < 404", Given(status=404), False),
    ("[STATUS]==any(500,502)", Given(status=502), True),
    ("[STATUS] == any(500, 502)", Given(status=501), False),
    ("[STATUS] != any(200, 204)", Given(status=204), False),
    ("[STATUS] != any(200, 204)", Given(status=301), True),
    ("[RESPONSE_TIME] > 200ms", Given(), True),
    ("[RESPONSE_TIME] > 1m30s", Given(), False),
    ("[CERTIFICATE_EXPIRATION] < 48h", Given(), True),
    ("[CERTIFICATE_EXPIRATION] < 1d", Given(), False),
    ("[CERTIFICATE_EXPIRATION] < 1d", Given(certificate_expires_seconds=-5.0), True),
    ("[CERTIFICATE_EXPIRATION] < 48h", Given(certificate_expires_seconds=None), None),
    ("[CERTIFICATE_EXPIRATION] == missing", Given(certificate_expires_seconds=None), True),
    ('[BODY] == "ok"', Given(text="ok\n"), True),
    ("[BODY] == 'ok'", Given(text="not ok"), False),
    (r'[BODY] == "say \"ok\""', Given(text='say "ok"'), True),
    ("[BODY] > 4", Given(text="5\n"), True),
    ("[BODY] == 5", Given(text="5.0"), True),
    ("[BODY] > 4", Given(text="five"), None),
    ('[BODY] == any(5, "five")', Given(text="five"), True),
    ('[BODY] == any(5, "five")', Given(text="5"), True),
    ('[BODY] != any(5, "five")', Given(text="6"), True),
    ("[BODY] == missing", Given(text=""), False),
    ("[BODY] == pat(*Error*)", Given(text="a\nFatal Error: b\nc"), True),
    ("[BODY] == pat(*Error)", Given(text="Error: b"), False),
    ("[BODY] == pat(E?ror*)", Given(text="Error: b"), True),
    ("[BODY] == pat(*[x]*)", Given(text="a [x] b"), True),
    ("[BODY] == pat(*[x]*)", Given(text="a x b"), False),
    ('[BODY] == pat("*(a)*")', Given(text="f(a)"), True),
    ("[BODY] != pat(<!doctype html>*)", Given(text="<html>"), True),
    ("len([BODY]) < 5", Given(text="äöü"), False),
    ("len([BODY]) == 0", Given(), True),
    ('[BODY].status == "degraded"', JSON, True),
    ('[BODY].status != any("ok", "degraded")', JSON, False),
    ("[BODY].status == pat(deg*)", JSON, True),
    ("[BODY].ok == false", JSON, True),
    ("[BODY].ok == 0", JSON, False),
    ("[BODY].queue > 100", JSON, True),
    ("[BODY].queue == 120", JSON, True),
    ("[BODY].load < 0.75", JSON, True),
    ("[BODY].load > -1", JSON, True),
    ("[BODY].nothing == null", JSON, True),
    ("[BODY].nothing == missing", JSON, False),
    ("[BODY].absent == missing", JSON, True),
    ("[BODY].absent != missing", JSON, False),
    ("[BODY].absent == null", JSON, False),
    ('[BODY].absent != "ok"', JSON, True),
    ('[BODY].absent == "ok"', JSON, False),
    ("[BODY].absent > 1", JSON, None),
    ("[BODY].status > 1", JSON, None),
    ("[BODY].text == 5", JSON, False),
    ('[BODY].text == "5"', JSON, True),
    ('[BODY]."odd name" == 1', JSON, True),
    ('[BODY].nodes[1].id == "b"', JSON, True),
    ("[BODY].nodes[2].id == missing", JSON, True),
    ("[BODY].nodes.id == missing", JSON, True),
    ("[BODY][0] == missing", JSON, True),
    ("[BODY][1].a == 2", Given(text='[{}, {"a": 2}]'), True),
    ("len([BODY].nodes) != 2", JSON, False),
    ("len([BODY].empty) == 0", JSON, True),
    ("len([BODY].queue) > 0", JSON, None),
    ("[BODY].a == 1", Given(text='\ufeff{"a": 1}'), True),
    ("[BODY].a > 1", Given(text='{"a": ' + "9" * 5000 + "}"), None),
    ('[HEADER].X-Cache == "MISS"', JSON, True),
    ("[HEADER].x-count > 5", JSON, True),
    ("[HEADER].x-cache > 5", JSON, None),
    ("[HEADER].x-absent == missing", JSON, True),
    ("len([HEADER].x-cache) == 4", JSON, True),
    ('[BODY] == "ok"', Given(text="ok", cut=True), None),
    ("[STATUS] == 200 or [BODY].a > 1", Given(text="ok", cut=True), True),
    # `and` binds closer, and what cannot be judged decides only if it must.
    ("[STATUS] == 1 and [STATUS] == 2 or [STATUS] == 200", Given(), True),
    ("[STATUS] == 200 or [STATUS] == 1 and [STATUS] == 2", Given(), True),
    ("[STATUS] == 200 and [BODY] != pat(*x*)", Given(text="x"), False),
    ("[BODY].absent > 1 and [STATUS] == 200", JSON, None),
    ("[BODY].absent > 1 and [STATUS] == 500", JSON, False),
    ("[BODY].absent > 1 or [STATUS] == 500", JSON, None),
    ("[BODY].absent > 1 or [STATUS] == 200", JSON, True),
]


@pytest.mark.parametrize(("text", "answer", "holds"), HOLDS)
def test_condition(text: str, answer: Given, holds: bool | None) -> None:
    assert parse_condition(text).judge(answer).holds is holds


WRONG = [
    ("", "ends where one of [STATUS]"),
    ("STATUS > 5", "`STATUS` stands where one of [STATUS]"),
    ("500 <= [STATUS]", "`500` stands where one of [STATUS]"),
    ("[STAUS] >= 500", "`[STAUS]` is nothing of an answer: there are [STATUS]"),
    ("[STATUS", "is nothing of an answer"),
    ("[STATUS] = 500", "equal is written =="),
    ("[STATUS] 500", "where one of ==, !=, <, <=, >, >= is expected"),
    ("[STATUS] >=", "ends where a value is expected"),
    ("[STATUS] >= 500 [STATUS]", "comes `and`, `or` or the end"),
    ("[STATUS] >= 500 and", "ends where one of [STATUS]"),
    ('[STATUS] == "200"', "[STATUS] is a whole number"),
    ("[STATUS] == 20.5", "[STATUS] is a whole number"),
    ("[STATUS] == any(200, true)", "[STATUS] is a whole number"),
    ("[STATUS] > any(1, 2)", "compares sizes"),
    ("[STATUS].a == 1", "[STATUS] has no parts"),
    ("len([STATUS]) == 1", "[STATUS] has no length"),
    ("[RESPONSE_TIME] > 500", "write a number and a unit, such as 500ms"),
    ("[RESPONSE_TIME] > missing", "compares sizes"),
    ("[RESPONSE_TIME] == true", "write a number and a unit"),
    ("[CERTIFICATE_EXPIRATION] < 48", "write a number and a unit"),
    ("[BODY] == ok", 'quote text, "..."'),
    ('[BODY] == "ok', "begins a text that does not end"),
    ("[BODY].age > 5s", "is a time, and [BODY].age is none"),
    ('[BODY] > "a"', "compares sizes"),
    ("[BODY] == [STATUS]", "stands on the left"),
    ("[BODY] == any()", "`)` stands where a value is expected"),
    ("[BODY] == any(1", "ends where `,` or `)` is expected"),
    ("[BODY] == any(1 (", "`(` stands where `,` or `)` is expected"),
    ("[BODY] == and", "`and` stands where a value is expected"),
    ("len [BODY] == 1", "where `(` after len is expected"),
    ("len([BODY] == 1", "where `)` after what len is of is expected"),
    ("len([BODY]) == 1.5", "len([BODY]) is a whole number"),
    ("[HEADER] == 1", "[HEADER].content-type"),
    ("[HEADER].a.b == 1", "[HEADER].content-type"),
    ("[BODY] == 5x", "is neither a number nor a duration"),
    ("[BODY] == @", "cannot be read"),
    ("[BODY] == pat(a(b)", "where a value is expected"),
    ("[STATUS] == 200 or " * 60 + "[STATUS] == 1", f"at most {LONGEST} characters"),
]


@pytest.mark.parametrize(("text", "words"), WRONG)
def test_what_is_wrong_with_a_condition_is_said(text: str, words: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_condition(text)
    assert words in str(caught.value)


PIECES = st.sampled_from(
    ["[STATUS]", "[BODY]", "[BODY].a", "[HEADER].x", "[RESPONSE_TIME]", "len(", ")", "any(", "pat(",
     "==", "!=", ">", "<=", "and", "or", "500", "-1.5", "48h", '"x"', "'", "true", "missing", ",",
     "[0]", "*", "(", " ", "\\", "\n"]
)  # fmt: skip


@given(st.text(max_size=200) | st.lists(PIECES, max_size=12).map(" ".join))
def test_any_text_is_a_condition_or_a_clear_error(text: str) -> None:
    try:
        condition = parse_condition(text)
    except ValueError as error:
        why = str(error)
    else:
        why = "a condition"
        judge_all(condition)
    assert len(why) > 10


def judge_all(condition: Condition) -> None:
    assert isinstance(condition, Condition)
    for answer in (Given(), JSON, Given(text="\ud800[1]")):
        verdict = condition.judge(answer)
        assert verdict.holds in (True, False, None)
        assert verdict.why


@given(st.text(max_size=300))
def test_any_body_can_be_judged(text: str) -> None:
    for condition in ("[BODY].a[0] > 1", "[BODY] == pat(*a*b*)", "len([BODY]) > 3", "[BODY] < 5"):
        parse_condition(condition).judge(Given(text=text))


def test_a_pattern_of_many_stars_does_not_grow_with_the_body() -> None:
    condition = parse_condition(f"[BODY] == pat({'*a' * 30}*b)")
    assert condition.judge(Given(text="a" * 200_000)).holds is False


def test_what_was_observed_is_told_short_and_without_cookies() -> None:
    verdict = parse_condition('[BODY] != "ok"').judge(Given(text="x\n" * 500))
    assert verdict.why.startswith('[BODY] is "x x x')
    assert len(verdict.why) < 80
    verdict = parse_condition('[HEADER].set-cookie != "a"').judge(JSON)
    assert verdict.why == "[HEADER].set-cookie is ***"
    assert parse_condition("[RESPONSE_TIME] > 1ms").judge(Given()).why == "[RESPONSE_TIME] is 0.2 s"
