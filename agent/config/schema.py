"""JSON Schema of the configuration, for editors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from agent.checks import CHECKS
from agent.checks.check import CheckType, StepOptions
from agent.config.load import VERSION
from agent.config.options import (
    NAME,
    SILENCE_ID,
    DigestOptions,
    MaintenanceOptions,
    PolicyOptions,
    RecurringOptions,
    RouteOptions,
    StormOptions,
)
from agent.remedies.description import Remedy

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def config_schema(
    types: Mapping[str, CheckType] = CHECKS, remedies: Mapping[str, Remedy] | None = None
) -> dict[str, Any]:
    """The schema of one file (2020-12); with `remedies`, their names and options too."""
    models: list[type[BaseModel]] = [
        PolicyOptions,
        RecurringOptions,
        RouteOptions,
        MaintenanceOptions,
        DigestOptions,
        StepOptions,
        StormOptions,
        *(kind.model for kind in types.values()),
    ]
    references, definitions = models_json_schema(
        [(model, "validation") for model in models], ref_template="#/$defs/{model}"
    )
    defs: dict[str, Any] = definitions.get("$defs", {})

    def reference(model: type[BaseModel]) -> dict[str, Any]:
        return dict(references[(model, "validation")])

    for model in models:
        _write_defaults(model, defs[reference(model)["$ref"].rsplit("/", 1)[1]])

    for kind in types.values():
        own = defs[reference(kind.model)["$ref"].rsplit("/", 1)[1]]
        own["description"] = kind.summary
        own["required"] = sorted({*own.get("required", ()), "type"})
    if remedies is not None:
        _name_remedies(defs[reference(StepOptions)["$ref"].rsplit("/", 1)[1]], remedies)
    one_of_types: dict[str, Any] = (
        {
            "oneOf": [reference(kind.model) for kind in types.values()],
            "discriminator": {"propertyName": "type"},
        }
        if types
        else {}
    )
    return {
        "$schema": _DIALECT,
        "title": "hostmend.yml",
        "description": "The configuration of hostmend, and of each file in conf.d beside it.",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "version": {"const": VERSION, "description": "The format of this file."},
            "policy": _or_empty(reference(PolicyOptions), "What holds for the whole host."),
            "defaults": {
                "type": ["boolean", "null"],
                "description": "Look at what every host has: left out, while no check is named.",
            },
            "checks": _or_empty(_named(one_of_types), "What is looked at, by name."),
            "routes": _or_empty(_named(reference(RouteOptions)), "Ways to people, by name."),
            "maintenance": _or_empty(
                _named(reference(MaintenanceOptions), but=SILENCE_ID),
                "Maintenance windows that recur, by name.",
            ),
            "digest": _or_empty(
                reference(DigestOptions), "When a digest of what happened is sent; left out: never."
            ),
            "public_url": {
                "type": ["string", "null"],
                "format": "uri",
                "description": "The address under which people reach the dashboard; messages "
                "link to it.",
            },
        },
        "$defs": defs,
    }


def _write_defaults(model: type[BaseModel], schema: dict[str, Any]) -> None:
    """Defaults as a configuration writes them: `10s`, not 10.0."""
    plain = {
        name: field.default
        for name, field in model.model_fields.items()
        if not field.is_required() and field.default_factory is None
    }
    written = model.model_construct(**plain).model_dump(mode="json", by_alias=True, warnings=False)
    for key, own in schema["properties"].items():
        if own.get("default") is not None and written.get(key) is not None:
            own["default"] = written[key]


def _named(schema: Mapping[str, Any], but: re.Pattern[str] | None = None) -> dict[str, Any]:
    refused = {} if but is None else {"not": {"pattern": f"^{but.pattern}$"}}
    return {
        "type": "object",
        "propertyNames": {"pattern": f"^{NAME.pattern}$", **refused},
        "additionalProperties": schema,
    }


def _or_empty(schema: Mapping[str, Any], description: str) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}], "description": description}


def _name_remedies(step: dict[str, Any], remedies: Mapping[str, Remedy]) -> None:
    """Adds to a step's schema which remedies there are, and which options each takes."""
    step["properties"]["remedy"]["enum"] = sorted(remedies)
    step["allOf"] = [
        {
            "if": {"properties": {"remedy": {"const": name}}, "required": ["remedy"]},
            "then": _describe_options(remedy),
        }
        for name, remedy in sorted(remedies.items())
    ]


def _describe_options(remedy: Remedy) -> dict[str, Any]:
    required = [
        name for name, option in remedy.options.items() if option.required and not option.source
    ]
    options = {
        "properties": {
            name: {"description": option.description} for name, option in remedy.options.items()
        },
        "additionalProperties": False,
        "required": required,
    }
    return {
        "description": remedy.summary,
        "properties": {"options": options},
        "required": ["options"] if required else [],
    }
