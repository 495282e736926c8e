"""Turning repairs on: the one change to a configuration that hostmend makes itself."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from agent.core.model import Mode
from agent.documents import parse_document
from agent.errors import ConfigError

_SHADOW = re.compile(r"(?<![\w-])(mode\s*:\s*)(?:shadow|'shadow'|\"shadow\")(?![\w-])")


def arm(files: Iterable[Path]) -> Path | None:
    """Makes `policy.mode` `auto` where it is `shadow`, and changes nothing else.

    Returns the file that was changed; None when no file says `shadow` for the whole host. Raises
    ConfigError when the line cannot be changed safely; then nothing has changed.
    """
    for file in files:
        # Bytes: reading as text would change the ends of lines.
        text = file.read_bytes().decode("utf-8-sig")
        document = parse_document(text, str(file))
        if document is None:
            continue
        node, found = document.follow(("policy", "mode"))
        if found != ("policy", "mode") or node.value != Mode.SHADOW.value:
            continue
        lines = text.split("\n")
        changed, count = _SHADOW.subn(rf"\g<1>{Mode.AUTO.value}", lines[node.line - 1])
        if count == 1:
            lines[node.line - 1] = changed
            armed = parse_document("\n".join(lines), str(file))
            if armed is not None and armed.follow(("policy", "mode"))[0].value == Mode.AUTO.value:
                _replace(file, "\n".join(lines))
                return file
        raise ConfigError(
            "cannot change it here: write `mode: auto` yourself",
            file=str(file),
            line=node.line,
            key="policy.mode",
        )
    return None


def _replace(file: Path, text: str) -> None:
    """Another content in place of a file's, at once, with the same owner and mode."""
    target = file.resolve()
    try:
        held = target.stat()
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    except OSError as error:
        raise ConfigError(f"cannot write it: {error.strerror}", file=str(file)) from error
    try:
        with os.fdopen(handle, "wb") as new:
            new.write(text.encode())
            new.flush()
            os.fchmod(new.fileno(), held.st_mode & 0o7777)
            os.fchown(new.fileno(), held.st_uid, held.st_gid)
            os.fsync(new.fileno())
        Path(name).replace(target)
    except OSError as error:
        with suppress(OSError):
            Path(name).unlink()
        raise ConfigError(f"cannot write it: {error.strerror}", file=str(file)) from error
