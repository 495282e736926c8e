"""`type: demo`: a small page of hostmend's own is served and says what it should.

It needs no root, no systemd and no web server, and it goes the whole way of a failure: looked at
over HTTP, repaired by a playbook, proved by the same look.
"""

from __future__ import annotations

import hashlib
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from agent.checks.check import CheckOptions, CheckType, StepOptions
from agent.core.model import Evidence, Finding, Status
from agent.host.connection import Failure
from agent.host.http import Request
from agent.host.machine import Machine
from agent.host.url import parse_url

#: Every whole page ends with it.
MARK = "<!-- whole -->"

CAUSES = {
    "broken": "The page answers, but it is not the whole page.",
    "error": "The page's server answers with an error.",
    "refused": "Nothing answers.",
}

_TIMEOUT = 2.0


class DemoOptions(CheckOptions):
    """A page that `hostmend demo` serves."""

    type: Literal["demo"]
    #: The file that is served.
    page: Path = Field(description="The file that is served.")
    port: Annotated[int, Field(ge=1, le=65535)] = Field(
        default=8643, description="Where it is served, on 127.0.0.1."
    )


def _finding(options: DemoOptions, status: Status, cause: str, summary: str) -> Finding:
    return Finding(
        subject=str(options.page),
        status=status,
        cause=cause,
        summary=summary,
        resource=f"page:{options.page}",
    )


async def look(options: DemoOptions, machine: Machine) -> tuple[Finding, ...]:
    """One finding, on the page."""
    url = f"http://127.0.0.1:{options.port}/"
    answer = await machine.http.fetch(Request(url=parse_url(url)), _TIMEOUT)
    if isinstance(answer, Failure):
        summary = f"{url} does not answer: {answer.why}"
        return (_finding(options, Status.CRITICAL, "refused", summary),)
    if answer.status != HTTPStatus.OK:
        summary = f"{url} answers {answer.status}"
        return (_finding(options, Status.CRITICAL, "error", summary),)
    if not answer.text.rstrip().endswith(MARK):
        summary = f"{url} answers, but the page is not whole"
        return (_finding(options, Status.CRITICAL, "broken", summary),)
    return (_finding(options, Status.OK, "", f"{url} is whole"),)


async def gather(
    options: DemoOptions, _finding: Finding, _machine: Machine
) -> tuple[Evidence, ...]:
    """The file as it is."""
    try:
        body = options.page.read_bytes()[:4096]
    except OSError as error:
        return (Evidence(title="The page's file", text=f"cannot be read: {error.strerror}"),)
    digest = hashlib.sha256(body).hexdigest()[:12]
    text = f"{len(body)} bytes, sha256 {digest}\n{body.decode(errors='replace')[:600]}"
    return (Evidence(title="The page's file", text=text),)


DEMO = CheckType(
    name="demo",
    summary="A page that `hostmend demo` serves is whole.",
    model=DemoOptions,
    look=look,
    identity=("page",),
    causes=CAUSES,
    gather=gather,
    default_ladder=lambda options: (
        StepOptions(remedy="restore-demo-page", options={"page": str(options.page)}),
    ),
    defaults={"every": "2s", "timeout": "5s", "stable_for": "5s", "cool_down": "1s"},
    names=lambda options: frozenset({str(options.page)}),
)
