"""What a crawl leaves in doubt, asked again before it is reported: circles, slowness, broken rules,
and pages that only say in words that they are not there."""

from __future__ import annotations

import re
import secrets
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import unquote

from agent.audit.address import Place, read_place, resolve_address
from agent.audit.crawl import Crawl
from agent.audit.extract import read_page, read_text
from agent.audit.fetch import Answer
from agent.audit.lanes import REDIRECTS
from agent.audit.ledger import Entry, Fate

#: Slow addresses that are asked again.
_MOST_SLOW = 100
#: Pages without what links lead to in them that are read again.
_MOST_READ_AGAIN = 200
#: Directories that are asked for a page that cannot be there, and pages of each that are compared.
_MOST_DIRECTORIES, _MOST_COMPARED = 30, 50
#: From this share of common words on, two pages say the same.
_ALIKE = 0.9
#: More pages of a directory than this share, if not only a few, cannot all be missing.
_TOO_MANY, _FEW = 0.5, 3
_WORD = re.compile(r"[^\W\d]+")


@dataclass(kw_only=True)
class Doubts:
    """What was found out; numbers are those of entries."""

    #: Whose redirects go in a circle only without cookies.
    fine_with_cookies: set[int] = field(default_factory=set)
    #: Slow each time.
    slow: set[int] = field(default_factory=set)
    #: They answer as what is not there is answered: why.
    soft: dict[int, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


async def settle_doubts(crawl: Crawl) -> Doubts:
    """Asks again for whatever must be asked again."""
    doubts = Doubts()
    await _follow_circles(crawl, doubts)
    await _ask_slow_ones(crawl, doubts)
    await _ask_ruled_ones(crawl)
    await _read_again(crawl)
    await _probe_directories(crawl, doubts)
    return doubts


# Circles


async def _follow_circles(crawl: Crawl, doubts: Doubts) -> None:
    """A site may set a cookie and lead back to where it came from: browsers get through."""
    for entry in list(crawl.ledger.list(Fate.REDIRECT)):
        _, _, circle = crawl.ledger.follow(entry)
        if circle and await _gets_through(crawl, entry.place):
            doubts.fine_with_cookies.add(entry.number)


async def _gets_through(crawl: Crawl, place: Place) -> bool:
    cookies: dict[str, str] = {}
    for _ in range(crawl.plan.redirects + 1):
        await crawl.find_lane(place).pace.wait()
        written = "; ".join(f"{name}={value}" for name, value in cookies.items())
        answer = await crawl.fetch(place, wants=lambda _kind: False, cookies=written)
        if not isinstance(answer, Answer):
            return False
        location = answer.header("Location")
        if answer.status not in REDIRECTS or location is None:
            return answer.status < 400
        if (set_cookie := answer.header("Set-Cookie")) is None and not cookies:
            return False
        name, mark, value = (set_cookie or "").partition(";")[0].strip().partition("=")
        if mark and len(cookies) < 50:
            cookies[name] = value[:4096]
        target = resolve_address(place, location.partition("#")[0])
        # Cookies are for the host that set them.
        if not isinstance(target, Place) or target.root != place.root:
            return False
        place = target
    return False


# Slowness and rules


async def _ask_again(crawl: Crawl, entry: Entry) -> Answer | None:
    """Alone, so that nothing of this audit is in its way. None: there is no good answer now."""
    place = entry.place
    lane = crawl.find_lane(place)
    await lane.pace.wait()
    result = await crawl.ask(lane, entry, place)
    return result if isinstance(result, Answer) and result.status < 400 else None


async def _ask_slow_ones(crawl: Crawl, doubts: Doubts) -> None:
    limit = crawl.plan.slow
    suspects = [
        entry
        for entry in crawl.ledger.list(Fate.FINE, Fate.REDIRECT)
        if limit and entry.seconds > limit and crawl.scope.belongs(entry.place)
    ]
    for entry in suspects[:_MOST_SLOW]:
        for _ in range(crawl.plan.retries):
            answer = await _ask_again(crawl, entry)
            if answer is not None:
                entry.seconds = min(entry.seconds, answer.response_seconds)
            if entry.seconds <= limit:
                break
        else:
            doubts.slow.add(entry.number)
    if len(suspects) > _MOST_SLOW:
        left = len(suspects) - _MOST_SLOW
        doubts.notes.append(f"{left} more addresses were slow once and were not asked again")


async def _ask_ruled_ones(crawl: Crawl) -> None:
    """Only what breaks a rule each time breaks it."""
    for entry in [e for e in crawl.ledger.list(Fate.FINE) if e.verdicts]:
        place = entry.place
        mine = {cause for cause, _, _ in entry.verdicts}
        ruled = {c for rule in crawl.find_rules(place) for c in (*rule.critical, *rule.warning)}
        for _ in range(crawl.plan.retries):
            if not mine & ruled:
                break
            answer = await _ask_again(crawl, entry)
            if answer is not None:
                mine &= {cause for cause, _, _ in crawl.judge_rules(place, answer)} | (mine - ruled)
        entry.verdicts = tuple(verdict for verdict in entry.verdicts if verdict[0] in mine)


# Fragments


async def _read_again(crawl: Crawl) -> None:
    """A page that lacks what links lead to in it may have been in the middle of a change."""
    pages = {
        final.number: final
        for entry in crawl.ledger.entries
        for final, _ in crawl.ledger.find_lost(entry)
    }
    for page in list(pages.values())[:_MOST_READ_AGAIN]:
        answer = await _ask_again(crawl, page)
        if answer is not None and page.names is not None:
            names = read_page(answer.body, answer.content_type).names
            page.names.extend(names or ())


# Soft 404


async def _probe_directories(crawl: Crawl, doubts: Doubts) -> None:
    directories: dict[str, list[Entry]] = {}
    for entry in crawl.ledger.list(Fate.FINE):
        if entry.names is not None and entry.status == 200:
            place = entry.place
            directory = f"{place.root}{place.path.rpartition('/')[0]}/"
            directories.setdefault(directory, []).append(entry)
    busiest = sorted(directories, key=lambda name: len(directories[name]), reverse=True)
    start = crawl.ledger.find(crawl.scope.site.url)
    for directory in busiest[:_MOST_DIRECTORIES]:
        pages = directories[directory]
        probe = await _ask_for_nothing(crawl, directory, pages)
        if probe is None:
            continue
        title = read_page(probe[0].body, probe[0].content_type).title
        words = _read_words(*probe)
        if start is not None and start.title == title and await _is_alike(crawl, start, words):
            doubts.notes.append(
                f"{directory} answers whatever is asked for as its first page: what is missing "
                "there cannot be told"
            )
            continue
        same = [p for p in pages if p.title == title and p is not start][:_MOST_COMPARED]
        found = [page for page in same if await _is_alike(crawl, page, words)]
        if len(found) > _FEW and len(found) > _TOO_MANY * len(pages):
            doubts.notes.append(
                f"{directory} answers what cannot be there as most of its pages: which of them "
                "are missing cannot be told"
            )
            continue
        said = f'"{title}"' if title else "the same words"
        for page in found:
            doubts.soft[page.number] = (
                f"it answers 200 with {said}, as what cannot be there is answered"
            )


async def _ask_for_nothing(
    crawl: Crawl, directory: str, pages: Iterable[Entry]
) -> tuple[Answer, str] | None:
    """The answer to what cannot be there, and where; None where it is refused, as it should be."""
    endings = Counter(match[0] for p in pages if (match := re.search(r"\.\w{2,5}$", p.url)))
    ending = endings.most_common(1)[0][0] if endings else ""
    place = read_place(f"{directory}hostmend-{secrets.token_hex(8)}{ending}")
    asked = place.url
    for _ in range(crawl.plan.redirects):
        lane = crawl.find_lane(place)
        if not lane.robots.allows(place.url):
            return None
        await lane.pace.wait()
        answer = await crawl.fetch(place)
        if not isinstance(answer, Answer):
            return None
        location = answer.header("Location")
        if answer.status in REDIRECTS and location is not None:
            target = resolve_address(place, location.partition("#")[0])
            if not isinstance(target, Place) or not crawl.scope.belongs(target):
                return None
            place = target
            continue
        found = answer.status == 200 and answer.kind == "text/html"
        return (answer, asked) if found else None
    return None


async def _is_alike(crawl: Crawl, page: Entry, words: Counter[str]) -> bool:
    answer = await _ask_again(crawl, page)
    if answer is None:
        return False
    mine = _read_words(answer, page.url)
    both = sum((mine & words).values())
    whole = sum(mine.values()) + sum(words.values())
    return 2 * both >= _ALIKE * whole


def _read_words(answer: Answer, url: str) -> Counter[str]:
    """How often which word is in a page; what repeats its own address does not differ by that."""
    text = read_text(answer.body, answer.content_type).lower()
    words = Counter(_WORD.findall(text))
    for word in _WORD.findall(unquote(url).lower()):
        words.pop(word, None)
    return words
