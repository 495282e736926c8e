"""The configuration of `http` checks, with the real types and remedies."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.config import Config, config_schema, load_config, load_config_errors
from agent.remedies.catalog import SHIPPED, Catalog

CATALOG = Catalog.load((SHIPPED,))

SHOP = """\
version: 1
policy: {mode: auto, act_alone_up_to: low, runs_per_hour: 6}
checks:
  web:
    type: service
    unit: nginx.service
    ladder: [{remedy: restart-service, options: {validate: [nginx, -t]}}]
  shop:
    type: http
    url: https://shop.example/
    connect: 127.0.0.1:443                  # this host, not the balancer
    every: 10s
    depends_on: [web]
    critical: {down: "[STATUS] >= 500"}     # cause: condition that is true when it fails
    warning:  {slow: "[RESPONSE_TIME] > 500ms"}
    ladder:
      - {remedy: restart-service, causes: [down, refused], options: {unit: gunicorn.service}}
"""


@pytest.fixture
def written(tmp_path: Path) -> Path:
    return tmp_path / "hostmend.yml"


def load(written: Path, text: str) -> Config:
    written.write_text(text)
    return load_config(written, catalog=CATALOG)


def test_the_shop_is_read_as_it_is_written(written: Path) -> None:
    config = load(written, SHOP)
    shop = config.policy.checks["shop"]
    assert shop.depends_on == ("web",)
    (step,) = shop.ladder
    assert step.causes == ("down", "refused")
    assert step.options == {"unit": "gunicorn.service"}
    assert (shop.confirm.times, shop.confirm.of) == (2, 3)
    assert {"nginx.service", "gunicorn.service"} <= config.configured


def test_a_page_alone_has_no_ladder_and_the_default_condition(written: Path) -> None:
    config = load(written, "checks: {page: {type: http, url: 'http://127.0.0.1/'}}")
    assert config.policy.checks["page"].ladder == ()
    check = config.checks["page"]
    assert check.type.own_causes(check.options) == {"status"}


#: What stands in place of the check's other keys, the line of the error, its key and its words.
WRONG = [
    ('critical: {down: "[STATUS] >= 5x"}', "critical.down", "neither a number nor a duration"),
    ("critical: {down: 500}", "critical.down", "must be text"),
    ('critical: {refused: "[STATUS] == 1"}', "critical.refused", "that every http check has"),
    ('warning: {Slow: "[STATUS] == 1"}', "warning.Slow", "cannot be a cause"),
    ("connect: localhost:80", "connect", "is no address: write for example 127.0.0.1:443"),
    ("reference: 192.0.2.1", "reference", "needs a port"),
    ("redirects: always", "redirects", "write stay, follow or never"),
    ("tls: none", "tls", "not one of verify, no-verify"),
    ("method: get", "method", "`get` is not one of GET, HEAD"),
    ("headers: {Content-Length: '1'}", "headers", "leave it out"),
    ("headers: {'a b': '1'}", "headers", "no name of a header"),
    ('headers: {X-Token: "secret\\nX: y"}', "headers", "one line of ASCII"),
    ("body_limit: 1", "body_limit", "greater than or equal to 1024"),
    ("url: ftp://me:secret@x/", "url", "must be an http:// or https:// address"),
    ("url: http://x/#part", "url", "must end before the `#`"),
    (
        "ladder: [{remedy: restart-service, causes: [slow]}]",
        "ladder[0].causes[0]",
        "no cause `slow`",
    ),
]


@pytest.mark.parametrize(("line", "key", "words"), WRONG)
def test_an_error_names_file_line_and_key(line: str, key: str, words: str, written: Path) -> None:
    url = "" if line.startswith("url:") else "    url: http://127.0.0.1/\n"
    written.write_text(f"checks:\n  page:\n    type: http\n    {line}\n{url}")
    error, *_ = load_config_errors(written, catalog=CATALOG)
    assert (error.file, error.line) == (str(written), 4)
    assert error.key == f"checks.page.{key}"
    assert words in str(error)
    assert "secret" not in str(error)


def test_editors_are_told_of_conditions() -> None:
    properties = config_schema()["$defs"]["HttpOptions"]["properties"]
    assert properties["critical"]["additionalProperties"] == {"type": "string"}
    assert properties["tls"]["enum"] == ["verify", "no-verify"]
