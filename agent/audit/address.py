"""What stands in a page as an address, and which address of the web it means, if any.

Follows what browsers do (WHATWG URL Standard, https://url.spec.whatwg.org/): spaces around it,
line ends within it and `\\` for `/` are forgiven; a path is encoded as UTF-8 whatever the page is.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from urllib.parse import unquote, urljoin

from agent.host.url import Url, mask_query, parse_url

_AROUND = "".join(map(chr, range(0x21)))
_WITHIN = re.compile(r"[\t\r\n]")
#: A path that means what it says: nothing to escape, no other host, no scheme, no query.
_PLAIN = re.compile(r"(?!//)[A-Za-z0-9_./~-]+")
_UNSAFE = re.compile(r"[\x00-\x20\x7f\"<>`{}|^\\]")
_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*):(.*)", re.S)
#: Schemes that no audit can ask, of which some look like a host with its port (`tel:112`).
_OTHERS = frozenset(
    {"mailto", "tel", "sms", "mms", "fax", "callto", "skype", "whatsapp", "geo", "javascript"}
    | {"data", "blob", "about", "cid", "mid", "file", "ftp", "urn"}
)
_USER = re.compile(r"^([a-zA-Z][a-zA-Z0-9+.-]*:)?//[^/?#]*@")
_MAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_HOST = re.compile(r"(?:www\.[\w-]+(?:\.[\w-]+)+|[\w-]+(?:\.[\w-]+)*\.(?:com|org|net|io|de|ch|eu))")
_DOTS = re.compile(r"/(?:\.|%2[eE]){1,2}(?:/|$)")
#: What ends a session or deletes something when it is followed: never asked. Whole words of a path
#: (a page `sql-delete.html` is about deleting), and what a query orders.
_ACTS = re.compile(
    r"""(?ix)
    /(?:log[_-]?(?:out|off)|sign[_-]?(?:out|off)|abmelden|deconnexion
       |unsubscribe|delete|remove|destroy|purge|wp-cron)(?:\.\w{2,5})?(?:[/?]|$)
    | /cart/(?:add|remove|empty)(?:[/?]|$)
    | [?&;](?:action|do|op|cmd|act|task|method|_method)=
        [\w.:-]*(?:log_?-?(?:out|off)|sign_?-?out|delete|remove|destroy|trash|purge|unsubscribe)
    | [?&;](?:log_?out|sign_?out|add-to-cart|add_to_cart|remove_item|unsubscribe|delete)(?:[=&;]|$)
    """
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """An address of the web that may be asked."""

    #: Without a fragment and without a user; secrets in its query are not masked.
    url: str
    scheme: str
    #: Host and port as the Host header has them.
    authority: str
    host: str
    port: int
    #: Path and query, escaped.
    target: str

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]

    @property
    def root(self) -> str:
        """The site that it is part of: `https://shop.example`."""
        return f"{self.scheme}://{self.authority}"


@dataclass(frozen=True, kw_only=True)
class Malformed:
    """What is no address, and what was probably meant."""

    why: str
    hint: str = ""


def read_place(text: str) -> Place:
    """Raises ValueError for what is no http:// or https:// address."""
    return place_of(parse_url(text.partition("#")[0]))


def place_of(url: Url) -> Place:
    return Place(
        url=f"{url.scheme}://{url.authority}{url.target}",
        scheme=url.scheme,
        authority=url.authority,
        host=url.host,
        port=url.port,
        target=url.target,
    )


def show_address(url: str) -> str:
    """An address without the secrets in its query and without a user."""
    return mask_query(_USER.sub(r"\1//", url))


def resolve_address(base: Place, written: str) -> Place | Malformed | None:
    """What `written`, which has no fragment, means on a page whose base is `base`.

    None: it is of a kind that nobody asks (mailto:, tel:, data: ...).
    """
    text = _WITHIN.sub("", written.strip(_AROUND))
    if _PLAIN.fullmatch(text):
        # Nearly all are like this, and the way below takes ten times as long.
        path = text if text.startswith("/") else f"{base.path.rpartition('/')[0]}/{text}"
        return _move(base, _without_dots(path))
    if scheme := _SCHEME.match(text):
        name, rest = scheme[1].lower(), scheme[2]
        if name in ("http", "https"):
            if not re.match(r"[/\\]{2}[^/\\]", rest):
                return Malformed(
                    why=f"`{name}:` is not followed by // and a host",
                    hint=f"write {name}://{found}" if (found := rest.lstrip("/\\")) else "",
                )
        elif name in _OTHERS:
            return None
        else:
            return _judge_scheme(name, rest)
    path, mark, query = text.partition("?")
    text = path.replace("\\", "/") + mark + query
    try:
        found = place_of(parse_url(_UNSAFE.sub(_escape, urljoin(base.url, text))))
    except ValueError as error:
        return Malformed(why=_explain(str(error)))
    path, mark, query = found.target.partition("?")
    return _move(found, _without_dots(path) + mark + query)


def _move(place: Place, target: str) -> Place:
    """Another path and query of the same site."""
    return Place(
        url=f"{place.scheme}://{place.authority}{target}",
        scheme=place.scheme,
        authority=place.authority,
        host=place.host,
        port=place.port,
        target=target,
    )


def _escape(match: re.Match[str]) -> str:
    return f"%{ord(match[0]):02X}"


def _explain(why: str) -> str:
    return why if why.startswith(("must", "its host")) else "it cannot be read as an address"


def _without_dots(path: str) -> str:
    """Browsers resolve dots in whole addresses too, also escaped ones."""
    if not _DOTS.search(path):
        return path
    kept: list[str] = []
    parts = path.split("/")[1:]
    for position, part in enumerate(parts):
        plain = part.lower().replace("%2e", ".")
        if plain == "..":
            del kept[-1:]
        elif plain != ".":
            kept.append(part)
            continue
        if position == len(parts) - 1:
            kept.append("")
    return "/" + "/".join(kept)


def _judge_scheme(name: str, rest: str) -> Malformed | None:
    if re.match(r"\d{1,5}(?:[/?]|$)", rest):
        return Malformed(
            why=f"`{name}:` stands where http:// is expected", hint=f"write http://{name}:{rest}"
        )
    if len(name) == 1:
        return Malformed(why="it leads to a file on the reader's own disk")
    if rest.startswith("/") and difflib.get_close_matches(name, ("http", "https"), 1, 0.7):
        return Malformed(why=f"there is no `{name}:`", hint=f"write https:{rest}")
    return None


def find_hint(written: str) -> str:
    """What was probably meant by an address that leads nowhere; empty when nothing is obvious."""
    last = unquote(written).rstrip("/").rpartition("/")[2]
    if _MAIL.fullmatch(last):
        return f"write mailto:{last}"
    relative = unquote(written).lstrip("/")
    if "://" not in written and _HOST.match(relative) and not relative.startswith("."):
        return f"write https://{relative}"
    return ""


def is_acting(target: str) -> bool:
    """Whether following it may end a session or change something; `target` is path and query."""
    return _ACTS.search(unquote(target)) is not None


def is_looping(path: str) -> bool:
    """Whether the same part comes again and again: relative links of a page that is everywhere."""
    parts = [part for part in path.split("/") if part]
    return any(parts.count(part) > 4 for part in set(parts)) if len(parts) > 8 else False
