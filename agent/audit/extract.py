"""What a page refers to, and what in it can be referred to.

Pure functions from bytes to values, so that big pages can be read in a thread. The only module that
imports selectolax.
"""

from __future__ import annotations

import codecs
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from zlib import crc32

from selectolax.lexbor import LexborHTMLParser, LexborNode

from agent.audit.styles import find_addresses

#: References of one page that are kept; more are a page that nobody reads.
MOST_LINKS = 50_000
#: Longest address that is looked at, in characters; `data:` addresses are longer.
LONGEST_ADDRESS = 8192
_TITLE = 200
#: References of one page that are searched for the slow way before no more is.
_MOST_MISSES = 50

_WITH_ADDRESS = (
    "[href],[src],[srcset],[imagesrcset],[poster],object[data],[style],style,[background],"
    "meta[http-equiv],base,title"
)
_WITH_NAME = "[id],a[name],map[name]"
#: What stands around an address in the source.
_AROUND = ((b'="', b'"'), (b"='", b"'"), (b'= "', b'"'), (b"= '", b"'"), (b"=", b""))
#: What the charset of a header or of a page names, where Python calls it otherwise: the Encoding
#: Standard (https://encoding.spec.whatwg.org/#names-and-labels) takes these for windows-1252.
_AS_WESTERN = frozenset({"iso8859-1", "ascii", "latin-1", "cp1252"})
_CHARSET = re.compile(r"charset\s*=\s*[\"']?\s*([\w.:-]{2,40})", re.I)
_META = re.compile(rb"<meta[^>]{1,200}?charset\s*=\s*[\"']?\s*([\w.:-]{2,40})", re.I)
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_REFRESH = re.compile(r"\s*[\d.]*\s*[;,]?\s*(?:url\s*=)?\s*[\"']?\s*([^\"']+)", re.I)


class Role(StrEnum):
    """As what something is referred to."""

    LINK = "link"
    FRAME = "frame"
    #: `<link rel=...>` that loads nothing for this page.
    RELATION = "relation"
    STYLE = "style"
    SCRIPT = "script"
    IMAGE = "image"
    MEDIA = "media"
    FONT = "font"
    SITEMAP = "sitemap"
    #: A redirect, or a page's own refresh.
    REDIRECT = "redirect"
    #: Nothing refers to it: the audit began there.
    START = "start"

    @property
    def loads(self) -> bool:
        """Whether a browser loads it as a part of the page."""
        return self in _LOADED


_LOADED = frozenset({Role.FRAME, Role.STYLE, Role.SCRIPT, Role.IMAGE, Role.MEDIA, Role.FONT})

#: `rel` of `<link>` that loads something, by role. Others are relations.
_RELATIONS = {
    "stylesheet": Role.STYLE,
    "icon": Role.IMAGE,
    "apple-touch-icon": Role.IMAGE,
    "apple-touch-icon-precomposed": Role.IMAGE,
    "mask-icon": Role.IMAGE,
    "modulepreload": Role.SCRIPT,
}
_PRELOADS = {
    "style": Role.STYLE,
    "script": Role.SCRIPT,
    "image": Role.IMAGE,
    "font": Role.FONT,
    "audio": Role.MEDIA,
    "video": Role.MEDIA,
    "track": Role.MEDIA,
}
#: Attributes of any element that hold addresses beside its main one.
_OTHER_ADDRESSES = frozenset(
    {"style", "poster", "background", "srcset", "imagesrcset", "data-src", "data-srcset"}
)
#: They name a host, not something to be had.
_HINTS = frozenset({"preconnect", "dns-prefetch"})
_SOURCES = {
    "img": Role.IMAGE,
    "input": Role.IMAGE,
    "script": Role.SCRIPT,
    "iframe": Role.FRAME,
    "frame": Role.FRAME,
    "embed": Role.MEDIA,
    "video": Role.MEDIA,
    "audio": Role.MEDIA,
    "track": Role.MEDIA,
}


@dataclass(frozen=True, slots=True)
class Link:
    """One reference as it stands in the source."""

    #: As written, without what HTML escapes.
    address: str
    role: Role
    #: Counted from 1; 0: not found.
    line: int


