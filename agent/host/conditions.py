"""Conditions on an answer, as a configuration writes them: `[STATUS] >= 500`.

    condition   = clause {("and" | "or") clause}         `and` binds closer than `or`
    clause      = (place | "len(" place ")") sign value
    place       = [STATUS] | [RESPONSE_TIME] | [CERTIFICATE_EXPIRATION]
                | [BODY]{.name | ."name" | [number]} | [HEADER].name
    sign        = "==" | "!=" | "<" | "<=" | ">" | ">="
    value       = number | duration | "text" | true | false | null | missing
                | pat(glob) | any(value, ...)

What is missing is unlike everything: `!=` is true and `==` false. A clause that compares sizes of
what has none cannot be judged, which is neither true nor false.

After the conditions of Gatus (https://github.com/TwiN/gatus#conditions), with units and quotes.
"""

from __future__ import annotations

import fnmatch
import functools
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from agent.core.text import MASK
from agent.core.units import format_duration, parse_duration
from agent.host.url import is_secret_name

#: Longest condition, and most items of one `any(...)`.
LONGEST = 1000


class Answer(Protocol):
    """What conditions are judged on."""

    @property
    def status(self) -> int: ...

    @property
    def response_seconds(self) -> float: ...

    @property
    def certificate_expires_seconds(self) -> float | None:
        """Until the certificate's end; None without one."""

    @property
    def body_length(self) -> int:
        """In bytes."""

    @property
    def cut(self) -> bool:
        """The body is longer than what was read of it: nothing can be said of the whole."""

    @property
    def text(self) -> str:
        """The body, decoded."""

    def header(self, name: str) -> str | None:
        """The values of one header, joined by a comma; None when there is none."""


class Kind(StrEnum):
    """Where a value is taken from."""

    STATUS = "STATUS"
    RESPONSE_TIME = "RESPONSE_TIME"
    CERTIFICATE_EXPIRATION = "CERTIFICATE_EXPIRATION"
    BODY = "BODY"
    HEADER = "HEADER"

    @property
    def is_duration(self) -> bool:
        return self in (Kind.RESPONSE_TIME, Kind.CERTIFICATE_EXPIRATION)


class _Missing:
    """What is not in the answer."""

    def __repr__(self) -> str:
        return "missing"


MISSING = _Missing()


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """A glob over a whole text: `*` any characters, `?` one."""

    glob: str
    matches: Callable[[str], object] = field(repr=False, compare=False)


