from __future__ import annotations

import pytest

from agent.core.text import clean_text
from agent.host.text import fit_line, redact_text
from agent.notify.text import fit_evidence


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("password=hunter2", "password=***"),
        ("DB_PASSWORD: hunter2", "DB_PASSWORD: ***"),
        ('{"api_key": "hun\\"ter2", "n": 1}', '{"api_key": ***, "n": 1}'),
        ("secret='hunter 2' x", "secret=*** x"),
        ('password="hunter2', "password=***"),
        ("password=hun,ter;2&x rest", "password=*** rest"),
        ("GET /?token=hunter2&x=1 HTTP/1.1", "GET /?token=*** HTTP/1.1"),
        ("X-Amz-Signature=hunter2", "X-Amz-Signature=***"),
        ("mysql --password hunter2 -u root", "mysql --password *** -u root"),
        ("mysql --password=hunter2 -u root", "mysql --password=*** -u root"),
        ("postgres://shop:hunter2@db/shop", "postgres://***@db/shop"),
        ("postgres://shop:hun@ter2@db/shop", "postgres://***@db/shop"),
        ("postgres://shop:hun/ter2@db/shop", "postgres://***@db/shop"),
        ("https://hunter2@example.org/", "https://***@example.org/"),
        ("Authorization: Bearer hunter2", "Authorization: ***"),
        ("authorization: Basic aHVudGVyMg==\nHost: a", "authorization: ***\nHost: a"),
        ('Authorization: Digest username="a", response="hunter2"', "Authorization: ***"),
        (
            "curl -H 'Authorization: Token hunter2' http://a/",
            "curl -H 'Authorization: ***' http://a/",
        ),
        ("sent Bearer hunter2hunter2 to a", "sent Bearer *** to a"),
        ("Set-Cookie: sid=hunter2; Path=/", "Set-Cookie: ***"),
        ("x eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.hunter2 y", "x *** y"),
        ("key AKIAIOSFODNN7EXAMPLE", "key ***"),
        ("ghp_0123456789abcdefghij0123456789abcdef", "***"),
        ("xoxb-123456789012-hunter2", "***"),
        (
            "a\n-----BEGIN RSA PRIVATE KEY-----\nhunter2\n-----END RSA PRIVATE KEY-----\nb",
            "a\n***\nb",
        ),
        ("-----BEGIN PRIVATE KEY-----\nhunter2", "***"),
    ],
)
def test_what_looks_like_a_secret_is_redacted(text, redacted):
    assert redact_text(text) == redacted
    assert "ter2" not in redacted


@pytest.mark.parametrize(
    "text",
    [
        "password authentication failed for user shop",
        "http://127.0.0.1:8080/status?mail=a@example.org",
        "checks passed: 12, bypass=no",
        "Result: exit-code",
        "used_percent: 97",
        "nginx.service: Main process exited, code=exited, status=1/FAILURE",
        "see https://example.org/docs and mail ops@example.org",
    ],
)
def test_what_is_no_secret_stays(text):
    assert redact_text(text) == text


def test_control_characters_and_terminal_sequences_are_stripped():
    text = "a\x1b[31;1mred\x1b[0m\x00\x07\x08\x7f\x9b\u202eright\u2066\r\nnext\rline\ttab \ud800"
    assert clean_text(text) == "aredright\nnext\nline\ttab "
    assert clean_text("\x1b]0;title\x07x\x1b]8;;http://a\x1b\\y\x1bcz\x1b") == "xyz"


def test_a_line_stays_one_line():
    assert fit_line("a\nb\r\n\tc  d") == "a b c d"
    assert fit_line("abcdef", 4) == "abc…"


def test_short_evidence_is_kept_whole():
    assert fit_evidence("one\n\ttwo  \n\nthree\n\n\n") == ["one", "        two", "", "three"]


def test_long_evidence_keeps_its_beginning_and_its_end():
    lines = fit_evidence("\n".join(f"line {i}" for i in range(100)))
    assert lines[:4] == [f"line {i}" for i in range(4)]
    assert lines[4] == "(80 lines left out)"
    assert lines[5:] == [f"line {i}" for i in range(84, 100)]


def test_huge_evidence_keeps_its_end_only():
    lines = fit_evidence("\n".join(f"line {i}" for i in range(100_000)))
    assert lines[0] == "(99984 lines left out)"
    assert lines[1:] == [f"line {i}" for i in range(99_984, 100_000)]


def test_a_secret_is_redacted_before_its_line_is_cut():
    line = "x" * 200 + " postgres://shop:" + "hunter2" * 20 + "@db/shop"
    [kept] = fit_evidence(line)
    assert "hunter2" not in kept
    assert len(kept) <= 240


def test_a_key_that_spans_left_out_lines_is_redacted():
    key = "\n".join(["-----BEGIN PRIVATE KEY-----", *["hunter2"] * 60, "-----END PRIVATE KEY-----"])
    assert fit_evidence(f"before\n{key}\nafter") == ["before", "***", "after"]


@pytest.mark.parametrize(
    "part",
    [
        "a-",
        "://",
        "secret",
        "password=",
        "password:'\\",
        "eyJ",
        "\x1b[",
        "\x1b]",
        "authorization:",
        "-----BEGIN PRIVATE KEY-----",
        "--token ",
        "x://a:",
        "bearer ",
        " ",
        "\n",
    ],
)
def test_hostile_text_costs_no_more_than_its_length(part):
    # Without bounds in the patterns some of these would take hours.
    fit_evidence(part * (300_000 // len(part)))
    fit_line(part * (300_000 // len(part)))
