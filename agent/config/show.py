"""The effective configuration for people."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from agent.config.load import VERSION, Config, LoadedCheck, Route
from agent.config.options import POLICY_FIELDS, PolicyOptions, RecurringOptions, StormOptions
from agent.config.schedule import local_zone
from agent.core.model import Step
from agent.core.text import MASK
from agent.documents import write_document
from agent.notify.masking import describe_url

_PASSWORD = re.compile(r"(?<=://)[^/@\s]*:[^/@\s]*@")
_PYDANTIC_MASK = "**********"


def show_config(config: Config) -> str:
    """The complete effective configuration as YAML, every default written out, secrets masked."""
    return write_document(describe_config(config))


def describe_config(config: Config) -> dict[str, Any]:
    """As `show_config`, as a value of dict, list and scalars."""
    shown: dict[str, Any] = {"version": VERSION, "policy": _describe_policy(config)}
    if config.public_url:
        shown["public_url"] = config.public_url
    written = config.raw.get("checks") or {}
    shown["checks"] = {
        name: _describe_check(check, written.get(name, {}), config.hidden)
        for name, check in config.checks.items()
    }
    shown["routes"] = {name: _describe_route(route) for name, route in config.routes.items()}
    shown["maintenance"] = {
        name: {
            **options.model_dump(mode="json", by_alias=True),
            "timezone": options.timezone or local_zone().key,
        }
        for name, options in config.maintenance.items()
    }
    if config.digest is not None:
        shown["digest"] = {
            **config.digest.model_dump(mode="json"),
            "timezone": config.digest.timezone or local_zone().key,
        }
    return shown


def _describe_policy(config: Config) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for key, name in POLICY_FIELDS.items():
        section, _, last = key.rpartition(".")
        within = fields.setdefault(section, {}) if section else fields
        within[last] = getattr(config.policy, name)
    fields["warm"] = config.warm
    # Through the models, which know what is a duration.
    fields["storm"] = StormOptions.model_construct(**fields["storm"])
    fields["recurring"] = RecurringOptions.model_construct(**fields["recurring"])
    return PolicyOptions.model_construct(**fields).model_dump(mode="json")


def _describe_check(
    check: LoadedCheck, raw: Mapping[str, Any], hidden: frozenset[tuple[str, str]]
) -> dict[str, Any]:
    complete = check.options.model_dump(mode="json", by_alias=True, exclude_none=True)
    shown = {key: _choose(value, raw.get(key)) for key, value in complete.items()}
    shown.pop("ladder", None)
    shown["ladder"] = [_describe_step(step, hidden) for step in check.policy.ladder]
    return shown


def _choose(complete: Any, written: Any) -> Any:
    """What was written, unless it is a secret; else the default."""
    if written is None or any(mask in str(complete) for mask in (MASK, _PYDANTIC_MASK)):
        return complete
    return _mask_passwords(written)


def _mask_passwords(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _mask_passwords(below) for key, below in value.items()}
    if isinstance(value, list | tuple):
        return [_mask_passwords(below) for below in value]
    return _PASSWORD.sub(f"{MASK}@", value) if isinstance(value, str) else value


def _describe_step(step: Step, hidden: frozenset[tuple[str, str]]) -> dict[str, Any]:
    shown: dict[str, Any] = {"remedy": step.remedy, "causes": list(step.causes)}
    if step.options:
        shown["options"] = {
            option: MASK if (step.remedy, option) in hidden else _mask_passwords(value)
            for option, value in step.options.items()
        }
    shown["attempts"] = step.attempts
    if step.mode is not None:
        shown["mode"] = step.mode.value
    return shown


def _describe_route(route: Route) -> dict[str, Any]:
    shown: dict[str, Any] = (
        {"url": describe_url(route.url)} if route.url else {"url_file": str(route.url_file)}
    )
    shown["reasons"] = [reason.value for reason in route.policy.reasons]
    shown["severity"] = route.policy.severity.value
    if route.policy.labels:
        shown["labels"] = dict(route.policy.labels)
    return shown
