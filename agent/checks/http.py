"""`type: http`: a page, or another answer over HTTP, is what it should be.

What it should be is said by conditions that are true when it fails (`agent.checks.conditions`).
Before another host is blamed, this host's own way to it is looked at.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    Field,
    PlainSerializer,
    model_validator,
)

from agent.checks.check import CheckOptions, CheckType, Proposal
from agent.checks.logins import LoginOptions, read_login
from agent.checks.peers import (
    REFERENCE,
    SHARE,
    Address,
    Reference,
    WebUrl,
    find_blame,
)
from agent.checks.values import AbsolutePath, check_cause
from agent.core.model import Evidence, Finding, Status
from agent.core.text import MASK
from agent.core.units import format_duration
from agent.errors import Unavailable
from agent.host.certificate import Certificate, describe_certificate
from agent.host.conditions import Condition, Kind, Verdict, parse_condition
from agent.host.connection import Failure, Family, Trouble
from agent.host.cookies import Jar
from agent.host.http import BODY_LIMIT, Request, Response
from agent.host.listeners import find_listeners
from agent.host.login import log_in
from agent.host.machine import Machine
from agent.host.space import Hung
from agent.host.tls import Trust
from agent.host.url import Url, is_secret_name, list_secrets, mask_secrets, parse_url, read_address
from agent.host.visit import Astray, Visit, parse_redirects, visit
from agent.host.webservers import Site, find_sites

CAUSES = {
    "refused": "The port is closed.",
    "timeout": "There was no whole answer in time.",
    "tls": "No TLS connection came about: the certificate is not accepted, or there is no TLS.",
    "dns": "The name has no address, or nobody could be asked for it.",
    "unreachable": "There is no way to the host, or a firewall forbids it.",
    "reset": "The connection was ended before the answer was whole.",
    "invalid": "What answers does not speak HTTP, or packed its body wrongly.",
    "redirects": "Redirects lead nowhere, or on and on.",
    "elsewhere": "It redirects to another site, which is not asked.",
    "unclear": "A condition cannot be judged: what it compares is not in the answer.",
    "login": "The log-in before it did not work.",
    "offline": "This host itself is not connected; nothing is known of the other one.",
}

MEASUREMENTS = {
    "status_code": "The status of the answer.",
    "response_seconds": "From the beginning to the end of the body, redirects included.",
    "dns_seconds": "Until the name had an address.",
    "connect_seconds": "Until the connection stood.",
    "tls_seconds": "For the handshake of TLS.",
    "first_byte_seconds": "From the request to the first byte of the answer.",
    "body_bytes": "The length of the body.",
    "login_seconds": "For the log-in before it.",
    "certificate_expires_seconds": "Time until the server's certificate ends.",
}

#: Longest that one reading of this host may last for proposals, in seconds.
_SEARCH_SECONDS = 5.0
#: Longest request for evidence, and what is kept of the body, in characters.
_EVIDENCE_SECONDS, _EXCERPT = 5.0, 2000

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"(?:[\x21-\x7e](?:[\x20\x21-\x7e\t]*[\x21-\x7e])?)?")
#: Headers that the connection itself decides on.
_FRAMING = frozenset({"connection", "content-length", "transfer-encoding", "upgrade", "expect"})


def _check_condition(text: str) -> str:
    parse_condition(text)
    return text


def _check_cause(name: str) -> str:
    return check_cause(name, known=CAUSES, kind="http")


def _check_headers(headers: Mapping[str, str]) -> Mapping[str, str]:
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a header")
        if name.lower() in _FRAMING:
            raise ValueError(f"`{name}` is sent as it must be: leave it out")
        # The value is not repeated: it may be a secret.
        if not _HEADER_VALUE.fullmatch(value):
            raise ValueError(f"the value of `{name}` must be one line of ASCII characters")
    return headers


def _mask_headers(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: MASK if is_secret_name(name) else value for name, value in headers.items()}


def _check_redirects(text: str) -> str:
    parse_redirects(text)
    return text


_Conditions = Mapping[
    Annotated[str, AfterValidator(_check_cause)], Annotated[str, AfterValidator(_check_condition)]
]


class HttpOptions(CheckOptions):
    """An address of the web, and what is wrong with its answers."""

    type: Literal["http"]
    url: WebUrl = Field(repr=False, description="An http:// or https:// address.")
    method: Literal["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"] = Field(
        default="GET", description="How it is asked."
    )
    headers: Annotated[
        Mapping[str, str],
        AfterValidator(_check_headers),
        PlainSerializer(_mask_headers, when_used="json"),
    ] = Field(default_factory=dict, repr=False, description="Request headers, by name.")
    body: Annotated[
        str | None,
        PlainSerializer(lambda text: text and MASK, when_used="json"),
    ] = Field(default=None, repr=False, description="What is sent with the request.")
    connect: Address | None = Field(
        default=None,
        description="The address, and the port if it is another one, to connect to instead of "
        "the name's own: `127.0.0.1:443`. The Host header and TLS keep the name.",
    )
    family: Family | None = Field(
        default=None, description="Only addresses of this family: `ipv4` or `ipv6`."
    )
    login: LoginOptions | None = Field(
        default=None, description="A log-in before the request, whose cookies go with it."
    )
    redirects: Annotated[str, AfterValidator(_check_redirects)] = Field(
        default="stay",
        description="`stay` follows redirects within the site, `follow` to everywhere, both at "
        "most five; `stay(2)`: at most two; `never`: the redirect is the answer.",
    )
    tls: Literal["verify", "no-verify"] = Field(
        default="verify", description="Whether the certificate must be good."
    )
    ca_file: Path | None = Field(
        default=None,
        description="Certificates of the authorities to trust, PEM; left out: the system's.",
    )
    client_cert: AbsolutePath | None = Field(
        default=None, description="Our own certificate for servers that ask for one, PEM."
    )
    client_key: AbsolutePath | None = Field(
        default=None, description="Its key, PEM; left out: it is in the same file."
    )
    body_limit: int = Field(
        default=BODY_LIMIT, ge=1024, le=64 * 1024 * 1024, description="Bytes read of a body."
    )
    reference: Reference | None = REFERENCE
    critical: _Conditions = Field(
        default_factory=lambda: {"status": "[STATUS] >= 400"},
        description="Cause: the condition that is true when users are failed.",
    )
    warning: _Conditions = Field(
        default_factory=dict, description="Cause: the condition that is true when it needs a look."
    )

    @model_validator(mode="after")
    def _check_key(self) -> HttpOptions:
        if self.client_key is not None and self.client_cert is None:
            raise ValueError("`client_key` needs `client_cert`")
        return self


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """An answer as conditions see it."""

    response: Response
    response_seconds: float
    certificate_expires_seconds: float | None

    @property
    def status(self) -> int:
        return self.response.status

    @property
    def body_length(self) -> int:
        return len(self.response.body)

    @property
    def cut(self) -> bool:
        return self.response.cut

    @property
    def text(self) -> str:
        return self.response.text

    def header(self, name: str) -> str | None:
        return self.response.header(name)


async def look(options: HttpOptions, machine: Machine) -> tuple[Finding, ...]:
    """One finding, on the address. Raises Unavailable when this host cannot even try."""
    assert options.timeout is not None  # noqa: S101 - the configuration filled it in
    asked = await _fetch(options, machine, _make_request(options), options.timeout * SHARE)
    seen = asked.seen
    if isinstance(seen.result, Failure):
        why = await find_blame(options.reference, options.timeout, seen.result)
        finding = _judge_failure(options, seen, seen.result, why)
        if asked.at_login:
            finding = replace(finding, facts={**finding.facts, "Failed at": "the log-in"})
    elif asked.why:
        finding = _judge_login(options, asked)
    else:
        finding = _judge(options, seen, seen.result, now=time.time())
    if asked.login_seconds is not None:
        measured = {**finding.measurements, "login_seconds": asked.login_seconds}
        finding = replace(finding, measurements=measured)
    return (_hide(finding, asked.secrets),)


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What came of the request, or of the log-in before it where that failed."""

    seen: Visit
    #: Whatever may not be shown.
    secrets: frozenset[str]
    #: The log-in is what was seen.
    at_login: bool = False
    #: Why the log-in did not work, though it was answered; a cause and words.
    why: tuple[str, str] | None = None
    login_seconds: float | None = None


