"""Sitemaps and their indexes (https://www.sitemaps.org/protocol.html)."""

from __future__ import annotations

from dataclasses import dataclass
from xml.parsers import expat

#: As the protocol has it: addresses of one file, and its bytes unpacked.
MOST = 50_000
LONGEST = 50 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Listed:
    """One address that a sitemap lists."""

    url: str
    line: int
    #: It is of another sitemap, not of a page.
    sitemap: bool


def read_sitemap(body: bytes) -> tuple[Listed, ...]:
    """What a sitemap lists. Raises ValueError for what is none.

    A document type is refused, and with it every entity that could grow.
    """
    reader = _Reader()
    if not body.lstrip().startswith((b"<", b"\xef\xbb\xbf")):
        return tuple(_read_lines(body))
    try:
        reader.read(body)
    except expat.ExpatError as error:
        raise ValueError(f"it is no XML: {error}") from error
    if not reader.known:
        raise ValueError("it is neither a sitemap nor an index of sitemaps")
    return tuple(reader.found)


def _read_lines(body: bytes) -> list[Listed]:
    """A sitemap may be plain text with one address a line."""
    lines = body.decode("utf-8", "replace").splitlines()
    found = [
        Listed(line.strip(), number, False)
        for number, line in enumerate(lines, 1)
        if line.strip().startswith(("http://", "https://"))
    ]
    if not found and any(line.strip() for line in lines):
        raise ValueError("it lists no addresses")
    return found[:MOST]


class _Reader:
    def __init__(self) -> None:
        self.found: list[Listed] = []
        self.known = False
        self._within: list[str] = []
        self._text = ""
        self._line = 0
        self._parser = expat.ParserCreate(namespace_separator=" ")
        self._parser.StartElementHandler = self._begin
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._add
        self._parser.StartDoctypeDeclHandler = self._refuse

    def read(self, body: bytes) -> None:
        self._parser.Parse(body, True)

    def _begin(self, name: str, _attributes: dict[str, str]) -> None:
        short = name.rpartition(" ")[2]
        self._within.append(short)
        if len(self._within) == 1:
            self.known = short in ("urlset", "sitemapindex")
        self._text, self._line = "", self._parser.CurrentLineNumber

    def _add(self, text: str) -> None:
        if self._within[-1:] == ["loc"] and len(self._text) < 4096:
            self._text += text

    def _end(self, _name: str) -> None:
        match self._within:
            case [_, ("url" | "sitemap") as what, "loc"] if len(self.found) < MOST:
                url = self._text.strip()
                if url:
                    self.found.append(Listed(url, self._line, what == "sitemap"))
        self._within.pop()

    def _refuse(self, *_arguments: object) -> None:
        raise ValueError("it has a document type, which no sitemap has")
