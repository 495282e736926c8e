"""Which requests of a log are asked again, how they are sampled, and when they are due."""

from __future__ import annotations

import gzip
import random
import re
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.rehearsal.traffic import (
    LONGEST_LINE,
    Asked,
    Skipped,
    count_groups,
    describe_target,
    find_group,
    make_schedule,
    parse_line,
    read_logs,
    read_time,
    sample,
)

AT = datetime(2019, 1, 22, 0, 26, 14, tzinfo=UTC).timestamp()


def combined(request: str, *, status: int = 200, agent: str = "Mozilla/5.0") -> bytes:
    head = f'198.51.100.7 - - [22/Jan/2019:03:56:14 +0330] "{request}" {status} 512'
    return f'{head} "-" "{agent}"'.encode()


def target(line: bytes) -> str:
    asked = parse_line(line)
    assert isinstance(asked, Asked), asked
    return asked.target


@pytest.mark.parametrize(
    "line",
    [
        combined("GET /a?b=1 HTTP/1.1"),
        b'198.51.100.7 - frank [22/Jan/2019:03:56:14 +0330] "GET /a?b=1 HTTP/1.1" 200 512',
        b'198.51.100.7 - a b [22/Jan/2019:03:56:14 +0330] "GET /a?b=1 HTTP/1.1" 200 - "-" "-" "-"',
        b'{"remote_addr": "198.51.100.7", "time_iso8601": "2019-01-22T03:56:14+03:30", '
        b'"request": "GET /a?b=1 HTTP/1.1", "status": 200}',
        b'{"remote_addr": "198.51.100.7", "time_local": "22/Jan/2019:03:56:14 +0330", '
        b'"request_method": "GET", "request_uri": "/a?b=1", "status": "200"}',
        b'{"level": "info", "ts": 1548116774.0, "msg": "handled request", "request": {"remote_ip": '
        b'"198.51.100.7", "method": "GET", "host": "shop.example", "uri": "/a?b=1", "headers": '
        b'{"User-Agent": ["curl"]}}, "status": 200, "size": 512}',
        b'{"msec": 1548116774000, "method": "GET", "uri": "/a?b=1", "status": 200, "client": "x"}',
    ],
)
def test_every_format_says_the_same(line: bytes) -> None:
    asked = parse_line(line)
    assert isinstance(asked, Asked), asked
    assert (asked.at, asked.method, asked.target, asked.status) == (AT, "GET", "/a?b=1", 200)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"", Skipped.UNREADABLE),
        (b"\xff\xfe\x00garbage", Skipped.UNREADABLE),
        (combined("GET / HTTP/1.1")[:50], Skipped.UNREADABLE),
        (b'{"status": 200', Skipped.UNREADABLE),
        (b"[1, 2]", Skipped.UNREADABLE),
        (b'{"time": "yesterday", "request": "GET / HTTP/1.1", "status": 200}', Skipped.UNREADABLE),
        (b'{"time": 1e400, "request": "GET / HTTP/1.1", "status": 200}', Skipped.UNREADABLE),
        (combined("GET / HTTP/1.1").replace(b"Jan", b"Jab"), Skipped.UNREADABLE),
        (b"x" * (LONGEST_LINE + 1), Skipped.TOO_LONG),
        (combined("-", status=400), Skipped.MALFORMED),
        (combined(r"\x16\x03\x01\x02\x00"), Skipped.MALFORMED),
        (combined("GET http://elsewhere.example/ HTTP/1.1"), Skipped.MALFORMED),
        (combined("GET //elsewhere.example/ HTTP/1.1"), Skipped.MALFORMED),
        (combined("CONNECT smtp.example:25 HTTP/1.1"), Skipped.MALFORMED),
        (combined(r"GET /a\x0d\x0aHost:x HTTP/1.1"), Skipped.MALFORMED),
        (combined("POST /cart HTTP/1.1"), Skipped.WRITES),
        (combined("DELETE /a HTTP/1.1"), Skipped.WRITES),
        (combined("GET /account/logout HTTP/1.1"), Skipped.ACTS),
        (combined("GET /a?x=1&action=delete HTTP/1.1"), Skipped.ACTS),
        (combined("GET /wp-cron.php?doing HTTP/1.1"), Skipped.ACTS),
        (combined("GET /../../etc/shadow HTTP/1.1"), Skipped.ATTACK),
        (combined("GET /%252e%252e%252fetc HTTP/1.1"), Skipped.ATTACK),
        (combined("GET /?q=%3Cscript%3E HTTP/1.1"), Skipped.ATTACK),
        (combined("GET /?id=1+UNION+ALL+SELECT+1 HTTP/1.1"), Skipped.ATTACK),
        (combined("GET /?x=${jndi:ldap://e} HTTP/1.1"), Skipped.ATTACK),
        (combined("GET / HTTP/1.1", agent="hostmend-rehearsal/1"), Skipped.OURS),
        (combined("GET / HTTP/1.1", status=400), Skipped.REFUSED),
        (combined("GET / HTTP/1.1", status=499), Skipped.REFUSED),
    ],
)
def test_what_is_broken_hostile_or_not_to_be_repeated_is_named(line: bytes, why: Skipped) -> None:
    assert parse_line(line) is why


