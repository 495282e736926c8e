"""What a child of the agent is told of this host."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import agent
from agent.host import child
from agent.host.child import make_environment


def test_a_checkout_is_on_a_childs_path_and_an_installed_package_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = Path(agent.__file__).resolve().parent.parent
    assert make_environment(())["PYTHONPATH"] == str(source)
    monkeypatch.setattr(child.sysconfig, "get_path", lambda _name: os.fspath(source))
    assert "PYTHONPATH" not in make_environment(())


def test_a_child_takes_over_what_it_must_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    monkeypatch.setenv("SECRET", "hunter2")
    found = make_environment({"TZ", "MISSING"})
    assert found.keys() - {"PYTHONPATH"} == {"TZ", "PATH", "LANG", "HOME"}
