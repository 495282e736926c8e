"""`type: tls`: a server's certificate is good, and stays so for a while.

Where a protocol begins without TLS it is led over to it (STARTTLS).
"""

from __future__ import annotations

import ssl
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from agent.checks.check import CheckType
from agent.checks.peers import (
    REFERENCE,
    SHARE,
    Address,
    HostName,
    Reference,
    find_blame,
    name_peer,
)
from agent.checks.talk import (
    REMOTE_CAUSES,
    TALK_CAUSES,
    TALK_MEASUREMENTS,
    Said,
    SlowLimits,
    TalkOptions,
    converse,
    describe_talk,
    hold_talk,
    judge_failure,
    judge_talk,
)
from agent.checks.validity import (
    EXPIRES_CRITICAL,
    EXPIRES_WARNING,
    VALIDITY_CAUSES,
    check_order,
    judge_time,
)
from agent.checks.values import Duration
from agent.core.model import Evidence, Finding, Status
from agent.host.certificate import (
    Certificate,
    describe_certificate,
    read_chain,
    read_verified_chain,
)
from agent.host.connection import Connection, Failure, Family, Peer, Trouble
from agent.host.dialogue import Talk
from agent.host.machine import Machine
from agent.host.starttls import FAREWELLS, STARTTLS
from agent.host.tls import Trust
from agent.host.url import read_address

CAUSES = {
    **TALK_CAUSES,
    **REMOTE_CAUSES,
    **VALIDITY_CAUSES,
    "name": "The certificate is for other names.",
    "untrusted": "No authority that is trusted has signed the certificate.",
    "tls": "No TLS connection came about: there is no TLS, or nothing both sides speak.",
    "version": "An older version of TLS than the configured one was agreed on.",
}

MEASUREMENTS = {
    **TALK_MEASUREMENTS,
    "tls_seconds": "For the handshake of TLS.",
    "certificate_expires_seconds": "Time until the first certificate of the chain ends.",
}

_EVIDENCE_SECONDS = 5.0
#: X509_V_ERR_* of OpenSSL's x509_vfy.h.
_VERIFY_CAUSES = {9: "not-yet-valid", 10: "expired", 62: "name", 64: "name"}
_VERSIONS = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")


class TlsLimits(SlowLimits):
    """When a certificate or a connection is not good enough."""

    expires: Duration | None = Field(
        default=None, description="A certificate of the chain ends sooner than this: `14d`."
    )
    version: Literal["1.2", "1.3"] | None = Field(
        default=None, description="An older version of TLS than this is agreed on."
    )


class TlsWarning(TlsLimits):
    """When it will need attention."""

    expires: Duration | None = EXPIRES_WARNING


class TlsCritical(TlsLimits):
    """When it is too late, or nearly so."""

    expires: Duration | None = EXPIRES_CRITICAL


class TlsOptions(TalkOptions):
    """A server that shall speak TLS with a good certificate."""

    type: Literal["tls"]
    host: HostName = Field(description="The name that the certificate is for, or an address.")
    port: Annotated[int, Field(ge=1, le=65535)] = Field(default=443, description="The TCP port.")
    connect: Address | None = Field(
        default=None,
        description="The address, and the port if it is another one, to connect to instead of "
        "the name's own: `127.0.0.1:443`.",
    )
    family: Family | None = Field(
        default=None, description="Only addresses of this family: `ipv4` or `ipv6`."
    )
    starttls: Literal["ftp", "imap", "pop3", "postgres", "smtp"] | None = Field(
        default=None, description="The protocol that is led over to TLS; left out: TLS at once."
    )
    tls: Literal["verify", "no-verify"] = Field(
        default="verify",
        description="`no-verify`: authority and names do not matter, the time does.",
    )
    ca_file: Path | None = Field(
        default=None,
        description="Certificates of the authorities to trust, PEM; left out: the system's.",
    )
    client_cert: Path | None = Field(
        default=None, description="Our own certificate for servers that ask for one, PEM."
    )
    client_key: Path | None = Field(
        default=None, description="Its key, PEM; left out: it is in the same file."
    )
    reference: Reference | None = REFERENCE
    warning: TlsWarning = Field(default_factory=TlsWarning, description="Limits of `warning`.")
    critical: TlsCritical = Field(default_factory=TlsCritical, description="Limits of `critical`.")

    @model_validator(mode="after")
    def _check_more(self) -> TlsOptions:
        if self.starttls is not None and self.protocol is not None:
            raise ValueError("`protocol` greets before TLS begins: with `starttls` leave it out")
        if self.client_key is not None and self.client_cert is None:
            raise ValueError("`client_key` needs `client_cert`")
        check_order(self.warning.expires, self.critical.expires)
        return self


@dataclass(kw_only=True)
class _Shown:
    """What a server has shown in the handshake."""

    #: `TLSv1.3`.
    version: str = ""
    cipher: str = ""
    #: Its own first; of a verified chain without the authority that is trusted anyway.
    chain: tuple[Certificate, ...] = ()


