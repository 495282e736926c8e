"""Requests from access logs: what users really ask, made fit to be asked again.

Read are the combined and common formats of nginx and Apache, and the JSON lines of nginx and Caddy.
What is broken, hostile or must not be repeated is counted with its reason and never sent.

Sources of the formats: https://httpd.apache.org/docs/2.4/logs.html#accesslog,
https://nginx.org/en/docs/http/ngx_http_log_module.html, https://caddyserver.com/docs/caddyfile/directives/log.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

from agent.core.model import Instant, Seconds
from agent.host.url import mask_query

#: Requests of a rehearsal carry this header, and logs that show its agent's name are passed over.
TAG = "X-Hostmend-Rehearsal"
AGENT = "hostmend-rehearsal"
#: Lines are looked at no further than this, in bytes.
LONGEST_LINE = 16_384
#: A target is no longer than this, in characters; servers refuse longer ones.
LONGEST_TARGET = 4_096

_LINE = re.compile(
    rb"(?P<client>\S+) \S+ (?P<user>.*?) \[(?P<time>[^\]]{20,40})\] "
    rb'"(?P<request>(?:[^"\\]|\\.)*)" (?P<status>\d{3}) (?P<size>\d+|-)'
    rb'(?: "(?P<referrer>(?:[^"\\]|\\.)*)" "(?P<agent>(?:[^"\\]|\\.)*)")?'
)
_REQUEST = re.compile(r"(?P<method>[A-Z]{3,10}) (?P<target>\S+)(?: HTTP/\d(?:\.\d)?)?", re.ASCII)
_ESCAPED = re.compile(r"\\x([0-9A-Fa-f]{2})|\\([\"\\])")
_MONTHS = {
    name: number
    for number, name in enumerate(
        ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"), 1
    )
}
_TIME = re.compile(r"(\d{2})/([A-Z][a-z]{2})/(\d{4}):(\d{2}):(\d{2}):(\d{2}) ([+-])(\d{2})(\d{2})")
#: Paths whose very reading changes something, or ends somebody's session.
_ACTS = re.compile(
    r"(?i)/(?:log-?out|sign-?out|delete|remove|unsubscribe|destroy|cart/add|add-to-cart|checkout)"
    r"(?:[/.?;]|$)|/wp-cron\.php|[?&](?:action|do|cmd|logout|delete|add-to-cart)="
)
#: What only an attacker asks: traversal, script and SQL injection, known holes.
_ATTACK = re.compile(
    rb"(?i)\.\./|\.\.\\|%00|\x00|<script|javascript:|union[\s+/*]+(?:all[\s+/*]+)?select|"
    rb"select[\s+].+[\s+]from[\s+]|sleep\(\d|benchmark\(|etc/passwd|/proc/self|cmd\.exe|"
    rb"\$\{jndi|\bwget[\s+]http|\bcurl[\s+]http|base64_decode|eval\(|/\.env\b|/\.git/|"
    rb"/phpmyadmin|/wp-login\.php|/xmlrpc\.php|/cgi-bin/"
)
_JSON_KEYS = {
    "client": ("remote_addr", "client_ip", "client", "remote_ip"),
    "time": ("time_iso8601", "time_local", "time", "timestamp", "msec", "ts", "@timestamp"),
    "request": ("request",),
    "method": ("request_method", "method"),
    "target": ("request_uri", "uri", "path"),
    "status": ("status",),
    "agent": ("http_user_agent", "user_agent", "agent"),
}


class Skipped(StrEnum):
    """Why a line is not sent."""

    #: It is in no known format, or cut off.
    UNREADABLE = "unreadable"
    TOO_LONG = "too long"
    #: Its request is none that HTTP knows.
    MALFORMED = "malformed request"
    #: Not GET or HEAD, and its route is not allowed.
    WRITES = "not GET or HEAD"
    #: Reading it would change something.
    ACTS = "acts when read"
    ATTACK = "looks like an attack"
    #: An earlier rehearsal asked it.
    OURS = "from a rehearsal"
    #: The answer in the log says that the request itself was wrong, so there is nothing to compare.
    REFUSED = "refused in the log"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request of the log."""

    at: Instant
    method: str
    #: Path and query as they were sent; only ASCII.
    target: str
    status: int
    #: Who asked, as a hash: enough to keep sessions together, not to find a person.
    client: str