async def _fetch(
    options: HttpOptions, machine: Machine, request: Request, seconds: float
) -> _Asked:
    redirects, client = parse_redirects(options.redirects), machine.http
    secrets = _list_secrets(options)
    if options.login is None:
        seen = await visit(client, request, redirects, seconds)
        return _Asked(seen=seen, secrets=secrets)
    jar, login = Jar(), read_login(options.login, request.url)
    secrets |= {*login.values.values(), *list_secrets(login.url)}
    entered = await log_in(client, login, request, jar, seconds)
    why = _find_refusal(options.login, entered)
    if isinstance(entered.result, Failure) or why is not None:
        return _Asked(
            seen=entered, secrets=secrets | jar.values(), at_login=True, why=why,
            login_seconds=entered.seconds,
        )  # fmt: skip
    seen = await visit(client, request, redirects, seconds - entered.seconds, jar=jar)
    return _Asked(seen=seen, secrets=secrets | jar.values(), login_seconds=entered.seconds)


def _find_refusal(options: LoginOptions, entered: Visit) -> tuple[str, str] | None:
    if isinstance(entered.result, Failure):
        return None
    if entered.astray is not None:
        return "login", entered.why
    condition = parse_condition(options.failed)
    verdict = condition.judge(
        _Seen(
            response=entered.result,
            response_seconds=entered.seconds,
            certificate_expires_seconds=None,
        )
    )
    if verdict.holds is None:
        return "unclear", f"whether it worked cannot be judged: {verdict.why}"
    return ("login", f"{verdict.why} ({condition.text})") if verdict.holds else None


