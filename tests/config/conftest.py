"""Check types and remedies of these tests' own, made of the real parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import AfterValidator, Field

from agent.checks.check import CheckOptions, CheckType, Duration, StepOptions
from agent.config import Config, load_config, load_config_errors
from agent.core.model import Changes, Risk
from agent.errors import ConfigError


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


@dataclass(frozen=True, kw_only=True)
class Option:
    type: str
    required: bool = False
    source: str = ""
    configured_only: bool = False
    description: str = "What it is."


@dataclass(frozen=True, kw_only=True)
class Remedy:
    name: str
    handles: Mapping[str, tuple[str, ...]]
    summary: str = "It mends."
    risk: Risk = Risk.LOW
    changes: Changes = Changes.SERVICE
    timeout: float = 60.0
    lock: str = ""
    options: Mapping[str, Option] = field(default_factory=dict)
    digest: str = "sha256:0"


@dataclass(frozen=True, kw_only=True)
class Catalog:
    remedies: Mapping[str, Remedy]


CATALOG = Catalog(
    remedies={
        remedy.name: remedy
        for remedy in (
            Remedy(
                name="restart-service",
                handles={"unit": ("failed", "stopped", "unheard-of")},
                lock="unit:{unit}",
                digest="sha256:1",
                options={
                    "unit": Option(
                        type="unit", required=True, source="subject", configured_only=True
                    ),
                    "validate": Option(type="argv"),
                },
            ),
            Remedy(
                name="grow-volume",
                handles={"volume": ("full",)},
                risk=Risk.HIGH,
                changes=Changes.DATA,
                timeout=600.0,
                options={"size": Option(type="size", required=True, description="How much.")},
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
