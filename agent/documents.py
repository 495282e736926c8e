"""YAML files that know where each value stands; the only module that imports ruamel.yaml.

YAML 1.2 with its core schema (https://yaml.org/spec/1.2.2/#103-core-schema) and nothing beyond it:
`off`, `yes` and `22:00` are words, dates are words, two equal keys are an error, tags are refused.
The values are built from the parser's events rather than by a constructor, because this is what
keeps the line of every key and makes "nothing beyond it" true.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)
from ruamel.yaml.reader import ReaderError
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from agent.errors import ConfigError

#: Larger files are refused unread.
MAX_BYTES = 1_000_000
MAX_DEPTH = 40
#: Values once every alias is followed; it ends "billion laughs" documents.
MAX_VALUES = 100_000

Scalar = str | int | float | bool | None
#: How to reach a value: keys of mappings and positions in sequences.
Trail = tuple[str | int, ...]

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_TRUTH = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[-+]?[0-9]+")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_HINTS = {
    "mapping values are not allowed": "put quotes around a value that contains ': '",
    "found undefined alias": "an anchor stands above its aliases",
    "could not find expected ':'": "write `key: value`",
    "character '%'": "put quotes around the value",
    "character '@'": "put quotes around the value",
    "character '`'": "put quotes around the value",
    "block mapping": "keys of one mapping begin in the same column",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Node:
    """One value and where it stands: the line of its key in a mapping, else where it begins."""

    value: Scalar | tuple[Node, ...] | Mapping[str, Node]
    file: str
    #: Counted from 1.
    line: int
    #: Values in it and below it, aliases followed.
    size: int = 1

    @property
    def mapping(self) -> Mapping[str, Node] | None:
        return self.value if isinstance(self.value, Mapping) else None

    def plain(self) -> Any:
        """The value without its places, of dict, list and scalars."""
        if isinstance(self.value, Mapping):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, tuple):
            return [node.plain() for node in self.value]
        return self.value

    def follow(self, trail: Trail) -> tuple[Node, Trail]:
        """The deepest value on the way along `trail`, and the part of the trail that exists.

        Parts that do not exist on the way are passed over: validators put names of their own there.
        """
        node, found = self, list[str | int]()
        for part in trail:
            below: Node | None = None
            if isinstance(node.value, Mapping) and isinstance(part, str):
                below = node.value.get(part)
            elif (
                isinstance(node.value, tuple)
                and isinstance(part, int)
                and 0 <= part < len(node.value)
            ):
                below = node.value[part]
            if below is not None:
                node = below
                found.append(part)
        return node, tuple(found)


def write_trail(trail: Trail) -> str:
    """A trail for people: `checks.web.ladder[0].remedy`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in trail)
    return text.removeprefix(".")