def _judge_login(options: HttpOptions, asked: _Asked) -> Finding:
    cause, why = asked.why or ("login", "")
    response = asked.seen.result
    assert isinstance(response, Response)  # noqa: S101 - else it is a failure
    status = Status.UNKNOWN if cause == "unclear" else Status.CRITICAL
    said = _describe_status(response)
    summary = f"cannot log in to {{}}: {asked.seen.request.url} answers {said}: {why}"
    facts = {"Answer": said, "From": response.peer}
    return _make_finding(options, status, cause, summary, facts=facts)


def _hide(finding: Finding, secrets: frozenset[str]) -> Finding:
    """The finding without secrets, wherever a server repeats them."""
    return replace(
        finding,
        summary=mask_secrets(finding.summary, secrets),
        facts={name: mask_secrets(text, secrets) for name, text in finding.facts.items()},
    )


def _make_request(options: HttpOptions) -> Request:
    address, port = read_address(options.connect) if options.connect else ("", None)
    return Request(
        url=parse_url(options.url),
        method=options.method,
        headers=options.headers,
        body=(options.body or "").encode(),
        address=address,
        port=port,
        family=options.family,
        trust=Trust(
            verify=options.tls == "verify",
            ca_file=options.ca_file,
            client_cert=Path(options.client_cert) if options.client_cert else None,
            client_key=Path(options.client_key) if options.client_key else None,
        ),
        body_limit=options.body_limit,
    )


def _judge_failure(options: HttpOptions, seen: Visit, failure: Failure, own_fault: str) -> Finding:
    where = f" (redirected to {seen.request.url})" if len(seen.way) > 1 else ""
    why = failure.why
    if own_fault:
        return _make_finding(
            options,
            Status.UNKNOWN,
            "offline",
            f"cannot tell of {{}}{where}: this host is offline, {own_fault}",
            facts={"Attempt": why},
        )
    facts = {"Addresses": ", ".join(failure.addresses)} if failure.addresses else {}
    return _make_finding(
        options,
        Status.CRITICAL,
        failure.trouble.value,
        f"{{}}{where} does not answer: {why}",
        facts=facts,
        measurements={"response_seconds": seen.seconds},
    )