Value = float | str | bool | None | _Missing | Pattern


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a condition says of an answer."""

    #: None: it cannot be judged.
    holds: bool | None
    #: What was observed that decided it: `[STATUS] is 502`.
    why: str


@dataclass(frozen=True, kw_only=True)
class Place:
    """One value of an answer."""

    kind: Kind
    path: tuple[str | int, ...] = ()
    length: bool = False
    text: str

    def read(self, answer: Answer, *, as_text: bool) -> object:
        """The value, or MISSING. `as_text`: a body without a path is text, not JSON."""
        value: object
        match self.kind:
            case Kind.STATUS:
                value = answer.status
            case Kind.RESPONSE_TIME:
                value = answer.response_seconds
            case Kind.CERTIFICATE_EXPIRATION:
                seconds = answer.certificate_expires_seconds
                value = MISSING if seconds is None else seconds
            case Kind.HEADER:
                found = answer.header(str(self.path[0]))
                value = MISSING if found is None else found
                if not as_text and found is not None and not self.length:
                    value = _read_json(found)
            case Kind.BODY if not self.path and self.length:
                return answer.body_length
            case Kind.BODY if not self.path and as_text:
                value = answer.text.strip()
            case Kind.BODY:
                value = _follow(_read_json(answer.text), self.path)
        if self.length:
            return len(value) if isinstance(value, str | list | dict) else MISSING
        return value


@dataclass(frozen=True, kw_only=True)
class Clause:
    """One comparison."""

    place: Place
    sign: str
    #: One, or the items of `any(...)`.
    values: tuple[Value, ...]

    def judge(self, answer: Answer) -> Verdict:
        if self.place.kind is Kind.BODY and answer.cut:
            return Verdict(holds=None, why="the body is longer than what is read of it")
        texts = [v for v in self.values if isinstance(v, str | Pattern | _Missing)]
        others = [v for v in self.values if not isinstance(v, str | Pattern | _Missing)]
        found = self.place.read(answer, as_text=bool(texts))
        observed = f"{self.place.text} is {_show(found, self.place)}"
        if self.sign in ("==", "!="):
            same = any(_is_same(found, value) for value in texts)
            if others and not same:
                value = self.place.read(answer, as_text=False) if texts else found
                same = any(_is_same(value, other) for other in others)
            return Verdict(holds=same == (self.sign == "=="), why=observed)
        (limit,) = self.values
        if not _is_number(found) or not _is_number(limit):
            return Verdict(holds=None, why=f"{observed}, which has no size to compare")
        return Verdict(holds=_SIZES[self.sign](found, limit), why=observed)


@dataclass(frozen=True, kw_only=True)
class Condition:
    """A whole condition: any of its groups, of which all clauses hold."""

    text: str
    groups: tuple[tuple[Clause, ...], ...]

    @property
    def kinds(self) -> frozenset[Kind]:
        """What it reads of an answer."""
        return frozenset(clause.place.kind for group in self.groups for clause in group)

    def judge(self, answer: Answer) -> Verdict:
        """Whether it holds, in Kleene's logic: what cannot be judged decides only if it must."""
        groups = [_join([clause.judge(answer) for clause in group]) for group in self.groups]
        for holds in (True, None):
            if found := [verdict for verdict in groups if verdict.holds is holds]:
                return found[0]
        return groups[-1]


def _join(verdicts: list[Verdict]) -> Verdict:
    for holds in (False, None):
        if found := [verdict for verdict in verdicts if verdict.holds is holds]:
            return found[0]
    return Verdict(holds=True, why=", ".join(verdict.why for verdict in verdicts))


_SIZES: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": lambda left, right: left < right,
    "<=": lambda left, right: left <= right,
    ">": lambda left, right: left > right,
    ">=": lambda left, right: left >= right,
}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_same(found: object, value: Value) -> bool:
    if isinstance(value, Pattern):
        return isinstance(found, str) and bool(value.matches(found))
    if _is_number(found) and _is_number(value):
        return found == value
    return type(found) is type(value) and found == value


def _read_json(text: str) -> object:
    try:
        value: object = json.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError):
        return MISSING
    return value


def _follow(value: object, path: tuple[str | int, ...]) -> object:
    for part in path:
        match part, value:
            case str(), dict() if part in value:
                value = value[part]
            case int(), list() if part < len(value):
                value = value[part]
            case _:
                return MISSING
    return value


def _show(value: object, place: Place) -> str:
    if value is MISSING:
        return "missing"
    if place.kind is Kind.HEADER and is_secret_name(str(place.path[0])) and not place.length:
        return MASK
    if place.kind.is_duration and isinstance(value, int | float):
        return format_duration(value) if value >= 0 else f"-{format_duration(-value)}"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, str):
        # Texts can be long and are shown beside other words.
        value = "".join(letter if letter.isprintable() else " " for letter in value[:80])
        return json.dumps(value if len(value) <= 60 else value[:59] + "…", ensure_ascii=False)
    if isinstance(value, list | dict):
        return f"{'a list' if isinstance(value, list) else 'a mapping'} of {len(value)}"
    return json.dumps(value)


# Reading


