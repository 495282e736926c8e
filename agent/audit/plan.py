"""What one audit is to do: the site, its limits, the operator's rules. One value that travels."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from agent.core.model import Instant, Seconds
from agent.errors import Invalid

#: Attributes that only some sites use as addresses; each is followed when it is asked for.
ALSO = ("data-src", "svg-use", "og-image")

#: Requests at once, and wait before something is asked again, where the rate has no limit.
_FAST_AT_ONCE, _FAST_PAUSE = 16, 0.2
#: Most rules or suppressions of one plan.
_MOST_RULES = 1000


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What the answers of some addresses must not be, as conditions that are true when they are."""

    #: A glob over path and query: `/product/**`.
    urls: str
    #: Cause: condition (`agent.host.conditions`).
    critical: Mapping[str, str] = field(default_factory=dict)
    warning: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Known:
    """Defects that somebody knows of and does not want to hear of, for a time."""

    #: A glob over the whole address of the broken target: `https://shop.example/old/**`; one that
    #: begins with `/` is of the audited site.
    target: str
    #: Why they are left as they are.
    reason: str
    #: From this instant on they are spoken of again.
    until: Instant
    #: Only these kinds of defect; empty: all.
    kinds: tuple[str, ...] = ()
    #: Only where every page that refers to it matches this glob; empty: wherever it is.
    page: str = ""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One audit. `url` may hold a secret and is never shown as it is."""

    url: str = field(repr=False)
    #: Connect to this address, `127.0.0.1:443`, whatever the site's own is.
    connect: str = ""
    #: Further hosts that belong to the site, `cdn.example` or `cdn.example:8443`.
    hosts: tuple[str, ...] = ()
    #: Globs of paths: only these are asked; empty: all.
    only: tuple[str, ...] = ()
    #: Globs of paths that are not asked.
    skip: tuple[str, ...] = ()
    #: Ask for what is linked on other sites too, without reading it.
    external: bool = False
    #: Keep to robots.txt.
    robots: bool = True
    #: Judge whether pages have what links lead to within them.
    fragments: bool = True
    #: Of `ALSO`.
    also: tuple[str, ...] = ()
    #: Requests a second to one host; 0: as many as it takes.
    max_rate: float = 10.0
    #: Requests at once to one host.
    at_once: int = 4
    verify: bool = True
    #: Certificates of the authorities to trust, PEM; empty: the system's.
    ca_file: str = ""
    #: A file of header lines (`Cookie: a=b`) that are sent to the site and to nobody else.
    credentials: str = ""

    # Limits
    pages: int = 10_000
    depth: int = 50
    #: Bytes of one body, unpacked or not.
    body: int = 8 * 1024 * 1024
    seconds: Seconds = 3600.0
    #: Longest wait for one answer.
    answer: Seconds = 30.0
    #: Addresses of one path with the same names in their query.
    variants: int = 100
    redirects: int = 10

    # Trying again
    #: How often an address is asked again before it is called broken.
    retries: int = 2
    #: Wait before it is first asked again; it triples each time.
    pause: Seconds = 2.0
    #: Longest wait that a server may ask for (Retry-After).
    patience: Seconds = 60.0

    # Budgets; 0: none
    slow: Seconds = 5.0
    #: Bytes of a page, or of what it loads.
    large: int = 5 * 1024 * 1024
    #: Time that a certificate must last.
    certificate: Seconds = 14 * 86400.0

    rules: tuple[Rule, ...] = ()
    known: tuple[Known, ...] = ()

    def pause_before(self, attempt: int) -> Seconds:
        """How long to wait before something is asked again, for the first (0), second ... time."""
        return self.pause * 3.0**attempt

    @property
    def digest(self) -> str:
        """Which plan it is: what was seen under one says nothing under another."""
        return hashlib.sha256(write_plan(self)).hexdigest()[:16]


def choose_pace(max_rate: float, at_once: int | None = None) -> dict[str, Any]:
    """The fields of a plan that follow from how fast it may be: a plan without a limit on its rate
    is in a hurry."""
    fast = max_rate == 0
    return {
        "max_rate": max_rate,
        "at_once": at_once or (_FAST_AT_ONCE if fast else Plan.at_once),
        "pause": _FAST_PAUSE if fast else Plan.pause,
    }


def write_plan(plan: Plan) -> bytes:
    return json.dumps(asdict(plan), separators=(",", ":"), sort_keys=True).encode()


def read_plan(value: Mapping[str, Any]) -> Plan:
    """Raises Invalid for what is none."""
    try:
        lists = {
            name: tuple(value[name]) for name in ("hosts", "only", "skip", "also") if name in value
        }
        rules = tuple(Rule(**rule) for rule in value.get("rules", ()))
        known = tuple(
            Known(**{**each, "kinds": tuple(each.get("kinds", ()))})
            for each in value.get("known", ())
        )
        if len(rules) > _MOST_RULES or len(known) > _MOST_RULES:
            raise ValueError(f"more than {_MOST_RULES} rules")
        return Plan(**{**value, **lists, "rules": rules, "known": known})
    except (TypeError, ValueError) as error:
        raise Invalid(f"cannot read the plan of an audit: {error}") from error


@functools.lru_cache(maxsize=1024)
def compile_glob(glob: str) -> Callable[[str], object]:
    """A match of a whole text: `*` is anything within one part of a path, `**` anything at all,
    `?` one character but `/`."""
    parts = re.split(r"(\*\*|\*|\?)", glob)
    meaning = {"**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(meaning.get(part, re.escape(part)) for part in parts), re.S).fullmatch


def matches_any(globs: tuple[str, ...], text: str) -> bool:
    return any(compile_glob(glob)(text) for glob in globs)
