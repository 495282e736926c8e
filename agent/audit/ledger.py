"""What an audit knows of each address: who refers to it, and what came of asking it.

Kept small: an audit may see tens of thousands of addresses, and refer to each a thousand times.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from agent.audit.address import Place
from agent.audit.extract import Role, hash_name

#: Referrers that are kept by name; all are counted.
NAMED = 3
#: Names of fragments wanted of one address, and malformed or mixed addresses, that are kept.
_MOST = 20_000
_ODD = 1000


class Fate(StrEnum):
    """What became of an address."""

    #: Not asked yet.
    WAITING = "waiting"
    #: It is there.
    FINE = "fine"
    #: It leads on to another address.
    REDIRECT = "redirect"
    #: It failed, and will be asked again.
    FAILED = "failed"
    #: It failed whenever it was asked.
    BROKEN = "broken"
    #: It is not let in, which says nothing of whether it is there.
    BLOCKED = "blocked"
    #: robots.txt, or the operator, does not want it asked.
    SPARED = "spared"


@dataclass(frozen=True, slots=True)
class Mention:
    """One place that refers to an address."""

    #: Number of the page.
    page: int
    #: Counted from 1; 0: not known.
    line: int
    role: Role


class Mentions:
    """Who refers to something: how many pages, and the first of them."""

    __slots__ = ("count", "first")

    def __init__(self) -> None:
        self.count = 0
        self.first: list[Mention] = []

    def add(self, page: int, line: int, role: Role) -> None:
        self.count += 1
        if len(self.first) < NAMED:
            self.first.append(Mention(page, line, role))


class Entry:
    """One address of the site, or one that is asked because the site refers to it."""

    __slots__ = (
        "cut",
        "depth",
        "fate",
        "fragments",
        "kind",
        "location",
        "mentions",
        "names",
        "number",
        "place",
        "roles",
        "seconds",
        "size",
        "status",
        "title",
        "tries",
        "trouble",
        "verdicts",
        "why",
    )

    def __init__(self, number: int, place: Place, depth: int) -> None:
        self.number = number
        self.place = place
        #: Clicks from where the audit began.
        self.depth = depth
        self.fate = Fate.WAITING
        #: As what it is referred to.
        self.roles: set[Role] = set()
        self.mentions = Mentions()
        #: Names within it that are referred to.
        self.fragments: dict[str, Mentions] = {}
        #: Of the last answer; 0: there was none.
        self.status = 0
        #: Why there was none: `agent.host.http.Trouble`.
        self.trouble = ""
        #: In words, what is wrong with it or was at first.
        self.why = ""
        #: Media type without parameters.
        self.kind = ""
        self.size = 0
        #: The body is longer than what was read of it.
        self.cut = False
        self.seconds = 0.0
        self.title = ""
        #: Where a redirect leads: the number of an entry, or an address that is not asked.
        self.location: int | str | None = None
        #: How often it was asked and failed.
        self.tries = 0
        #: Hashes of the names in it; None: it is no page.
        self.names: array[int] | None = None
        #: Rules that its answer breaks: (cause, severity, what was seen).
        self.verdicts: tuple[tuple[str, str, str], ...] = ()

    @property
    def url(self) -> str:
        return self.place.url

    @property
    def loaded(self) -> bool:
        """Whether pages load it, rather than lead to it."""
        return any(role.loads for role in self.roles)


class Ledger:
    """Every address of an audit, by number and by its text."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._numbers: dict[str, int] = {}
        #: What is no address, as written -> what is wrong with it, a hint, who has it.
        self.malformed: dict[str, tuple[str, str, Mentions]] = {}
        #: Things of https pages that are loaded without TLS.
        self.mixed: dict[str, Mentions] = {}

    def find(self, url: str) -> Entry | None:
        number = self._numbers.get(url)
        return None if number is None else self.entries[number]

    def add(self, place: Place, depth: int) -> Entry:
        """A new entry for an address that has none."""
        entry = Entry(len(self.entries), place, depth)
        self._numbers[place.url] = entry.number
        self.entries.append(entry)
        return entry

    def want_fragment(self, entry: Entry, name: str, page: int, line: int, role: Role) -> None:
        found = entry.fragments.get(name)
        if found is None:
            if len(entry.fragments) >= _MOST:
                return
            found = entry.fragments[name] = Mentions()
        found.add(page, line, role)

    def note_malformed(
        self, written: str, why: str, hint: str, page: int, line: int, role: Role
    ) -> None:
        if written not in self.malformed:
            if len(self.malformed) >= _ODD:
                return
            self.malformed[written] = (why, hint, Mentions())
        self.malformed[written][2].add(page, line, role)

    def note_mixed(self, url: str, page: int, line: int, role: Role) -> None:
        if url not in self.mixed:
            if len(self.mixed) >= _ODD:
                return
            self.mixed[url] = Mentions()
        self.mixed[url].add(page, line, role)

    def follow(self, entry: Entry) -> tuple[Entry, int, bool]:
        """Where redirects lead in the end, how many there are, and whether they go in a circle."""
        seen = {entry.number}
        while isinstance(entry.location, int) and entry.fate is Fate.REDIRECT:
            entry = self.entries[entry.location]
            if entry.number in seen:
                return entry, len(seen), True
            seen.add(entry.number)
        return entry, len(seen) - 1, False

    def find_lost(self, entry: Entry) -> Iterator[tuple[Entry, str]]:
        """Names that are looked for behind an address and are not there, with the page.

        Nothing is said of what is no page, or was not read to its end.
        """
        if not entry.fragments:
            return
        final, _, circle = self.follow(entry)
        if circle or final.fate is not Fate.FINE or final.names is None or final.cut:
            return
        names = set(final.names)
        for name in entry.fragments:
            if hash_name(name) not in names:
                yield final, name

    def list(self, *fates: Fate) -> Iterator[Entry]:
        return (entry for entry in self.entries if entry.fate in fates)
