"""Commands that are run for somebody, with something before and after."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from types import FrameType

#: As a shell has them (POSIX, "Exit Status for Commands").
EXIT_NOT_EXECUTABLE = 126
EXIT_NOT_FOUND = 127
EXIT_SIGNALLED = 128

#: Signals that end the command, not the window before it.
_PASSED_ON = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def held_signals() -> Iterator[list[int]]:
    """Signals to end are kept in a list: Ctrl-C is the command's, and the window must be ended."""
    received: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(number)

    held = {}
    try:
        for number in (signal.SIGINT, *_PASSED_ON):
            held[number] = signal.signal(number, note)
        yield received
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)


def carry_out(
    command: Sequence[str],
    received: list[int],
    on_start: Callable[[subprocess.Popen[bytes]], None] = lambda _process: None,
    **pipes: int,
) -> int:
    """Runs a command to its end; its exit code as a shell would give it.

    `on_start` is handed its process, and `pipes` are those of `subprocess.Popen`.
    """
    if received:
        return EXIT_SIGNALLED + received[0]
    try:
        process = subprocess.Popen(command, **pipes)  # type: ignore[call-overload]
    except FileNotFoundError:
        typer.echo(f"hostmend: cannot run {command[0]}: it was not found", err=True)
        return EXIT_NOT_FOUND
    except OSError as error:
        typer.echo(f"hostmend: cannot run {command[0]}: {error.strerror}", err=True)
        return EXIT_NOT_EXECUTABLE
    on_start(process)
    passed = 0
    while True:
        try:
            code = process.wait(timeout=0.2)
        except subprocess.TimeoutExpired:
            # A terminal sends Ctrl-C to the command by itself.
            for number in received[passed:]:
                if number in _PASSED_ON:
                    process.send_signal(number)
            passed = len(received)
        else:
            ended = int(code)
            return ended if ended >= 0 else EXIT_SIGNALLED - ended
