"""What is wrong with a configuration: where, and what would be right."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from agent.documents import Node, Trail, write_trail
from agent.errors import ConfigError

Model = TypeVar("Model", bound=BaseModel)


def suggest(word: str, known: Iterable[str]) -> str:
    """`did you mean X?`, or else everything that is known."""
    names = sorted(known)
    if close := difflib.get_close_matches(word, names, n=1, cutoff=0.6):
        return f"did you mean `{close[0]}`?"
    if not names:
        return "there is none"
    return "known: " + ", ".join(names)


class Problems:
    """Collects errors with the places of one document."""

    def __init__(self, root: Node, files: Sequence[str]) -> None:
        self._root = root
        self._order = {file: position for position, file in enumerate(files)}
        self._found: list[ConfigError] = []

    def add(self, trail: Trail, message: str) -> None:
        """Notes an error at `trail`; where that does not exist, at what would hold it."""
        node, _ = self._root.follow(trail)
        self._found.append(
            ConfigError(message, file=node.file, line=node.line, key=write_trail(trail) or None)
        )

    def validate(self, model: type[Model], node: Node, trail: Trail) -> Model | None:
        """The node as a model; None, and the errors noted, when it is not one.

        By way of JSON, because pydantic's strict mode reads exactly JSON's types from it: neither
        "yes" as true nor "5" as 5, but lists for tuples and words for enums.
        """
        try:
            return model.model_validate_json(json.dumps(node.plain()), strict=True)
        except ValidationError as error:
            told: dict[Trail, list[str]] = {}
            for details in error.errors(include_url=False):
                place = _find_place(node, details)
                message = _explain(details, model)
                if message not in told.setdefault(place, []):
                    told[place].append(message)
            for place, messages in told.items():
                self.add((*trail, *place), "; or ".join(messages))
            return None

    def sorted(self) -> tuple[ConfigError, ...]:
        """All errors, in the order of the files and their lines."""
        return tuple(
            sorted(
                self._found,
                key=lambda error: (self._order.get(error.file or "", -1), error.line or 0),
            )
        )


def _find_place(node: Node, details: ErrorDetails) -> Trail:
    # Between keys, pydantic names the branches of unions; following the document leaves them out.
    _, found = node.follow(details["loc"])
    return (*found, details["loc"][-1]) if details["type"] == "missing" else found


def _explain(details: ErrorDetails, model: type[BaseModel]) -> str:
    """One sentence on what would be right. It repeats a value only where that is a word."""
    kind, value, context = details["type"], details["input"], details.get("ctx", {})
    match kind:
        case "extra_forbidden":
            keys = _known_keys(model, details["loc"][:-1])
            return f"is no key here; {suggest(str(details['loc'][-1]), keys)}"
        case "missing":
            about = _describe(model, details["loc"])
            return f"is missing: {about}" if about else "is missing"
        case "enum" | "literal_error":
            words = re.findall(r"'([^']*)'", context["expected"])
            if not isinstance(value, str):
                if json.dumps(value) in words:
                    return f'must be text: put it in quotes, "{json.dumps(value)}"'
                return f"must be one of: {', '.join(words)}"
            return f"`{value}` is not one of {', '.join(words)}" + (
                f"; did you mean `{close[0]}`?"
                if (close := difflib.get_close_matches(value, words, n=1))
                else ""
            )
        case "bool_type" | "bool_parsing":
            if isinstance(value, str):
                return f"must be true or false: `{value}` is a word in YAML 1.2"
            return "must be true or false"
        case "string_type":
            if isinstance(value, bool | int | float):
                return f'must be text: put it in quotes, "{json.dumps(value)}"'
            return "must be text"
        case "int_type" | "int_from_float" | "int_parsing":
            return "must be a whole number"
        case "float_type" | "float_parsing":
            return "must be a number"
        case "tuple_type" | "list_type" | "set_type" | "frozen_set_type":
            return "must be a list, [a, b]"
        case "dict_type" | "mapping_type" | "model_type" | "model_attributes_type":
            return "must be a mapping, `key: value`"
        case "path_type":
            return "must be a path"
        case "too_short" if context.get("min_length") == 1:
            return "must not be empty"
        case "value_error" | "assertion_error":
            return str(context["error"])
    message = details["msg"]
    return re.sub(r"^(Input|String|Value|URL) should", "must", message)


def _schemas(model: type[BaseModel], trail: tuple[str | int, ...]) -> list[Mapping[str, Any]]:
    """The JSON Schemas that a value at `trail` may follow."""
    whole = model.model_json_schema()

    def unfold(schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        if "$ref" in schema:
            return unfold(whole["$defs"][schema["$ref"].rsplit("/", 1)[1]])
        branches = [*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())]
        return [schema, *(found for branch in branches for found in unfold(branch))]

    present = unfold(whole)
    for part in trail:
        below: list[Mapping[str, Any]] = []
        for schema in present:
            if isinstance(part, str) and part in schema.get("properties", {}):
                below += unfold(schema["properties"][part])
            elif isinstance(part, str) and isinstance(schema.get("additionalProperties"), dict):
                below += unfold(schema["additionalProperties"])
            elif isinstance(part, int) and isinstance(schema.get("items"), dict):
                below += unfold(schema["items"])
        present = below or present
    return present


def _known_keys(model: type[BaseModel], trail: tuple[str | int, ...]) -> set[str]:
    return {key for schema in _schemas(model, trail) for key in schema.get("properties", {})}


def _describe(model: type[BaseModel], trail: tuple[str | int, ...]) -> str:
    for schema in _schemas(model, trail[:-1]):
        if trail[-1] in schema.get("properties", {}):
            return str(schema["properties"][trail[-1]].get("description", "")).rstrip(".")
    return ""
