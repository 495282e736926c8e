"""`type: dns`: a name server answers, and with what it should."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import sys
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from agent.checks.check import CheckOptions, CheckType
from agent.checks.peers import (
    REFERENCE,
    SHARE,
    Address,
    Reference,
    find_blame,
    name_peer,
)
from agent.checks.talk import SlowLimits
from agent.core.model import Evidence, Finding, Status
from agent.core.units import format_duration
from agent.errors import Unavailable
from agent.host.connection import Failure
from agent.host.machine import Machine
from agent.host.resolver import Answer, Question, Transport, ask, load, read_servers
from agent.host.url import read_address, read_host

CAUSES = {
    "nxdomain": "The name does not exist.",
    "servfail": "The server could not find it out (SERVFAIL): it is broken, or whom it asks is.",
    "refusing": "The server does not answer such questions of this host (REFUSED).",
    "code": "The server answers with another code than the wanted one.",
    "empty": "The name exists, and has nothing of the wanted kind.",
    "unexpected": "The values are not those that are expected.",
    "not-authoritative": "The server does not speak for the zone.",
    "truncated": "The answer is cut short, and there is no longer one.",
    "refused": "The port is closed.",
    "timeout": "There was no answer in time.",
    "reset": "The connection was ended before the answer was whole.",
    "invalid": "What answers is no name server.",
    "slow": "It takes longer than the configured time.",
    "unreachable": "There is no way to the server, or a firewall forbids it.",
    "offline": "This host itself is not connected; nothing is known of the server.",
}

MEASUREMENTS = {
    "response_seconds": "From the question to the answer.",
    "values_count": "Values in the answer.",
    "ttl_seconds": "Shortest time that a value may be kept.",
}

_CODES = {"NXDOMAIN": "nxdomain", "SERVFAIL": "servfail", "REFUSED": "refusing"}
_EVIDENCE_SECONDS, _LOAD_SECONDS = 5.0, 30.0


def _check_name(text: str) -> str:
    if text == ".":
        return text
    try:
        return read_host(text.rstrip("."))
    except ValueError as error:
        raise ValueError(
            f"{text!r} is no name that DNS knows: write for example shop.example"
        ) from error


class DnsOptions(CheckOptions):
    """A question, and what the answer should be."""

    type: Literal["dns"]
    name: Annotated[str, AfterValidator(_check_name)] = Field(
        description="The name that is asked for; for `PTR` an address will do."
    )
    record: Literal[
        "A", "AAAA", "CAA", "CNAME", "DNSKEY", "DS", "HTTPS", "MX", "NS", "PTR", "SOA", "SRV",
        "SVCB", "TLSA", "TXT",
    ] = Field(default="A", description="What is asked of it.")  # fmt: skip
    server: Address | None = Field(
        default=None,
        description="Address of the name server, and its port if it is not 53; left out: those of "
        "/etc/resolv.conf, in turn.",
    )
    transport: Transport = Field(
        default=Transport.AUTO,
        description="`auto`: UDP, and TCP where the answer is cut short; `udp` or `tcp` alone.",
    )
    recursion: bool = Field(default=True, description="Whether the server is to ask others.")
    expect: tuple[str, ...] = Field(
        default=(), description="Values that must be in the answer, as zone files have them."
    )
    others: bool = Field(default=True, description="`false`: no values but those in `expect`.")
    code: Literal["NOERROR", "NXDOMAIN", "REFUSED", "SERVFAIL"] = Field(
        default="NOERROR", description="The code that is wanted; `NXDOMAIN`: it must not exist."
    )
    authoritative: bool = Field(
        default=False, description="`true`: the server must speak for the zone."
    )
    reference: Reference | None = REFERENCE
    warning: SlowLimits = Field(default_factory=SlowLimits, description="Limits of `warning`.")
    critical: SlowLimits = Field(default_factory=SlowLimits, description="Limits of `critical`.")


def _subject(options: DnsOptions) -> str:
    of = f" of {options.server}" if options.server else ""
    return f"{options.name} {options.record}{of}"


async def look(options: DnsOptions, machine: Machine) -> tuple[Finding, ...]:
    """One finding, on the question. Raises Unavailable when this host cannot even ask."""
    assert options.timeout is not None  # noqa: S101 - the configuration filled it in
    result, server, seconds = await _ask(options, machine, options.timeout * SHARE)
    if isinstance(result, Failure):
        why = await find_blame(options.reference, options.timeout, result)
        return (_judge_failure(options, result, why),)
    return (judge(options, result, server, seconds),)


async def _ask(
    options: DnsOptions, machine: Machine, seconds: float
) -> tuple[Answer | Failure, str, float]:
    """The answer of the first server that gives one, who that was, and how long it took."""
    if "dns.message" not in sys.modules:
        await machine.space.patience.call("the library dnspython", _LOAD_SECONDS, load)
    if options.server is not None:
        servers = [read_address(options.server)]
    else:
        servers = [(address, None) for address in read_servers()]
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    result: Answer | Failure | None = None
    for position, (address, port) in enumerate(servers):
        began = loop.time()
        question = Question(
            server=address,
            port=port or 53,
            name=_name(options),
            record=options.record,
            transport=options.transport,
            recursion=options.recursion,
        )
        answer = await ask(question, (until - began) / (len(servers) - position))
        if isinstance(answer, Answer):
            return answer, name_peer(address, port or 53), loop.time() - began
        result = result or answer
    assert result is not None  # noqa: S101 - there is at least one server
    return result, "", seconds


def _name(options: DnsOptions) -> str:
    if options.record == "PTR":
        try:
            return ipaddress.ip_address(options.name).reverse_pointer
        except ValueError:
            return options.name
    return options.name


def _judge_failure(options: DnsOptions, failure: Failure, own_fault: str) -> Finding:
    subject = _subject(options)
    if own_fault:
        summary = f"cannot tell of {subject}: this host is offline, {own_fault}"
        return _find(options, Status.UNKNOWN, "offline", summary, facts={"Attempt": failure.why})
    summary = f"{subject}: {failure.why}"
    return _find(options, Status.CRITICAL, failure.trouble.value, summary)


def judge(options: DnsOptions, answer: Answer, server: str, seconds: float) -> Finding:
    """The finding on one answer."""
    subject = _subject(options)
    shown = ", ".join(answer.values[:10]) or answer.code
    facts = {"Answer": shown, "From": f"{server} ({'TCP' if answer.tcp else 'UDP'})"}
    measured = {"response_seconds": seconds, "values_count": float(len(answer.values))}
    if answer.ttl is not None:
        measured["ttl_seconds"] = float(answer.ttl)
    status, cause, why = _judge_answer(options, answer)
    summary = f"{subject} is {shown}"
    if cause:
        summary = f"{subject}: {why}"
    else:
        limits = ((Status.CRITICAL, options.critical), (Status.WARNING, options.warning))
        for level, limit in limits:
            if limit.response is not None and seconds > limit.response:
                status, cause = level, "slow"
                taken = format_duration(seconds)
                summary = f"{subject}: {server} took {taken}, longer than "
                summary += format_duration(limit.response)
                break
    return _find(options, status, cause, summary, facts=facts, measurements=measured)


def _judge_answer(options: DnsOptions, answer: Answer) -> tuple[Status, str, str]:
    if answer.code != options.code:
        cause = _CODES.get(answer.code, "code")
        if answer.code == "NOERROR":
            return Status.CRITICAL, "code", f"it exists, and {options.code} was wanted"
        return Status.CRITICAL, cause, f"the answer is {answer.code}"
    if answer.truncated:
        return Status.CRITICAL, "truncated", "the answer is cut short"
    if options.authoritative and not answer.authoritative:
        return Status.CRITICAL, "not-authoritative", "the server does not speak for the zone"
    if options.code != "NOERROR":
        return Status.OK, "", ""
    if not answer.values:
        return Status.CRITICAL, "empty", f"it has no {options.record}"
    record = options.record
    found = {_plain(value, record) for value in answer.values}
    missing = [value for value in options.expect if _plain(value, record) not in found]
    if missing:
        return Status.CRITICAL, "unexpected", f"{', '.join(missing)} is not among {_list(answer)}"
    if options.expect and not options.others:
        expected = {_plain(value, record) for value in options.expect}
        more = [value for value in answer.values if _plain(value, record) not in expected]
        if more:
            return Status.CRITICAL, "unexpected", f"{', '.join(more[:10])} should not be there"
    return Status.OK, "", ""


def _list(answer: Answer) -> str:
    return ", ".join(answer.values[:10])


def _plain(value: str, record: str) -> str:
    """A value as it is compared: texts without quotes, and of others small letters, and names
    without a last dot."""
    if record == "TXT":
        texts = re.findall(r'"((?:[^"\\]|\\.)*)"', value)
        return "".join(texts) if texts else value
    return " ".join(word.rstrip(".") for word in value.lower().split())


def _find(
    options: DnsOptions,
    status: Status,
    cause: str,
    summary: str,
    *,
    facts: Mapping[str, str] | None = None,
    measurements: Mapping[str, float] | None = None,
) -> Finding:
    subject = _subject(options)
    return Finding(
        subject=subject,
        status=status,
        cause=cause,
        summary=summary,
        facts=facts or {},
        measurements=measurements or {},
        resource=f"name:{subject}",
    )


async def gather(options: DnsOptions, finding: Finding, machine: Machine) -> tuple[Evidence, ...]:
    """The question asked once more: all of the answer, or why there is none."""
    seconds = min(_EVIDENCE_SECONDS, (options.timeout or _EVIDENCE_SECONDS) * SHARE)
    lines = [f"Asked: {finding.subject}"]
    try:
        result, server, taken = await _ask(options, machine, seconds)
    except Unavailable as error:
        lines.append(str(error))
    else:
        if isinstance(result, Failure):
            lines.append(f"No answer: {result.why}")
        else:
            lines += [f"From: {server}", f"Code: {result.code}", f"Took: {taken:.3f} s"]
            lines += [f"Speaks for the zone: {'yes' if result.authoritative else 'no'}"]
            lines += [f"Value: {value}" for value in result.values]
    return (Evidence(title=f"Answer on {finding.subject}", text="\n".join(lines)),)


DNS = CheckType(
    name="dns",
    summary="A name server answers, and with what it should.",
    model=DnsOptions,
    look=look,
    causes=CAUSES,
    measurements=MEASUREMENTS,
    gather=gather,
    identity=("name", "record", "server"),
)
