"""Which addresses an audit asks: those of the site, within its limits, and none that act."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum

from agent.audit.address import Place, is_acting, is_looping
from agent.audit.extract import Role
from agent.audit.plan import Plan, matches_any

#: Examples that are kept of each reason why an address is not asked.
_EXAMPLES = 5
#: Addresses that are remembered as turned away, so that each is counted once.
_MOST_REMEMBERED = 100_000
_USUAL = {"http": 80, "https": 443}


class Reason(StrEnum):
    """Why an address is not asked."""

    OUTSIDE = "on other sites"
    ACTS = "may change something when asked"
    SKIPPED = "left out by the plan"
    LOOPS = "the same part of a path again and again"
    VARIANTS = "too many of one path, with the same names in their query"
    DEPTH = "too many clicks away"
    PAGES = "over the limit of addresses"
    ROBOTS = "robots.txt does not want them asked"


class Scope:
    """What belongs to the site, and what of it is asked. It counts what it turns away."""

    def __init__(self, plan: Plan, site: Place) -> None:
        self._plan = plan
        self.site = site
        self.turned_away: Counter[Reason] = Counter()
        self.examples: dict[Reason, list[str]] = {}
        self._hosts = frozenset(host.lower() for host in plan.hosts)
        self._variants: Counter[tuple[str, frozenset[str]]] = Counter()
        self._remembered: set[int] = set()

    def belongs(self, place: Place) -> bool:
        """Whether it is of the site, or of a host that the plan counts to it."""
        return self._is_of_site(place) or place.authority in self._hosts

    def _is_of_site(self, place: Place) -> bool:
        """The host, with or without `www.`; over http or https where both have their usual port."""
        site = self.site
        usual = place.port == _USUAL[place.scheme] and site.port == _USUAL[site.scheme]
        return (usual or (place.port == site.port and place.scheme == site.scheme)) and (
            place.host.removeprefix("www.") == site.host.removeprefix("www.")
        )

    def admit(self, place: Place, role: Role, depth: int, known: int) -> bool:
        """Whether a new address is asked. `known`: how many are asked already."""
        reason = self._judge(place, role, depth, known)
        if reason is not None:
            self.turn_away(reason, place.url)
        return reason is None

    def turn_away(self, reason: Reason, url: str) -> None:
        mark = hash((reason, url))
        if mark in self._remembered:
            return
        if len(self._remembered) < _MOST_REMEMBERED:
            self._remembered.add(mark)
        self.turned_away[reason] += 1
        examples = self.examples.setdefault(reason, [])
        if len(examples) < _EXAMPLES:
            examples.append(url)

    def _judge(self, place: Place, role: Role, depth: int, known: int) -> Reason | None:
        plan = self._plan
        if not self.belongs(place):
            if not plan.external:
                return Reason.OUTSIDE
        elif matches_any(plan.skip, place.target):
            return Reason.SKIPPED
        elif plan.only and not role.loads and not matches_any(plan.only, place.target):
            # What pages load is theirs, wherever it lies.
            return Reason.SKIPPED
        if is_acting(place.target):
            return Reason.ACTS
        if is_looping(place.path):
            return Reason.LOOPS
        if depth > plan.depth:
            return Reason.DEPTH
        if known >= plan.pages:
            return Reason.PAGES
        if place.query and not self._count_variant(place):
            return Reason.VARIANTS
        return None

    def _count_variant(self, place: Place) -> bool:
        names = frozenset(part.partition("=")[0] for part in place.query.split("&"))
        key = (place.root + place.path, names)
        if self._variants[key] >= self._plan.variants:
            return False
        self._variants[key] += 1
        return True
