"""What `tcp`, `unix` and `tls` share: what is said over their connections, and what it tells."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, model_validator

from agent.checks.check import CheckOptions
from agent.checks.values import Duration
from agent.core.model import Evidence, Finding, Status
from agent.core.text import MASK
from agent.core.units import format_duration
from agent.host.connection import Connection, Failure, Peer
from agent.host.dialogue import ANSWER_LIMIT, GREETINGS, Talk, show_bytes
from agent.host.machine import Machine
from agent.host.url import mask_secrets

#: What is kept of an answer as evidence, in characters.
_EXCERPT = 2000

#: What every check that talks may find, beside what is peculiar to its way.
TALK_CAUSES = {
    "refused": "The port is closed.",
    "timeout": "There was no whole answer in time.",
    "reset": "The connection was ended before the answer was whole.",
    "invalid": "What answers does not speak the protocol, or says too much.",
    "unexpected": "The answer does not hold what is expected.",
    "refusing": "It speaks the protocol, and says that it serves nobody now.",
    "slow": "It takes longer than the configured time.",
}
REMOTE_CAUSES = {
    "dns": "The name has no address, or nobody could be asked for it.",
    "unreachable": "There is no way to the host, or a firewall forbids it.",
    "offline": "This host itself is not connected; nothing is known of the other one.",
}
TALK_MEASUREMENTS = {
    "response_seconds": "From the beginning to the end of what was said.",
    "dns_seconds": "Until the name had an address.",
    "connect_seconds": "Until the connection stood.",
    "first_byte_seconds": "Until the first byte of the last answer.",
    "answer_bytes": "The length of all answers.",
}


class SlowLimits(BaseModel):
    """When an answer takes too long."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    response: Duration | None = Field(
        default=None, description="All of it takes longer than this: `500ms`."
    )


