"""`hostmend push`: tell the agent what was found, or how a command went."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from enum import StrEnum
from typing import IO, Annotated, Any

import typer

from agent.core.units import format_duration
from agent.errors import HostmendError
from api.cli.parts import Json, open_client
from api.cli.screen import Screen, clean
from api.cli.wrapping import carry_out, held_signals

#: Bytes kept of a command's output: its end.
_TAIL = 8 * 1024
_CHUNK = 64 * 1024
#: An agent that starts again just now is waited for: so often, so many seconds apart.
_ATTEMPTS, _PAUSE = 4, 2.0
#: Longest wait for what a command left behind with its output open, in seconds.
_LAST_WORDS = 1.0


class _Status(StrEnum):
    OK = "ok"
    WARNING = "warning"
    CRITICAL = "critical"
    UNKNOWN = "unknown"


def push(
    check: Annotated[str, typer.Argument(metavar="CHECK", help="A check of type push.")],
    command: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="-- COMMAND...", help="With --run: what to run.", show_default=False
        ),
    ] = None,
    run: Annotated[
        bool, typer.Option("--run", help="Run a command, and report how it ended.")
    ] = False,
    status: Annotated[_Status, typer.Option("--status", help="What you found.")] = _Status.OK,
    summary: Annotated[str, typer.Option("--summary", help="One sentence on it.")] = "",
    subject: Annotated[
        str, typer.Option("--subject", help="What it is about; left out: the check itself.")
    ] = "",
    cause: Annotated[
        str, typer.Option("--cause", help="One of the check's causes; left out: failed.")
    ] = "",
    measurements: Annotated[
        list[str] | None,
        typer.Option("--measure", "-m", metavar="NAME=NUMBER", help="May be repeated."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Report what you found on a check of type push, or run a command and report how it ended.

    With --run the command's output is passed on, and the exit code is the command's, also when the
    agent cannot be told; 126 it cannot be executed, 127 it was not found, 128 + N signal N ended
    it. Exit code 0 is reported as ok and any other as critical, with the time that it took and the
    end of its output.
    """
    if run != bool(command):
        raise typer.BadParameter("--run and a command belong together: --run CHECK -- COMMAND...")
    order: dict[str, Any] = {"status": status.value, "subject": subject, "summary": summary}
    order |= {"cause": cause, "measurements": _read_measurements(measurements or [])}
    if command:
        if status is not _Status.OK or summary or cause:
            raise typer.BadParameter(
                "with --run the command says how it went: leave --status, --summary and --cause out"
            )
        raise typer.Exit(_run(check, command, order))
    told = _send(check, order)
    screen = Screen()
    if as_json:
        screen.json(told)
    else:
        screen.line(f"{told['check']} is {told['status']}.")


def _read_measurements(given: list[str]) -> dict[str, float]:
    read: dict[str, float] = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        try:
            if not equals:
                raise ValueError
            read[name] = float(value)
        except ValueError:
            raise typer.BadParameter(
                f"{pair!r} is not NAME=NUMBER", param_hint="--measure"
            ) from None
    return read


def _send(check: str, order: dict[str, Any]) -> Any:
    from api.client import quote_part

    with open_client() as client:
        return client.post(f"/v1/checks/{quote_part(check)}/findings", order)


def _run(check: str, command: list[str], order: dict[str, Any]) -> int:
    tail = _Tail()
    began = time.monotonic()
    with held_signals() as received:
        code = carry_out(
            command, received, tail.follow, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        taken = time.monotonic() - began
        tail.end()
        order["status"] = "ok" if code == 0 else "critical"
        words = "ended well" if code == 0 else f"ended with exit code {code}"
        order["summary"] = f"{command[0]} {words} after {format_duration(taken)}"
        order["measurements"] |= {"exit_code": float(code), "run_seconds": taken}
        order["output"] = tail.text
        _tell(check, order)
    return code


def _tell(check: str, order: dict[str, Any]) -> None:
    """Reports; what goes wrong is said, and is no failure of the command."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            _send(check, order)
        except HostmendError as error:
            again = type(error).__name__ in ("Unreachable", "Unavailable")
            if again and attempt < _ATTEMPTS:
                time.sleep(_PAUSE)
                continue
            said = f"hostmend: cannot report on {check}: {clean(str(error))}"
            print(said, file=sys.stderr)  # noqa: T201
        return


class _Tail:
    """Passes a command's output on as it comes, and keeps its end."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def follow(self, process: subprocess.Popen[bytes]) -> None:
        for source, sink in (
            (process.stdout, sys.stdout.buffer),
            (process.stderr, sys.stderr.buffer),
        ):
            thread = threading.Thread(target=self._copy, args=(source, sink), daemon=True)
            thread.start()
            self._threads.append(thread)

    def end(self) -> None:
        """Waits for the last of it, but not for what holds it open beyond the command's end."""
        for thread in self._threads:
            thread.join(_LAST_WORDS)

    @property
    def text(self) -> str:
        with self._lock:
            return bytes(self._kept).decode(errors="replace")

    def _copy(self, source: IO[bytes], sink: IO[bytes]) -> None:
        listened = True
        while part := source.read1(_CHUNK):  # type: ignore[attr-defined]
            with self._lock:
                self._kept += part
                del self._kept[:-_TAIL]
            try:
                if listened:
                    sink.write(part)
                    sink.flush()
            except OSError:
                # Whoever listened has gone; the command goes on.
                listened = False
