"""What drills see of the agent around them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from agent.clock import Clock
from agent.config import Config
from agent.core.model import Incident
from agent.drills.conductor import Surroundings
from agent.drills.sight import Eye
from agent.engine import Engine
from agent.records import Records
from agent.remedies.catalog import Catalog
from agent.store.state import Listing

#: Incidents among which a drill looks for its own.
_RECENT = 100


def make_surroundings(
    *,
    engine: Engine,
    config: Callable[[], Config],
    records: Records,
    faults: Callable[[], Catalog],
    tell: Callable[[str], None],
    clock: Clock,
) -> Surroundings:
    """The running agent as the conductor of drills sees it."""

    async def list_recent() -> tuple[Incident, ...]:
        recent = Listing(limit=_RECENT)
        return await engine.read(lambda state: state.list_incidents(recent))

    return Surroundings(
        faults=faults,
        eyes=lambda: _list_eyes(config()),
        incidents=list_recent,
        holds=lambda: {i: f"{h.hold}: {h.detail}" for i, h in engine.last.holds.items()},
        why_not=lambda: _why_no_drill(engine, clock),
        keep=records.keep_drill,
        tell=tell,
    )


def _list_eyes(config: Config) -> dict[str, Eye]:
    """The checks as drills see them."""
    return {
        name: Eye(
            type=check.type.name,
            names=frozenset(
                _list_words(
                    [check.options.model_dump(), *(step.options for step in check.policy.ladder)]
                )
            ),
        )
        for name, check in config.checks.items()
    }


def _list_words(value: object) -> Iterator[str]:
    if isinstance(value, str | Path):
        yield str(value)
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _list_words(part)
    elif isinstance(value, list | tuple | set | frozenset):
        for part in value:
            yield from _list_words(part)


def _why_no_drill(engine: Engine, clock: Clock) -> str:
    """Why nothing would be repaired now, whatever the fault; empty when it would."""
    host = engine.host
    if host.doubt is not None:
        return "this host is not confirmed; say `hostmend confirm`"
    paused = host.paused
    if paused is not None and (paused.until is None or clock.now() < paused.until):
        return f"{paused.by} paused repairs; say `hostmend resume`"
    return ""