_TOKEN = re.compile(
    r"""\s*(?:
      (?P<place>\[[A-Za-z_]+\](?:\.(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*")|\[[0-9]{1,9}\])*)
    | (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    | (?P<pat>pat\(\s*+(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|(?!["'])[^()]*)\s*\))
    | (?P<duration>(?:[0-9]+(?:\.[0-9]+)?(?:ms|s|m|h|d|w))+(?![A-Za-z0-9_.]))
    | (?P<number>-?[0-9]+(?:\.[0-9]+)?(?![A-Za-z0-9_.]))
    | (?P<sign>==|!=|<=|>=|<|>)
    | (?P<mark>[(),])
    | (?P<word>[A-Za-z_][A-Za-z0-9_-]*)
    )""",
    re.VERBOSE | re.ASCII,
)
_PART = re.compile(r'\.(?P<name>[A-Za-z0-9_-]+)|\.(?P<quoted>"(?:[^"\\]|\\.)*")|\[(?P<index>\d+)\]')
_WORDS: Mapping[str, Value] = {"true": True, "false": False, "null": None, "missing": MISSING}
_PLACES = ", ".join(f"[{kind}]" for kind in Kind)


@functools.lru_cache(maxsize=1024)
def parse_condition(text: str) -> Condition:
    """A condition. Raises ValueError with what is wrong and what would be right."""
    if len(text) > LONGEST:
        raise ValueError(f"a condition has at most {LONGEST} characters")
    return Condition(text=text.strip(), groups=_Reader(text).read())


@dataclass(frozen=True, kw_only=True)
class _Token:
    kind: str
    text: str


class _Reader:
    """Reads one condition from left to right."""

    def __init__(self, text: str) -> None:
        self._tokens: list[_Token] = []
        self._at = 0
        position = 0
        while text[position:].strip():
            match = _TOKEN.match(text, position)
            if match is None:
                raise ValueError(_unreadable(text[position:].strip()))
            kind = str(match.lastgroup)
            self._tokens.append(_Token(kind=kind, text=match[kind]))
            position = match.end()

    def read(self) -> tuple[tuple[Clause, ...], ...]:
        groups: list[list[Clause]] = [[self._clause()]]
        while (token := self._next()) is not None:
            if token.text == "and":
                groups[-1].append(self._clause())
            elif token.text == "or":
                groups.append([self._clause()])
            else:
                raise ValueError(
                    f"after a comparison comes `and`, `or` or the end, not `{token.text}`"
                )
        return tuple(map(tuple, groups))

    def _next(self) -> _Token | None:
        self._at += 1
        return self._tokens[self._at - 1] if self._at <= len(self._tokens) else None

    def _take(self, kind: str, wanted: str, text: str = "") -> _Token:
        token = self._next()
        if token is None:
            raise ValueError(f"ends where {wanted} is expected")
        if token.kind != kind or (text and token.text != text):
            raise ValueError(f"`{token.text}` stands where {wanted} is expected")
        return token

    def _clause(self) -> Clause:
        place = self._place()
        sign = self._take("sign", "one of ==, !=, <, <=, >, >=").text
        values = self._values(place)
        if sign not in ("==", "!=") and not (len(values) == 1 and _is_number(values[0])):
            raise ValueError(f"`{sign}` compares sizes: a number or a duration follows it")
        return Clause(place=place, sign=sign, values=values)

    def _place(self) -> Place:
        wanted = f"one of {_PLACES}"
        if self._at < len(self._tokens) and self._tokens[self._at].text == "len":
            self._at += 1
            self._take("mark", "`(` after len", "(")
            token = self._take("place", wanted)
            self._take("mark", "`)` after what len is of", ")")
            return _make_place(token.text, length=True)
        return _make_place(self._take("place", wanted).text)

    def _values(self, place: Place) -> tuple[Value, ...]:
        if self._at < len(self._tokens) and self._tokens[self._at].text == "any":
            self._at += 1
            self._take("mark", "`(` after any", "(")
            values = [self._value(place)]
            while (mark := self._take("mark", "`,` or `)`")).text == ",":
                values.append(self._value(place))
            if mark.text != ")":
                raise ValueError("`(` stands where `,` or `)` is expected")
            return tuple(values)
        return (self._value(place),)

    def _value(self, place: Place) -> Value:
        token = self._next()
        if token is None:
            raise ValueError(
                "ends where a value is expected: a number, a duration, "
                '"text", true, false, null, missing, pat(...) or any(...)'
            )
        value = _read_value(token)
        _check_fit(place, value, token.text)
        return value


