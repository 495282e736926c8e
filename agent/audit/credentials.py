"""What identifies the operator to the audited site: header lines in a file of its owner's own."""

from __future__ import annotations

import re
from collections.abc import Mapping

from agent.errors import ConfigError
from agent.host.secret_file import read_secret_file
from agent.host.url import list_secrets, parse_url

_LINE = re.compile(
    r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?)"
)
#: Letters from which on a part of a value is taken for a secret.
_LONG = 8
#: Headers that the connection itself decides on.
_FRAMING = frozenset(
    {"host", "connection", "content-length", "transfer-encoding", "upgrade", "expect", "te"}
)


def read_credentials(path: str) -> Mapping[str, str]:
    """The headers of a file, one a line: `Authorization: Bearer abc`, `Cookie: session=abc`.

    Empty lines and those that begin with `#` are skipped. Raises Unavailable and ConfigError as
    `read_secret_file` does; no error shows content.
    """
    headers: dict[str, str] = {}
    for number, line in enumerate(read_secret_file(path, "credentials").split("\n"), 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line.rstrip())
        if match is None or match[1].lower() in _FRAMING:
            raise ConfigError(
                "cannot use it: write one header a line, such as Cookie: session=abc, and none "
                "that the connection itself decides on",
                file=path,
                line=number,
            )
        headers[match[1].title()] = match[2]
    return headers


def find_secrets(url: str, credentials: Mapping[str, str]) -> frozenset[str]:
    """What must not be shown, though a site may repeat it: whole values, and long parts of them.

    Short parts are left alone: a cookie `theme=dark` is no reason to mask the word everywhere.
    """
    found = set(list_secrets(parse_url(url)))
    for value in credentials.values():
        parts = re.split(r"[\s;,=]+", value)
        found |= {value, *(part for part in parts if len(part) >= _LONG)}
    return frozenset(found)
