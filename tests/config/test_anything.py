"""Whatever stands in the file: it loads, or it is a ConfigError; never anything else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.checks.check import CheckType
from agent.config import config_schema, load_config_errors, show_config
from agent.config import load_config as load
from agent.documents import write_document
from agent.remedies.catalog import Catalog

VALID = """\
version: 1
policy: {mode: approve, storm: {at: 9}, retry_after: 90s}
public_url: https://host.example
checks:
  web: &web
    type: unit
    unit: nginx.service
    confirm: 1 of 2
    depends_on: [data]
    labels: {tier: "1"}
    ladder:
      - {remedy: restart-service, options: {validate: [nginx, -t]}, mode: off}
  other: {<<: *web, unit: other.timer, depends_on: []}
  data: {type: volume, path: /data, critical: {full: 95%}, ladder: []}
routes:
  ops: {url: "json://example.org", severity: critical, reasons: [storm]}
maintenance:
  backup: {at: 02:30, for: 2h, weeks: [last], timezone: Europe/Berlin, checks: [web, "*"]}
"""

#: One directory for all examples; each replaces the file.
EACH_EXAMPLE_REPLACES_THE_FILE = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)


@pytest.fixture
def judge(tmp_path: Path, types: Mapping[str, CheckType], catalog: Catalog) -> Any:
    path = tmp_path / "hostmend.yml"

    def judge(text: str) -> None:
        path.write_text(text, encoding="utf-8", newline="")
        errors = load_config_errors(path, catalog=catalog, types=types)
        for error in errors:
            assert error.file == str(path)
            assert error.line is not None
            assert "\n" not in error.message
        if not errors:
            show_config(load(path, catalog=catalog, types=types))

    return judge


@EACH_EXAMPLE_REPLACES_THE_FILE
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text(judge: Any, text: str) -> None:
    judge(text)


@EACH_EXAMPLE_REPLACES_THE_FILE
@given(
    st.integers(0, len(VALID)),
    st.integers(0, 30),
    st.text(alphabet="a01:-?,[]{}#&*!|>'\"%@~. \n\t", max_size=6),
)
def test_a_valid_file_with_some_of_it_replaced(judge: Any, at: int, gone: int, new: str) -> None:
    judge(VALID[:at] + new + VALID[at + gone :])


_KEYS = st.sampled_from(
    [
        "version", "policy", "checks", "routes", "public_url", "mode", "slots", "storm", "at",
        "within", "recurring", "retry_after", "warm", "type", "unit", "path", "every", "confirm",
        "attempts", "depends_on", "labels", "ladder", "remedy", "causes", "options", "validate",
        "url", "url_file", "reasons", "severity", "size", "web", "data", "x", "maintenance",
        "days", "weeks", "for", "timezone", "checks", "subjects", "comment",
    ]
)  # fmt: skip
_WORDS = st.sampled_from(
    [
        "unit", "volume", "off", "auto", "10s", "0s", "22:00", "2 of 3", "3 of 2", "", "web",
        "data", "x", "failed", "full", "restart-service", "grow-volume", "nginx.service",
        "json://x", "storm", "critical", "https://x", "~root", "~nobody-at-all/x", "/",
        "sun", "last", "23:59", "Europe/Berlin", "../etc", "*",
    ]
)  # fmt: skip
_VALUES = st.recursive(
    _WORDS
    | st.none()
    | st.booleans()
    | st.integers(-3, 10**17)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(_KEYS, below, max_size=4),
    max_leaves=15,
)
_STEPS = st.fixed_dictionaries(
    {"remedy": st.sampled_from(["restart-service", "grow-volume"]) | _VALUES},
    optional={
        "causes": st.lists(st.sampled_from(["failed", "full"])) | _VALUES,
        "options": st.dictionaries(_KEYS, _VALUES, max_size=2) | _VALUES,
        "attempts": _VALUES,
    },
)
_CHECKS = st.fixed_dictionaries(
    {"type": st.sampled_from(["unit", "volume"]) | _VALUES},
    optional={
        "unit": _WORDS | _VALUES,
        "path": _WORDS | _VALUES,
        "ladder": st.lists(_STEPS, max_size=2) | _VALUES,
        "depends_on": st.lists(st.sampled_from(["web", "data", "x"])) | _VALUES,
        "labels": _VALUES,
        "critical": _VALUES,
        "confirm": _VALUES,
    },
)
_ROUTES = st.dictionaries(
    st.sampled_from(["url", "url_file", "reasons", "severity", "labels"]), _VALUES
)
_DOCUMENTS = st.dictionaries(_KEYS, _VALUES, max_size=4) | st.fixed_dictionaries(
    {
        "checks": st.dictionaries(_KEYS, _CHECKS | _VALUES, max_size=3),
        "routes": st.dictionaries(_KEYS, _ROUTES | _VALUES, max_size=2),
        "policy": st.dictionaries(_KEYS, _VALUES, max_size=2),
    }
)


@EACH_EXAMPLE_REPLACES_THE_FILE
@given(_DOCUMENTS)
def test_any_values_at_the_known_keys(judge: Any, document: object) -> None:
    judge(write_document(document))


def test_the_schema_of_no_types_and_no_remedies_is_one_too() -> None:
    assert config_schema({}, {})["type"] == "object"
