"""Bad configurations of each check type, one file per rule, and what is said of them.

A file is named after its type: `disk-limits-contradict.yml`. Its first line says what is expected.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.checks import CHECKS
from agent.config import load_config_errors
from agent.remedies.catalog import SHIPPED, Catalog

INVALID = sorted((Path(__file__).parent / "invalid").glob("*.yml"))


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return Catalog.load((SHIPPED,))


@pytest.mark.parametrize("path", INVALID, ids=lambda path: path.stem)
def test_a_bad_file_is_one_error_with_line_and_key(path: Path, catalog: Catalog) -> None:
    expected = path.read_text().splitlines()[0].removeprefix("# expect: ")
    errors = load_config_errors(path, catalog=catalog)
    assert [str(error) for error in errors] == [f"{path}:{expected}"]


@pytest.mark.parametrize("name", CHECKS)
def test_every_type_has_its_cases(name: str) -> None:
    assert [path for path in INVALID if path.stem.partition("-")[0] == name]
