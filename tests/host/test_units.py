"""Unit names and object paths."""

from __future__ import annotations

import pytest

from agent.host.units import kind_interface, unit_path


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("nginx.service", "nginx_2eservice"),
        ("getty@tty1.service", "getty_40tty1_2eservice"),
        ("dev-disk-by\\x2duuid.mount", "dev_2ddisk_2dby_5cx2duuid_2emount"),
        ("9p.service", "_39p_2eservice"),
        ("a9.service", "a9_2eservice"),
    ],
)
def test_a_unit_has_the_object_path_that_systemd_gives_it(name: str, path: str) -> None:
    assert unit_path(name) == f"/org/freedesktop/systemd1/unit/{path}"


def test_the_interface_is_that_of_the_kind() -> None:
    assert kind_interface("a.b.service") == "org.freedesktop.systemd1.Service"
    assert kind_interface("backup.timer") == "org.freedesktop.systemd1.Timer"
