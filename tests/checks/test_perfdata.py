"""Performance data: whatever the published grammar makes is read as what it means."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.checks.perfdata import (
    Datum,
    Range,
    measure,
    parse_output,
    parse_performance,
    parse_range,
    tell_beyond,
)

# The grammar of the guidelines ("Performance data", "Threshold and ranges"), as text beside what it
# means: 'label'=value[UOM];[warn];[crit];[min];[max]

# `value, min and max in class [-0-9.]`
NUMBERS = st.one_of(
    st.integers(-(10**12), 10**12).map(lambda n: (str(n), float(n))),
    st.decimals(-(10**6), 10**6, places=3, allow_nan=False).map(lambda d: (str(d), float(d))),
)
# `UOM is one of: none, s (also us, ms), %, B (also KB, MB, TB), c`
UNITS = st.sampled_from(["", "s", "us", "ms", "%", "B", "KB", "MB", "TB", "c"])
# `label can contain any characters`, `to specify a quote character, use two single quotes`
LABELS = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"], exclude_characters="|"), min_size=1
)


def write_label(label: str, quote: bool) -> str:
    # `the single quotes for the label are optional. Required if spaces are in the label`
    if quote or any(c.isspace() or c in "='" for c in label):
        return "'" + label.replace("'", "''") + "'"
    return label


@st.composite
def ranges(draw: st.DrawFn) -> tuple[str, Range | None]:
    """`[@]start:end`: `~` is minus infinity, no end plus infinity; `0:` may be left out."""
    kind = draw(st.sampled_from(["none", "end", "from", "below", "both", "colon"]))
    if kind == "none":
        return "", None
    inside = draw(st.booleans())
    (one, first), (two, second) = sorted(
        [draw(NUMBERS), draw(NUMBERS)], key=lambda number: number[1]
    )
    at = "@" if inside else ""
    if kind == "end":
        text, value = draw(NUMBERS.filter(lambda number: number[1] >= 0))
        return f"{at}{text}", Range(end=value, inside=inside)
    if kind == "colon":
        text, value = draw(NUMBERS.filter(lambda number: number[1] >= 0))
        return f"{at}:{text}", Range(end=value, inside=inside)
    if kind == "from":
        return f"{at}{one}:", Range(start=first, inside=inside)
    if kind == "below":
        return f"{at}~:{two}", Range(start=-math.inf, end=second, inside=inside)
    return f"{at}{one}:{two}", Range(start=first, end=second, inside=inside)


@st.composite
def data(draw: st.DrawFn) -> tuple[str, Datum]:
    label = draw(LABELS)
    written = write_label(label, draw(st.booleans()))
    if draw(st.integers(0, 9)) == 0:
        # `value may be a literal "U" instead`
        return f"{written}=U", Datum(label=label, value=None)
    text, value = draw(NUMBERS)
    unit = draw(UNITS)
    (warn, warning), (crit, critical) = draw(ranges()), draw(ranges())
    bounds = [draw(st.just(("", None)) | NUMBERS) for _ in range(2)]
    fields = [f"{text}{unit}", warn, crit, *(bound[0] for bound in bounds)]
    # `Trailing unfilled semicolons can be dropped`
    while not fields[-1] and draw(st.booleans()):
        fields.pop()
    return f"{written}={';'.join(fields)}", Datum(
        label=label,
        value=value,
        unit=unit,
        warning=warning,
        critical=critical,
        minimum=bounds[0][1],
        maximum=bounds[1][1],
    )


@given(st.lists(data(), max_size=6))
def test_whatever_the_grammar_makes_is_read_as_what_it_means(rows: list[tuple[str, Datum]]) -> None:
    # `space separated list of label/value pairs`
    found, unread = parse_performance(" ".join(text for text, _ in rows))
    assert found == tuple(datum for _, datum in rows)
    assert unread == ()


PLAIN = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"], exclude_characters="|"), max_size=30
).map(str.strip)


@given(PLAIN, st.lists(PLAIN.filter(bool), max_size=4), st.lists(data(), max_size=4))
def test_text_and_data_of_all_lines_are_told_apart(
    summary: str, lines: list[str], rows: list[tuple[str, Datum]]
) -> None:
    # TEXT | DATA, LONG TEXT ..., LONG TEXT | DATA, DATA ...
    first, rest = rows[:1], rows[1:]
    text = summary
    if first:
        text += f" | {first[0][0]}"
    text += "".join(f"\n{line}" for line in lines)
    if rest:
        text += ("" if lines else "\n") + " | " + "\n".join(row for row, _ in rest)
    output = parse_output(f"{text}\n")
    if summary:
        assert output.summary == summary
        assert output.details == "\n".join(lines)
    assert output.data == tuple(datum for _, datum in rows)
    assert output.unread == ()


@given(st.text(max_size=300))
def test_anything_at_all_is_read_somehow(text: str) -> None:
    output = parse_output(text)
    for name, value in measure(output.data).items():
        assert math.isfinite(value)
        assert name == name.lower()
    tell_beyond(output.data)


@pytest.mark.parametrize("text", ["' x " * 30_000, "a=" * 60_000, "'" * 120_000, "=1 " * 40_000])
def test_hostile_data_are_cut_and_not_pondered(text: str) -> None:
    found, unread = parse_performance(text)
    assert len(found) <= 200
    assert len(unread) <= 10


#: A sentence, a threshold, what alerts and what does not; from the guidelines' own table.
THRESHOLDS: list[tuple[str, list[float], list[float]]] = [
    ("10", [-1, 11], [0, 5, 10]),
    ("10:", [9.9, -5], [10, 1e9]),
    ("~:10", [10.1], [10, -1e9]),
    ("10:20", [9, 21], [10, 15, 20]),
    ("@10:20", [10, 15, 20], [9, 21]),
]


@pytest.mark.parametrize(("text", "alerts", "passes"), THRESHOLDS)
def test_thresholds_alert_as_the_guidelines_say(
    text: str, alerts: list[float], passes: list[float]
) -> None:
    found = parse_range(text)
    assert found is not None
    assert [value for value in alerts + passes if found.alerts(value)] == alerts


@pytest.mark.parametrize("text", ["", "20:10", "@", ":", "a", "1:2:3", "--1", "~", "5%"])
def test_what_is_no_threshold_is_none(text: str) -> None:
    assert parse_range(text) is None


def test_what_real_plugins_print_is_read() -> None:
    output = parse_output(
        "DISK OK - free space: / 3326 MB (56%); | /=2643MB;5948;5958;0;5968\n"
        "/ 15272 MB (77%);\n"
        "/boot 68 MB (69%);\n"
        "/home 69357 MB (27%); | /boot=68MB;88;93;0;98\n"
        "/home=69357MB;253404;253409;0;253414\n"
    )
    assert output.summary == "DISK OK - free space: / 3326 MB (56%);"
    assert output.details.splitlines()[-1] == "/home 69357 MB (27%);"
    assert measure(output.data) == {
        "value_bytes": 2643e6,
        "boot_bytes": 68e6,
        "home_bytes": 69357e6,
    }
    found, unread = parse_performance(
        "load1=0,120;5.000;10.000;0; time=1.2e-05s 'a b'=3KiB temp=21.5C=x broken rta=0.3ms;; pl=0%"
    )
    assert measure(found) == {
        "load1_count": 0.12,
        "time_seconds": 1.2e-05,
        "a_b_bytes": 3072.0,
        "temp_c_x": 21.5,
        "rta_seconds": 0.3 / 1000,
        "pl_percent": 0.0,
    }
    assert unread == ("broken",)


def test_measurements_with_one_name_are_told_apart() -> None:
    found, _ = parse_performance("a-b=1 'a b'=2 a_b=3 exit=4")
    assert measure(found, ["exit_count"]) == {
        "a_b_count": 1.0,
        "a_b_2_count": 2.0,
        "a_b_3_count": 3.0,
        "exit_2_count": 4.0,
    }


def test_values_beyond_their_limits_are_told() -> None:
    found, _ = parse_performance(
        "load1=12;5;10 load5=6;5;10 load15=1;5;10 free=3%;20:;10: x=5;@1:9"
    )
    assert tell_beyond(found) == (
        "load1 = 12 (critical: over 10), load5 = 6 (warning: over 5), "
        "free = 3% (critical: under 10), x = 5 (warning: within 1 to 9)"
    )