def _make_place(text: str, *, length: bool = False) -> Place:
    end = text.index("]") + 1
    name = text[1 : end - 1]
    try:
        kind = Kind(name)
    except ValueError as error:
        raise ValueError(f"`[{name}]` is nothing of an answer: there are {_PLACES}") from error
    path: list[str | int] = []
    for part in _PART.finditer(text, end):
        if part["name"] is not None:
            path.append(part["name"])
        elif part["quoted"] is not None:
            path.append(_unquote(part["quoted"]))
        else:
            path.append(int(part["index"]))
    if kind is Kind.HEADER and not (len(path) == 1 and isinstance(path[0], str)):
        raise ValueError("[HEADER] needs the name of one: write for example [HEADER].content-type")
    if kind not in (Kind.BODY, Kind.HEADER) and path:
        raise ValueError(f"[{kind}] has no parts: write it without `{text[end:]}`")
    if kind not in (Kind.BODY, Kind.HEADER) and length:
        raise ValueError(f"[{kind}] has no length: len() is of [BODY] or [HEADER]")
    return Place(
        kind=kind, path=tuple(path), length=length, text=f"len({text})" if length else text
    )


def _read_value(token: _Token) -> Value:
    match token.kind:
        case "number":
            return float(token.text)
        case "duration":
            return parse_duration(token.text)
        case "text":
            return _unquote(token.text)
        case "pat":
            glob = token.text[len("pat(") : -1].strip()
            return _make_pattern(_unquote(glob) if glob[:1] in ("'", '"') else glob)
        case "word" if token.text in _WORDS:
            return _WORDS[token.text]
        case "word" if token.text not in ("and", "or", "any", "pat", "len"):
            raise ValueError(f'`{token.text}` stands where a value is expected: quote text, "..."')
        case "place":
            raise ValueError(
                f"`{token.text}` stands where a value is expected: a place is compared with a "
                "value, and stands on the left"
            )
    raise ValueError(f"`{token.text}` stands where a value is expected")


def _check_fit(place: Place, value: Value, written: str) -> None:
    """Raises ValueError for a value that the place never has."""
    if place.length or place.kind is Kind.STATUS:
        what = place.text if place.length else "[STATUS]"
        if not _is_number(value) or not re.fullmatch(r"[0-9]+", written):
            raise ValueError(f"{what} is a whole number: write for example {what} == 200")
    elif place.kind.is_duration:
        unit = written[-1:] in "smhdw" and value not in _WORDS.values()
        if not (_is_number(value) and unit) and value is not MISSING:
            raise ValueError(
                f"[{place.kind}] is a time: write a number and a unit, such as 500ms, 10s or 48h"
            )
    elif re.fullmatch(r"[0-9.]+(ms|s|m|h|d|w).*", written):
        raise ValueError(
            f"`{written}` is a time, and {place.text} is none: write a number or quote text"
        )


def _make_pattern(glob: str) -> Pattern:
    # `[` is only itself here. fnmatch's expressions never backtrack over more than one `*`.
    expression = fnmatch.translate(glob.replace("[", "[[]"))
    return Pattern(glob=glob, matches=re.compile(expression).match)


def _unquote(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL)


def _unreadable(rest: str) -> str:
    shown = rest[:30]
    if rest[0] in "\"'":
        return f"{shown} begins a text that does not end: a quote is missing"
    if rest.startswith("["):
        return f"`{shown}` is nothing of an answer: there are {_PLACES}"
    if rest[0] == "=":
        return f"`{shown}`: equal is written =="
    if rest[0].isdigit() or rest[0] == "-":
        return f"`{shown}` is neither a number nor a duration, such as 500, 500ms or 48h"
    return f"`{shown}` cannot be read: write for example [STATUS] >= 500"
