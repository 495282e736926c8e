"""A remedy's playbooks as rules see them: tasks in their order, with file and line.

Nothing is evaluated. Files of tasks that a playbook names, and that lie in the remedy, are read in
their place.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError

from agent.errors import RemedyError

_COLLECTION = ("ansible.builtin.", "ansible.legacy.")
_INCLUDES = frozenset({"include_tasks", "import_tasks"})
_BLOCK = ("block", "rescue", "always")
#: Keywords of a task (Ansible's "Playbook Keywords"); what is none of them is its module.
_KEYWORDS = frozenset(
    {
        "any_errors_fatal", "args", "async", "become", "become_exe", "become_flags",
        "become_method", "become_user", "changed_when", "check_mode", "collections", "connection",
        "debugger", "delay", "delegate_facts", "delegate_to", "diff", "environment",
        "failed_when", "ignore_errors", "ignore_unreachable", "listen", "loop", "loop_control",
        "module_defaults", "name", "no_log", "notify", "poll", "port", "register", "remote_user",
        "retries", "run_once", "tags", "throttle", "timeout", "until", "vars", "when",
    }
)  # fmt: skip
#: Files of tasks within files of tasks; more is a circle.
_DEPTH = 8


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task."""

    file: Path
    #: Counted from 1.
    line: int
    #: Without `ansible.builtin.`; empty where there is none.
    module: str
    #: What the module is given: a mapping, text, or nothing.
    arguments: object
    #: All that is written, arguments included.
    keys: Mapping[str, object]
    #: Where each key stands.
    lines: Mapping[str, int]
    #: Its own conditions and those of the blocks around it.
    conditions: tuple[str, ...] = ()
    #: In `rescue`, `always` or a handler: not on the way of a run that goes well.
    aside: bool = False

    @property
    def words(self) -> tuple[str, ...]:
        """A command's words, as far as they can be told without evaluating anything."""
        given = self.arguments
        if isinstance(given, Mapping):
            given = given.get("argv", given.get("cmd", given.get("_raw_params", "")))
        if isinstance(given, str):
            try:
                return tuple(shlex.split(given))
            except ValueError:
                return tuple(given.split())
        return tuple(str(word) for word in given) if isinstance(given, Sequence) else ()


@dataclass(frozen=True, kw_only=True)
class Play:
    """One play."""

    file: Path
    line: int
    keys: Mapping[str, object]
    lines: Mapping[str, int]
    tasks: tuple[Task, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Place:
    remedy: Path
    file: Path
    depth: int = 0
    aside: bool = False
    conditions: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Pages:
    """All that was read, with the text of each file."""

    plays: tuple[Play, ...]
    texts: Mapping[Path, Sequence[str]] = field(default_factory=dict)


def read_playbooks(remedy: Path, names: Sequence[str] = ("playbook.yml", "undo.yml")) -> Pages:
    """The plays of these playbooks, those that exist. Raises RemedyError that names the file."""
    texts: dict[Path, Sequence[str]] = {}
    plays = []
    for name in names:
        file = remedy / name
        if file.is_file():
            place = _Place(remedy=remedy, file=file)
            for play in _read_list(file, texts):
                plays.append(_read_play(play, place, texts))
    return Pages(plays=tuple(plays), texts=texts)


def texts_in(value: object) -> Iterator[str]:
    """All texts of a value, keys of mappings left out."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from texts_in(item)
    elif isinstance(value, Sequence):
        for item in value:
            yield from texts_in(item)


def is_false(value: object) -> bool:
    """As Ansible reads it, in YAML 1.1 too."""
    return value is False or str(value).lower() in {"false", "no", "off"}


def _read_list(file: Path, texts: dict[Path, Sequence[str]]) -> list[CommentedMap]:
    try:
        text = file.read_text(encoding="utf-8")
        texts[file] = text.splitlines()
        found = YAML().load(text)
    except OSError as error:
        raise RemedyError(f"cannot read {file}: {error.strerror}") from None
    except (YAMLError, ValueError) as error:
        raise RemedyError(f"cannot read {file}: {' '.join(str(error).split())[:300]}") from None
    if not isinstance(found, list) or not all(isinstance(item, CommentedMap) for item in found):
        raise RemedyError(f"cannot read {file}: it must be a list of plays or tasks")
    return found


def _read_play(play: CommentedMap, place: _Place, texts: dict[Path, Sequence[str]]) -> Play:
    tasks: list[Task] = []
    for section in ("pre_tasks", "tasks", "post_tasks", "handlers"):
        aside = section == "handlers"
        here = _Place(remedy=place.remedy, file=place.file, aside=aside)
        tasks.extend(_read_tasks(play.get(section), here, texts))
    return Play(
        file=place.file,
        line=play.lc.line + 1,
        keys=play,
        lines=_find_lines(play),
        tasks=tuple(tasks),
    )


def _find_lines(item: CommentedMap) -> Mapping[str, int]:
    return {key: item.lc.key(key)[0] + 1 for key in item if key in item.lc.data}


def _read_tasks(given: object, place: _Place, texts: dict[Path, Sequence[str]]) -> Iterator[Task]:
    for item in given if isinstance(given, list) else ():
        if not isinstance(item, CommentedMap):
            continue
        when = (*place.conditions, *texts_in(item.get("when")))
        if "block" in item:
            yield _make_task(item, "", None, when, place)
            for section in _BLOCK:
                inner = _Place(
                    remedy=place.remedy,
                    file=place.file,
                    depth=place.depth,
                    aside=place.aside or section != "block",
                    conditions=when,
                )
                yield from _read_tasks(item.get(section), inner, texts)
            continue
        module, arguments = _find_module(item)
        yield _make_task(item, module, arguments, when, place)
        if module in _INCLUDES and place.depth < _DEPTH:
            named = arguments.get("file") if isinstance(arguments, Mapping) else arguments
            file = place.file.parent / str(named)
            if "{{" not in str(named) and file.is_file():
                inside = _Place(
                    remedy=place.remedy,
                    file=file,
                    depth=place.depth + 1,
                    aside=place.aside,
                    conditions=when,
                )
                yield from _read_tasks(_read_list(file, texts), inside, texts)


def _make_task(
    item: CommentedMap, module: str, arguments: object, when: tuple[str, ...], place: _Place
) -> Task:
    return Task(
        file=place.file,
        line=item.lc.line + 1,
        module=module,
        arguments=arguments,
        keys=item,
        lines=_find_lines(item),
        conditions=when,
        aside=place.aside,
    )


def _find_module(item: Mapping[str, object]) -> tuple[str, object]:
    for key, value in item.items():
        if key in ("action", "local_action"):
            if isinstance(value, Mapping):
                return _shorten(str(value.get("module", ""))), value
            module, _, rest = str(value).partition(" ")
            return _shorten(module), rest
        if key not in _KEYWORDS and not key.startswith("with_"):
            arguments = value
            extra = item.get("args")
            if isinstance(extra, Mapping) and not isinstance(value, Mapping):
                arguments = {"_raw_params": value or "", **extra}
            return _shorten(key), arguments
    return "", None


def _shorten(module: str) -> str:
    for prefix in _COLLECTION:
        module = module.removeprefix(prefix)
    return module
