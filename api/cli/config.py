"""`hostmend config`: is the configuration right, what is in effect, and a schema for editors."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import typer

from agent.checks import CHECKS
from agent.checks.check import CheckType
from agent.config import (
    Config,
    UrlValidator,
    config_schema,
    describe_config,
    load_config,
    load_config_errors,
    show_config,
)
from agent.errors import ConfigError
from agent.remedies.catalog import Catalog
from agent.settings import Settings, read_settings

#: The configuration, or what was asked, cannot be used.
EXIT_INVALID = 2

_File = Annotated[
    Path | None,
    typer.Argument(
        metavar="[FILE]",
        help="The main file; conf.d beside it is read too. Left out: the one in use.",
        show_default=False,
    ),
]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def make_app(
    *,
    find_remedies: Callable[[Settings], Catalog],
    types: Mapping[str, CheckType] = CHECKS,
    validate_url: UrlValidator | None = None,
) -> typer.Typer:
    """The command group; the remedies are looked for only when one of its commands runs."""
    app = typer.Typer(name="config", help="Check and show the configuration.", no_args_is_help=True)

    def read(file: Path | None) -> tuple[Path, Config | None, tuple[ConfigError, ...]]:
        try:
            settings = read_settings()
        except ConfigError as error:
            return Path(), None, (error,)
        path = file if file is not None else settings.config
        if file is not None and not file.exists():
            return path, None, (ConfigError("cannot read it: no such file", file=str(file)),)
        catalog = find_remedies(settings)
        try:
            return (
                path,
                load_config(
                    path,
                    catalog=catalog,
                    types=types,
                    validate_url=validate_url,
                ),
                (),
            )
        except ConfigError as first:
            errors = load_config_errors(
                path,
                catalog=catalog,
                types=types,
                validate_url=validate_url,
            )
            # Somebody may have mended the file between the two readings.
            return path, None, errors or (first,)

    @app.command()
    def validate(file: _File = None, as_json: _Json = False) -> None:
        """Say whether the configuration can be used, or everything that is wrong with it.

        Exit codes: 0 it can be used, 2 it cannot.
        """
        path, config, errors = read(file)
        # They disturb nothing else, so the configuration can be used.
        broken = [str(each) for each in find_remedies(read_settings()).problems] if config else []
        if as_json:
            typer.echo(json.dumps({**_summarize(config, errors), "warnings": broken}, indent=2))
        elif config is None:
            _complain(errors)
        elif not config.files:
            typer.echo(f"ok: there is no {path}; hostmend only reports")
        else:
            typer.echo(f"ok: {len(config.checks)} checks, {len(config.routes)} routes")
        if not as_json:
            for each in broken:
                typer.echo(f"warning: {each}", err=True)
        if config is None:
            raise typer.Exit(EXIT_INVALID)

    @app.command()
    def show(file: _File = None, as_json: _Json = False) -> None:
        """Print the configuration in effect: every default written out, secrets masked.

        Exit codes: 0 it was printed, 2 it cannot be used.
        """
        _, config, errors = read(file)
        if config is None:
            _complain(errors)
            raise typer.Exit(EXIT_INVALID)
        text = json.dumps(describe_config(config), indent=2) if as_json else show_config(config)
        typer.echo(text.rstrip("\n"))

    @app.command()
    def schema() -> None:
        """Print the JSON Schema of the configuration, for editors."""
        try:
            remedies = find_remedies(read_settings()).remedies
        except ConfigError as error:
            _complain((error,))
            raise typer.Exit(EXIT_INVALID) from error
        typer.echo(json.dumps(config_schema(types, remedies), indent=2))

    return app


def _complain(errors: tuple[ConfigError, ...]) -> None:
    for error in errors:
        typer.echo(str(error), err=True)


def _summarize(config: Config | None, errors: tuple[ConfigError, ...]) -> dict[str, object]:
    return {
        "ok": config is not None,
        "files": [str(file) for file in config.files] if config else [],
        "checks": len(config.checks) if config else 0,
        "routes": len(config.routes) if config else 0,
        "errors": [
            {
                "file": error.file,
                "line": error.line,
                "key": error.key,
                "message": error.message,
            }
            for error in errors
        ],
    }
