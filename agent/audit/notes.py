"""Puts what pages hold into the ledger: every address that they refer to, and from where."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import unquote

from agent.audit.address import Malformed, Place, resolve_address
from agent.audit.extract import Content, Link, Role
from agent.audit.ledger import Entry, Ledger
from agent.audit.plan import Plan
from agent.audit.scope import Scope

#: Directories whose addresses are remembered as resolved, and how many of each.
_MOST_BASES, _MOST_RESOLVED = 500, 5000

_Resolved = Place | Malformed | None


class Notes:
    """Writes into a ledger; `release` is called with each entry that is new."""

    def __init__(
        self, plan: Plan, ledger: Ledger, scope: Scope, release: Callable[[Entry], None]
    ) -> None:
        self._plan = plan
        self._ledger = ledger
        self._scope = scope
        self._release = release
        self._resolved: dict[str, dict[str, _Resolved]] = {}

    def note_content(self, page: Entry, place: Place, content: Content) -> None:
        """Everything that a page refers to gets an entry, and a mention there."""
        page.names, page.title = content.names, content.title
        base = place
        if content.base:
            found = resolve_address(place, content.base.partition("#")[0])
            if isinstance(found, Place):
                base = found
        known = self._remember_base(base)
        seen: set[object] = set()
        for link in content.links:
            path, _, fragment = link.address.partition("#")
            path = path.strip()
            target: _Resolved
            if not path:
                # Only links lead to the page itself; whatever is loaded from nowhere is nothing.
                target = base if link.role is Role.LINK else None
            elif path.startswith("?"):
                target = resolve_address(base, path)
            elif path in known:
                target = known[path]
            else:
                target = known[path] = resolve_address(base, path)
            if isinstance(target, Place):
                self._note_mixed(page, place, target, link, seen)
                self.note_link(page, target, fragment, link, seen)
            elif target is not None and link.address not in seen:
                seen.add(link.address)
                self._ledger.note_malformed(
                    link.address, target.why, target.hint, page.number, link.line, link.role
                )

    def _remember_base(self, base: Place) -> dict[str, _Resolved]:
        """Pages of one directory share what their addresses mean."""
        directory = base.root + base.path.rpartition("/")[0]
        if len(self._resolved) > _MOST_BASES:
            self._resolved.clear()
        known = self._resolved.setdefault(directory, {})
        if len(known) > _MOST_RESOLVED:
            known.clear()
        return known

    def _note_mixed(
        self, page: Entry, place: Place, target: Place, link: Link, seen: set[object]
    ) -> None:
        if place.scheme == "https" and target.scheme == "http" and link.role.loads:
            mark = ("mixed", target.url)
            if mark not in seen:
                seen.add(mark)
                self._ledger.note_mixed(target.url, page.number, link.line, link.role)

    def note_link(
        self, page: Entry, place: Place, fragment: str, link: Link, seen: set[object]
    ) -> None:
        """One reference. `seen`: what this page was already noted to refer to."""
        role = link.role
        target = self._ledger.find(place.url)
        if target is None:
            depth = page.depth + (0 if role.loads or role is Role.SITEMAP else 1)
            if not self._scope.admit(place, role, depth, len(self._ledger.entries)):
                return
            target = self._ledger.add(place, depth)
            target.roles.add(role)
            self._release(target)
        else:
            target.roles.add(role)
        if target.number not in seen:
            seen.add(target.number)
            target.mentions.add(page.number, link.line, role)
        if fragment and role is Role.LINK and self._plan.fragments:
            name = read_fragment(fragment)
            if name and (target.number, name) not in seen:
                seen.add((target.number, name))
                self._ledger.want_fragment(target, name, page.number, link.line, role)

    def note_redirect(self, entry: Entry, place: Place) -> None:
        """Where an address redirects to."""
        target = self._ledger.find(place.url)
        if target is None:
            known = len(self._ledger.entries)
            if not self._scope.admit(place, Role.REDIRECT, entry.depth, known):
                entry.location = place.url
                return
            target = self._ledger.add(place, entry.depth)
            target.roles |= (entry.roles - {Role.START}) or {Role.REDIRECT}
            self._release(target)
        entry.location = target.number


def read_fragment(fragment: str) -> str:
    """The name in a page that a fragment leads to; empty for one that every page has.

    `#top` and text fragments (https://wicg.github.io/scroll-to-text-fragment/) are always there;
    `#!` and `#/` are for the page's own program.
    """
    name = unquote(fragment.partition(":~:")[0])
    return "" if name.lower() == "top" or name.startswith(("!", "/")) else name
