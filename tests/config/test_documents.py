"""YAML with places: what is read, what is refused, and that what is written is read back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.documents import MAX_VALUES, Node, parse_document, write_document
from agent.errors import ConfigError


def read(text: str) -> Any:
    document = parse_document(text, "some.yml")
    return document.plain() if document else None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("off", "off"),
        ("yes", "yes"),
        ("22:00", "22:00"),
        ("2024-01-01", "2024-01-01"),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("1.2.3", "1.2.3"),
        ("'12'", "12"),
        ("~/x", "~/x"),
        ("true", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("12", 12),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("-3", -3),
        ("1.5", 1.5),
        (".5e3", 500.0),
        ("1e3", 1000.0),
    ],
)
def test_a_plain_word_means_what_the_core_schema_of_yaml_1_2_says(text: str, value: object) -> None:
    found = read(f"key: {text}\n")["key"]
    assert (found, type(found)) == (value, type(value))


def test_every_value_knows_its_line() -> None:
    text = 'a:\n  b:\n    - 1\n    -\n      c: "x"\n\n# comment\nd: |\n  text\n'
    root = parse_document(text, "some.yml")
    assert root is not None
    lines = {
        trail: root.follow(trail)[0].line
        for trail in [(), ("a",), ("a", "b"), ("a", "b", 0), ("a", "b", 1, "c"), ("d",)]
    }
    assert list(lines.values()) == [1, 1, 2, 3, 5, 8]


def test_following_goes_as_far_as_the_document_does() -> None:
    root = parse_document("a:\n  b: 1\n", "some.yml")
    assert root is not None
    node, found = root.follow(("a", "some-branch", "b", 0))
    assert (node.value, found) == (1, ("a", "b"))


def test_keys_of_a_mapping_win_over_merged_ones_and_earlier_merges_over_later() -> None:
    text = "a: &a {x: 1, y: 1}\nb: &b {x: 2, z: 2}\nc: {<<: [*a, *b], y: 3}\nd: {'<<': 1}\n"
    assert read(text)["c"] == {"x": 1, "y": 3, "z": 2}
    assert read(text)["d"] == {"<<": 1}


def test_aliases_that_multiply_end_before_the_memory_does() -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    for level in range(1, 6):
        lines.append(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]")
    with pytest.raises(ConfigError, match=f"more than {MAX_VALUES} values") as caught:
        read("\n".join(lines))
    assert caught.value.line == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &a [*a]", r"a\[0\]: cannot follow the alias \*a"),
        ("[" * 100 + "]" * 100, "more than 40 levels deep"),
        ("{a: " * 100, "more than 40 levels deep"),
        ("a: \0", r"character U\+0000 is not allowed"),
        ('a: "\\0"', "a character that is none"),
        ('a: "\\ud800"', "a character that is none"),
        ("null: 1", 'cannot use null as a key: keys are text; write "null" in quotes'),
        ("? [a]\n: 1", "keys are text"),
        (": 1", "keys are text"),
        ("a: !!python/object:os.system x", "cannot use the tag"),
        ("a: .inf", "it is not a number to count with"),
        ("a: 1e999", "the number is too large"),
        ("a: @b", "put quotes around the value"),
        ("a:\n - b\n  - c\n d: e", "cannot read it as YAML"),
    ],
)
def test_what_nobody_means_in_a_configuration_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read(text)
    assert caught.value.file == "some.yml"
    assert caught.value.line is not None


@given(st.text())
def test_any_text_is_read_or_refused_with_a_config_error(text: str) -> None:
    try:
        document = parse_document(text, "some.yml")
    except ConfigError:
        return
    assert document is None or isinstance(document, Node)


_YAML = st.text(alphabet="ab01:-?,[]{}#&*!|>'\"%@`<~.\\ \n\t\r\ufeff\u2028", max_size=60)


@given(_YAML)
def test_any_heap_of_yaml_characters_is_read_or_refused_with_a_config_error(text: str) -> None:
    try:
        document = parse_document(text, "some.yml")
    except ConfigError:
        return
    assert document is None or isinstance(document, Node)


_TEXT = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30
) | st.sampled_from(["off", "22:00", "010", ".5e3", "null", "", "<<", "=", "a: b", " a", "- a"])
_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**16), 10**16)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _TEXT,
    lambda below: st.lists(below, max_size=4) | st.dictionaries(_TEXT, below, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(_TEXT, _VALUES, min_size=1, max_size=4))
def test_what_is_written_is_read_back(value: dict[str, object]) -> None:
    assert read(write_document(value)) == value