def _judge(options: HttpOptions, seen: Visit, response: Response, *, now: float) -> Finding:
    """The finding on an answer. `now`: seconds since 1970, as certificates count."""
    expires = response.chain[0].ends - now if response.chain else None
    answer = _Seen(
        response=response, response_seconds=seen.seconds, certificate_expires_seconds=expires
    )
    criticals = _judge_conditions(options.critical, answer)
    warnings = _judge_conditions(options.warning, answer)
    status, cause, why = Status.OK, "", ""
    if found := _first(criticals, holds=True):
        status, (cause, why) = Status.CRITICAL, found
    elif seen.astray is Astray.LOST:
        status, cause, why = Status.CRITICAL, "redirects", seen.why
    elif found := _first(criticals, holds=None):
        status, cause, why = Status.UNKNOWN, "unclear", f"{found[0]} cannot be judged: {found[1]}"
    elif seen.astray is Astray.ELSEWHERE:
        status, cause, why = Status.WARNING, "elsewhere", seen.why
    elif found := _first(warnings, holds=True):
        status, (cause, why) = Status.WARNING, found
    elif found := _first(warnings, holds=None):
        status, cause, why = Status.UNKNOWN, "unclear", f"{found[0]} cannot be judged: {found[1]}"

    said = _describe_status(response)
    facts = {"Answer": said, "From": response.peer}
    if len(seen.way) > 1:
        facts["Redirected to"] = seen.way[-1]
    also = [
        name
        for name, (_, verdict) in {**warnings, **criticals}.items()
        if verdict.holds and name != cause
    ]
    if also:
        facts["Also"] = ", ".join(also)
    if response.cut:
        facts["Body"] = f"longer than the {options.body_limit} bytes that are read"
    summary = f"{{}} answers {said} in {format_duration(seen.seconds)}"
    if why:
        summary = f"{{}} answers {said}: {why}"
    return _make_finding(
        options,
        status,
        cause,
        summary,
        facts=facts,
        measurements=_measure(response, seen.seconds, expires),
    )


_Judged = Mapping[str, tuple[Condition, Verdict]]


def _judge_conditions(conditions: Mapping[str, str], answer: _Seen) -> _Judged:
    judged = {}
    for cause, text in conditions.items():
        condition = parse_condition(text)
        judged[cause] = (condition, condition.judge(answer))
    return judged


def _first(judged: _Judged, *, holds: bool | None) -> tuple[str, str] | None:
    """Cause and words of the first condition with that verdict."""
    for cause, (condition, verdict) in judged.items():
        if verdict.holds is holds:
            if holds and condition.kinds == {Kind.STATUS}:
                return cause, condition.text
            return cause, f"{verdict.why} ({condition.text})"
    return None


def _measure(response: Response, seconds: float, expires: float | None) -> dict[str, float]:
    measured = {
        "status_code": float(response.status),
        "response_seconds": seconds,
        **response.timings.measure(),
        "body_bytes": float(len(response.body)),
    }
    return measured if expires is None else {**measured, "certificate_expires_seconds": expires}


def _describe_status(response: Response) -> str:
    reason = "".join(letter for letter in response.reason[:40] if letter.isprintable())
    return f"{response.status} {reason}".rstrip()


def _make_finding(
    options: HttpOptions,
    status: Status,
    cause: str,
    summary: str,
    *,
    facts: Mapping[str, str],
    measurements: Mapping[str, float] | None = None,
) -> Finding:
    """`{}` in the summary stands for the address."""
    subject = str(parse_url(options.url))
    return Finding(
        subject=subject,
        status=status,
        cause=cause,
        summary=summary.replace("{}", subject, 1),
        facts=facts,
        measurements=measurements or {},
        resource=f"url:{subject}",
    )


def _list_secrets(options: HttpOptions) -> frozenset[str]:
    """The secrets that the configuration holds."""
    secrets = {value for name, value in options.headers.items() if is_secret_name(name)}
    # `Bearer abc`: the word before is no secret, and what follows may come alone.
    secrets |= {word for value in secrets for word in value.split()[1:]}
    return frozenset(secrets) | list_secrets(parse_url(options.url))


# Evidence


