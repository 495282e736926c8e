"""Arming changes one word of a configuration, or nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.config import arm
from agent.errors import ConfigError


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("policy:\n  mode: shadow  # for now\n", "policy:\n  mode: auto  # for now\n"),
        ("policy: {slots: 1, mode: shadow}\n", "policy: {slots: 1, mode: auto}\n"),
        ('policy: {"mode": "shadow"}\r\n', None),
        ("policy:\r\n  mode: 'shadow'\r\n", "policy:\r\n  mode: auto\r\n"),
        ("policy: {mode: &m shadow}\n", None),
        ("# mode: shadow\npolicy: {mode: shadow}\n", "# mode: shadow\npolicy: {mode: auto}\n"),
    ],
)
def test_one_word_changes_or_somebody_is_asked(
    tmp_path: Path, before: str, after: str | None
) -> None:
    path = tmp_path / "hostmend.yml"
    path.write_bytes(before.encode())
    path.chmod(0o640)
    if after is None:
        with pytest.raises(ConfigError, match="write `mode: auto` yourself"):
            arm([path])
        after = before
    else:
        assert arm([path]) == path
    assert path.read_bytes().decode() == after
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("text", ["", "policy: {mode: off}\n", "checks: {a: {mode: shadow}}\n"])
def test_what_is_not_in_shadow_stays(tmp_path: Path, text: str) -> None:
    path = tmp_path / "hostmend.yml"
    path.write_text(text)
    assert arm([path]) is None
    assert path.read_text() == text


def test_the_file_that_says_it_is_changed_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "main.yml").write_text("version: 1\n")
    real = tmp_path / "real.yml"
    real.write_text("policy: {mode: shadow}\n")
    link = tmp_path / "policy.yml"
    link.symlink_to(real)
    assert arm([tmp_path / "main.yml", link]) == link
    assert link.is_symlink()
    assert real.read_text() == "policy: {mode: auto}\n"
