"""Values of the core, whatever they hold."""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections.abc import Mapping

from hypothesis import strategies as st

JSON = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.text(max_size=8)
) | st.lists(st.text(max_size=4), max_size=2)


def values_of(kind: object) -> st.SearchStrategy[object]:
    """Everything that a field of this type may hold."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is float:
        return st.floats(allow_nan=False)
    if kind is str:
        return st.text(max_size=12)
    if kind is int:
        return st.integers(-(2**62), 2**62)
    if kind is bool:
        return st.booleans()
    if kind is object:
        return JSON
    if origin in (typing.Union, types.UnionType):
        return st.one_of([values_of(argument) for argument in arguments])
    if kind is type(None):
        return st.none()
    if origin is tuple:
        return st.lists(values_of(arguments[0]), max_size=2).map(tuple)
    if origin is frozenset:
        return st.frozensets(values_of(arguments[0]), max_size=2)
    if origin is Mapping:
        return st.dictionaries(values_of(arguments[0]), values_of(arguments[1]), max_size=2)
    assert isinstance(kind, type)
    if issubclass(kind, enum.Enum):
        return st.sampled_from(list(kind))
    return build(kind)


def build(kind: type, **fixed: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    """A dataclass with any value in each field that is not fixed."""
    hints = typing.get_type_hints(kind)
    fields = {field.name: values_of(hints[field.name]) for field in dataclasses.fields(kind)}
    return st.builds(kind, **{**fields, **fixed})
