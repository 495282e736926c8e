"""remedy.yml: read, validated, and turned into a `Remedy`."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from agent.core.model import Changes, Risk, Seconds
from agent.core.units import parse_duration
from agent.errors import RemedyError
from agent.remedies.options import TYPES, Option, check_value, why_no_name

#: A remedy.yml is a page of text; more is a mistake.
_MAX_FILE = 65_536
_LONGEST_TIMEOUT = 7 * 86_400.0

_Word = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
_Type = Literal["str", "int", "float", "bool", "path", "dict", "unit", "argv", "duration"]


def _read_duration(value: object) -> object:
    if isinstance(value, str):
        return parse_duration(value)
    raise ValueError("a duration needs a unit: write for example 60s, 5m or 2h")


class _OptionModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    type: _Type | Literal["list"] = "str"
    description: str = ""
    required: bool = False
    default: Any = None
    choices: tuple[Any, ...] = ()
    elements: _Type | None = None
    source: Annotated[
        str,
        Field(
            alias="from", pattern=r"^finding\.(subject|cause|measurements\.[a-z][a-z0-9_]{0,63})$"
        ),
    ] = ""
    allow: Literal["configured"] | None = None
    no_log: bool = False


class _RemedyModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    summary: Annotated[str, Field(min_length=1, max_length=200)]
    handles: Mapping[_Word, tuple[_Word, ...]] = Field(default_factory=dict)
    risk: Risk
    changes: Changes
    timeout: Annotated[float, Field(gt=0, le=_LONGEST_TIMEOUT), BeforeValidator(_read_duration)]
    lock: Annotated[str, Field(max_length=200)] = ""
    options: Mapping[str, _OptionModel] = Field(default_factory=dict)
    interpreter: Annotated[str, Field(pattern=r"^/[^\s{}$~\"'\\]+$")] | None = None
    collections: tuple[Annotated[str, Field(pattern=r"^/[^\s{}$~:\"'\\]+$")], ...] = ()
    vault_password_file: Annotated[str, Field(pattern=r"^/[^\s{}$~\"'\\]+$")] | None = None


@dataclass(frozen=True, kw_only=True)
class Remedy:
    """A repair on offer, valid in every part."""

    name: str
    #: Its directory.
    path: Path
    playbook: Path
    summary: str
    #: Check types and the causes of theirs that it can be configured for.
    handles: Mapping[str, tuple[str, ...]]
    risk: Risk
    changes: Changes
    timeout: Seconds
    #: A template over the options, `unit:{unit}`: two runs with one lock never overlap.
    lock: str
    options: Mapping[str, Option]
    #: sha256 over all its files, hexadecimal.
    digest: str
    #: The digest of the shipped remedy that this one of an operator replaces.
    replaces: str | None = None
    #: The Python that runs its modules; None: hostmend's own.
    interpreter: str | None = None
    #: Directories with Ansible collections; empty: Ansible's defaults.
    collections: tuple[str, ...] = ()
    #: The file with the password of what ansible-vault(1) has encrypted in it.
    vault_password_file: str | None = None
    #: Options that a finding fills, as `agent.core.model.Step.fills` takes them.
    fills: Mapping[str, str] = field(default_factory=dict)

    def lock_for(self, options: Mapping[str, object]) -> str:
        """The lock of a run with these options; empty when it needs none."""
        named = {name: options.get(name, "") for name in self.options}
        return self.lock.format_map(named)


def read_description(name: str, path: Path, digest: str) -> Remedy:
    """The remedy in that directory. Raises RemedyError that names remedy, file and key."""
    file = path / "remedy.yml"
    try:
        text = file.read_bytes()
    except OSError as error:
        raise RemedyError(f"cannot use remedy {name}: {file}: {error.strerror}") from None
    if len(text) > _MAX_FILE:
        raise RemedyError(f"cannot use remedy {name}: {file}: longer than {_MAX_FILE} bytes")
    try:
        # YAML 1.2: `off` is a word here, and a key that is given twice is an error.
        model = _RemedyModel.model_validate(YAML(typ="safe", pure=True).load(text))
    except YAMLError as error:
        raise RemedyError(f"cannot use remedy {name}: {file}: {_first_line(error)}") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the whole file"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise RemedyError(
            f"cannot use remedy {name}: {file}: {key}: {first['msg']}{more}"
        ) from None

    def wrong(key: str, why: str) -> RemedyError:
        return RemedyError(f"cannot use remedy {name}: {file}: {key}: {why}")

    options = {}
    for option_name, given in model.options.items():
        key = f"options.{option_name}"
        if why := why_no_name(option_name):
            raise wrong(key, why)
        try:
            options[option_name] = _make_option(given)
        except ValueError as error:
            raise wrong(key, str(error)) from None
    try:
        used = {part for _, part, _, _ in string.Formatter().parse(model.lock) if part is not None}
    except ValueError as error:
        raise wrong("lock", str(error)) from None
    if strange := sorted(used - set(options)):
        raise wrong("lock", f"{', '.join(map(repr, strange))} is none of the options")
    playbook = path / "playbook.yml"
    if not playbook.is_file():
        raise RemedyError(f"cannot use remedy {name}: {playbook}: there is no such file")
    return Remedy(
        name=name,
        path=path,
        playbook=playbook,
        summary=model.summary,
        handles=dict(model.handles),
        risk=model.risk,
        changes=model.changes,
        timeout=model.timeout,
        lock=model.lock,
        options=options,
        digest=digest,
        interpreter=model.interpreter,
        collections=model.collections,
        vault_password_file=model.vault_password_file,
        fills={key: option.source for key, option in options.items() if option.source},
    )


def _make_option(given: _OptionModel) -> Option:
    if given.elements and given.type != "list":
        raise ValueError("elements: only a list has elements")
    if given.required and given.default is not None:
        raise ValueError("default: a required option has none")
    option = Option(
        type=given.type,
        description=given.description,
        required=given.required,
        elements=given.elements or "str",
        source=given.source.removeprefix("finding."),
        configured_only=given.allow == "configured",
        no_log=given.no_log,
    )
    one = TYPES[option.elements if option.type == "list" else option.type]
    option = replace(option, choices=tuple(one(choice) for choice in given.choices))
    if given.default is None:
        return option
    return replace(option, default=check_value(option, given.default, None))


def _first_line(error: YAMLError) -> str:
    text = re.sub(r"\s+", " ", str(error)).strip()
    return text[:300]
