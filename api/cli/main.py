"""The `hostmend` command: every command in one table."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from agent import __version__
from agent.errors import HostmendError
from api.cli import (
    actions,
    audit,
    checks,
    demo,
    digests,
    drills,
    incidents,
    init,
    notices,
    parts,
    playbooks,
    pushes,
    rehearse,
    remedies,
    run,
    runs,
    silences,
    status,
    tokens,
)
from api.cli.parts import EXIT_FAILED, EXIT_UNREACHABLE, EXIT_USAGE

COMMANDS: Mapping[str, Callable[..., None]] = {
    "init": init.init,
    "arm": init.arm,
    "run": run.run,
    "check": checks.check,
    "audit": audit.audit,
    "rehearse": rehearse.rehearse,
    "checks": checks.list_checks,
    "status": status.show_status,
    "pause": status.pause,
    "resume": status.resume,
    "confirm": status.confirm_host,
    "reload": status.reload_config,
    "incidents": incidents.list_incidents,
    "remedies": remedies.list_remedies,
    "runs": runs.list_runs,
    "run-show": runs.show_run,
    "run-cancel": runs.cancel_run,
    "digest": digests.digest,
    "notices": notices.list_notices,
    "actions": actions.list_actions,
    "push": pushes.push,
}
GROUPS: Mapping[str, tuple[str, Mapping[str, Callable[..., None]]]] = {
    "incident": (
        "One incident: what happened, and what to do about it.",
        {
            "show": incidents.show,
            "explain": incidents.explain,
            "report": incidents.report,
            "ack": incidents.acknowledge,
            "approve": incidents.approve,
            "reject": incidents.reject,
            "retry": incidents.retry,
            "close": incidents.close,
        },
    ),
    "remedy": (
        "One remedy: what it is, and running it by hand.",
        {"show": remedies.show, "run": remedies.run_remedy},
    ),
    "playbook": (
        "For people who write remedies.",
        {"new": playbooks.new, "lint": playbooks.lint, "test": playbooks.try_out},
    ),
    "notify": (
        "The ways to people.",
        {"test": notices.try_routes},
    ),
    "silence": (
        "What is not spoken of for a while; looking and repairing go on.",
        {"add": silences.add, "list": silences.list_silences, "end": silences.end},
    ),
    "maintenance": (
        "What is neither spoken of nor repaired while somebody works on it.",
        {"run": silences.run},
    ),
    "rehearsal": (
        "Rehearsals whose reports were kept.",
        {"list": rehearse.list_rehearsals, "show": rehearse.show_rehearsal},
    ),
    "drill": (
        "Faults injected on purpose, on a host that allows them.",
        {
            "allow": drills.allow,
            "forbid": drills.forbid,
            "faults": drills.list_faults,
            "run": drills.run,
            "list": drills.list_drills,
            "show": drills.show,
            "end": drills.end,
            "guard": drills.guard,
        },
    ),
    "token": (
        "Who may come in over the network.",
        {"create": tokens.create, "list": tokens.list_tokens, "revoke": tokens.revoke},
    ),
}

#: Commands about this host itself, which no server can carry out.
LOCAL = frozenset(
    {"init", "arm", "run", "check", "audit", "rehearse", "config", "demo", "playbook"}
)
#: What follows the command that they run is that one's own.
_WRAPPERS = frozenset({("maintenance", "run")})

#: A monitoring system reads 2 as critical: a usage error of `check` is unknown.
USAGE_EXITS: Mapping[str, int] = {"check": 3}

_CODES = (
    "Exit codes, where a command names no others: 0 done, 1 refused or failed, 2 wrong usage, "
    "3 no agent answers, 130 interrupted."
)


def make_app() -> typer.Typer:
    """The command with all its parts."""
    app = typer.Typer(
        name="hostmend",
        help="Detects failures of this host, repairs them, proves the repair and tells people.",
        epilog=_CODES,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_hostmend)
    for name, function in COMMANDS.items():
        app.command(name)(function)
    app.command(
        "config",
        add_help_option=False,
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )(_config)
    for name, (help_text, functions) in GROUPS.items():
        group = typer.Typer(help=help_text, no_args_is_help=True, rich_markup_mode=None)
        for verb, function in functions.items():
            wraps = (name, verb) in _WRAPPERS
            settings = {"allow_interspersed_args": not wraps}
            group.command(verb, context_settings=settings)(function)
        app.add_typer(group, name=name)
    app.add_typer(demo.make_app())
    return app


def make_config_app() -> typer.Typer:
    """The group `config`; loading it takes all that knows the configuration."""
    import asyncio

    from agent.bootstrap import find_remedies
    from agent.notify.client import validate_url
    from api.cli.config import make_app as make_group

    return make_group(
        find_remedies=find_remedies, validate_url=lambda url: asyncio.run(validate_url(url))
    )


def _config(context: typer.Context) -> None:
    """Check and show the configuration, or print its schema."""
    code: Any = make_config_app()(context.args, prog_name="hostmend config", standalone_mode=False)
    raise typer.Exit(code if isinstance(code, int) else 0)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hostmend {__version__}")
        raise typer.Exit


def _hostmend(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001 - its callback does it all
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print it."),
    ] = False,
    server: Annotated[
        str | None,
        typer.Option(
            "--server",
            metavar="URL",
            envvar="HOSTMEND_SERVER",
            help="Talk to the agent there, such as https://web1:8642, not to this host's.",
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file",
            metavar="FILE",
            envvar="HOSTMEND_TOKEN_FILE",
            help="Holds the secret of a token of that agent.",
        ),
    ] = None,
    ca_file: Annotated[
        Path | None,
        typer.Option(
            "--ca-file",
            metavar="FILE",
            envvar="HOSTMEND_CA_FILE",
            help="Certificates to believe instead of the system's.",
        ),
    ] = None,
) -> None:
    given = context.get_parameter_source("server")
    if context.invoked_subcommand in LOCAL and getattr(given, "name", "") == "COMMANDLINE":
        raise typer.BadParameter(
            f"`{context.invoked_subcommand}` is about this host alone", param_hint="--server"
        )
    parts.server.set(
        parts.Server(url=server, token_file=token_file, ca_file=ca_file) if server else None
    )


def run_command(arguments: list[str]) -> int:
    """Carries out one command line and gives its exit code."""
    try:
        code: Any = make_app()(arguments, prog_name="hostmend", standalone_mode=False)
        sys.stdout.flush()
    except typer.TyperException as error:
        show = getattr(error, "show", None)
        if show is not None:
            show()
        return USAGE_EXITS.get(arguments[0] if arguments else "", EXIT_USAGE)
    except HostmendError as error:
        return _complain(error)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except BrokenPipeError:
        # Whoever read has had enough. Python would complain once more when it flushes at exit.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    return code if isinstance(code, int) else 0


def _complain(error: HostmendError) -> int:
    from api.cli.screen import clean

    print(f"hostmend: {clean(str(error))}", file=sys.stderr)  # noqa: T201
    # By name: its module would load the HTTP client for nothing.
    return EXIT_UNREACHABLE if type(error).__name__ == "Unreachable" else EXIT_FAILED


def main() -> None:
    """The entry point of the `hostmend` command."""
    sys.exit(run_command(sys.argv[1:]))
