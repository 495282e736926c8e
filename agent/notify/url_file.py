"""Files that hold Apprise URLs, and so secrets."""

from __future__ import annotations

import os
import stat

from agent.errors import ConfigError, Unavailable

#: Longer is no list of URLs.
LONGEST = 64 * 1024
#: Rights that such a file must not give: writing to its group, and anything to others.
FORBIDDEN = stat.S_IWGRP | stat.S_IRWXO


def read_url_file(path: str) -> list[str]:
    """The URLs of a file, one a line; empty lines and those that begin with `#` are skipped.

    Raises Unavailable where the file may come right without a change of the configuration (not
    there yet, wrong mode), and ConfigError where its content is unusable. No error shows content.
    """
    try:
        # Not blocking, or a pipe in its place would hold the route for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise Unavailable(
            f"cannot read url_file {path}: {error.strerror}; create it with mode 0600"
        ) from None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise Unavailable(f"cannot read url_file {path}: it is not a regular file")
        if status.st_mode & FORBIDDEN:
            raise Unavailable(
                f"cannot use url_file {path}: its mode {stat.S_IMODE(status.st_mode):04o} lets "
                f"others in, and it holds secrets; run chmod 0600 {path}"
            )
        if status.st_uid not in (0, os.geteuid()):
            raise Unavailable(
                f"cannot use url_file {path}: it belongs to user {status.st_uid}, who may change "
                f"it; run chown {os.geteuid()} {path}"
            )
        content = file.read(LONGEST + 1)
    if len(content) > LONGEST:
        raise ConfigError(f"cannot use url_file {path}: it is longer than {LONGEST} bytes")
    try:
        lines = [line.strip() for line in content.decode().splitlines()]
    except UnicodeDecodeError:
        raise ConfigError(f"cannot use url_file {path}: it is not UTF-8") from None
    urls = [line for line in lines if line and not line.startswith("#")]
    if not urls:
        raise Unavailable(
            f"cannot use url_file {path}: it holds no URL; write one Apprise URL a line"
        )
    return urls
