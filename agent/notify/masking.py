"""Apprise URLs without their secrets.

Nearly every part of such a URL can be one (`slack://tokenA/tokenB/tokenC`, `ntfy://topic`), so
what is shown is chosen, and the rest is taken out of whatever text a service answers with.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from urllib.parse import unquote, unquote_plus

from agent.core.text import MASK, clean_text
from agent.host.text import redact_text

#: Query parameters of Apprise that hold no secret: their values may appear in an error.
PUBLIC_PARAMETERS = frozenset(
    {"to", "from", "name", "cc", "bcc", "reply", "smtp", "mode", "format", "overflow", "tag"}
    | {"verify", "retry", "wait", "cto", "rto", "optional", "priority", "port"}
)
#: Schemes whose user and path are mail addresses: an error may name the recipient.
MAIL_SCHEMES = frozenset({"mailto", "mailtos"})

_URL = re.compile(r"(?s)\s*([A-Za-z][A-Za-z0-9+.-]*)://(.*)")
_HOST_NAME = re.compile(r"(?=.{1,253}$)(?:[a-z0-9_-]{1,63}\.)+[a-z]{2,24}|localhost")
_TAG = re.compile(r"[?&]tags?=([\w-]{1,40})(?=&|$)")


def describe_url(url: str) -> str:
    """Scheme, host and tag of an Apprise URL, and nothing else: `mailto://mail.example.org:25/…`.

    A host that does not look like one is left out: many services keep a token in its place.
    """
    found = _URL.match(url)
    if not found:
        return "something that is not a URL"
    scheme, rest = found[1].lower(), found[2].strip()
    host, port = _host_of(rest)
    shown = f"{host}{port}/…" if host else "…"
    tag = _TAG.search(rest)
    return f"{scheme}://{shown}" + (f" (tag {tag[1]})" if tag else "")


def mask_url_parts(text: str, url: str) -> str:
    """A service's answer on one line, without any part of `url` that may be a secret."""
    text = " ".join(clean_text(text).split())
    for part in _secret_parts(url):
        text = text.replace(part, MASK)
    return redact_text(text)


def _host_of(rest: str) -> tuple[str, str]:
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")[2]
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:]*)(:\d{1,5})?", authority)
    if not found:
        return "", ""
    host, port = found[1], found[2] or ""
    return (host, port) if _is_host(host) else ("", "")


def _is_host(host: str) -> bool:
    if _HOST_NAME.fullmatch(host):
        return True
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def _secret_parts(url: str) -> list[str]:
    """Every text that would give away a part of the URL, longest first."""
    found = _URL.match(url)
    if not found:
        return [url.strip()] if url.strip() else []
    scheme, rest = found[1].lower(), found[2].strip()
    location, _, query = rest.partition("?")
    authority, _, path = location.partition("/")
    # The last @ of everything before the query: a password may hold a slash that nobody escaped.
    userinfo = location.rpartition("@")[0]
    user, _, password = userinfo.partition(":")
    mail = scheme in MAIL_SCHEMES

    parts = {rest, location if "@" in location else "", userinfo, password}
    if not mail:
        parts |= {user, authority.rpartition("@")[2].partition(":")[0], *path.split("/")}
    values = [item.partition("=") for item in query.split("&")]
    parts |= {value for name, _, value in values if name.lower() not in PUBLIC_PARAMETERS}
    # How Basic and SMTP's PLAIN and LOGIN carry them.
    clear_user, clear_password = unquote(user), unquote(password)
    if clear_password:
        for joined in (
            f"{clear_user}:{clear_password}",
            f"\0{clear_user}\0{clear_password}",
            clear_password,
        ):
            parts.add(base64.b64encode(joined.encode("utf-8", "replace")).decode().rstrip("="))

    parts |= {unquote(part) for part in parts} | {unquote_plus(part) for part in parts}
    public = {host for host in _host_of(rest) if host}
    kept = {
        part
        for part in parts
        # Shorter ones are `v1` and `yes`; a password goes whatever its length.
        if part and part not in public and (len(part) > 3 or part in (password, clear_password))
    }
    return sorted(kept, key=lambda part: (-len(part), part))
