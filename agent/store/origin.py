"""On which machine a state was written."""

from __future__ import annotations

from agent.host.identity import Identity
from agent.store.state import State

_MACHINE, _HARDWARE = "machine", "hardware"


def why_copied(state: State, here: Identity) -> str:
    """Why the state may be a copy of another host's, in words; empty when nothing says so."""
    machine = state.get_meta(_MACHINE)
    if machine is None:
        return ""
    recorded = Identity(machine=machine, hardware=state.get_meta(_HARDWARE) or "")
    where = here.why_another(recorded)
    return f"its state was written {where}, so this may be a copy of that host" if where else ""


def complete(state: State, here: Identity) -> None:
    """Records what is not on record yet of the machine that the state is written on."""
    if state.get_meta(_MACHINE) is None:
        sign(state, here)
    elif here.hardware and not state.get_meta(_HARDWARE):
        state.set_meta(_HARDWARE, here.hardware)


def sign(state: State, here: Identity) -> None:
    """Makes the state this machine's own."""
    state.set_meta(_HARDWARE, here.hardware)
    state.set_meta(_MACHINE, here.machine)
