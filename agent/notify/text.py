"""Evidence made fit for a message: cleaned, redacted, cut to what helps.

It is untrusted (a log line can hold anything) and leaves the host.
"""

from __future__ import annotations

from agent.core.text import clean_text, cut
from agent.host.text import LINE_LENGTH, READ_AT_MOST, redact_text

#: Of one piece of evidence: its first and its last lines.
HEAD_LINES, TAIL_LINES = 4, 16


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
