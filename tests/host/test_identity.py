"""What tells a machine from a copy of its disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.host.identity import Identity, read_identity

UUID = "ec2e1916-9099-7caf-fd21-012345abcdef"
#: The same machine by firmware that writes its first three fields the other way round.
TURNED = "16192eec-9990-af7c-fd21-012345abcdef"


def make(root: Path, hardware: dict[str, str], machine: str = "a" * 32) -> Path:
    for path, text in {"etc/machine-id": f"{machine}\n", **hardware}.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def read(root: Path, *, contained: bool = False) -> Identity:
    return read_identity(root, contained=lambda: contained)


DMI = "sys/class/dmi/id/product_uuid"
BOARD = "proc/device-tree/serial-number"


@pytest.mark.parametrize(
    ("hardware", "source"),
    [
        ({DMI: f"{UUID}\n"}, "dmi"),
        ({DMI: f"{UUID}\n", "sys/hypervisor/uuid": f"{UUID}\n"}, "dmi"),
        ({"sys/hypervisor/uuid": f"{UUID}\n"}, "xen"),
        ({"proc/device-tree/vm,uuid": f"{UUID}\0"}, "vm"),
        ({BOARD: "100000003d1d1c36\0"}, "board"),
        ({}, ""),
        ({DMI: "00000000-0000-0000-0000-000000000000\n"}, ""),
        ({DMI: "ffffffff-ffff-ffff-ffff-ffffffffffff\n"}, ""),
        ({DMI: "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF\n"}, ""),
        ({DMI: "03000200-0400-0500-0006-000700080009\n"}, ""),
        ({DMI: "00020003-0004-0005-0006-000700080009\n"}, ""),
        ({DMI: "Not Settable\n"}, ""),
        ({DMI: "\n"}, ""),
        ({BOARD: "0000000000000000\0"}, ""),
    ],
)
def test_hardware_is_told_by_what_names_it_and_by_nothing_that_does_not(
    tmp_path: Path, hardware: dict[str, str], source: str
) -> None:
    found = read(make(tmp_path, hardware)).hardware
    assert found.partition(":")[0] == source
    assert UUID not in found


def test_one_machine_stays_one_whatever_the_order_of_its_bytes(tmp_path: Path) -> None:
    forms = (UUID, TURNED, UUID.upper())
    assert len({read(make(tmp_path / form, {DMI: form})) for form in forms}) == 1


def test_the_hardware_below_a_container_is_not_its_own(tmp_path: Path) -> None:
    assert read(make(tmp_path, {DMI: UUID}), contained=True).hardware == ""


def test_nothing_that_can_be_read_is_no_error(tmp_path: Path) -> None:
    assert read(tmp_path) == read(tmp_path / "none")
    assert read(tmp_path).machine


@pytest.mark.parametrize(
    ("recorded", "here", "another"),
    [
        ("a dmi:1", "a dmi:1", False),
        ("a dmi:1", "b dmi:1", True),
        ("a dmi:1", "a dmi:2", True),
        ("a dmi:1", "a", False),
        ("a", "a dmi:1", False),
        ("a dmi:1", "a xen:2", False),
        ("a", "a", False),
        ("a", "b", True),
    ],
)
def test_only_what_both_tell_can_differ(recorded: str, here: str, another: bool) -> None:
    def parse(text: str) -> Identity:
        machine, _, hardware = text.partition(" ")
        return Identity(machine=machine, hardware=hardware)

    assert bool(parse(here).why_another(parse(recorded))) == another


@pytest.mark.lab
def test_a_namespace_of_its_own_is_a_container() -> None:
    ask = "from agent.host.identity import is_container; print(is_container())"
    done = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", ask],
        capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert done.stdout == "True\n"
