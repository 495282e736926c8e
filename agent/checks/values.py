"""Values as a configuration writes them, which check types share."""

from __future__ import annotations

import os
import re
from collections.abc import Container
from pathlib import PurePosixPath
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema

from agent.core.units import parse_duration, parse_size, write_duration, write_size


def _read_duration(value: object) -> object:
    if isinstance(value, str):
        return parse_duration(value)
    raise ValueError("a duration needs a unit: write for example 10s, 5m or 2h")


#: Seconds in the program, `10s` in the configuration; more than nothing.
Duration = Annotated[
    float,
    Field(
        gt=0,
        allow_inf_nan=False,
        json_schema_extra={
            "type": "string",
            "pattern": r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d|w))+$",
            "examples": ["10s", "5m", "2h"],
        },
    ),
    BeforeValidator(_read_duration),
    PlainSerializer(write_duration, when_used="json"),
]


def _read_percent(value: object) -> object:
    if isinstance(value, str) and value.endswith("%"):
        try:
            return float(value[:-1])
        except ValueError:
            pass
    raise ValueError("a share is written with its sign: 85%")


def _write_percent(value: float) -> str:
    return f"{value:g}%"


#: Percent in the program, `85%` in the configuration.
Percent = Annotated[
    float,
    Field(
        gt=0,
        le=100,
        allow_inf_nan=False,
        json_schema_extra={
            "type": "string",
            "pattern": r"^[0-9]+(\.[0-9]+)?%$",
            "examples": ["85%"],
        },
    ),
    BeforeValidator(_read_percent),
    PlainSerializer(_write_percent, when_used="json"),
]


#: Percent of one core of the processor, `150%`: what has several threads may use more than one.
CorePercent = Annotated[
    float,
    Field(
        gt=0,
        allow_inf_nan=False,
        json_schema_extra={
            "type": "string",
            "pattern": r"^[0-9]+(\.[0-9]+)?%$",
            "examples": ["150%"],
        },
    ),
    BeforeValidator(_read_percent),
    PlainSerializer(_write_percent, when_used="json"),
]


def _read_size(value: object) -> object:
    if isinstance(value, str):
        return parse_size(value)
    raise ValueError("a size needs a unit: write for example 500M or 1G")


#: Bytes in the program, `1G` in the configuration.
Size = Annotated[
    int,
    Field(
        gt=0,
        json_schema_extra={
            "type": "string",
            "pattern": r"^[0-9]+(\.[0-9]+)?[KMGT]?(i?B)?$",
            "examples": ["500M", "1G"],
        },
    ),
    BeforeValidator(_read_size),
    PlainSerializer(write_size, when_used="json"),
]


def _check_amount(value: object) -> object:
    try:
        parse_amount(value if isinstance(value, str) else "", 100)
    except ValueError:
        raise ValueError(
            f"{value!r} is neither a share nor a size: write for example 10% or 500M"
        ) from None
    return value


def parse_amount(text: str, whole: int) -> float:
    """Bytes of `500M`, or of `10%` of the whole. Raises ValueError."""
    if not text.endswith("%"):
        return float(parse_size(text))
    percent = float(text[:-1])
    if not 0 < percent <= 100:
        raise ValueError(f"{text!r} is not between 0% and 100%")
    return whole * percent / 100


#: A share of the whole or a size, as it is written: `10%`, `500M`.
Amount = Annotated[
    str,
    BeforeValidator(_check_amount),
    Field(
        json_schema_extra={
            "pattern": r"^[0-9]+(\.[0-9]+)?(%|[KMGT]?(i?B)?)$",
            "examples": ["10%", "500M"],
        }
    ),
]


def _check_path(path: str) -> str:
    if not path.startswith("/") or ".." in PurePosixPath(path).parts:
        raise ValueError(f"{path!r} is no absolute path without ..: write for example /var")
    return os.path.normpath(path)


#: An absolute path without `..`, in its plainest form.
AbsolutePath = Annotated[str, AfterValidator(_check_path)]


class Rate(NamedTuple):
    """So many within so many seconds."""

    amount: int
    seconds: float


_RATE = re.compile(r"(\S+) in (\S+)")


def _read_rate(value: object) -> object:
    if isinstance(value, Rate):
        return value
    found = _RATE.fullmatch(value) if isinstance(value, str) else None
    if found is None or not found[1].isdecimal() or len(found[1]) > 9:
        raise ValueError("a rate is a count and a time: write for example 5 in 1m")
    return Rate(int(found[1]), _read_window(found[2]))


def _read_growth(value: object) -> object:
    if isinstance(value, Rate):
        return value
    found = _RATE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError("growth is a size and a time: write for example 200M in 1m")
    return Rate(parse_size(found[1]), _read_window(found[2]))


def _read_window(text: str) -> float:
    seconds = parse_duration(text)
    if seconds <= 0:
        raise ValueError("the time must be more than nothing: write for example 1m")
    return seconds


def _as_text(pattern: str, example: str) -> WithJsonSchema:
    times = r"([0-9]+(\.[0-9]+)?(ms|s|m|h|d|w))+"
    return WithJsonSchema(
        {"type": "string", "pattern": f"^{pattern} in {times}$", "examples": [example]}
    )


#: A count within a time: `5 in 1m`.
Count = Annotated[
    Rate,
    BeforeValidator(_read_rate),
    PlainSerializer(
        lambda rate: f"{rate.amount} in {write_duration(rate.seconds)}", when_used="json"
    ),
    _as_text("[0-9]+", "5 in 1m"),
]

#: Bytes within a time: `200M in 1m`.
Growth = Annotated[
    Rate,
    BeforeValidator(_read_growth),
    PlainSerializer(
        lambda rate: f"{write_size(rate.amount)} in {write_duration(rate.seconds)}",
        when_used="json",
    ),
    _as_text(r"[0-9]+(\.[0-9]+)?[KMGT]?(i?B)?", "200M in 1m"),
]

_CAUSE = re.compile(r"[a-z][a-z0-9_-]{0,39}")


def check_cause(name: str, *, known: Container[str], kind: str) -> str:
    """A cause that a configuration names. `known`: those that every check of that kind has."""
    if name in known:
        raise ValueError(f"`{name}` is a cause that every {kind} check has: choose another word")
    if not _CAUSE.fullmatch(name):
        raise ValueError(f"{name!r} cannot be a cause: use small letters, digits, `_` and `-`")
    return name
