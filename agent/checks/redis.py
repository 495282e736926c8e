"""`type: redis`: a Redis server reads and writes, saves what it holds, and follows its master.

Valkey too. `agent.host.redis` asks it, `redis_log` knows what it logs, `redis_findings` what its
answers mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from agent.checks import database
from agent.checks.check import CheckType, Proposal
from agent.checks.database import Match, Sample, Subject, Unit
from agent.checks.redis_findings import CAUSES, MEASUREMENTS, judge, judge_loading
from agent.checks.redis_log import BEGINS, NO_STOP, RECOVERING, SIGNATURES, TRUNCATED
from agent.checks.redis_options import PORT, RedisOptions
from agent.core.model import Evidence, Finding
from agent.errors import Unavailable
from agent.host.connection import Peer
from agent.host.listeners import find_listeners, find_sockets
from agent.host.machine import Machine
from agent.host.redis import Login, RedisAnswer, ask_redis
from agent.host.secret_file import read_secret_file
from agent.host.space import Hung
from agent.host.startlog import StartLog
from agent.host.url import is_address

#: Where packages have it log to: it says so itself as soon as it was asked once.
_LOGS = {
    "redis-server.service": "/var/log/redis/redis-server.log",
    "redis.service": "/var/log/redis/redis.log",
    "valkey-server.service": "/var/log/valkey/valkey-server.log",
    "valkey.service": "/var/log/valkey/valkey.log",
}
#: Longest search for where it listens, in seconds.
_SEARCH_SECONDS = 5.0


async def look(options: RedisOptions, machine: Machine) -> tuple[Finding, ...]:
    """One finding on the server, and further ones on its parts. Raises Unavailable."""
    return await database.look_at(_KIND, options, machine)


async def _ask(options: RedisOptions, **more: bool) -> RedisAnswer:
    password = ""
    if options.password_file is not None:
        password = read_secret_file(options.password_file, "password_file").removesuffix("\n")
    peer = Peer(address=options.host, port=options.port, path=options.socket or "")
    login = Login(user=options.user or "", password=password)
    return await ask_redis(peer, options.answer_within, login=login, **more)


async def _ask_little(options: RedisOptions) -> tuple[RedisAnswer, Match | None]:
    return await _ask(options), None


async def _look_closely(
    options: RedisOptions, machine: Machine, unit: Unit, _sample: Sample | None
) -> tuple[RedisAnswer, Match | None]:
    """Everything that the server and its log say."""
    log = _open_log(options, machine, unit)
    began, _ = await database.read_start(machine, unit, log, (TRUNCATED,))
    answer = await _ask(options, deep=True, write=options.write)
    if answer.read:
        machine.memory.put("answered", True)
        if "logfile" in answer.settings:
            machine.memory.put("log", answer.settings["logfile"])
    return answer, began


def _open_log(options: RedisOptions, machine: Machine, unit: Unit) -> StartLog:
    named = machine.memory.get("log")
    if named is None:
        name = unit.state.id if unit.state is not None else unit.name
        named = _LOGS.get(name, "")
    return StartLog(machine=machine, state=unit.state, file=options.log or named, begins=BEGINS)


async def _judge_down(options: RedisOptions, machine: Machine, unit: Unit) -> Finding:
    log = _open_log(options, machine, unit)
    finding = await database.judge_down(unit, log, SIGNATURES, RECOVERING)
    if finding.cause == "stopping":
        text = await log.read_attempt()
        if (match := database.find_signature(text, (NO_STOP,))) is None:
            return finding
        refused = database.blame_signature(replace(finding, transition=""), match)
        return await database.blame_room(refused, text, machine)
    if finding.cause != "starting":
        return finding
    # For systemd it starts until all its data are loaded, and it answers meanwhile.
    answer = await _ask(options)
    return judge_loading(Subject(unit=unit), options, answer) or finding


_KIND = database.Kind(
    ask=_ask_little, look_closely=_look_closely, judge=judge, judge_down=_judge_down
)


async def gather(options: RedisOptions, finding: Finding, machine: Machine) -> tuple[Evidence, ...]:
    """The unit's state and the log of this start only."""
    unit = await database.see_unit(options.unit, machine)
    log = _open_log(options, machine, unit)
    return await database.gather_unit(unit, log, finding, machine)


#: As Debian's and RHEL's packages name them; of a template there may be several.
_UNITS = ("redis-server.service", "redis.service", "valkey-server.service", "valkey.service")
_TEMPLATES = (
    "redis-server@*.service",
    "redis@*.service",
    "valkey-server@*.service",
    "valkey@*.service",
)


async def propose(machine: Machine) -> tuple[Proposal, ...]:
    """A check for each server that a unit of Debian's or RHEL's name runs."""
    if machine.systemd is None:
        return ()
    found = (*await machine.systemd.units(_UNITS), *await machine.systemd.list_units(_TEMPLATES))
    rows = {row.id: row for row in found}
    proposals = []
    for row in rows.values():
        if row.load_state == "loaded":
            options = {"type": "redis", "unit": row.id, "write": True}
            where = await _find_place(row.id, machine)
            why = f"{row.description} ({row.id}) is installed, and {row.active_state}."
            name = row.id.removesuffix(".service").replace("-server", "").rstrip("@")
            proposals.append(Proposal(name=name, options={**options, **where}, why=why))
    return tuple(proposals)


async def _find_place(unit: str, machine: Machine) -> Mapping[str, Any]:
    """The options that say where a unit listens, as far as they differ from the defaults."""
    assert machine.systemd is not None  # noqa: S101 - the caller looked
    try:
        pid = (await machine.systemd.unit(unit)).main_pid
        call = machine.space.patience.call
        tcp = await call("the listeners", _SEARCH_SECONDS, find_listeners)
        sockets = await call("the sockets", _SEARCH_SECONDS, find_sockets)
    except (Hung, OSError, Unavailable):
        return {}
    # A node of a cluster listens to the others too, 10,000 ports higher.
    own = sorted(
        (each.port, each.reachable != "127.0.0.1", each.reachable)
        for each in tcp
        if pid and each.pid == pid and is_address(each.reachable)
    )
    if own:
        port, _, host = own[0]
        return {
            **({"host": host} if host != "127.0.0.1" else {}),
            **({"port": port} if port != PORT else {}),
        }
    paths = [each.path for each in sockets if pid and each.pid == pid]
    return {"socket": paths[0]} if paths else {}


REDIS = CheckType(
    name="redis",
    summary="A Redis or Valkey server reads, writes, saves, and follows its master.",
    model=RedisOptions,
    look=look,
    causes=CAUSES,
    measurements=MEASUREMENTS,
    gather=gather,
    defaults={"timeout": "15s"},
    propose=propose,
    speaks="redis",
    watches=lambda options: database.watch_unit(options.unit),
    names=lambda options: frozenset({options.unit}),
    identity=("unit",),
)