@dataclass(frozen=True, slots=True)
class Content:
    """What a page, or a style sheet, holds that an audit needs."""

    #: Each address once for each role.

    links: tuple[Link, ...] = ()
    #: CRC-32 of each name that a fragment can lead to: a page's names are never shown, only looked
    #: up, and this is a tenth of their size.
    names: array[int] | None = None
    title: str = ""
    #: The address that its own are relative to, as its `<base>` writes it.
    base: str = ""


def hash_name(name: str) -> int:
    return crc32(name.encode("utf-8", "surrogatepass"))


def decode(body: bytes, content_type: str) -> str:
    """A body in its charset: as its byte order mark, its header or the page itself has it."""
    return body.decode(_find_charset(body, content_type), "replace").removeprefix("\ufeff")


def _find_charset(body: bytes, content_type: str) -> str:
    for mark, name in _BOMS:
        if body.startswith(mark):
            return name
    names = [match[1] for match in [_CHARSET.search(content_type)] if match]
    names += [match[1].decode() for match in [_META.search(body[:4096])] if match]
    for name in names:
        try:
            known = codecs.lookup(name)
        except LookupError:
            continue
        if known.name in _AS_WESTERN:
            return "cp1252"
        # Python has codecs that are no charsets (zlib, rot13).
        if known._is_text_encoding:
            # A page cannot name UTF-16 in ASCII letters.
            return "utf-8" if known.name.startswith(("utf-16", "utf-32")) else known.name
    return "utf-8"


def read_page(body: bytes, content_type: str = "", also: tuple[str, ...] = ()) -> Content:
    """Everything that a page refers to and that can be referred to in it."""
    charset = _find_charset(body, content_type)
    if charset != "utf-8":
        body = body.decode(charset, "replace").encode()
    body = body.removeprefix(codecs.BOM_UTF8)
    tree = LexborHTMLParser(body)
    finder = _Finder(body)
    links: dict[tuple[Role, str], Link] = {}
    title = base = ""
    selector = _WITH_ADDRESS
    if "data-src" in also:
        selector += ",[data-src],[data-srcset]"
    if "og-image" in also:
        selector += ",meta[property]"
    last = 0
    for node in tree.css(selector):
        # It comes once for each part of the selector that it matches.
        if node.mem_id == last:
            continue
        last = node.mem_id
        tag = node.tag or ""
        if tag == "title":
            # An image in the page may have one too.
            title = title or " ".join(node.text()[:_TITLE].split())
            continue
        if tag == "base":
            base = base or (node.attributes.get("href") or "").strip()
            continue
        attributes = node.attributes
        for role, address in _read_element(tag, node, attributes, also):
            # Pages say the same again and again: what counts is where they say it first.
            if (role, address) in links:
                continue
            if len(address) <= LONGEST_ADDRESS and len(links) < MOST_LINKS:
                bare = tag == "style" or address not in attributes.values()
                line = finder.find(address, bare=bare)
                links[role, address] = Link(address, role, line)
    return Content(links=tuple(links.values()), names=_read_names(tree), title=title, base=base)


def _read_names(tree: LexborHTMLParser) -> array[int]:
    names = array("I")
    for node in tree.css(_WITH_NAME):
        attributes = node.attributes
        if value := attributes.get("id"):
            names.append(hash_name(value))
        if (value := attributes.get("name")) and node.tag in ("a", "map"):
            names.append(hash_name(value))
    return names


def _read_element(
    tag: str, node: LexborNode, attributes: dict[str, str | None], also: tuple[str, ...]
) -> Iterator[tuple[Role, str]]:
    if tag in ("a", "area"):
        # An empty one is the page itself.
        if (target := attributes.get("href")) is not None:
            yield Role.LINK, target
        if not _OTHER_ADDRESSES.intersection(attributes):
            return
    match tag:
        case "style":
            yield from _read_css(node.text())
        case "link":
            if (target := attributes.get("href")) and (role := _judge_relation(attributes)):
                yield role, target
        case "meta":
            yield from _read_meta(attributes, also)
        case "object":
            if target := attributes.get("data"):
                yield Role.MEDIA, target
        case "source":
            if target := attributes.get("src"):
                yield Role.MEDIA, target
        case "image" | "use" | "feimage":
            target = attributes.get("href") or attributes.get("xlink:href")
            if target and not target.startswith("#") and (tag != "use" or "svg-use" in also):
                yield Role.IMAGE, target
        case _ if tag in _SOURCES:
            if target := attributes.get("src"):
                yield _SOURCES[tag], target
    for name in ("poster", "background"):
        if target := attributes.get(name):
            yield Role.IMAGE, target
    for name in ("srcset", "imagesrcset"):
        if written := attributes.get(name):
            yield from ((Role.IMAGE, each) for each in split_srcset(written))
    if (written := attributes.get("style")) and "url(" in written.lower():
        yield from _read_css(written)
    if "data-src" in also:
        if target := attributes.get("data-src"):
            yield _SOURCES.get(tag, Role.IMAGE), target
        if written := attributes.get("data-srcset"):
            yield from ((Role.IMAGE, each) for each in split_srcset(written))


