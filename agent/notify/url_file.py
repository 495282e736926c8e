"""Files that hold Apprise URLs, and so secrets."""

from __future__ import annotations

from agent.errors import Unavailable
from agent.host.secret_file import read_secret_file


def read_url_file(path: str) -> list[str]:
    """The URLs of a file, one a line; empty lines and those that begin with `#` are skipped.

    Raises Unavailable where the file may come right without a change of the configuration (not
    there yet, wrong mode), and ConfigError where its content is unusable. No error shows content.
    """
    lines = [line.strip() for line in read_secret_file(path, "url_file").splitlines()]
    urls = [line for line in lines if line and not line.startswith("#")]
    if not urls:
        raise Unavailable(
            f"cannot use url_file {path}: it holds no URL; write one Apprise URL a line"
        )
    return urls
