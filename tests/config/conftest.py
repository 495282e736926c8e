"""Check types and remedies of these tests' own, made of the real parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import AfterValidator, Field

from agent.checks.check import CheckOptions, CheckType, StepOptions
from agent.checks.values import Duration
from agent.config import Config, load_config, load_config_errors
from agent.core.model import Changes, Risk
from agent.errors import ConfigError
from agent.remedies.catalog import Catalog
from agent.remedies.description import Remedy
from agent.remedies.options import Option


def read_unit(text: str) -> str:
    if not text.endswith((".service", ".timer", ".socket")):
        raise ValueError(f"{text!r} is no unit: write its whole name, such as nginx.service")
    return text


class UnitOptions(CheckOptions):
    """A systemd unit."""

    type: Literal["unit"]
    unit: Annotated[str, AfterValidator(read_unit)] = Field(description="Its whole name.")
    grace: Duration = Field(default=5.0, description="Time to start.")
    strict: bool = Field(default=False, description="Whether warnings count.")


class Limits(CheckOptions):
    """A filesystem."""

    type: Literal["volume"]
    path: Path = Field(description="Its mount point.")
    warning: Mapping[str, str] = Field(default_factory=dict, description="Cause: limit.")
    critical: Mapping[str, str] = Field(default_factory=dict, description="Cause: limit.")
    window: str | None = Field(default=None, description="Hours of the day, 22:00-06:00.")


async def look_at_nothing(_options: object, _machine: object) -> tuple[()]:
    return ()


TYPES: Mapping[str, CheckType] = {
    "unit": CheckType(
        name="unit",
        summary="A systemd unit is running.",
        model=UnitOptions,
        look=look_at_nothing,
        causes={"failed": "It failed.", "stopped": "It is not running."},
        default_ladder=lambda _options: (StepOptions(remedy="restart-service"),),
        defaults={"every": "30s", "attempts": "3"},
        names=lambda options: frozenset({options.unit}),
    ),
    "volume": CheckType(
        name="volume",
        summary="A filesystem has room.",
        model=Limits,
        look=look_at_nothing,
        causes={"full": "No room."},
        own_causes=lambda options: frozenset({*options.warning, *options.critical}),
    ),
}


def make_remedy(
    name: str,
    handles: Mapping[str, tuple[str, ...]],
    options: Mapping[str, Option],
    *,
    risk: Risk = Risk.LOW,
    changes: Changes = Changes.SERVICE,
    timeout: float = 60.0,
    lock: str = "",
) -> Remedy:
    return Remedy(
        name=name,
        path=Path("playbooks") / name,
        playbook=Path("playbooks") / name / "playbook.yml",
        summary="It mends.",
        handles=handles,
        risk=risk,
        changes=changes,
        timeout=timeout,
        lock=lock,
        options=options,
        digest=f"digest of {name}",
    )


CATALOG = Catalog(
    remedies={
        remedy.name: remedy
        for remedy in (
            make_remedy(
                "restart-service",
                {"unit": ("failed", "stopped", "unheard-of")},
                {
                    "unit": Option(
                        type="unit",
                        description="The unit to restart.",
                        required=True,
                        source="subject",
                        configured_only=True,
                    ),
                    "key": Option(type="str", description="A secret.", no_log=True),
                    "validate": Option(type="argv", description="It must succeed first."),
                    "allowed": Option(type="argv", description="Words.", configured_only=True),
                },
                lock="unit:{unit}",
            ),
            make_remedy(
                "grow-volume",
                {"volume": ("full",)},
                {"size": Option(type="str", required=True, description="How much.")},
                risk=Risk.HIGH,
                changes=Changes.DATA,
                timeout=600.0,
            ),
        )
    }
)


@pytest.fixture
def types() -> Mapping[str, CheckType]:
    return TYPES


@pytest.fixture
def catalog() -> Catalog:
    return CATALOG


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes the main file, and files of conf.d by keyword, and returns the main file's path."""

    def write(text: str | None, **beside: str) -> Path:
        main = tmp_path / "hostmend.yml"
        if text is not None:
            main.write_text(text)
        for name, content in beside.items():
            (tmp_path / "conf.d").mkdir(exist_ok=True)
            (tmp_path / "conf.d" / f"{name}.yml").write_text(content)
        return main

    return write


@pytest.fixture
def load(write: Callable[..., Path]) -> Callable[..., Config]:
    """Loads what `write` is given."""

    def load(text: str | None, **beside: str) -> Config:
        return load_config(write(text, **beside), catalog=CATALOG, types=TYPES)

    return load


@pytest.fixture
def errors(write: Callable[..., Path]) -> Callable[..., tuple[ConfigError, ...]]:
    """Everything wrong with what `write` is given."""

    def errors(text: str | None, **beside: str) -> tuple[ConfigError, ...]:
        return load_config_errors(write(text, **beside), catalog=CATALOG, types=TYPES)

    return errors