def _read_css(css: str) -> Iterator[tuple[Role, str]]:
    return ((Role(role), address) for address, role, _ in find_addresses(css))


def _judge_relation(attributes: dict[str, str | None]) -> Role | None:
    words = (attributes.get("rel") or "").lower().split()
    if _HINTS.intersection(words):
        return None
    if "preload" in words or "prefetch" in words:
        return _PRELOADS.get((attributes.get("as") or "").lower(), Role.RELATION)
    return next((_RELATIONS[word] for word in words if word in _RELATIONS), Role.RELATION)


def _read_meta(
    attributes: dict[str, str | None], also: tuple[str, ...]
) -> Iterator[tuple[Role, str]]:
    content = attributes.get("content") or ""
    if (attributes.get("http-equiv") or "").lower() == "refresh":
        match = _REFRESH.fullmatch(content.strip().rstrip("\"'"))
        # A number alone loads the page itself again.
        if match and not re.fullmatch(r"[\d.\s]*", match[1]):
            yield Role.REDIRECT, match[1].strip()
    elif "og-image" in also and (attributes.get("property") or "").lower() in (
        "og:image",
        "og:image:url",
        "og:image:secure_url",
    ):
        yield Role.IMAGE, content


def split_srcset(text: str) -> Iterator[str]:
    """The addresses of a `srcset` (HTML Standard, "srcset attributes"): they may hold commas."""
    for match in re.finditer(r"[\s,]*(\S+)((?:[^,(]|\([^)]*\))*)", text):
        address = match[1].rstrip(",")
        if address:
            yield address


class _Finder:
    """The lines on which references stand, which come in the order of the source.

    The parser keeps no positions. Each search goes on where the last one ended, so all of them
    together read the source once.
    """

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0
        self._line = 1
        self._misses = 0

    def find(self, address: str, *, bare: bool = False) -> int:
        """`bare`: it stands within other text, not alone in an attribute."""
        if self._misses > _MOST_MISSES:
            return 0
        around = ((b"", b""),) if bare else _AROUND
        at = self._search(around, address.encode())
        if at < 0:
            at = self._search_escaped(address)
        if at < 0:
            return 0
        self._line += self._body.count(b"\n", self._at, at)
        self._at = at
        return self._line

    def _search(self, around: tuple[tuple[bytes, bytes], ...], written: bytes) -> int:
        for before, after in around:
            at = self._body.find(before + written + after, self._at)
            if at >= 0:
                return at + len(before)
        return -1

    def _search_escaped(self, address: str) -> int:
        """Where any character may stand as HTML escapes it: `&amp;`, `&#64;`."""
        self._misses += 1
        letters = (
            re.escape(letter) if letter.isalnum() else f"(?:{re.escape(letter)}|&#?\\w{{1,8}};)"
            for letter in address[:500]
        )
        match = re.compile("".join(letters).encode()).search(self._body, self._at)
        return match.start() if match else -1


def read_style(body: bytes, content_type: str = "") -> Content:
    """Everything that a style sheet loads."""
    css = decode(body, content_type)
    links: list[Link] = []
    line, seen = 1, 0
    for address, role, offset in find_addresses(css):
        line += css.count("\n", seen, offset)
        seen = offset
        if len(address) <= LONGEST_ADDRESS and len(links) < MOST_LINKS:
            links.append(Link(address, Role(role), line))
    return Content(links=tuple(links))


def read_text(body: bytes, content_type: str = "") -> str:
    """The words of a page that people see."""
    tree = LexborHTMLParser(decode(body, content_type))
    tree.strip_tags(["script", "style", "noscript", "template"])
    found = tree.body
    return found.text(separator=" ") if found is not None else ""
