"""What an audit found, as values that travel from the child that found it to whoever wants it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

from agent.core.model import Instant, Seconds, Status

#: The format of a result; a reader refuses another one.
FORMAT = 1


class Kind(StrEnum):
    """What is wrong."""

    #: The server fails: 5xx.
    ERROR = "error"
    #: Nothing is there: 4xx.
    MISSING = "missing"
    #: There is no answer.
    UNANSWERED = "unanswered"
    #: No TLS connection comes about.
    TLS = "tls"
    #: Redirects go in a circle, too far, or nowhere.
    REDIRECTS = "redirects"
    #: It answers 200, and says in words that nothing is there.
    SOFT_404 = "soft-404"
    #: What is written is no address.
    MALFORMED = "malformed"
    #: The page is there, and the place in it is not.
    FRAGMENT = "fragment"
    #: A page with TLS loads something without.
    MIXED = "mixed"
    #: A certificate ends soon.
    CERTIFICATE = "certificate"
    SLOW = "slow"
    LARGE = "large"
    #: A rule of the operator's own is broken.
    RULE = "rule"
    #: It was fine before, and now does not let the audit in.
    BLOCKED = "blocked"

    @property
    def status(self) -> Status:
        """How bad it is by itself."""
        return Status.CRITICAL if self in _BROKEN else Status.WARNING


_BROKEN = frozenset(
    {Kind.ERROR, Kind.MISSING, Kind.UNANSWERED, Kind.TLS, Kind.REDIRECTS, Kind.SOFT_404}
)

#: The meaning of each kind, for reports and documentation.
MEANINGS: Mapping[Kind, str] = {
    Kind.ERROR: "The server fails (5xx).",
    Kind.MISSING: "Nothing is there (404 and other 4xx).",
    Kind.UNANSWERED: "There is no answer: refused, timed out, cut off, no such name.",
    Kind.TLS: "No TLS connection comes about.",
    Kind.REDIRECTS: "Redirects go in a circle, too far, or nowhere.",
    Kind.SOFT_404: "It answers 200, and says in words that nothing is there.",
    Kind.MALFORMED: "What is written is no address.",
    Kind.FRAGMENT: "The page is there, and the place in it that a link leads to is not.",
    Kind.MIXED: "A page with TLS loads something without it.",
    Kind.CERTIFICATE: "The site's certificate ends soon.",
    Kind.SLOW: "It takes longer than `slow`, each time it is asked.",
    Kind.LARGE: "It is larger than `large`.",
    Kind.RULE: "A rule of the configuration is broken.",
    Kind.BLOCKED: "It was fine in an earlier audit, and now does not let the audit in.",
}


@dataclass(frozen=True, kw_only=True)
class Referrer:
    """One place that refers to something broken."""

    page: str
    #: Counted from 1; None: not known.
    line: int | None
    #: `agent.audit.extract.Role`.
    role: str


@dataclass(frozen=True, kw_only=True)
class Defect:
    """One broken target, with everybody who refers to it."""

    kind: Kind
    #: Its address, with a fragment where that is what is missing; secrets are masked.
    target: str
    status: Status
    #: One sentence without a full stop.
    why: str
    #: What was probably meant.
    hint: str = ""
    #: The rule that is broken.
    rule: str = ""
    #: Pages that refer to it, and the first of them.
    referrers_count: int = 0
    referrers: tuple[Referrer, ...] = ()
    #: When an audit first saw it; None: nobody compared.
    since: Instant | None = None
    #: Not in the audit that this one was compared with.
    new: bool = True
    #: The audit before saw it well.
    regressed: bool = False
    #: Somebody knows of it: why it is left as it is.
    known: str = ""
    #: What was said of it is no longer so: until when somebody wanted not to hear of it.
    lapsed: str = ""

    @property
    def key(self) -> str:
        """Its identity, from one audit to the next."""
        rule = f":{self.rule}" if self.rule else ""
        return f"{self.kind}{rule} {self.target}"


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One address and what came of it."""

    url: str
    fate: str
    status: int
    #: Media type; empty when nobody said.
    type: str
    title: str
    #: Bytes; 0: not known.
    size: int
    seconds: Seconds
    depth: int
    #: Where it redirects to; empty when it does not.
    redirect: str
    referrers_count: int
    #: Why it is not fine, or was not at first.
    why: str
    #: Times that it failed before it did not.
    tries: int


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What one audit found."""

    #: The first address, where it led to; secrets are masked.
    site: str
    began: Instant
    ended: Instant
    #: `agent.audit.crawl.Ending`.
    ending: str
    #: Why it ended before its time.
    why: str = ""
    #: Why nothing answered: `agent.host.http.Trouble`, and which addresses were tried.
    trouble: str = ""
    addresses: tuple[str, ...] = ()
    #: urls, pages, requests, bytes, retried, transient, blocked, ...
    counts: Mapping[str, int] = field(default_factory=dict)
    #: Those that count, worst first, then those that are known.
    defects: tuple[Defect, ...] = ()
    #: When the audit that it was compared with began; None: there was none.
    compared: Instant | None = None
    #: Broken before, and no longer.
    fixed: tuple[str, ...] = ()
    #: What was not done, and why.
    notes: tuple[str, ...] = ()
    #: Subject of a finding -> numbers of its defects in `defects`; none: it was not seen this time.
    groups: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    #: Subjects that were over lately, and still are.
    mended: tuple[str, ...] = ()
    #: For the next audit: `agent.audit.changes.dump_book`.
    book: Mapping[str, Any] = field(default_factory=dict)
    urls: tuple[Seen, ...] = ()

    @property
    def complete(self) -> bool:
        return self.ending == "complete"

    @property
    def found(self) -> tuple[Defect, ...]:
        """Defects that nobody has said to know of."""
        return tuple(defect for defect in self.defects if not defect.known)

    @property
    def new(self) -> tuple[Defect, ...]:
        """Those that the audit it was compared with did not have."""
        return tuple(defect for defect in self.found if defect.new)


def write_audit(audit: Audit) -> Iterator[dict[str, Any]]:
    """As rows that fit a line each: addresses and defects first, the whole last."""
    for seen in audit.urls:
        yield {"seen": asdict(seen)}
    for defect in audit.defects:
        yield {"defect": asdict(defect)}
    rest = asdict(replace(audit, urls=(), defects=()))
    del rest["urls"], rest["defects"]
    yield {"audit": rest}


class AuditReader:
    """Puts the rows of `write_audit` together again."""

    def __init__(self) -> None:
        self._urls: list[Seen] = []
        self._defects: list[Defect] = []
        #: Whole, once its last row was taken.
        self.audit: Audit | None = None

    def take(self, row: Mapping[str, Any]) -> None:
        """Raises ValueError, TypeError or KeyError for what is no row."""
        if "seen" in row:
            self._urls.append(Seen(**row["seen"]))
        elif "defect" in row:
            self._defects.append(read_defect(row["defect"]))
        elif "audit" in row:
            self.audit = _read_rest(row["audit"], self._urls, self._defects)


def read_defect(row: Mapping[str, Any]) -> Defect:
    return Defect(
        **{
            **row,
            "kind": Kind(row["kind"]),
            "status": Status(row["status"]),
            "referrers": tuple(Referrer(**each) for each in row["referrers"]),
        }
    )


def _read_rest(row: Mapping[str, Any], urls: list[Seen], defects: list[Defect]) -> Audit:
    return Audit(
        **{
            **row,
            "addresses": tuple(row["addresses"]),
            "fixed": tuple(row["fixed"]),
            "notes": tuple(row["notes"]),
            "mended": tuple(row["mended"]),
            "groups": {name: tuple(numbers) for name, numbers in row["groups"].items()},
            "urls": tuple(urls),
            "defects": tuple(defects),
        }
    )


def dump_audit(audit: Audit) -> str:
    """As one JSON text, which `load_audit` reads back. Without the book, which follows from it."""
    whole = {"format": FORMAT, **asdict(audit)}
    del whole["book"]
    return json.dumps(whole, indent=2, ensure_ascii=False)


def load_audit(text: str) -> Audit:
    """Raises ValueError for what is no result of an audit."""
    value = json.loads(text)
    if not isinstance(value, dict) or value.pop("format", None) != FORMAT:
        raise ValueError("it is no result of an audit in a format that this hostmend reads")
    try:
        defects = [read_defect(row) for row in value["defects"]]
        return _read_rest(value, [Seen(**row) for row in value["urls"]], defects)
    except (TypeError, KeyError) as error:
        raise ValueError(f"it is no whole result of an audit: {error}") from error
