"""Which tasks of a remedy run for real even in a preview."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError

_NESTED = ("tasks", "pre_tasks", "post_tasks", "handlers", "block", "rescue", "always")


def find_unchecked(directory: Path) -> frozenset[tuple[str, int]]:
    """Tasks under `check_mode: false`, as file and line (from 1), as Ansible's task paths say it.

    Their play or block may be what says so. A value that is a template is taken as said.
    """
    found: set[tuple[str, int]] = set()
    for file in sorted([*directory.rglob("*.yml"), *directory.rglob("*.yaml")]):
        try:
            content = YAML(typ="rt", pure=True).load(file.read_bytes())
        except (YAMLError, OSError):
            continue  # Ansible itself will say what is wrong with it
        _search(content, str(file), False, found)
    return frozenset(found)


def _search(node: Any, file: str, really: bool, found: set[tuple[str, int]]) -> None:
    if isinstance(node, list):
        for item in node:
            _search(item, file, really, found)
    elif isinstance(node, CommentedMap):
        if "check_mode" in node:
            said = node["check_mode"]
            really = not (said is True or str(said).lower() in ("true", "yes", "on"))
        if really:
            found.add((file, node.lc.line + 1))
        for key in _NESTED:
            if key in node:
                _search(node[key], file, really, found)
