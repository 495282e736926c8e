"""robots.txt (RFC 9309). The only module that imports protego."""

from __future__ import annotations

import protego

from agent import __version__

#: What this crawler calls itself; robots.txt is read for its first word.
PRODUCT = "hostmend"
AGENT = f"{PRODUCT}/{__version__} (site audit)"

#: Bytes of a robots.txt that are read: RFC 9309, section 2.5, asks for at least 500 KiB.
LONGEST = 512 * 1024
#: Longest wait between two requests that a robots.txt is given, in seconds.
_LONGEST_DELAY = 30.0


class Robots:
    """What one host wants crawlers to do."""

    def __init__(self, text: str, *, closed: bool = False, heeded: bool = True) -> None:
        """`closed`: the file cannot be read, which asks to stay away (section 2.3.1.4).

        Not `heeded`: only the sitemaps that it names matter.
        """
        self._rules = protego.Protego.parse("User-agent: *\nDisallow: /" if closed else text)
        self._open = not heeded or (not closed and not text.strip())
        self.closed = closed

    def allows(self, url: str) -> bool:
        return self._open or bool(self._rules.can_fetch(url, PRODUCT))

    @property
    def rate(self) -> float | None:
        """Requests a second; None: it says nothing of it."""
        delay = None if self._open else self._rules.crawl_delay(PRODUCT)
        return 1.0 / min(float(delay), _LONGEST_DELAY) if delay and delay > 0 else None

    @property
    def sitemaps(self) -> tuple[str, ...]:
        return tuple(self._rules.sitemaps)[:100]


OPEN = Robots("")
