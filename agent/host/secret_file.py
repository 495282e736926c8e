"""Files that hold secrets: only their owner may read them, and nobody else may change them."""

from __future__ import annotations

import os
import stat

from agent.errors import ConfigError, Unavailable

#: Longer holds no secrets.
LONGEST = 64 * 1024
#: Rights that such a file must not give: writing to its group, and anything to others.
FORBIDDEN = stat.S_IWGRP | stat.S_IRWXO


def read_secret_file(path: str, name: str) -> str:
    """The text of a file; `name` is what it is called in the configuration.

    Raises Unavailable where the file may come right without a change of the configuration (not
    there yet, wrong mode), and ConfigError where its content is unusable. No error shows content.
    """
    try:
        # Not blocking, or a pipe in its place would hold the reader for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise Unavailable(
            f"cannot read {name} {path}: {error.strerror}; create it with mode 0600"
        ) from None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise Unavailable(f"cannot read {name} {path}: it is not a regular file")
        if status.st_mode & FORBIDDEN:
            raise Unavailable(
                f"cannot use {name} {path}: its mode {stat.S_IMODE(status.st_mode):04o} lets "
                f"others in, and it holds secrets; run chmod 0600 {path}"
            )
        if status.st_uid not in (0, os.geteuid()):
            raise Unavailable(
                f"cannot use {name} {path}: it belongs to user {status.st_uid}, who may change "
                f"it; run chown {os.geteuid()} {path}"
            )
        content = file.read(LONGEST + 1)
    if len(content) > LONGEST:
        raise ConfigError(f"cannot use {name} {path}: it is longer than {LONGEST} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise ConfigError(f"cannot use {name} {path}: it is not UTF-8") from None
