import pytest

from agent.core.units import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("0s", 0.0),
        ("10s", 10.0),
        ("1.5s", 1.5),
        ("5m", 300.0),
        ("1m30s", 90.0),
        ("2h", 7200.0),
        ("7d", 7 * 86400.0),
        ("1w", 7 * 86400.0),
        ("1h1m1s1ms", 3661.001),
    ],
)
def test_a_duration_is_read_as_people_write_it(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "10", "s", "10 s", "-5s", "5x", "1e3s", "22:00", "5m!", "\n5m"]
)
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a duration: write a number and a unit, such as"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.049, "49 ms"),
        (0.05, "0.1 s"),
        (0.3, "0.3 s"),
        (9.94, "9.9 s"),
        (9.99, "10 s"),
        (12, "12 s"),
        (12.4, "12 s"),
        (59.7, "1 min"),
        (245, "4 min 5 s"),
        (3600, "1 h"),
        (3605, "1 h"),
        (3661, "1 h 1 min"),
        (3 * 86400 + 4 * 3600 + 59, "3 d 4 h"),
        (86400, "1 d"),
    ],
)
def test_a_duration_is_written_with_two_units_at_most(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
