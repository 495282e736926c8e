"""Which machine this is, as far as a host can be told from a copy of its disk."""

from __future__ import annotations

import hashlib
import socket
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

#: Where firmware or hypervisor name the machine, in systemd's own order (id128_get_product() in its
#: src/libsystemd/sd-id128/id128-util.c), and then small boards, whose cards are copied readily.
_HARDWARE = {
    "dmi": "sys/class/dmi/id/product_uuid",
    "vm": "proc/device-tree/vm,uuid",
    "xen": "sys/hypervisor/uuid",
    "board": "proc/device-tree/serial-number",
}
#: What a maker of boards left in, one on all of them.
_PLACEHOLDERS = {
    uuid.UUID("03000200-0400-0500-0006-000700080009"),
    uuid.UUID("12345678-1234-5678-90ab-cddeefaabbcc"),
}
#: Made by systemd, Podman and Docker, also in containers that share the PIDs of their host.
_CONTAINER = (Path("/run/systemd/container"), Path("/run/.containerenv"), Path("/.dockerenv"))
#: The first PID namespace's own number (linux/proc_ns.h, PROC_PID_INIT_INO).
_FIRST_PID_NAMESPACE = 0xEFFFFFFC


@dataclass(frozen=True, kw_only=True)
class Identity:
    """A machine, by hashes that give none of its ids away."""

    #: Of the installation. A copied disk has it too, unless its machine-id was made anew.
    machine: str
    #: Of the hardware or the virtual machine, as `source:hash`; empty where that cannot be told.
    hardware: str = ""

    def why_another(self, recorded: Identity) -> str:
        """Why what was recorded is another machine, in words; empty when nothing says so.

        Hardware that cannot be told, now or then, says nothing: an agent that does not run as root
        may not read it, and an older one did not.
        """
        if recorded.machine != self.machine:
            return "on another machine"
        source, _, known = recorded.hardware.partition(":")
        here, _, found = self.hardware.partition(":")
        if source == here and known != found:
            return "on another machine, with the same /etc/machine-id"
        return ""


def read_identity(
    root: Path = Path("/"), *, contained: Callable[[], bool] | None = None
) -> Identity:
    """This machine. Never raises: what cannot be read is left out."""
    name = _read(root / "etc/machine-id") or socket.gethostname()
    # machine-id(5) asks for a keyed hash of it wherever it is shown.
    return Identity(machine=hash_id(name), hardware=_read_hardware(root, contained or is_container))


def hash_id(text: str) -> str:
    return hashlib.sha256(f"hostmend:{text}".encode()).hexdigest()[:16]


def is_container() -> bool:
    """Whether kernel, clock and hardware are those of the machine around this one."""
    try:
        namespace = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return True
    return namespace != _FIRST_PID_NAMESPACE or any(path.exists() for path in _CONTAINER)


def _read_hardware(root: Path, contained: Callable[[], bool]) -> str:
    if contained():
        return ""
    for source, path in _HARDWARE.items():
        text = _read(root / path)
        name = text if source == "board" else _normalize(text)
        # All zeros, all ones: not set.
        if len(set(name) - {"-"}) > 1:
            return f"{source}:{hash_id(name)}"
    return ""


def _normalize(text: str) -> str:
    """One form for a UUID, or nothing for what is none.

    Firmware, kernels and hypervisors do not agree on the order of the bytes in its first three
    fields (SMBIOS 2.6, section 7.2.1), so an update may turn them around.
    """
    try:
        found = uuid.UUID(text)
    except ValueError:
        return ""
    turned = uuid.UUID(bytes_le=found.bytes)
    if _PLACEHOLDERS & {found, turned}:
        return ""
    return str(min(found, turned))


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip("\0 \n\t")
    except OSError:
        return ""
