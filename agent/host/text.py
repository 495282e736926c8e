"""Text that comes from elsewhere (a log, a command's output), made fit to be kept and shown.

It is untrusted: it loses its control characters and what looks like a secret. Redaction knows
common forms, not every secret there is.
"""

from __future__ import annotations

import re

from agent.core.text import MASK, clean_text, cut

#: More of one text is never looked at.
READ_AT_MOST = 64 * 1024
#: Longest `msg`, output stream and diff of one task of a run, in characters.
MAX_MESSAGE = 4_000
MAX_OUTPUT = 16_000
MAX_DIFF = 32_000
#: Characters of a line worth keeping.
LINE_LENGTH = 240

#: What the name of a secret holds.
_NAME_OF_ONE = (
    r"(?:pass(?:word|wd|phrase|code)|(?<![a-z])pass(?![a-z])|pwd|secret|token|credentials?"
    r"|(?:api|access|private|auth)[_-]?key|session[_-]?id|amz-signature)"
)
_VALUE = r"""(?:"(?:\\.|[^"\\\n]){0,2000}"|'(?:\\.|[^'\\\n]){0,2000}'|\S{1,2000})"""

#: Pattern and what replaces it, in order. Every repetition has a bound, so that hostile text
#: costs no more than its length.
REDACTIONS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(
            r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----.{0,8000}?"
            r"(?:-----END [A-Z ]{0,40}PRIVATE KEY-----|\Z)",
            re.DOTALL,
        ),
        MASK,
    ),
    # Digest carries quoted parts, so its whole line goes; so do cookies.
    (re.compile(r"(?i)(authorization[\"']?\s{0,8}[:=]\s{0,8}[\"']?)digest\s[^\n]*"), rf"\1{MASK}"),
    (re.compile(r"(?i)((?:set-)?cookie[\"']?\s{0,8}:\s{0,8})[^\n]*"), rf"\1{MASK}"),
    (
        re.compile(r"(?i)(authorization[\"']?\s{0,8}[:=]\s{0,8}+[\"']?+)(?!\*\*\*)[^\n\"']+"),
        rf"\1{MASK}",
    ),
    (re.compile(r"(?i)\b(bearer|basic)(\s{1,8})[A-Za-z0-9._~+/=-]{8,2000}"), rf"\1\2{MASK}"),
    # user:password@ in a URL: the ordinary form, then one with a slash in the password. A port
    # before a path is no password.
    (re.compile(r"(\w://)[^\s/?#\"'<>]{0,512}@"), rf"\1{MASK}@"),
    (re.compile(r"(\w://)[^\s:/@]{0,256}:(?!\d{1,5}[/?#\s])[^\s@]{0,512}@"), rf"\1{MASK}@"),
    (
        re.compile(
            rf"(?i)(?<![\w.-])([\w.-]{{0,40}}?{_NAME_OF_ONE}[\w.-]{{0,40}}[\"']?\s{{0,8}}[=:]\s{{0,8}})"
            rf"{_VALUE}"
        ),
        rf"\1{MASK}",
    ),
    (
        re.compile(rf"(?i)(--[\w-]{{0,40}}?{_NAME_OF_ONE}[\w-]{{0,40}}\s{{1,8}})(?!-){_VALUE}"),
        rf"\1{MASK}",
    ),
    # Tokens that are known by their look: JSON Web Tokens, AWS, GitHub, Slack.
    (re.compile(r"\beyJ[\w-]{8,2000}\.[\w-]{4,4000}\.[\w-]{0,2000}"), MASK),
    (re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"), MASK),
    (re.compile(r"\bgh[pousr]_[A-Za-z0-9]{20,255}\b"), MASK),
    (re.compile(r"\bxox[a-z]-[A-Za-z0-9-]{10,255}\b"), MASK),
)


def has_controls(text: str) -> bool:
    """Whether it holds a character that does not belong into one line of plain text."""
    return clean_text(text) != text or "\n" in text or "\t" in text


def redact_text(text: str, secrets: tuple[str, ...] = ()) -> str:
    """Text with what looks like a password, a token or a key replaced by `MASK`, and each of
    `secrets`."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, MASK)
    for pattern, replacement in REDACTIONS:
        text = pattern.sub(replacement, text)
    return text


def fit_line(text: str, length: int = LINE_LENGTH) -> str:
    """One cleaned, redacted line of at most `length` characters."""
    line = " ".join(redact_text(clean_text(text[:READ_AT_MOST])).split())
    return cut(line, length)


def cap_text(text: str, limit: int) -> str:
    """At most `limit` characters, the beginning and the end, saying how much is left out."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters left out ...]\n{text[-half:]}"


def show(text: object, limit: int, secrets: tuple[str, ...] = ()) -> str:
    """Any value as text fit to show: cleaned, redacted, at most `limit` characters."""
    whole = text if isinstance(text, str) else str(text)
    # Looking at a few times the limit bounds the work that a huge output can cause.
    return cap_text(redact_text(clean_text(cap_text(whole, 4 * limit)), secrets), limit)
