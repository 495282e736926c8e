"""One whole audit: crawl, settle what is in doubt, judge, compare with the audit before."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

from agent.audit.address import Place, show_address
from agent.audit.changes import MOST_KEPT, compare, dump_book, load_book
from agent.audit.crawl import Crawl, End, Ending
from agent.audit.doubts import Doubts, settle_doubts
from agent.audit.fetch import Fetcher
from agent.audit.journal import Journal
from agent.audit.judge import Sight, find_defects, list_seen
from agent.audit.ledger import Fate
from agent.audit.order import Order
from agent.audit.plan import Plan
from agent.audit.readers import Readers
from agent.audit.result import Audit
from agent.audit.scope import Reason
from agent.clock import Clock
from agent.core.model import Instant
from agent.host.http import HttpClient, Request, Response
from agent.host.names import Names
from agent.host.tls import Trust
from agent.host.url import parse_url, read_address

#: Seconds between two reports of progress.
_REPORT_EVERY = 0.5
#: Of the time of a plan, for the crawl; the rest is for what is in doubt.
_SHARE = 0.9


#: How far an audit is: `asked, waiting, pages, requests, broken`.
Progress = Callable[[Mapping[str, int]], None]


async def audit_site(
    order: Order,
    *,
    credentials: Mapping[str, str],
    clock: Clock,
    on_progress: Progress = lambda _counts: None,
) -> Audit:
    """Audits one site. Raises Unavailable where this host cannot even try, and Conflict for a
    journal of another audit."""
    plan = order.plan
    began = clock.now()
    names = Names()
    certificates: dict[str, Instant] = {}
    journal = None
    if order.journal is not None:
        journal = Journal(order.journal, plan.digest, resume=order.resume)
    readers = Readers(plan.also)
    client = HttpClient(names.resolve)

    async def read_certificate(place: Place) -> None:
        if place.scheme != "https":
            return
        ends = await _find_end_of_certificate(client, plan, place)
        if ends is not None:
            certificates[place.authority] = ends

    try:
        async with Fetcher(plan, names.resolve, credentials) as fetcher:
            crawl = Crawl(plan, fetcher, readers, journal=journal, prepare=read_certificate)
            async with _reporting(crawl, on_progress):
                end, doubts = await _crawl(crawl, plan)
    finally:
        readers.close()
        if journal is not None:
            journal.close()
    sight = Sight(
        plan=plan,
        scope=crawl.scope,
        ledger=crawl.ledger,
        doubts=doubts,
        certificates=certificates,
        now=clock.now(),
    )
    audit = _conclude(order, crawl, end, sight, began)
    if journal is not None and end.ending is not Ending.TIME:
        journal.remove()
    return audit


async def _crawl(crawl: Crawl, plan: Plan) -> tuple[End, Doubts]:
    loop = asyncio.get_running_loop()
    until = loop.time() + plan.seconds
    doubts = Doubts()
    try:
        async with asyncio.timeout(plan.seconds * _SHARE):
            end = await crawl.run()
    except TimeoutError:
        end = End(ending=Ending.TIME, why=f"the time of {plan.seconds:g} s was over")
    if end.ending in (Ending.COMPLETE, Ending.TIME):
        try:
            async with asyncio.timeout_at(until):
                doubts = await settle_doubts(crawl)
        except TimeoutError:
            doubts.notes.append("the time was over before everything in doubt was asked again")
    return end, doubts


@contextlib.asynccontextmanager
async def _reporting(crawl: Crawl, on_progress: Progress) -> AsyncIterator[None]:
    async def report() -> None:
        while True:
            on_progress(_count_progress(crawl))
            await asyncio.sleep(_REPORT_EVERY)

    task = asyncio.ensure_future(report())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def _count_progress(crawl: Crawl) -> dict[str, int]:
    entries = crawl.ledger.entries
    waiting = sum(entry.fate in (Fate.WAITING, Fate.FAILED) for entry in entries)
    return {
        "asked": len(entries) - waiting,
        "waiting": waiting,
        "pages": crawl.counts["pages"],
        "requests": crawl.counts["requests"],
        "broken": sum(entry.fate is Fate.BROKEN for entry in entries),
    }


async def _find_end_of_certificate(client: HttpClient, plan: Plan, place: Place) -> Instant | None:
    """Until when the server's certificate lasts, in seconds since 1970."""
    address, port = "", None
    if plan.connect and place.authority == parse_url(plan.url).authority:
        address, port = read_address(plan.connect)
    request = Request(
        url=parse_url(f"{place.root}/"),
        method="HEAD",
        address=address,
        port=port,
        trust=Trust(verify=plan.verify, ca_file=Path(plan.ca_file) if plan.ca_file else None),
    )
    response = await client.fetch(request, plan.answer)
    if isinstance(response, Response) and response.chain:
        return response.chain[0].ends
    return None