def read_document(path: Path) -> Node | None:
    """The document in a file; None when it holds nothing but comments.

    Raises ConfigError with the file and line of the first thing wrong. A missing file is one too.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read it: {error.strerror}", file=str(path)) from error
    if len(data) > MAX_BYTES:
        raise ConfigError(
            f"cannot read it: it is larger than {MAX_BYTES // 1000} kB", file=str(path)
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            "cannot read it: it is not UTF-8; save it as UTF-8", file=str(path), line=line
        ) from error
    return parse_document(text, str(path))


def parse_document(text: str, file: str) -> Node | None:
    """As `read_document`, from a text that is said to stand in `file`."""
    try:
        return _Builder(text, file).build()
    except ConfigError:
        raise
    except MarkedYAMLError as error:
        raise _explain(error, text, file) from error
    except ReaderError as error:
        raise ConfigError(
            f"cannot read it as YAML: character {_code(error)} is not allowed",
            file=file,
            line=text.count("\n", 0, error.position) + 1,
        ) from error
    # The parser is known to end some broken documents with errors of its own making
    # (AssertionError, IndexError); whatever it raises, the document is not YAML.
    except Exception as error:
        raise ConfigError(f"cannot read it as YAML: {error}", file=file) from error


def write_document(value: object) -> str:
    """A value of dict, list and scalars as a YAML text that `parse_document` reads back."""
    yaml = YAML()
    yaml.width = 100
    yaml.indent(mapping=2, sequence=4, offset=2)
    stream = StringIO()
    yaml.dump(_quoted(value), stream)
    return stream.getvalue()


def _quoted(value: object) -> object:
    """The value with quotes put around each text that would be read as something else."""
    if isinstance(value, Mapping):
        return {_quoted(str(key)): _quoted(below) for key, below in value.items()}
    if isinstance(value, list | tuple):
        return [_quoted(below) for below in value]
    if isinstance(value, str):
        try:
            plain = _resolve(value) == value and value not in ("<<", "=") and value.isprintable()
        except ValueError:
            plain = False
        return str(value) if plain else DoubleQuotedScalarString(value)
    return value


def _code(error: ReaderError) -> str:
    code = ord(error.character) if isinstance(error.character, str) else int(error.character)
    return f"U+{code:04X}"


def _explain(error: MarkedYAMLError, text: str, file: str) -> ConfigError:
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark else None
    problem = str(error.problem or error.context or "it is not well-formed")
    lines = text.splitlines()
    if "'\\t'" in problem or (line and line <= len(lines) and re.match(r" *\t", lines[line - 1])):
        problem = "there is a tab; indent with spaces"
    elif error.context and error.problem:
        problem = f"{error.context}, {error.problem}"
    hint = next((hint for found, hint in _HINTS.items() if found in problem), "")
    why = f"cannot read it as YAML: {problem}" + (f"; {hint}" if hint else "")
    return ConfigError(" ".join(why.split()), file=file, line=line)


def _resolve(text: str) -> Scalar:
    """What a plain scalar means. Raises ValueError for numbers that nothing can be done with."""
    if text in _NULL:
        return None
    if text in _TRUTH:
        return _TRUTH[text]
    if _BASED.fullmatch(text) or _INTEGER.fullmatch(text):
        # Beyond 18 digits nothing in a configuration is meant, and some readers round.
        if len(text) > 18:
            raise ValueError("the number is too long; put quotes around it if it is text")
        return int(text, 0) if _BASED.fullmatch(text) else int(text)
    if _NOT_FINITE.fullmatch(text):
        raise ValueError("it is not a number to count with")
    if _FLOAT.fullmatch(text):
        number = float(text)
        if not math.isfinite(number):
            raise ValueError("the number is too large")
        return number
    return text


class _Builder:
    """Builds one document's nodes from the parser's events."""

    def __init__(self, text: str, file: str) -> None:
        self._file = file
        self._events: Iterator[Any] = YAML(typ="safe", pure=True).parse(text)
        self._anchors: dict[str, Node] = {}

    def build(self) -> Node | None:
        next(self._events)
        start = next(self._events)
        if isinstance(start, StreamEndEvent):
            return None
        if start.version not in (None, (1, 2)):
            raise self._error(start, "cannot read it: it asks for another YAML than 1.2")
        root = self._node(next(self._events), (), 1)
        next(self._events)
        after = next(self._events)
        if isinstance(after, DocumentStartEvent):
            raise self._error(
                after, "cannot read it: a second document begins here; a file holds one"
            )
        return None if root.value is None else root

    def _error(self, event: Any, message: str, trail: Trail = ()) -> ConfigError:
        return ConfigError(
            message,
            file=self._file,
            line=event.start_mark.line + 1,
            key=write_trail(trail) or None,
        )

    def _node(self, event: Any, trail: Trail, depth: int) -> Node:
        if isinstance(event, AliasEvent):
            if (node := self._anchors.get(event.anchor)) is None:
                raise self._error(
                    event,
                    f"cannot follow the alias *{event.anchor}: no anchor above it has that name",
                    trail,
                )
            return node
        if depth > MAX_DEPTH:
            raise self._error(event, f"cannot read it: more than {MAX_DEPTH} levels deep")
        if event.ctag is not None:
            raise self._error(
                event, f"cannot use the tag {event.tag}: write the value without it", trail
            )
        value: Scalar | tuple[Node, ...] | Mapping[str, Node]
        size = 1
        if isinstance(event, ScalarEvent):
            value = self._scalar(event, trail)
        elif isinstance(event, SequenceStartEvent):
            value = self._sequence(trail, depth)
            size += sum(node.size for node in value)
        else:
            value = self._mapping(trail, depth)
            size += sum(node.size for node in value.values())
        if size > MAX_VALUES:
            raise self._error(
                event, f"cannot read it: more than {MAX_VALUES} values, aliases followed", trail
            )
        node = Node(value=value, file=self._file, line=event.start_mark.line + 1, size=size)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _sequence(self, trail: Trail, depth: int) -> tuple[Node, ...]:
        nodes: list[Node] = []
        while not isinstance(event := next(self._events), SequenceEndEvent):
            node = self._node(event, (*trail, len(nodes)), depth + 1)
            nodes.append(replace(node, line=event.start_mark.line + 1))
        return tuple(nodes)

    def _mapping(self, trail: Trail, depth: int) -> Mapping[str, Node]:
        own: dict[str, Node] = {}
        merged: Mapping[str, Node] | None = None
        while not isinstance(event := next(self._events), MappingEndEvent):
            if isinstance(event, ScalarEvent) and event.value == "<<" and event.implicit[0]:
                if merged is not None:
                    raise self._error(
                        event,
                        "cannot have this key twice: merge a list, `<<: [*a, *b]`",
                        (*trail, "<<"),
                    )
                merged = self._merge(next(self._events), trail, depth)
                continue
            key = self._key(event, trail)
            node = self._node(next(self._events), (*trail, key), depth + 1)
            if key in own:
                raise self._error(
                    event,
                    f"cannot have this key twice: it stands in line {own[key].line} too",
                    (*trail, key),
                )
            own[key] = replace(node, line=event.start_mark.line + 1)
        return {**(merged or {}), **own}

    def _merge(self, event: Any, trail: Trail, depth: int) -> Mapping[str, Node]:
        node = self._node(event, (*trail, "<<"), depth + 1)
        sources = node.value if isinstance(node.value, tuple) else (node,)
        keys: dict[str, Node] = {}
        for source in sources:
            if source.mapping is None:
                raise self._error(
                    event, "cannot merge it: a merge key takes mappings", (*trail, "<<")
                )
            # An earlier one wins over a later one (https://yaml.org/type/merge.html).
            keys = {**source.mapping, **keys}
        return keys

    def _key(self, event: Any, trail: Trail) -> str:
        if isinstance(event, ScalarEvent | AliasEvent):
            node = self._node(event, trail, 1)
            if isinstance(node.value, str):
                return node.value
        if isinstance(event, ScalarEvent) and event.value:
            raise self._error(
                event,
                f"cannot use {event.value} as a key: keys are text; "
                f'write "{event.value}" in quotes',
                trail,
            )
        raise self._error(event, "cannot use this as a key: keys are text", trail)

    def _scalar(self, event: Any, trail: Trail) -> Scalar:
        text: str = event.value
        if not event.implicit[0]:
            if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
                raise self._error(
                    event, "cannot use this text: it holds a character that is none", trail
                )
            return text
        try:
            return _resolve(text)
        except ValueError as error:
            raise self._error(event, f"cannot use {text[:40]}: {error}", trail) from error
