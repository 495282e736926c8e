"""The crawl: asks for every address of a site, reads what pages hold, and asks for that.

What fails is asked again later, while the rest goes on, and only what failed each time is broken.
"""

from __future__ import annotations

import asyncio
import re
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any

from agent.audit.address import Malformed, Place, read_place, resolve_address
from agent.audit.extract import Content, Link, Role, read_style
from agent.audit.fetch import Answer, Fetcher
from agent.audit.journal import Journal, Record
from agent.audit.lanes import REDIRECTS, Lane, Lanes
from agent.audit.ledger import Entry, Fate, Ledger
from agent.audit.notes import Notes
from agent.audit.plan import Plan, Rule, compile_glob
from agent.audit.readers import Readers
from agent.audit.scope import Reason, Scope
from agent.audit.sitemap import LONGEST as LONGEST_SITEMAP
from agent.audit.sitemap import read_sitemap
from agent.core.model import Seconds
from agent.host.conditions import parse_condition
from agent.host.connection import Failure

#: They say that we may not come in, and not that nothing is there.
_CLOSED = {
    401: "it asks for a login",
    402: "it asks for payment",
    403: "it does not let this audit in",
    407: "a proxy asks for a login",
    451: "it is withheld for legal reasons",
}
_PAGES = frozenset({"text/html", "application/xhtml+xml"})
#: Too much is asked, or the site is busy.
_BUSY = frozenset({429, 503})
#: Roles of which only the head matters, unless a rule wants more.
_HEADS = frozenset({Role.IMAGE, Role.MEDIA, Role.FONT, Role.SCRIPT})
_FILE = re.compile(
    r"\.(?:pdf|zip|gz|tgz|bz2|xz|zst|7z|rar|tar|deb|rpm|dmg|exe|msi|iso|img|jar|apk|epub|mobi"
    r"|docx?|xlsx?|pptx?|odt|ods|odp|csv|mp[34]|m4a|mov|avi|webm|ogg|wav|flac"
    r"|jpe?g|png|gif|webp|avif|svg|ico|tiff?|woff2?|ttf|otf|eot)$",
    re.IGNORECASE,
)
#: So many in a row without a good answer, and the site itself is asked how it is.
_STREAK = 20
#: Sitemaps that are read.
_MOST_SITEMAPS = 200
#: Requests at once, over all hosts.
_AT_ONCE = 64


class Ending(StrEnum):
    """How a crawl ended."""

    COMPLETE = "complete"
    #: The time was over before everything was asked.
    TIME = "time"
    #: The site does not answer, or no longer.
    DOWN = "down"
    #: The site lets this audit in nowhere.
    BLOCKED = "blocked"
    #: The first address redirects to another site.
    ELSEWHERE = "elsewhere"


@dataclass(frozen=True, kw_only=True)
class End:
    """How a crawl ended, and why if that was before its time."""

    ending: Ending
    why: str = ""
    #: What came of asking, where nothing did.
    failure: Failure | None = None


class _Ended(Exception):
    """The crawl is over before its time. Stays within this module."""

    def __init__(self, ending: Ending, why: str, failure: Failure | None = None) -> None:
        super().__init__(why)
        self.end = End(ending=ending, why=why, failure=failure)


async def _nothing(_place: Place) -> None:
    pass


def _no_body(_kind: str) -> bool:
    return False


