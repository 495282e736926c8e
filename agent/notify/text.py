"""Text from elsewhere, made fit for a message: cleaned, redacted, cut to what helps.

Evidence is untrusted (a log line can hold anything) and leaves the host, so it loses its control
characters and what looks like a secret. Redaction knows common forms, not every secret there is.
"""

from __future__ import annotations

import re

from agent.core.text import clean_text, cut

#: What stands where a secret stood.
MASK = "***"

#: More of one text is never looked at: the end of it, where logs say why.
READ_AT_MOST = 64 * 1024
#: Of one piece of evidence: its first and its last lines, and the length of each.
HEAD_LINES, TAIL_LINES, LINE_LENGTH = 4, 16, 240

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


def redact_text(text: str) -> str:
    """Text with what looks like a password, a token or a key replaced by `MASK`."""
    for pattern, replacement in REDACTIONS:
        text = pattern.sub(replacement, text)
    return text


def fit_line(text: str, length: int = LINE_LENGTH) -> str:
    """One cleaned, redacted line of at most `length` characters."""
    line = " ".join(redact_text(clean_text(text[:READ_AT_MOST])).split())
    return cut(line, length)


def fit_evidence(text: str) -> list[str]:
    """The lines of a piece of evidence worth sending: its beginning and its end.

    Redacted before it is cut, because half a secret no longer looks like one.
    """
    left_out = 0
    if len(text) > READ_AT_MOST:
        kept = text[-READ_AT_MOST:].partition("\n")[2] or text[-READ_AT_MOST:]
        left_out = text.count("\n") - kept.count("\n")
        text = kept
    lines = [line.rstrip() for line in redact_text(clean_text(text)).expandtabs().split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    head = 0 if left_out else HEAD_LINES
    if len(lines) > head + TAIL_LINES:
        left_out += len(lines) - head - TAIL_LINES
        lines = [*lines[:head], *lines[-TAIL_LINES:]]
    lines = [cut(line, LINE_LENGTH) for line in lines]
    if left_out:
        lines.insert(head, f"({left_out} lines left out)")
    return lines