@dataclass(kw_only=True)
class Traffic:
    """What was read of the logs."""

    requests: list[Asked] = field(default_factory=list)
    lines: int = 0
    skipped: Counter[Skipped] = field(default_factory=Counter)
    #: Requests that were asked out of order in the log: its times are not to be relied on.
    backwards: int = 0


def read_logs(
    paths: Sequence[Path], *, allow: Sequence[re.Pattern[str]] = (), salt: bytes
) -> Traffic:
    """Everything fit to be asked in the files, plain or gzipped, in their order.

    `allow`: writes are let through where one of these matches `METHOD target`. `salt` makes hashes
    of clients those of this reading only. Raises OSError, also for a file that is no gzip file
    though its name says so.
    """
    traffic = Traffic()
    latest = -float("inf")
    for path in paths:
        for line in _read_lines(path):
            traffic.lines += 1
            read = parse_line(line, allow=allow, salt=salt)
            if isinstance(read, Skipped):
                traffic.skipped[read] += 1
                continue
            traffic.backwards += read.at < latest
            latest = max(latest, read.at)
            traffic.requests.append(read)
    return traffic


def _read_lines(path: Path) -> Iterator[bytes]:
    """Lines without their end; of one that is too long, more of its beginning than is looked at."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        stream: Any = gzip.GzipFile(fileobj=file) if packed else file
        while line := stream.readline(LONGEST_LINE + 1):
            if len(line) > LONGEST_LINE and not line.endswith(b"\n"):
                yield line
                while (rest := stream.readline(LONGEST_LINE)) and not rest.endswith(b"\n"):
                    pass
            elif line.strip():
                yield line.rstrip(b"\r\n")


def parse_line(
    line: bytes, *, allow: Sequence[re.Pattern[str]] = (), salt: bytes = b""
) -> Asked | Skipped:
    """The request of one line, or why it is not asked again. Never raises."""
    if len(line) > LONGEST_LINE:
        return Skipped.TOO_LONG
    parts = _parse_json(line) if line.lstrip().startswith(b"{") else _parse_text(line)
    if parts is None:
        return Skipped.UNREADABLE
    at, request, status, client, agent = parts
    if AGENT in agent:
        return Skipped.OURS
    found = _REQUEST.fullmatch(request)
    if found is None:
        return Skipped.MALFORMED
    method, target = found["method"], _make_target(found["target"])
    if target is None:
        return Skipped.MALFORMED
    if (why := _judge(method, target, allow)) is not None:
        return why
    if status in (400, 405, 408, 413, 414, 431, 444, 494, 495, 496, 497, 499):
        return Skipped.REFUSED
    digest = hashlib.blake2b(client.encode("utf-8", "replace"), key=salt[:64], digest_size=6)
    return Asked(at=at, method=method, target=target, status=status, client=digest.hexdigest())


def _judge(method: str, target: str, allow: Sequence[re.Pattern[str]]) -> Skipped | None:
    if _ATTACK.search(target.encode()) or _ATTACK.search(_unquote_twice(target)):
        return Skipped.ATTACK
    allowed = any(pattern.search(f"{method} {target}") for pattern in allow)
    if method not in ("GET", "HEAD") and not allowed:
        return Skipped.WRITES
    if _ACTS.search(target) and not allowed:
        return Skipped.ACTS
    return None


def _unquote_twice(target: str) -> bytes:
    return unquote_to_bytes(unquote_to_bytes(target.replace("+", " ")))


def _make_target(written: str) -> str | None:
    """Path and query in ASCII, from text of one letter a byte; None for what is no path."""
    text = _ESCAPED.sub(lambda m: chr(int(m[1], 16)) if m[1] else m[2], written)
    if not text.startswith("/") or text.startswith("//") or len(text) > LONGEST_TARGET:
        return None
    raw = text.encode("latin-1")
    if any(byte < 0x21 or byte == 0x7F for byte in raw):
        return None
    quoted = "".join(chr(b) if b < 0x80 and b not in b'"<>\\^`{|}' else f"%{b:02X}" for b in raw)
    return quoted.partition("#")[0]


_Parts = tuple[Instant, str, int, str, str]


def _parse_text(line: bytes) -> _Parts | None:
    found = _LINE.match(line)
    if found is None:
        return None
    try:
        at = read_time(found["time"].decode("ascii"))
    except ValueError:
        return None
    agent = (found["agent"] or b"").decode("utf-8", "replace")
    # One letter a byte, so that what was sent is kept whatever its character set.
    request = found["request"].decode("latin-1")
    return at, request, int(found["status"]), found["client"].decode("latin-1"), agent


def _parse_json(line: bytes) -> _Parts | None:
    try:
        row = json.loads(line.decode("utf-8", "surrogateescape"))
    except ValueError:
        return None
    if not isinstance(row, dict):
        return None
    inner = row.get("request")
    flat: dict[str, Any] = {**row, **inner} if isinstance(inner, dict) else row
    if isinstance(inner, dict):
        headers = inner.get("headers")
        names = headers.get("User-Agent") if isinstance(headers, dict) else None
        flat["user_agent"] = names[0] if isinstance(names, list) and names else ""
        flat.pop("request", None)
    try:
        at = _read_json_time(_pick(flat, "time"))
        status = int(_pick(flat, "status"))
        request = _pick(flat, "request", "") or f"{_pick(flat, 'method')} {_pick(flat, 'target')}"
    except (KeyError, ValueError, TypeError, OverflowError):
        return None
    client, agent = _pick(flat, "client", ""), _pick(flat, "agent", "")
    try:
        sent = str(request).encode("utf-8", "surrogateescape").decode("latin-1")
    except UnicodeEncodeError:
        return None
    return at, sent, status, str(client), str(agent)


def _pick(row: Mapping[str, Any], what: str, default: Any = None) -> Any:
    for key in _JSON_KEYS[what]:
        if row.get(key) not in (None, ""):
            return row[key]
    if default is None:
        raise KeyError(what)
    return default


def _read_json_time(value: Any) -> Instant:
    if isinstance(value, int | float) and not isinstance(value, bool):
        # Milliseconds and nanoseconds are told from seconds by their size.
        seconds = float(value)
        for _ in range(3):
            seconds = seconds / 1000 if seconds > 1e11 else seconds
        if not 0 <= seconds < 1e11:
            raise ValueError("no time of this or the last century")
        return seconds
    text = str(value)
    if _TIME.fullmatch(text):
        return read_time(text)
    if re.fullmatch(r"\d{9,11}(\.\d+)?", text):
        return float(text)
    return datetime.fromisoformat(text).timestamp()


def read_time(text: str) -> Instant:
    """Seconds since the epoch of `22/Jan/2019:03:56:14 +0330`. Raises ValueError.

    Its own code, because strptime is a tenth as fast and reads names in the locale's language.
    """
    found = _TIME.fullmatch(text)
    if found is None or found[2] not in _MONTHS:
        raise ValueError(f"{text!r} is no time of an access log")
    day, _, year, hour, minute, second, sign, hours, minutes = found.groups()
    at = _days(int(year), _MONTHS[found[2]], int(day)) * 86400
    at += int(hour) * 3600 + int(minute) * 60 + int(second)
    offset = int(hours) * 3600 + int(minutes) * 60
    return float(at - offset if sign == "+" else at + offset)


_known_days: dict[tuple[int, int, int], int] = {}


def _days(year: int, month: int, day: int) -> int:
    """Days since the epoch; logs ask for few of them."""
    key = (year, month, day)
    if key not in _known_days:
        _known_days[key] = datetime(year, month, day).toordinal() - 719_163
    return _known_days[key]


def describe_target(asked: Asked) -> str:
    """Method and target for people, values of secrets masked."""
    return f"{asked.method} {mask_query(asked.target)}"


def find_group(target: str) -> str:
    """What targets of one kind have in common: `/image/60844/x?id=7` -> `/image/#/x?id`.

    Numbers, hashes and long words in a path are one kind; of a query only the names count.
    """
    path, _, query = target.partition("?")
    parts = [_ONE_OF_MANY.sub("#", part) if part else part for part in path.split("/")]
    names = sorted({part.partition("=")[0] for part in query.split("&") if part})
    return "/".join(parts[:6]) + (f"?{'&'.join(names)}" if names else "")


_ONE_OF_MANY = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F-]{20,}|[0-9a-fA-F]{16,}|\d+|[^/]{40,}")


def sample(requests: Sequence[Asked], count: int, *, seed: int) -> list[Asked]:
    """So many requests with the mix of the whole: each group keeps its share, in the log's order.

    A group that is in the log at all is in the sample, as far as there is room: rare pages break
    as well as frequent ones.
    """
    if count >= len(requests):
        return list(requests)
    chance = random.Random(seed)  # noqa: S311 - a sample, no secret
    groups: dict[str, list[int]] = defaultdict(list)
    for place, asked in enumerate(requests):
        groups[f"{asked.method} {find_group(asked.target)}"].append(place)
    places: set[int] = set()
    for members in sorted(groups.values(), key=len):
        share = max(1, round(count * len(members) / len(requests)))
        places.update(chance.sample(members, min(share, len(members))))
    chosen = sorted(places)
    if len(chosen) > count:
        chosen = sorted(chance.sample(chosen, count))
    elif len(chosen) < count:
        rest = [place for place in range(len(requests)) if place not in places]
        chosen = sorted([*chosen, *chance.sample(rest, count - len(chosen))])
    return [requests[place] for place in chosen]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """When each request is due, in seconds from the beginning."""

    due: tuple[Seconds, ...]
    #: Requests a second, on average.
    rate: float
    #: Where the times came from: `log`, or `even` where the log's are not to be relied on.
    spacing: str


def make_schedule(
    requests: Sequence[Asked],
    *,
    speed: float = 1.0,
    ceiling: float,
    longest_gap: Seconds = 2.0,
    ramp_up: Seconds = 5.0,
    backwards: int = 0,
) -> Schedule:
    """Times with the log's own spacing, so many times faster, never above `ceiling` a second.

    Gaps longer than `longest_gap` are cut to it. At the beginning the ceiling grows over `ramp_up`.
    A log whose times run backwards (`backwards` of them) is spread evenly.
    """
    if not requests:
        return Schedule(due=(), rate=0.0, spacing="log")
    even = backwards > len(requests) / 100 or requests[-1].at <= requests[0].at
    due: list[Seconds] = []
    log_time = at = 0.0
    before = requests[0].at
    for number, asked in enumerate(requests):
        if even:
            log_time = number / ceiling
        else:
            log_time += min(longest_gap, max(0.0, asked.at - before) / speed)
            before = max(before, asked.at)
        # Half the ceiling at first, all of it once the ramp is over.
        pace = ceiling * (1.0 if ramp_up <= 0 else min(1.0, 0.5 + at / ramp_up / 2))
        at = log_time if not due else max(log_time, due[-1] + 1 / pace)
        due.append(at)
    return Schedule(
        due=tuple(due),
        rate=len(due) / due[-1] if due[-1] > 0 else ceiling,
        spacing="even" if even else "log",
    )


def count_groups(requests: Iterable[Asked]) -> Counter[str]:
    """How often each kind of request occurs."""
    return Counter(f"{asked.method} {find_group(asked.target)}" for asked in requests)