def test_a_write_is_asked_only_where_its_route_is_allowed() -> None:
    allow = [re.compile(r"^POST /search$")]
    assert isinstance(parse_line(combined("POST /search HTTP/1.1"), allow=allow), Asked)
    assert parse_line(combined("POST /search/save HTTP/1.1"), allow=allow) is Skipped.WRITES
    # An allowed route is still no way in for an attack.
    wide = [re.compile("^POST /")]
    assert parse_line(combined("POST /?q=<script> HTTP/1.1"), allow=wide) is Skipped.ATTACK


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        ("/caf\u00e9", "/caf%C3%A9"),
        (r"/caf\xC3\xA9", "/caf%C3%A9"),
        (r"/caf\xE9", "/caf%E9"),
        ("/\u0645\u06af\u0627", "/%D9%85%DA%AF%D8%A7"),
        ("/a%20b?c=%D9%85", "/a%20b?c=%D9%85"),
        ("/a|b", "/a%7Cb"),
        (r"/say\"so", "/say%22so"),
        ("/page#top", "/page"),
    ],
)
def test_targets_are_sent_as_they_were_meant(written: str, asked: str) -> None:
    assert target(combined(f"GET {written} HTTP/1.1")) == asked


@given(st.binary(max_size=300))
def test_no_line_raises_and_no_target_is_unfit(line: bytes) -> None:
    for each in (line, combined("GET /") + line, b'{"request": "GET /' + line + b'"}'):
        asked = parse_line(each)
        if isinstance(asked, Asked):
            assert re.fullmatch(r"/[!-~]*", asked.target)


@given(st.text(max_size=60))
def test_a_request_made_of_any_text_cannot_break_out_of_its_line(text: str) -> None:
    asked = parse_line(combined(f"GET /{text} HTTP/1.1"))
    if isinstance(asked, Asked):
        assert re.fullmatch(r"/[!-~]*", asked.target)


@given(st.datetimes(min_value=datetime(1990, 1, 1), max_value=datetime(2090, 1, 1)))
def test_times_are_read_as_strptime_reads_them(at: datetime) -> None:
    text = at.strftime("%d/%b/%Y:%H:%M:%S") + " -0545"
    expected = datetime.strptime(text, "%d/%b/%Y:%H:%M:%S %z").timestamp()
    assert read_time(text) == expected


def test_clients_are_kept_apart_and_cannot_be_known_again() -> None:
    line = combined("GET / HTTP/1.1")
    one, same, other = (parse_line(line, salt=salt) for salt in (b"a", b"a", b"b"))
    assert isinstance(one, Asked)
    assert isinstance(same, Asked)
    assert isinstance(other, Asked)
    assert one.client == same.client != other.client
    assert "198" not in one.client


def test_files_are_read_packed_or_not_and_everything_is_counted(tmp_path: Path) -> None:
    lines = [combined(f"GET /{n} HTTP/1.1") for n in range(3)]
    plain, packed = tmp_path / "access.log", tmp_path / "access.log.2.gz"
    plain.write_bytes(b"\n".join([*lines, b"", b"y" * 50_000, b"junk", lines[0]]) + b"\r\n")
    packed.write_bytes(gzip.compress(b"\n".join(lines)))
    traffic = read_logs([packed, plain], salt=b"s")
    assert [asked.target for asked in traffic.requests] == [
        "/0",
        "/1",
        "/2",
        *("/0", "/1", "/2"),
        "/0",
    ]
    assert traffic.lines == 9
    assert traffic.skipped == Counter({Skipped.TOO_LONG: 1, Skipped.UNREADABLE: 1})
    assert traffic.lines == len(traffic.requests) + sum(traffic.skipped.values())


