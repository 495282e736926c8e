"""Text that came from elsewhere, made fit to show: no control characters, no secrets, no end."""

from __future__ import annotations

import re

from agent.core.text import clean_text

#: Longest `msg`, output stream and diff of one task, in characters.
MAX_MESSAGE = 4_000
MAX_OUTPUT = 16_000
MAX_DIFF = 32_000

_SECRET = re.compile(
    r"(?i)((?:pass(?:word|wd|phrase)?|secret|token|api[_-]?key|private[_-]?key|credentials?)"
    r"[\w.-]*[\"']?\s*[:=]\s*)(?:\"[^\"\n]*\"|'[^'\n]*'|\S+)"
)
_AUTHORIZATION = re.compile(r"(?i)(authorization[\"']?\s*[:=]\s*)[^\n]+")
_IN_URL = re.compile(r"(?i)(\b[a-z][a-z0-9+.-]*://[^\s:/@]*:)[^\s@/]+(@)")
_PEM = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL
)
_HIDDEN = "***"


def has_controls(text: str) -> bool:
    """Whether it holds a character that does not belong into one line of plain text."""
    return clean_text(text) != text or "\n" in text or "\t" in text


def redact(text: str, secrets: tuple[str, ...] = ()) -> str:
    """With what looks like a password, key or token hidden, and each of `secrets`."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, _HIDDEN)
    text = _PEM.sub(_HIDDEN, text)
    text = _AUTHORIZATION.sub(rf"\1{_HIDDEN}", text)
    text = _IN_URL.sub(rf"\1{_HIDDEN}\2", text)
    return _SECRET.sub(rf"\1{_HIDDEN}", text)


def cap(text: str, limit: int) -> str:
    """At most `limit` characters, the beginning and the end, saying how much is left out."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters left out ...]\n{text[-half:]}"


def show(text: object, limit: int, secrets: tuple[str, ...] = ()) -> str:
    """Any value as text fit to show."""
    whole = text if isinstance(text, str) else str(text)
    # Looking at a few times the limit bounds the work that a huge output can cause.
    return cap(redact(clean_text(cap(whole, 4 * limit)), secrets), limit)
