"""One bad file per rule, and what is said of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from agent.checks.check import CheckType
from agent.config import load_config_errors
from agent.remedies.catalog import Catalog

INVALID = sorted((Path(__file__).parent / "invalid").glob("*.yml"))


@pytest.mark.parametrize("path", INVALID, ids=lambda path: path.stem)
def test_a_bad_file_is_one_error_with_line_and_key(
    path: Path, types: Mapping[str, CheckType], catalog: Catalog
) -> None:
    expected = path.read_text().splitlines()[0].removeprefix("# expect: ")
    errors = load_config_errors(path, catalog=catalog, types=types)
    assert [str(error) for error in errors] == [f"{path}:{expected}"]
