"""One of the two sides of a rehearsal: a server that is asked what users asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urljoin

from agent.core.model import Seconds
from agent.host.connection import Failure
from agent.host.http import HttpClient, Request
from agent.host.tls import Trust
from agent.host.url import Url, parse_url
from agent.rehearsal.traffic import AGENT, TAG, Asked
from agent.rehearsal.verdict import Answer


@dataclass(frozen=True, kw_only=True)
class Side:
    """Where a side is, and how it is asked. Redirects are never followed."""

    #: `https://staging.example`, without a path.
    url: Url
    #: The address to connect to instead of the name's own; Host and TLS keep the name.
    address: str = ""
    port: int | None = None
    trust: Trust = field(default_factory=Trust)
    #: Headers for this side alone: credentials of a staging host.
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    #: Longest answer.
    timeout: Seconds = 30.0
    #: Of this rehearsal; stands in `X-Hostmend-Rehearsal`.
    tag: str = "1"

    async def ask(self, client: HttpClient, asked: Asked) -> Answer:
        """One request, as it stands in the log. Raises Unavailable when this host cannot ask."""
        url = parse_url(f"{self.url.scheme}://{self.url.authority}{asked.target}")
        request = Request(
            url=url,
            method=asked.method,
            address=self.address,
            port=self.port,
            trust=self.trust,
            headers={**self.headers, "User-Agent": f"{AGENT}/1", TAG: self.tag},
        )
        answer = await client.fetch(request, self.timeout)
        if isinstance(answer, Failure):
            return Answer(status=None, seconds=0.0, error=answer.why)
        location = answer.header("location") or ""
        elsewhere = ""
        if 300 <= answer.status < 400 and location:
            target = urljoin(str(url), location)
            try:
                if parse_url(target).authority != self.url.authority:
                    elsewhere = target
            except ValueError:
                elsewhere = target
        return Answer(
            status=answer.status, seconds=0.0, bytes=len(answer.body), elsewhere=elsewhere
        )