def _conclude(order: Order, crawl: Crawl, end: End, sight: Sight, began: Instant) -> Audit:
    """The result, compared with what the book says."""
    told = end.ending in (Ending.COMPLETE, Ending.TIME)
    found = find_defects(sight) if told else ()
    fine = [show_address(entry.url) for entry in crawl.ledger.list(Fate.FINE, Fate.REDIRECT)]
    notes = [*_list_notes(sight), *sight.doubts.notes]
    book = load_book(order.book)
    change = compare(
        book,
        found,
        fine,
        site=show_address(crawl.scope.site.url),
        now=began,
        complete=end.ending is Ending.COMPLETE,
    )
    left = len(found) - len(change.defects)
    if len(change.defects) >= MOST_KEPT and left > 0:
        notes.append(f"{left} more defects are not listed")
    return Audit(
        site=show_address(crawl.scope.site.url),
        began=began,
        ended=sight.now,
        ending=end.ending.value,
        why=end.why,
        trouble=end.failure.trouble.value if end.failure else "",
        addresses=end.failure.addresses if end.failure else (),
        counts=_count(crawl, len(change.defects)),
        defects=change.defects,
        compared=book.at,
        fixed=change.fixed[:MOST_KEPT],
        notes=tuple(notes),
        groups=change.groups,
        mended=tuple(change.book.mended),
        book=dump_book(change.book if told else book),
        urls=tuple(list_seen(sight)) if order.urls else (),
    )


def _count(crawl: Crawl, defects: int) -> dict[str, int]:
    entries = crawl.ledger.entries
    fates = {fate: sum(1 for _ in crawl.ledger.list(fate)) for fate in Fate}
    return {
        "urls": len(entries),
        "pages": crawl.counts["pages"],
        "requests": crawl.counts["requests"],
        "bytes": crawl.counts["bytes"],
        "fine": fates[Fate.FINE] + fates[Fate.REDIRECT],
        "broken": fates[Fate.BROKEN],
        "blocked": fates[Fate.BLOCKED],
        "unasked": fates[Fate.WAITING] + fates[Fate.FAILED],
        "transient": sum(e.tries > 0 for e in crawl.ledger.list(Fate.FINE, Fate.REDIRECT)),
        "replayed": crawl.counts["replayed"],
        "defects": defects,
    }


def _list_notes(sight: Sight) -> list[str]:
    """What was not done, and what was strange without being wrong."""
    notes = []
    ledger, scope = sight.ledger, sight.scope
    for reason, count in scope.turned_away.items():
        if reason is Reason.OUTSIDE:
            continue
        examples = ", ".join(show_address(url) for url in scope.examples[reason][:3])
        notes.append(f"{count} not asked, {reason.value}: {examples}")
    blocked = list(ledger.list(Fate.BLOCKED))
    if blocked:
        examples = ", ".join(f"{show_address(e.url)} ({e.why})" for e in blocked[:3])
        notes.append(f"{len(blocked)} did not let this audit in: {examples}")
    transient = [e for e in ledger.list(Fate.FINE, Fate.REDIRECT) if e.tries]
    if transient:
        examples = ", ".join(f"{show_address(e.url)} ({e.why})" for e in transient[:3])
        notes.append(f"{len(transient)} failed at first and not when asked again: {examples}")
    cut = [e for e in ledger.list(Fate.FINE) if e.cut]
    if cut:
        examples = ", ".join(show_address(e.url) for e in cut[:3])
        notes.append(f"{len(cut)} are longer than what is read of a body: {examples}")
    return notes
