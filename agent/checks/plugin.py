"""`type: plugin`: any monitoring plugin of Nagios's kind says how something is.

https://www.monitoring-plugins.org/doc/guidelines.html: the exit code is the status, the first line
is the summary, and performance data become measurements.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PlainSerializer

from agent.checks.check import CheckOptions, CheckType
from agent.checks.perfdata import Output, measure, parse_output, tell_beyond
from agent.core.model import Evidence, Finding, Status
from agent.core.text import MASK, clean_text
from agent.core.units import format_duration
from agent.errors import Unavailable
from agent.host.leash import OUTPUT_LIMIT, Program, Ran, User, find_user
from agent.host.machine import Machine
from agent.host.text import cap_text, redact_text
from agent.host.url import is_secret_name, mask_secrets

CAUSES = {
    "critical": "The plugin says so.",
    "warning": "The plugin says so.",
    "unknown": "The plugin could not tell, or was used wrongly.",
    "timeout": "It did not end in time, and was ended.",
    "output": "It printed more than its limit, and was ended.",
    "broken": "It ended as no plugin does: with another exit code, or by a signal.",
    "unavailable": "It cannot be run.",
}

MEASUREMENTS = {
    "exit_code": "How it ended.",
    "run_seconds": "How long it ran.",
}

#: Of `timeout`, for the plugin; the rest is for ending it and all that it started.
_SHARE = 0.8
#: Longest summary, and what is kept of the output as evidence, in characters.
_SUMMARY, _OUTPUT = 500, 8000
_STATUSES = {0: Status.OK, 1: Status.WARNING, 2: Status.CRITICAL, 3: Status.UNKNOWN}
#: Whom plugins run as where the agent is root and nobody else is named.
_NOBODY = "nobody"
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}\$?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: Options whose value is a secret: `--password=x`, `-p x` says nothing of itself.
_OPTION = re.compile(r"--?([A-Za-z][\w-]*)(?:=(.*))?", re.DOTALL)


def _check_command(command: tuple[str, ...]) -> tuple[str, ...]:
    if not command or not command[0].startswith("/"):
        raise ValueError(
            "begins with the program's absolute path: "
            "write for example [/usr/lib/nagios/plugins/check_load, -w, '5', -c, '10']"
        )
    if any("\0" in word for word in command):
        raise ValueError("must not hold a NUL character")
    return command


def _check_environment(environment: Mapping[str, str]) -> Mapping[str, str]:
    for name in environment:
        if not _VARIABLE.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a variable")
    return environment


def _check_user(name: str) -> str:
    if not _USER.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a user")
    return name


def _find_argument_secrets(command: tuple[str, ...]) -> frozenset[str]:
    """The values of options whose names sound like a secret: `--password x`, `--token=x`."""
    found = set()
    for word, following in zip(command[1:], (*command[2:], ""), strict=False):
        match = _OPTION.fullmatch(word)
        if match is not None and is_secret_name(match[1]):
            found.add(following if match[2] is None else match[2])
    return frozenset(found - {""})


def _mask_command(command: tuple[str, ...]) -> list[str]:
    secrets = _find_argument_secrets(command)
    shown = []
    for word in command:
        name, equals, value = word.partition("=")
        if word in secrets:
            shown.append(MASK)
        else:
            shown.append(f"{name}={MASK}" if equals and value in secrets else word)
    return shown


def _mask_environment(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: MASK if is_secret_name(name) else value for name, value in environment.items()}


class PluginOptions(CheckOptions):
    """A monitoring plugin and its arguments."""

    type: Literal["plugin"]
    command: Annotated[
        tuple[str, ...],
        AfterValidator(_check_command),
        PlainSerializer(_mask_command, when_used="json"),
    ] = Field(
        repr=False, description="The program's absolute path and its arguments; no shell reads it."
    )
    user: Annotated[str, AfterValidator(_check_user)] | None = Field(
        default=None,
        description="Whom it runs as; left out: `nobody` where hostmend is root, else hostmend's "
        "own user.",
    )
    environment: Annotated[
        Mapping[str, str],
        AfterValidator(_check_environment),
        PlainSerializer(_mask_environment, when_used="json"),
    ] = Field(
        default_factory=dict,
        repr=False,
        description="Variables beside PATH, HOME, USER, LOGNAME and LC_ALL; nothing else is there.",
    )
    output_limit: int = Field(
        default=OUTPUT_LIMIT,
        ge=1024,
        le=OUTPUT_LIMIT,
        description="Bytes that it may print; more end it.",
    )
    subject: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="What it is about; left out: the program's name.",
    )


def _secrets(options: PluginOptions) -> frozenset[str]:
    values = {value for name, value in options.environment.items() if is_secret_name(name)}
    return frozenset(values) | _find_argument_secrets(options.command)


def _subject(options: PluginOptions) -> str:
    return options.subject or PurePosixPath(options.command[0]).name


async def look(options: PluginOptions, machine: Machine) -> tuple[Finding, ...]:
    """One finding, on what the plugin looks at."""
    try:
        ran = await _run(options, machine)
    except Unavailable as error:
        return (_find(options, Status.UNKNOWN, "unavailable", str(error)),)
    return (judge(options, ran),)


async def _run(options: PluginOptions, machine: Machine) -> Ran:
    """Raises Unavailable."""
    assert options.timeout is not None  # noqa: S101 - the configuration filled it in
    program = Program(
        argv=options.command,
        user=_choose_user(options.user),
        environment=options.environment,
        output_limit=options.output_limit,
    )
    return await machine.leash.run(program, options.timeout * _SHARE)


def _choose_user(name: str | None) -> User | None:
    """Raises Unavailable."""
    if name is None:
        return find_user(_NOBODY) if os.geteuid() == 0 else None
    return find_user(name)


def judge(options: PluginOptions, ran: Ran) -> Finding:
    """The finding on one run."""
    output = parse_output(_read(options, ran))
    measured = {"run_seconds": ran.seconds}
    if ran.code is not None and ran.code >= 0:
        measured["exit_code"] = float(ran.code)
    facts = {}
    if beyond := tell_beyond(output.data):
        facts["Beyond its limits"] = cap_text(beyond, _SUMMARY)
    if output.unread:
        facts["Unreadable performance data"] = cap_text(" ".join(output.unread), _SUMMARY)
    if ran.left:
        facts["Left behind"] = f"{ran.left} processes, which were ended"
    status, cause, summary = _judge_end(options, ran, output)
    return _find(
        options,
        status,
        cause,
        summary,
        measurements={**measured, **measure(output.data, MEASUREMENTS)},
        facts=facts,
    )


def _judge_end(options: PluginOptions, ran: Ran, output: Output) -> tuple[Status, str, str]:
    said = cap_text(redact_text(output.summary), _SUMMARY) or "(no output)"
    name = PurePosixPath(options.command[0]).name
    if ran.cut:
        words = f"{name} printed more than {options.output_limit} bytes and was ended: {said}"
        return Status.UNKNOWN, "output", words
    if ran.code is None:
        words = f"{name} did not end within {format_duration(ran.seconds)} and was ended: {said}"
        return Status.UNKNOWN, "timeout", words
    if ran.code < 0:
        return Status.UNKNOWN, "broken", f"{name} was ended by signal {-ran.code}: {said}"
    if ran.code not in _STATUSES:
        return Status.UNKNOWN, "broken", f"{name} ended with exit code {ran.code}: {said}"
    status = _STATUSES[ran.code]
    return status, "" if status is Status.OK else status.value, said


def _read(options: PluginOptions, ran: Ran) -> str:
    """What it printed, without what we know to be secret; its stderr only where there is nothing
    else."""
    text = ran.out.decode(errors="replace")
    if not text.strip():
        text = ran.err.decode(errors="replace")
    return clean_text(mask_secrets(text, _secrets(options)))


def _find(
    options: PluginOptions,
    status: Status,
    cause: str,
    summary: str,
    *,
    measurements: Mapping[str, float] | None = None,
    facts: Mapping[str, str] | None = None,
) -> Finding:
    subject = _subject(options)
    return Finding(
        subject=subject,
        status=status,
        cause=cause,
        summary=summary,
        measurements=measurements or {},
        facts=facts or {},
        resource=f"plugin:{subject}",
    )


async def gather(
    options: PluginOptions, _finding: Finding, machine: Machine
) -> tuple[Evidence, ...]:
    """All that the plugin prints when it is run once more."""
    title = f"Output of {PurePosixPath(options.command[0]).name}"
    try:
        ran = await _run(options, machine)
    except Unavailable as error:
        return (Evidence(title=title, text=str(error)),)
    lines = [f"Command: {' '.join(_mask_command(options.command))}"]
    lines.append("Ended: here" if ran.code is None else f"Exit code: {ran.code}")
    lines.append(f"Ran: {ran.seconds:.3f} s")
    text = redact_text(_read(options, ran))
    return (Evidence(title=title, text="\n".join([*lines, "", cap_text(text, _OUTPUT)])),)


PLUGIN = CheckType(
    name="plugin",
    summary="A monitoring plugin of Nagios's kind says how something is.",
    model=PluginOptions,
    look=look,
    causes=CAUSES,
    measurements=MEASUREMENTS,
    gather=gather,
    defaults={"every": "1m", "timeout": "30s"},
)