async def look(options: TlsOptions, machine: Machine) -> tuple[Finding, ...]:
    """One finding, on the server. Raises Unavailable when this host cannot even try."""
    assert options.timeout is not None  # noqa: S101 - the configuration filled it in
    said, shown = Said(), _Shown()
    result = await _ask(options, machine, options.timeout * SHARE, said, shown)
    subject = name_peer(options.host, options.port)
    if isinstance(result, Failure):
        why = await find_blame(options.reference, options.timeout, result)
        finding = judge_failure(result, said, subject, why)
        if result.trouble is Trouble.TLS and result.verify_code:
            cause = _VERIFY_CAUSES.get(result.verify_code, "untrusted")
            finding = replace(finding, cause=cause, summary=f"{subject}: {result.why}")
        return (finding,)
    finding = judge_talk(
        result,
        said,
        subject,
        warning=options.warning,
        critical=options.critical,
        facts={"TLS": f"{shown.version}, {shown.cipher}"},
    )
    # Seconds since 1970, as certificates count.
    return (judge_shown(finding, shown, options, now=time.time()),)


def judge_shown(finding: Finding, shown: _Shown, options: TlsOptions, *, now: float) -> Finding:
    """The finding with what the certificates and the handshake add to it."""
    subject = finding.subject
    first = min(shown.chain, key=lambda certificate: certificate.ends, default=None)
    if first is not None:
        finding = replace(
            finding,
            facts={**finding.facts, "Certificate": describe_certificate(shown.chain[0])},
            measurements={
                **finding.measurements,
                "certificate_expires_seconds": first.ends - now,
            },
        )
    if finding.status is Status.CRITICAL:
        return finding
    for status, limits in ((Status.CRITICAL, options.critical), (Status.WARNING, options.warning)):
        if first is not None and (found := judge_time(first, limits.expires, now)):
            whose = (
                "its certificate" if first is shown.chain[0] else f"{first.subject} in its chain"
            )
            return replace(
                finding, status=status, cause=found[0], summary=f"{subject}: {whose} {found[1]}"
            )
        if limits.version is not None and _is_older(shown.version, limits.version):
            summary = f"{subject} speaks {shown.version}, older than TLSv{limits.version}"
            return replace(finding, status=status, cause="version", summary=summary)
    return finding


def _is_older(version: str, limit: str) -> bool:
    wanted = f"TLSv{limit}"
    return version not in _VERSIONS or _VERSIONS.index(version) < _VERSIONS.index(wanted)


async def _ask(
    options: TlsOptions, machine: Machine, seconds: float, said: Said, shown: _Shown
) -> Failure | Connection:
    verify = options.tls == "verify"
    trust = Trust(
        verify=verify,
        ca_file=options.ca_file,
        client_cert=options.client_cert,
        client_key=options.client_key,
    )
    context = machine.http.contexts.get(trust)

    async def work(connection: Connection) -> None:
        talk = Talk(connection, options.answer_limit)
        said.heard = talk.heard
        if options.starttls is not None:
            await STARTTLS[options.starttls](talk)
            talk.check_silence()
        secured = await connection.secure(context, options.host)
        _take_note(secured, shown, verified=verify)
        farewell = b"" if options.talk else FAREWELLS.get(options.starttls or "", b"")
        await converse(talk, options, said, farewell=farewell)

    return await hold_talk(machine, _make_peer(options), seconds, said, work)


def _make_peer(options: TlsOptions) -> Peer:
    address, port = read_address(options.connect) if options.connect else ("", None)
    return Peer(
        host=options.host, port=port or options.port, address=address, family=options.family
    )


def _take_note(secured: ssl.SSLObject, shown: _Shown, *, verified: bool) -> None:
    shown.version = secured.version() or ""
    cipher = secured.cipher()
    shown.cipher = cipher[0] if cipher else ""
    if verified and (chain := read_verified_chain(secured)):
        # What is sent beside the chain that counts may have ended long ago.
        shown.chain = chain[:-1] or chain
    else:
        shown.chain = read_chain(secured, whole=True)


async def gather(options: TlsOptions, finding: Finding, machine: Machine) -> tuple[Evidence, ...]:
    """The server asked once more, and the certificates that it shows, good or not."""
    seconds = min(_EVIDENCE_SECONDS, (options.timeout or _EVIDENCE_SECONDS) * SHARE)
    said, shown = Said(), _Shown()
    result = await _ask(options, machine, seconds, said, shown)
    if isinstance(result, Failure) and result.trouble is Trouble.TLS:
        # Nothing but the handshake: what it shows is not trusted.
        bare = options.model_copy(
            update={"tls": "no-verify", "protocol": None, "talk": (), "client_cert": None}
        )
        await _ask(bare, machine, seconds, Said(), shown)
    asked = f"{finding.subject} ({options.connect})" if options.connect else finding.subject
    items = [describe_talk(result, said, finding.subject, asked=asked)]
    if shown.chain:
        text = "\n".join(map(describe_certificate, shown.chain))
        items.append(Evidence(title="Certificates", text=text))
    return tuple(items)


TLS = CheckType(
    name="tls",
    summary="A server speaks TLS, and its certificate is good and stays so for a while.",
    model=TlsOptions,
    look=look,
    causes=CAUSES,
    measurements=MEASUREMENTS,
    gather=gather,
    defaults={"every": "1m"},
)