class Crawl:
    """One crawl. `run` does it; then the ledger knows everything."""

    def __init__(
        self,
        plan: Plan,
        fetcher: Fetcher,
        readers: Readers,
        *,
        journal: Journal | None = None,
        prepare: Callable[[Place], Awaitable[None]] = _nothing,
    ) -> None:
        """`prepare` is awaited for each host of the site before it is crawled."""
        self.plan = plan
        self.ledger = Ledger()
        self.scope = Scope(plan, read_place(plan.url))
        self.counts: Counter[str] = Counter()
        self._fetcher = fetcher
        self._readers = readers
        self._journal = journal
        self._notes = Notes(plan, self.ledger, self.scope, self._release)
        self._loop = asyncio.get_running_loop()
        self._lanes = Lanes(plan, self.scope, self.ledger, self._fetch_whole, prepare)
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: set[asyncio.TimerHandle] = set()
        self._slots = asyncio.Semaphore(_AT_ONCE)
        #: Addresses and tasks that are not done with.
        self._left = 0
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._replaying = False
        self._rules = tuple((compile_glob(rule.urls), rule) for rule in plan.rules)
        self._sitemaps = 0

    @property
    def waiting(self) -> int:
        """Addresses that are still to be asked."""
        return self._left

    def find_lane(self, place: Place) -> Lane:
        """The lane of a host."""
        return self._lanes.find(place)

    # From the beginning to the end

    async def run(self) -> End:
        """Crawls until everything is asked. Raises Unavailable when this host cannot even try."""
        try:
            start = await self._begin()
            if self._journal is not None:
                self._replay(self._journal)
            self._release(start)
            self._spawn(self._seed())
            await self._over
            if start.fate is Fate.SPARED:
                raise _Ended(Ending.BLOCKED, self._say_why_spared(start))
        except _Ended as ended:
            return ended.end
        finally:
            await self._close()
        return End(ending=Ending.COMPLETE)

    async def _begin(self) -> Entry:
        """Asks for the first address, and learns where the site is."""
        place = self.scope.site
        for _ in range(self.plan.redirects + 1):
            result = await self._ask_patiently(place)
            if isinstance(result, Failure):
                raise _Ended(Ending.DOWN, f"it does not answer: {result.why}", result)
            if result.status in _CLOSED or result.status == 429:
                why = _CLOSED.get(result.status, "it wants fewer requests")
                raise _Ended(Ending.BLOCKED, f"it answers {result.said}: {why}")
            if result.status >= 400:
                raise _Ended(Ending.DOWN, f"it answers {result.said}")
            location = result.header("Location")
            if result.status not in REDIRECTS or location is None:
                break
            place = self._follow_begin(place, location)
        else:
            raise _Ended(Ending.DOWN, f"it redirects more than {self.plan.redirects} times")
        await self._fetcher.find_whether_inner()
        entry = self.ledger.add(place, 0)
        entry.roles.add(Role.START)
        return entry

    def _follow_begin(self, place: Place, location: str) -> Place:
        target = resolve_address(place, location.partition("#")[0])
        if not isinstance(target, Place):
            raise _Ended(Ending.DOWN, "it redirects to what is no address of the web")
        if not self.scope.belongs(target) or (place.scheme, target.scheme) == ("https", "http"):
            why = f"it redirects to another site, {target.root}, which is not audited"
            raise _Ended(Ending.ELSEWHERE, why)
        if target.url == place.url:
            raise _Ended(Ending.DOWN, "it redirects to itself")
        self.scope.site = target
        self._fetcher.adopt(target)
        return target

    async def _ask_patiently(self, place: Place) -> Answer | Failure:
        """Asks until there is a good answer, as often as anything is asked."""
        result = await self.fetch(place, wants=_no_body)
        for attempt in range(self.plan.retries):
            pause = self.plan.pause_before(attempt)
            if isinstance(result, Answer):
                if result.status < 400 or result.status in _CLOSED:
                    break
                pause = max(pause, self._read_retry_after(result))
            await asyncio.sleep(pause)
            result = await self.fetch(place, wants=_no_body)
        return result

    def _say_why_spared(self, start: Entry) -> str:
        lane = self._lanes.find(start.place)
        if lane.robots.closed:
            return "its robots.txt cannot be read, which asks crawlers to stay away"
        return "its robots.txt asks crawlers to stay away"

    async def _seed(self) -> None:
        """Puts what the site's sitemaps list into the queue."""
        site = self.scope.site
        lane = self._lanes.find(site)
        await self._lanes.prepare(lane)
        if lane.robots.sitemaps:
            place = read_place(f"{site.root}/robots.txt")
            page = self.ledger.find(place.url) or self.ledger.add(place, 0)
            page.fate = Fate.FINE
            links = tuple(Link(url, Role.SITEMAP, 0) for url in lane.robots.sitemaps)
            self._notes.note_content(page, place, Content(links=links))
            return
        place = read_place(f"{site.root}/sitemap.xml")
        if self.ledger.find(place.url) is not None or not lane.robots.allows(place.url):
            return
        await lane.pace.wait()
        answer = await self._fetch_whole(place, lambda kind: kind not in _PAGES, LONGEST_SITEMAP)
        # Nobody says that there is one: one that is not there is no defect.
        if isinstance(answer, Answer) and answer.status == 200 and answer.kind not in _PAGES:
            entry = self.ledger.find(place.url) or self.ledger.add(place, 0)
            if entry.fate is Fate.WAITING and not entry.roles:
                entry.roles.add(Role.SITEMAP)
                self._left += 1
                self._take_fine(entry, answer)
                await self._read(lane, entry, place, answer)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Does it beside the rest; what it raises ends the crawl."""
        self._left += 1
        task = asyncio.ensure_future(work)
        self._tasks.add(task)

        def end(done: asyncio.Task[None]) -> None:
            self._tasks.discard(done)
            if done.cancelled() or self._over.done():
                return
            if (error := done.exception()) is not None:
                self._over.set_exception(error)
            else:
                self._finish_one()

        task.add_done_callback(end)

    def _finish_one(self) -> None:
        self._left -= 1
        if not self._left and not self._over.done():
            self._over.set_result(None)

    async def _close(self) -> None:
        for timer in self._timers:
            timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._lanes.close()

    # Queues

    def _release(self, entry: Entry) -> None:
        """A new address: it is to be asked."""
        if not self._replaying and entry.fate is Fate.WAITING:
            self._left += 1
            self._queue(entry)

    def _queue(self, entry: Entry, *, first: bool = False) -> None:
        lane = self._lanes.find(entry.place)
        if first:
            lane.queue.appendleft(entry)
        else:
            lane.queue.append(entry)
        if lane.working < lane.at_once:
            lane.working += 1
            self._spawn(self._work(lane))

    def _queue_later(self, entry: Entry, seconds: Seconds) -> None:
        def queue() -> None:
            self._timers.discard(timer)
            # It has waited already, and may have to wait again while the rest goes on.
            self._queue(entry, first=True)

        timer = self._loop.call_later(seconds, queue)
        self._timers.add(timer)

    async def _work(self, lane: Lane) -> None:
        try:
            await self._lanes.prepare(lane)
            while lane.queue:
                entry = lane.queue.popleft()
                if lane.robots.allows(entry.url):
                    await lane.open.wait()
                    await lane.pace.wait()
                    place = entry.place
                    result = await self.ask(lane, entry, place)
                    await self._take(lane, entry, place, result)
                else:
                    self.scope.turn_away(Reason.ROBOTS, entry.url)
                    self._settle(entry, Fate.SPARED)
        finally:
            lane.working -= 1

    # Asking

    async def fetch(
        self,
        place: Place,
        method: str = "GET",
        *,
        wants: Callable[[str], bool] = lambda _kind: True,
        limit: int | None = None,
        cookies: str = "",
    ) -> Answer | Failure:
        """One request, counted, and beside not too many others."""
        self.counts["requests"] += 1
        async with self._slots:
            return await self._fetcher.fetch(
                place, method=method, wants=wants, limit=limit, cookies=cookies
            )

    async def _fetch_whole(
        self, place: Place, wants: Callable[[str], bool], limit: int
    ) -> Answer | Failure:
        return await self.fetch(place, wants=wants, limit=limit)

    async def ask(self, lane: Lane, entry: Entry, place: Place) -> Answer | Failure:
        """HEAD where the head is enough, and GET where it is not, or HEAD is refused."""
        rules = self.find_rules(place)

        def wants(kind: str) -> bool:
            known = kind in _PAGES or kind in ("", "text/css")
            return lane.own and (known or bool(rules) or Role.SITEMAP in entry.roles)

        alone = entry.roles <= _HEADS or _FILE.search(place.path) is not None
        if not lane.own or (alone and not rules):
            result = await self.fetch(place, "HEAD", wants=wants)
            if isinstance(result, Answer) and (
                result.status == 429
                or result.status in REDIRECTS
                or (result.status < 400 and not wants(result.kind))
            ):
                return result
            await lane.pace.wait()
        limit = LONGEST_SITEMAP if Role.SITEMAP in entry.roles else None
        return await self.fetch(place, wants=wants, limit=limit)

    def find_rules(self, place: Place) -> list[Rule]:
        """The rules for an address."""
        if not self.scope.belongs(place):
            return []
        return [rule for matches, rule in self._rules if matches(place.target)]

    def judge_rules(self, place: Place, answer: Answer) -> tuple[tuple[str, str, str], ...]:
        """The rules that an answer breaks: cause, severity, what was seen."""
        found: dict[str, tuple[str, str, str]] = {}
        for rule in self.find_rules(place):
            for severity, conditions in (("critical", rule.critical), ("warning", rule.warning)):
                for cause, text in conditions.items():
                    verdict = parse_condition(text).judge(answer)
                    if verdict.holds:
                        found.setdefault(cause, (cause, severity, verdict.why))
                    elif verdict.holds is None:
                        why = f"it cannot be judged: {verdict.why}"
                        found.setdefault(cause, (cause, "warning", why))
        return tuple(found.values())

    # What came of it

    async def _take(self, lane: Lane, entry: Entry, place: Place, result: Answer | Failure) -> None:
        if isinstance(result, Failure):
            entry.status, entry.trouble, entry.why = 0, result.trouble.value, result.why
            await self._fail(lane, entry)
            return
        entry.status, entry.trouble, entry.kind = result.status, "", result.kind
        retry_after = self._read_retry_after(result)
        if result.status == 429 or (result.status == 503 and retry_after):
            entry.why = f"{result.said}: it wants fewer requests"
            self._back_off(lane, entry, retry_after)
        elif result.status in _CLOSED:
            lane.streak = 0
            entry.why = f"{result.said}: {_CLOSED[result.status]}"
            self._settle(entry, Fate.BLOCKED)
        elif result.status >= 400:
            entry.why = result.said
            await self._fail(lane, entry)
        elif result.status in REDIRECTS:
            lane.streak = 0
            await self._take_redirect(lane, entry, place, result)
        else:
            lane.streak = 0
            self._take_fine(entry, result)
            await self._read(lane, entry, place, result)

    def _take_fine(self, entry: Entry, answer: Answer) -> None:
        entry.status, entry.kind = answer.status, answer.kind
        entry.size, entry.cut = answer.size or len(answer.body), answer.cut
        entry.seconds = answer.response_seconds
        self.counts["bytes"] += len(answer.body)

    async def _take_redirect(self, lane: Lane, entry: Entry, place: Place, answer: Answer) -> None:
        location = answer.header("Location")
        entry.seconds = answer.response_seconds
        target = None
        if location is None:
            entry.why = f"{answer.said} without saying where to"
        else:
            target = resolve_address(place, location.partition("#")[0])
            entry.why = f"{answer.said} to what is no address of the web"
        if not isinstance(target, Place):
            await self._fail(lane, entry)
            return
        entry.why = ""
        entry.fate = Fate.REDIRECT
        self._notes.note_redirect(entry, target)
        self._settle(entry, Fate.REDIRECT, location=target.url)

    async def _read(self, lane: Lane, entry: Entry, place: Place, answer: Answer) -> None:
        content: Content | None = None
        page = answer.kind in _PAGES or (not answer.kind and _looks_like_page(answer.body))
        if lane.own and Role.SITEMAP in entry.roles and not page:
            content = self._read_sitemap(entry, place, answer)
        elif lane.own and page:
            content = await self._readers.read(answer.body, answer.content_type)
            self.counts["pages"] += 1
        elif lane.own and answer.kind == "text/css":
            content = read_style(answer.body, answer.content_type)
        entry.verdicts += self.judge_rules(place, answer)
        if content is not None:
            self._notes.note_content(entry, place, content)
        self._settle(entry, Fate.FINE, content=content)

    def _read_sitemap(self, entry: Entry, place: Place, answer: Answer) -> Content:
        self._sitemaps += 1
        links: list[Link] = []
        try:
            body = _unpack(answer.body) if answer.body.startswith(b"\x1f\x8b") else answer.body
            listed = read_sitemap(body)
        except ValueError as error:
            entry.verdicts = (("sitemap", "warning", f"it cannot be read: {error}"),)
            return Content()
        for each in listed:
            found = resolve_address(place, each.url.partition("#")[0])
            # A sitemap speaks for its own site only.
            if isinstance(found, Malformed) or (found and self.scope.belongs(found)):
                if each.sitemap and self._sitemaps + len(links) > _MOST_SITEMAPS:
                    continue
                role = Role.SITEMAP if each.sitemap else Role.LINK
                links.append(Link(each.url, role, each.line))
        return Content(links=tuple(links))

    def _settle(
        self,
        entry: Entry,
        fate: Fate,
        *,
        location: str | None = None,
        content: Content | None = None,
    ) -> None:
        """An address is done with."""
        entry.fate = fate
        if self._journal is not None:
            self._journal.add(entry, location, content)
        self._finish_one()

    # What goes wrong

    async def _fail(self, lane: Lane, entry: Entry) -> None:
        entry.tries += 1
        if not entry.status or entry.status >= 500:
            lane.streak += 1
            if lane.own and lane.streak == _STREAK:
                await self._ask_how_it_is(lane)
        else:
            lane.streak = 0
        if entry.tries > self.plan.retries:
            self._settle(entry, Fate.BROKEN)
            return
        entry.fate = Fate.FAILED
        self._queue_later(entry, self.plan.pause_before(entry.tries - 1))

    async def _ask_how_it_is(self, lane: Lane) -> None:
        """Many bad answers in a row: of these pages, or of the whole site?"""
        lane.open.clear()
        result = await self._ask_patiently(self.scope.site)
        if isinstance(result, Answer) and result.status < 400:
            lane.streak = 0
            lane.open.set()
            return
        failure = result if isinstance(result, Failure) else None
        said = result.why if isinstance(result, Failure) else f"it answers {result.said}"
        raise _Ended(Ending.DOWN, f"it went away during the audit: {said}", failure)

    def _back_off(self, lane: Lane, entry: Entry, retry_after: Seconds) -> None:
        """The host wants fewer requests: it gets them, and is not called broken for it."""
        entry.tries += 1
        pause = retry_after or self.plan.pause_before(entry.tries)
        lane.pace.slow_down(min(pause, self.plan.patience))
        if entry.tries > self.plan.retries:
            self._settle(entry, Fate.BLOCKED)
            return
        entry.fate = Fate.FAILED
        self._queue(entry)

    def _read_retry_after(self, answer: Answer) -> Seconds:
        """RFC 9110, section 10.2.3: seconds, or a date. 0: it says nothing."""
        text = (answer.header("Retry-After") or "").strip()
        if re.fullmatch(r"\d{1,9}", text):
            return min(float(text), self.plan.patience)
        try:
            at = parsedate_to_datetime(text)
            now = parsedate_to_datetime(answer.header("Date") or "")
            seconds = (at - now).total_seconds()
        except (ValueError, TypeError):
            return 0.0
        return max(0.0, min(seconds, self.plan.patience))

    # Going on

    def _replay(self, journal: Journal) -> None:
        """Takes up what an earlier crawl saw, as if it had just been seen."""
        self._replaying = True
        for record in journal.replay():
            self._replay_one(record)
            self.counts["replayed"] += 1
        self._replaying = False
        for entry in list(self.ledger.list(Fate.WAITING)):
            if Role.START not in entry.roles:
                self._release(entry)

    def _replay_one(self, record: Record) -> None:
        entry = self.ledger.find(record.url) or self.ledger.add(
            read_place(record.url), record.depth
        )
        entry.roles.update(record.roles)
        for name, value in record.fields.items():
            setattr(entry, name, value)
        entry.verdicts, entry.fate = record.verdicts, record.fate
        place = entry.place
        if record.content is not None:
            self._notes.note_content(entry, place, record.content)
            self.counts["pages"] += record.content.names is not None
        if record.location is not None:
            self._notes.note_redirect(entry, read_place(record.location))


def _looks_like_page(body: bytes) -> bool:
    begin = body[:512].lstrip().lower()
    return begin.startswith((b"<!doctype html", b"<html", b"<head", b"<body"))


def _unpack(body: bytes) -> bytes:
    """A packed sitemap. Raises ValueError for one that is broken, or grows too much."""
    inflate = zlib.decompressobj(wbits=47)
    try:
        unpacked = inflate.decompress(body, LONGEST_SITEMAP + 1)
    except zlib.error as error:
        raise ValueError(f"it cannot be unpacked: {error}") from error
    if len(unpacked) > LONGEST_SITEMAP:
        raise ValueError(f"it is longer than {LONGEST_SITEMAP} bytes")
    return unpacked