class Exchange(BaseModel):
    """One step of a conversation."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    send: Annotated[str | None, PlainSerializer(lambda text: text and MASK, when_used="json")] = (
        Field(
            default=None,
            min_length=1,
            repr=False,
            description='What is sent, in UTF-8: `"PING\\r\\n"`.',
        )
    )
    expect: str | None = Field(
        default=None, min_length=1, description="What must come then, amid whatever else."
    )

    @model_validator(mode="after")
    def _check_any(self) -> Exchange:
        if self.send is None and self.expect is None:
            raise ValueError("needs `send`, `expect` or both")
        return self


class TalkOptions(CheckOptions):
    """What is said once a connection stands."""

    protocol: (
        Literal["ftp", "imap", "memcached", "mysql", "pop3", "redis", "smtp", "ssh"] | None
    ) = Field(default=None, description="A server of this kind must greet, or answer.")
    talk: tuple[Exchange, ...] = Field(
        default=(), description="What is sent and expected, in turn: `[{send: a, expect: b}]`."
    )
    answer_limit: int = Field(
        default=ANSWER_LIMIT, ge=64, le=16 * 1024 * 1024, description="Bytes read of all answers."
    )

    @model_validator(mode="after")
    def _check_one_way(self) -> TalkOptions:
        if self.protocol is not None and self.talk:
            raise ValueError("`talk` and `protocol` exclude each other: leave one of them out")
        return self


@dataclass(kw_only=True)
class Said:
    """What came of a conversation."""

    #: The server's own words; empty where none were wanted.
    words: str = ""
    #: It serves nobody now.
    refuses: bool = False
    #: What was expected and did not come.
    missing: str = ""
    #: When it began, on the event loop's clock, and seconds from then to its end.
    began: float = 0.0
    seconds: float = 0.0
    #: All that was heard, also where the conversation failed.
    heard: bytearray = field(default_factory=bytearray)
    #: What was sent and may be secret: the words behind the first of each line (`AUTH word`).
    secrets: frozenset[str] = frozenset()

    def show(self, most: int = 200) -> str:
        """What was heard, fit to show, without what a server repeats of secrets."""
        return mask_secrets(show_bytes(self.heard, most), self.secrets)


async def converse(talk: Talk, options: TalkOptions, said: Said, *, farewell: bytes = b"") -> None:
    """Says and hears what the options want, and takes leave. Raises Ended."""
    said.heard = talk.heard
    if options.protocol is not None:
        greeting = await GREETINGS[options.protocol](talk)
        said.words, said.refuses = greeting.words, greeting.refuses
        farewell = greeting.farewell
    else:
        await _take_turns(talk, options, said)
    # How long it takes to part says nothing of how long an answer does.
    said.seconds = asyncio.get_running_loop().time() - said.began
    if farewell:
        await talk.take_leave(farewell)


async def _take_turns(talk: Talk, options: TalkOptions, said: Said) -> None:
    lines = [line for step in options.talk for line in (step.send or "").splitlines()]
    said.secrets = frozenset(word for line in lines for word in line.split()[1:])
    for step in options.talk:
        if step.send is not None:
            talk.say(step.send.encode())
        if step.expect is not None:
            said.missing = step.expect
            await talk.hear_text(step.expect.encode())
            said.missing = ""
    if talk.heard:
        said.words = said.show(80)[1:-1]


async def hold_talk(
    machine: Machine,
    peer: Peer,
    seconds: float,
    said: Said,
    work: Callable[[Connection], Awaitable[None]],
) -> Failure | Connection:
    """One conversation within its time: the connection, closed, or why there was none."""
    loop = asyncio.get_running_loop()
    said.began = loop.time()
    connection = machine.http.connect(peer, seconds)

    async def hold(connection: Connection) -> Connection:
        await connection.open()
        await work(connection)
        return connection

    result = await connection.run(hold)
    if isinstance(result, Failure):
        said.seconds = loop.time() - said.began
    return result


def judge_failure(failure: Failure, said: Said, subject: str, own_fault: str) -> Finding:
    """The finding where the conversation did not come to its end."""
    if own_fault:
        return Finding(
            subject=subject,
            status=Status.UNKNOWN,
            cause="offline",
            summary=f"cannot tell of {subject}: this host is offline, {own_fault}",
            facts={"Attempt": failure.why},
            resource=f"peer:{subject}",
        )
    facts = {"Addresses": ", ".join(failure.addresses)} if failure.addresses else {}
    if said.heard:
        facts["Answer"] = said.show()
    why = mask_secrets(failure.why, said.secrets)
    cause, summary = failure.trouble.value, f"{subject} does not answer: {why}"
    if said.missing and said.heard:
        cause = "unexpected"
        wanted = show_bytes(said.missing.encode(), 80)
        summary = f"{subject} does not answer {wanted}, but {said.show(80)}"
    return Finding(
        subject=subject,
        status=Status.CRITICAL,
        cause=cause,
        summary=summary,
        facts=facts,
        measurements={"response_seconds": said.seconds, **failure.timings.measure()},
        resource=f"peer:{subject}",
    )


def judge_talk(
    connection: Connection,
    said: Said,
    subject: str,
    *,
    warning: SlowLimits,
    critical: SlowLimits,
    facts: Mapping[str, str] | None = None,
) -> Finding:
    """The finding on a conversation that came to its end."""
    status, cause = Status.OK, ""
    taken = format_duration(said.seconds)
    summary = f"{subject} answers in {taken}" if said.words else f"{subject} takes connections"
    if said.refuses:
        status, cause = Status.CRITICAL, "refusing"
        summary = f"{subject} answers that it serves nobody: {said.words}"
    else:
        for found, limits in ((Status.CRITICAL, critical), (Status.WARNING, warning)):
            if limits.response is not None and said.seconds > limits.response:
                status, cause = found, "slow"
                limit = format_duration(limits.response)
                summary = f"{subject} answers in {taken}, slower than {limit}"
                break
    measurements = {"response_seconds": said.seconds, **connection.timings.measure()}
    if said.heard:
        measurements["answer_bytes"] = float(len(said.heard))
    return Finding(
        subject=subject,
        status=status,
        cause=cause,
        summary=summary,
        facts={**({"Answer": said.words} if said.words else {}), **(facts or {})},
        measurements=measurements,
        resource=f"peer:{subject}",
    )


def describe_talk(
    result: Failure | Connection, said: Said, subject: str, *, asked: str
) -> Evidence:
    """What a conversation for evidence has shown."""
    lines = [f"Asked: {asked}"]
    if isinstance(result, Failure):
        if result.addresses:
            lines.append(f"Addresses: {', '.join(result.addresses)}")
        lines.append(f"Failed: {mask_secrets(result.why, said.secrets)}")
    else:
        lines.append(f"Connected to: {result.place}")
    lines += result.timings.describe()
    lines.append(f"Whole: {said.seconds:.3f} s")
    if said.heard:
        lines.append(f"Heard: {said.show(_EXCERPT)}")
    return Evidence(title=f"Answer of {subject}", text="\n".join(lines))
