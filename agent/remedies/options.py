"""A run's options: checked against what remedy.yml declares, and made inert for Ansible.

Types are those of Ansible's argument_spec, as far as they make sense from outside, and hostmend's
own `unit`, `argv` and `duration`. Checking is idempotent: what it returned may be checked again.
"""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from agent.core.units import parse_duration
from agent.errors import RemedyError
from agent.host.protected import why_never
from agent.host.text import has_controls
from agent.remedies.units import is_unit

#: Limits of one value and of all together; far beyond what a repair needs.
MAX_TEXT = 4_096
MAX_ITEMS = 256
MAX_DEPTH = 6
MAX_ALL = 32_768

_RESERVED = ("ansible_", "__ansible")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_PROGRAM = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*|(?:/[A-Za-z0-9._+@-]+)+")
_TRUE = frozenset({"y", "yes", "on", "1", "true", "t"})
_FALSE = frozenset({"n", "no", "off", "0", "false", "f"})
#: Variables that mean something to Ansible or that every playbook has.
_MAGIC = frozenset(
    {
        "environment", "group_names", "groups", "hostvars", "inventory_dir", "inventory_file",
        "inventory_hostname", "inventory_hostname_short", "omit", "play_hosts", "playbook_dir",
        "role_name", "role_names", "role_path", "vars",
    }
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Option:
    """One option of a remedy."""

    type: str = "str"
    description: str = ""
    required: bool = False
    #: Used where nothing is given; already checked. None: the variable is left undefined.
    default: object = None
    #: Only one of these, where there are any.
    choices: tuple[object, ...] = ()
    #: The type of a list's elements.
    elements: str = "str"
    #: The finding's field that fills it: `subject`, `cause` or `measurements.NAME`.
    source: str = ""
    #: Takes only values that the configuration itself names.
    configured_only: bool = False
    #: Its value is hidden in everything shown.
    no_log: bool = False


class _Wrong(ValueError):
    """What is wrong with one value; becomes a RemedyError that names the option."""


def why_no_name(name: str) -> str:
    """Why an option cannot be called this; empty when it can."""
    if not _NAME.fullmatch(name):
        return "use lower case letters, digits and _, beginning with a letter"
    if name.startswith(_RESERVED) or name in _MAGIC:
        return "this name belongs to Ansible, choose another"
    return ""


def _text(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise _Wrong("it must be text")
    text = str(value)
    if len(text) > MAX_TEXT:
        raise _Wrong(f"it is longer than {MAX_TEXT} characters")
    if has_controls(text):
        raise _Wrong("it holds control characters")
    return text


def _int(value: object) -> int:
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d{1,19}", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not -(2**63) <= value < 2**63:
        raise _Wrong("it must be a whole number")
    return value


def _float(value: object) -> float:
    try:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError
        number = float(value)
        if not math.isfinite(number) or (isinstance(value, str) and len(value) > 64):
            raise ValueError
    except (ValueError, OverflowError):
        raise _Wrong("it must be a number") from None
    return number


def _bool(value: object) -> bool:
    if isinstance(value, bool):
        return value
    word = str(value).lower() if isinstance(value, str | int) else ""
    if word in _TRUE | _FALSE:
        return word in _TRUE
    raise _Wrong("it must be true or false")


def _path(value: object) -> str:
    text = _text(value)
    if not text.startswith("/") or ".." in text.split("/") or "$" in text or "~" in text:
        raise _Wrong("it must be an absolute path without .., ~ and $")
    return text


def _unit(value: object) -> str:
    text = _text(value)
    if not is_unit(text):
        raise _Wrong("it must be a systemd unit with its suffix, such as nginx.service")
    if reason := why_never(text):
        raise _Wrong(f"hostmend never acts on {text}: {reason}")
    return text


def _argv(value: object) -> list[str]:
    if isinstance(value, str):
        try:
            value = shlex.split(_text(value))
        except ValueError as error:
            raise _Wrong(f"it cannot be split into words: {error}") from None
    words = [_text(item) for item in _items(value)]
    if not words or not _PROGRAM.fullmatch(words[0]) or ".." in words[0].split("/"):
        raise _Wrong("it must be a list that begins with a program's name or absolute path")
    return words


def _duration(value: object) -> float:
    """Seconds. Ansible's modules take numbers, so a number stays what it is."""
    try:
        number = parse_duration(value) if isinstance(value, str) else _float(value)
    except ValueError as error:
        raise _Wrong(str(error)) from None
    if number < 0:
        raise _Wrong("it must not be negative")
    return int(number) if number == int(number) else number


def _items(value: object) -> list[object]:
    if not isinstance(value, list | tuple):
        raise _Wrong("it must be a list")
    if len(value) > MAX_ITEMS:
        raise _Wrong(f"it has more than {MAX_ITEMS} items")
    return list(value)


def _any(value: object, depth: int = 0) -> object:
    """A value nested in a dict: text, numbers, lists and dicts, nothing else."""
    if depth > MAX_DEPTH:
        raise _Wrong(f"it is nested deeper than {MAX_DEPTH} levels")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return _int(value)
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, list | tuple):
        return [_any(item, depth + 1) for item in _items(value)]
    if isinstance(value, Mapping):
        if len(value) > MAX_ITEMS:
            raise _Wrong(f"it has more than {MAX_ITEMS} keys")
        return {_key(key): _any(item, depth + 1) for key, item in value.items()}
    return _text(value)


def _key(key: object) -> str:
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise _Wrong(f"the key {str(key)[:64]!r} may hold only letters, digits, _, . and -")
    if key.lower().startswith(_RESERVED):
        raise _Wrong(f"the key {key!r} belongs to Ansible")
    return key


def _dict(value: object) -> object:
    if isinstance(value, str):
        try:
            value = json.loads(_text(value))
        except ValueError:
            value = None
    if not isinstance(value, Mapping):
        raise _Wrong("it must be a dict, or a JSON object")
    return _any(value)


#: The types of single values; `list` is made of them.
TYPES: dict[str, Callable[[object], object]] = {
    "str": _text,
    "int": _int,
    "float": _float,
    "bool": _bool,
    "path": _path,
    "dict": _dict,
    "unit": _unit,
    "argv": _argv,
    "duration": _duration,
}


def _convert(option: Option, value: object) -> object:
    if option.type != "list":
        return TYPES[option.type](value)
    # As Ansible does: text is a list with commas.
    items = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
    return [TYPES[option.elements](item) for item in _items(items)]


def _among(value: object, allowed: Collection[object]) -> bool:
    """Equal to one of them, where True is not 1."""
    return any(type(value) is type(item) and value == item for item in allowed)


def check_value(option: Option, value: object, configured: Collection[object] | None) -> object:
    """One value in the option's type. Raises ValueError that says what would be right.

    `configured`: the values that the configuration names; None: they do not matter (a default).
    """
    checked = _convert(option, value)
    parts = checked if option.type == "list" and isinstance(checked, list) else [checked]
    if option.choices:
        for part in parts:
            if not _among(part, option.choices):
                choices = ", ".join(str(choice) for choice in option.choices)
                raise _Wrong(f"{str(part)[:64]!r} is none of {choices}")
    if option.configured_only and configured is not None:
        known = [list(item) if isinstance(item, tuple) else item for item in configured]
        known.append(option.default)
        if not _among(checked, known) and not all(_among(part, known) for part in parts):
            raise _Wrong(
                f"{str(checked)[:200]!r} is not named by the configuration; "
                "only what a check or its ladder names is taken"
            )
    return checked


def check_options(
    remedy: str,
    options: Mapping[str, Option],
    given: Mapping[str, object],
    *,
    configured: Collection[object] = (),
) -> dict[str, object]:
    """A run's complete options: `given`, converted, and the defaults. Raises RemedyError.

    `configured` are the values that `allow: configured` takes: every unit, path or argument list
    that the configuration itself names, ladders' options included.
    """
    unknown = sorted(str(name)[:64] for name in given if name not in options)
    if unknown:
        known = ", ".join(sorted(options)) or "none at all"
        raise RemedyError(
            f"cannot run {remedy}: it has no option {', '.join(unknown)}; its options are {known}"
        )
    checked: dict[str, object] = {}
    for name, option in options.items():
        value = given.get(name)
        try:
            if value is not None:
                checked[name] = check_value(option, value, configured)
            elif option.required:
                raise _Wrong(f"it is required. {option.description}".rstrip())
            elif option.default is not None:
                checked[name] = option.default
        except ValueError as error:
            raise RemedyError(f"cannot run {remedy}: option {name}: {error}") from None
    if len(json.dumps(checked)) > MAX_ALL:
        raise RemedyError(f"cannot run {remedy}: its options are longer than {MAX_ALL} characters")
    return checked


def make_inert(value: object) -> object:
    """The value with every text marked so that Ansible never evaluates it as a template.

    Ansible's JSON reader takes `{"__ansible_unsafe": text}` as such a text. Without it,
    `{{ lookup("pipe", ...) }}` in a log line or a REST parameter would be executed.
    """
    if isinstance(value, str):
        return {"__ansible_unsafe": value}
    if isinstance(value, Mapping):
        return {_key(key): make_inert(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [make_inert(item) for item in value]
    return value
