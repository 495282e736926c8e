"""What identifies the operator to the audited site: header lines in a file of its owner's own."""

from __future__ import annotations

import re
from collections.abc import Mapping

from agent.errors import ConfigError
from agent.host.secret_file import read_secret_file

_LINE = re.compile(
    r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?)"
)
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
    for number, line in enumerate(read_secret_file(path, "credentials").splitlines(), 1):
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
