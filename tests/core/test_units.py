import pytest

from agent.core.units import (
    format_duration,
    format_size,
    parse_duration,
    parse_size,
    write_duration,
    write_size,
)


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


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.3, "0.3s"),
        (1e-7, "0.0000001s"),
        (1, "1s"),
        (90, "1m30s"),
        (3600, "1h"),
        (8 * 86400 + 1, "1w1d1s"),
    ],
)
def test_a_written_duration_is_read_back(seconds: float, text: str) -> None:
    assert write_duration(seconds) == text
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("512", 512),
        ("512B", 512),
        ("1K", 1024),
        ("1.5G", 3 * 2**29),
        ("100MB", 100 * 2**20),
        ("1GiB", 2**30),
        ("2T", 2**41),
        ("0.1K", 102),
    ],
)
def test_a_size_is_read_as_people_write_it(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "-1G", "1 G", "1P", "1g", "85%", "1e3"])
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size: write a number and a unit, such as 100M"):
        parse_size(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0B"), (1000, "1000B"), (1024, "1K"), (1536, "1536B"), (3 * 2**29, "1536M"), (2**40, "1T"),
     (2**50, "1024T")],
)  # fmt: skip
def test_a_written_size_is_read_back(size: int, text: str) -> None:
    assert write_size(size) == text
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KB"),
        (12.34 * 2**20, "12.3 MB"),
        (999.4 * 2**10, "999 KB"),
        (999.6 * 2**10, "1000 KB"),
        (1023 * 2**20, "1023 MB"),
        (1.5 * 2**30, "1.5 GB"),
        (2**50, "1024 TB"),
    ],
)
def test_a_size_is_written_for_people(size: float, text: str) -> None:
    assert format_size(size) == text
