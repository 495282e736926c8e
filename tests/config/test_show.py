"""The effective configuration, the first file, and the schema."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import jsonschema_rs
import pytest
from pydantic import Field, SecretStr

from agent.checks.check import CheckOptions, CheckType
from agent.config import (
    Config,
    config_schema,
    describe_config,
    load_config,
    show_config,
)
from agent.documents import parse_document
from agent.errors import ConfigError
from agent.remedies.catalog import Catalog

Load = Callable[..., Config]
Write = Callable[..., Path]

COMPLETE = """
version: 1
policy: {mode: approve, act_alone_up_to: medium, storm: {at: 9}, retry_after: 90s}
public_url: https://host.example
checks:
  web:
    type: unit
    unit: nginx.service
    grace: 1m
    every: 500ms
    depends_on: [data]
    labels: {tier: "1"}
    ladder:
      - {remedy: restart-service, options: {validate: [nginx, -t]}, mode: off}
      - {remedy: restart-service, causes: [failed], attempts: 1}
  other: {type: unit, unit: other.timer}
  data: {type: volume, path: /data, critical: {full: 95%}, window: 22:00}
routes:
  ops: {url_file: /etc/hostmend/secrets/ops, severity: critical, reasons: [storm]}
maintenance:
  backup: {days: [sun], at: 02:30, for: 2h, timezone: Europe/Berlin, checks: ["*"], comment: dump}
"""


def test_what_is_shown_loads_again_and_means_the_same(load: Load) -> None:
    before = load(COMPLETE)
    shown = show_config(before)
    after = load(shown)
    assert after.policy == before.policy
    assert after.configured == before.configured
    assert after.public_url == before.public_url
    assert {n: c.options.every for n, c in after.checks.items()} == {
        "web": 0.5,
        "other": 30.0,
        "data": 10.0,
    }
    assert show_config(after) == shown


def test_every_default_is_written_out(load: Load) -> None:
    shown = describe_config(load(COMPLETE))
    assert shown["policy"]["runs_per_hour"] == 6
    assert shown["policy"]["storm"] == {"at": 9, "within": "1m", "group_wait": "10s"}
    assert shown["policy"]["retry_after"] == "1m30s"
    assert shown["checks"]["other"]["every"] == "30s"
    assert shown["checks"]["other"]["grace"] == "5s"
    assert shown["checks"]["other"]["ladder"] == [
        {"remedy": "restart-service", "causes": ["failed", "stopped"], "attempts": 3}
    ]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("mailto://user:secret@example.org?name=x", "mailto://example.org/…"),
        ("https://hooks.example.org/services/secret", "https://hooks.example.org/…"),
        ("tgram://1234:secret/chat", "tgram://…"),
        ("slack://secret/secret/secret", "slack://…"),
        ("pbul://o.gn5kj6nfhv736I7jC3cj3QLRsecret", "pbul://…"),
        ("syslog://", "syslog://…"),
    ],
)
def test_of_a_url_only_what_cannot_be_secret_is_shown(url: str, shown: str, load: Load) -> None:
    config = load(f"routes: {{ops: {{url: {json.dumps(url)}}}}}")
    assert describe_config(config)["routes"]["ops"]["url"] == shown


def test_a_hidden_option_of_a_remedy_is_not_shown(load: Load) -> None:
    config = load(
        "checks:\n  web:\n    type: unit\n    unit: a.service\n"
        "    ladder: [{remedy: restart-service, options: {key: hush}}]\n"
    )
    assert config.policy.checks["web"].ladder[0].options == {"key": "hush"}
    assert "hush" not in show_config(config)


def test_secrets_in_checks_are_not_shown(write: Write, catalog: Catalog) -> None:
    class PageOptions(CheckOptions):
        type: Literal["page"]
        url: str
        token: SecretStr
        headers: Mapping[str, SecretStr] = Field(default_factory=dict)

    async def look(_options: object, _machine: object) -> tuple[()]:
        return ()

    page = CheckType(name="page", summary="A page.", model=PageOptions, look=look, causes={})
    path = write(
        "checks:\n  p:\n    type: page\n    url: https://me:hush@shop.example/\n"
        "    token: hush\n    headers: {Authorization: hush}\n"
    )
    shown = show_config(load_config(path, catalog=catalog, types={"page": page}))
    assert "hush" not in shown
    assert "https://***@shop.example/" in shown


@pytest.fixture
def schema(types: Mapping[str, CheckType], catalog: Catalog) -> dict[str, Any]:
    return config_schema(types, catalog.remedies)


def test_the_schema_is_one(schema: dict[str, Any]) -> None:
    jsonschema_rs.meta.validate(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_the_schema_takes_what_loads(schema: dict[str, Any], load: Load) -> None:
    document = parse_document(COMPLETE, "some.yml")
    assert document is not None
    jsonschema_rs.validate(schema, document.plain())
    jsonschema_rs.validate(schema, describe_config(load(COMPLETE)))
    jsonschema_rs.validate(schema, {"checks": None, "policy": None})


#: Rules that a schema cannot express, or that are YAML's.
BEYOND_A_SCHEMA = {
    "bad-unit",
    "confirm-more-than-there-are",
    "digest-in-no-zone",
    "dependency-circle",
    "dependency-on-itself",
    "ladder-of-a-protected-unit",
    "maintenance-of-an-unknown-check",
    "maintenance-of-an-unknown-zone",
    "maintenance-of-unknown-labels",
    "maintenance-that-never-ends",
    "nothing-instead-of-duration",
    "public-url-without-scheme",
    "remedy-for-another-type",
    "retries-contradict",
    "unknown-cause",
    "unknown-dependency",
    "version-as-fraction",
}


def test_the_schema_refuses_what_does_not_load(schema: dict[str, Any]) -> None:
    validator = jsonschema_rs.validator_for(schema)
    taken = set()
    for path in (Path(__file__).parent / "invalid").glob("*.yml"):
        try:
            document = parse_document(path.read_text(), path.name)
        except ConfigError:
            continue
        assert document is not None
        if validator.is_valid(document.plain()):
            taken.add(path.stem)
    assert taken == BEYOND_A_SCHEMA


def test_every_key_in_the_schema_is_described(schema: dict[str, Any]) -> None:
    nameless = [
        f"{name}.{key}"
        for name, model in schema["$defs"].items()
        for key, value in model.get("properties", {}).items()
        if not value.get("description") and "const" not in value
    ]
    assert nameless == []