def test_secrets_in_a_query_are_masked_for_people() -> None:
    asked = parse_line(combined("GET /a?token=abc&page=2 HTTP/1.1"))
    assert isinstance(asked, Asked)
    assert describe_target(asked) == "GET /a?token=***&page=2"


@pytest.mark.parametrize(
    ("one", "group"),
    [
        ("/image/60844/productModel/200x200", "/image/#/productModel/#x#"),
        ("/a?b=1&c=2", "/a?b&c"),
        ("/a?c=9&b=7", "/a?b&c"),
        ("/f/6f1ed002ab5595859014ebf0951522d9/x", "/f/#/x"),
        ("/", "/"),
    ],
)
def test_requests_of_one_kind_have_one_group(one: str, group: str) -> None:
    assert find_group(one) == group


def ask(at: float, path: str) -> Asked:
    return Asked(at=at, method="GET", target=path, status=200, client="c")


def test_a_sample_keeps_the_mix_and_the_order_and_leaves_out_no_kind() -> None:
    chance = random.Random(5)
    kinds = ["/a", *["/b"] * 9, *["/c"] * 90]
    whole = [ask(n, chance.choice(kinds)) for n in range(5000)] + [ask(5000, "/rare")]
    chosen = sample(whole, 500, seed=1)
    assert len(chosen) == 500
    assert chosen == sorted(chosen, key=lambda asked: asked.at)
    assert chosen == sample(whole, 500, seed=1)
    groups, all_groups = count_groups(chosen), count_groups(whole)
    assert set(groups) == set(all_groups)
    for group, count in all_groups.items():
        assert groups[group] == pytest.approx(max(1, 500 * count / 5001), abs=2)
    assert sample(whole, 9000, seed=1) == whole


def test_more_kinds_than_there_is_room_for_still_fill_the_room() -> None:
    whole = [ask(n, f"/{'x' * n}") for n in range(30)]
    assert len(sample(whole, 10, seed=2)) == 10


def test_the_logs_own_spacing_is_kept_scaled_and_its_long_gaps_cut() -> None:
    requests = [ask(at, "/") for at in (0, 1, 3, 3, 100)]
    schedule = make_schedule(requests, speed=2.0, ceiling=1000.0, longest_gap=5.0, ramp_up=0)
    assert schedule.due == pytest.approx((0, 0.5, 1.5, 1.501, 6.5))
    assert schedule.spacing == "log"


@given(st.lists(st.floats(0, 50), min_size=1, max_size=80), st.floats(1, 200))
def test_no_schedule_exceeds_its_ceiling_or_goes_back(times: list[float], ceiling: float) -> None:
    schedule = make_schedule([ask(at, "/") for at in times], ceiling=ceiling, ramp_up=3.0)
    gaps = [b - a for a, b in zip(schedule.due, schedule.due[1:], strict=False)]
    assert all(gap >= 1 / ceiling - 1e-9 for gap in gaps)
    assert schedule.due[0] == 0.0


def test_it_begins_slowly() -> None:
    schedule = make_schedule([ask(0.001 * n, "/") for n in range(2000)], ceiling=100, ramp_up=4)
    first = sum(1 for due in schedule.due if due < 1)
    later = sum(1 for due in schedule.due if 10 <= due < 11)
    assert 50 <= first <= 70
    assert 99 <= later <= 101


def test_times_that_run_backwards_are_not_relied_on() -> None:
    requests = [ask(100 - n, "/") for n in range(50)]
    schedule = make_schedule(requests, ceiling=10, backwards=49, ramp_up=0)
    assert schedule.spacing == "even"
    assert schedule.due[-1] == pytest.approx(4.9)


def test_nothing_has_no_schedule() -> None:
    assert make_schedule([], ceiling=1).due == ()