async def gather(options: HttpOptions, _finding: Finding, machine: Machine) -> tuple[Evidence, ...]:
    """The address asked once more: what it answers, from where, and with which certificates."""
    request = replace(_make_request(options), chain=True)
    seconds = min(_EVIDENCE_SECONDS, (options.timeout or _EVIDENCE_SECONDS) * SHARE)
    asked = await _fetch(options, machine, request, seconds)
    seen, secrets = asked.seen, asked.secrets
    result = seen.result
    lines = [*(f"Asked: {request.method} {address}" for address in seen.way)]
    lines.append(f"Resolved: {await _describe_addresses(options, machine)}")
    items = []
    chain: tuple[Certificate, ...] = ()
    if isinstance(result, Failure):
        lines.append(f"No answer: {result.why}")
        lines += result.timings.describe()
        if result.trouble is Trouble.TLS:
            chain = await _read_rejected(seen.request, machine, seconds)
    else:
        lines += [f"Answer: {_describe_status(result)}", f"From: {result.peer}"]
        lines += [f"{name}: {MASK if is_secret_name(name) else v}" for name, v in result.headers]
        lines += result.timings.describe()
        lines.append(f"Whole: {seen.seconds:.3f} s")
        chain = result.chain
        if result.body:
            excerpt = result.text[:_EXCERPT]
            text = mask_secrets(excerpt, secrets)
            items.append(Evidence(title="Beginning of the body", text=text))
    subject = str(request.url)
    text = mask_secrets("\n".join(lines), secrets)
    items.insert(0, Evidence(title=f"Answer of {subject}", text=text))
    if chain:
        text = "\n".join(map(describe_certificate, chain))
        items.append(Evidence(title="Certificates", text=text))
    return tuple(items)


async def _describe_addresses(options: HttpOptions, machine: Machine) -> str:
    if options.connect:
        return f"no, {options.connect} is configured"
    url = parse_url(options.url)
    if url.is_address:
        return "no, the host is an address"
    try:
        async with asyncio.timeout(_EVIDENCE_SECONDS / 2):
            return ", ".join(await machine.http.resolve(url.host))
    except (Unavailable, TimeoutError) as error:
        return str(error) or "took too long"


async def _read_rejected(
    request: Request, machine: Machine, seconds: float
) -> tuple[Certificate, ...]:
    """The certificates that were not accepted. Nothing secret is sent to who shows them."""
    bare = Request(
        url=Url(
            scheme=request.url.scheme, host=request.url.host, port=request.url.port, target="/"
        ),
        method="HEAD",
        address=request.address,
        port=request.port,
        trust=Trust(verify=False),
        chain=True,
    )
    result = await machine.http.fetch(bare, seconds)
    return result.chain if isinstance(result, Response) else ()


async def propose(machine: Machine) -> tuple[Proposal, ...]:
    """Sites of nginx and Apache, asked of this host itself, where somebody listens for them."""
    call = machine.space.patience.call
    try:
        sites = await call("the web servers' configuration", _SEARCH_SECONDS, find_sites)
        listeners = await call("the listeners", _SEARCH_SECONDS, find_listeners)
    except (Hung, OSError):
        return ()
    open_ports = {each.port for each in listeners}
    return tuple(
        proposal for site in sites if site.port in open_ports for proposal in _propose_site(site)
    )


def _propose_site(site: Site) -> list[Proposal]:
    scheme, usual = ("https", 443) if site.tls else ("http", 80)
    port = "" if site.port == usual else f":{site.port}"
    address = f"[{site.address}]" if ":" in site.address else site.address
    if not site.names:
        # Nobody's name: the certificate, if there is one, is for another.
        if site.tls:
            return []
        url = f"{scheme}://{address}{port}/"
        why = f"{site.server} serves it to whoever names no site"
        return [Proposal(name=f"{site.server}-{site.port}", options=_ask(url), why=why)]
    return [
        Proposal(
            name=name if site.tls else f"{name}-{scheme}",
            options={
                **_ask(f"{scheme}://{name}{port}/"),
                "connect": f"{address}:{site.port}",
                **({"warning": {"ending": "[CERTIFICATE_EXPIRATION] < 14d"}} if site.tls else {}),
            },
            why=f"{site.server} serves {name} on port {site.port}",
        )
        for name in site.names
    ]


def _ask(url: str) -> dict[str, object]:
    return {"type": "http", "url": url}


HTTP = CheckType(
    name="http",
    summary="A page, or another answer over HTTP, is what it should be.",
    model=HttpOptions,
    look=look,
    causes=CAUSES,
    measurements=MEASUREMENTS,
    propose=propose,
    gather=gather,
    own_causes=lambda options: frozenset({*options.critical, *options.warning}),
)
