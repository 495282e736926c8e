"""systemd over the system D-Bus: one connection for all, and the only module to import dbus_fast.

dbus-fast does not reconnect. This module does: it subscribes again, lists what it watches again,
and tells of what changed meanwhile. Interfaces and signals: org.freedesktop.systemd1(5).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from dbus_fast import BusType, Message, MessageFlag, MessageType, unpack_variants
from dbus_fast.aio import MessageBus

from agent.clock import Clock
from agent.errors import Unavailable
from agent.host.stops import StopBook
from agent.host.units import Job, UnitRow, UnitState, kind_interface, read_state, unit_path

log = logging.getLogger(__name__)

T = TypeVar("T")

_SYSTEMD = "org.freedesktop.systemd1"
_MANAGER_PATH = "/org/freedesktop/systemd1"
_MANAGER = "org.freedesktop.systemd1.Manager"
_UNIT = "org.freedesktop.systemd1.Unit"
_JOB = "org.freedesktop.systemd1.Job"
_PROPERTIES = "org.freedesktop.DBus.Properties"
_BUS = "org.freedesktop.DBus"
_BUS_PATH = "/org/freedesktop/DBus"

#: Seconds until the first attempt to connect again, and at most between two attempts.
_FIRST_WAIT = 0.05
_LONGEST_WAIT = 5.0
#: Seconds that a state which no signal contradicts is believed, but for systemd's short row of it.
_BELIEVED = 60.0
#: Seconds that the state of the whole host is believed.
_HOST_BELIEVED = 1.0
#: Calls in flight; the bus refuses more than 128 of one connection (max_replies_per_connection).
_IN_FLIGHT = 32
#: The bus refuses more than 512 match rules of one connection (max_match_rules_per_connection).
_MOST_NARROW_UNITS = 150
#: This many calls without an answer in a row: the connection is made anew.
_DEAF_AFTER = 3


@dataclass(frozen=True, kw_only=True)
class _Cached:
    state: UnitState
    #: The number of changes signalled before it was read.
    changes: int
    #: When it was read: CLOCK_MONOTONIC in seconds.
    at: float


@dataclass(kw_only=True)
class _Watched:
    """One unit that signals are taken of."""

    id: str
    path: str
    #: The names it was asked for by.
    names: set[str]
    #: The active state and sub state last seen.
    seen: tuple[str, str]
    changes: int = 0


class Systemd:
    """The connection to systemd. Use it from one event loop only.

    Calls raise `Unavailable` while systemd cannot be reached, and never wait longer than `timeout`
    seconds for one answer.
    """

    def __init__(self, clock: Clock, *, address: str = "", timeout: float = 5.0) -> None:
        """`address`: a D-Bus address; empty means the system bus."""
        #: Why units are down, as far as the bus tells.
        self.stops = StopBook()
        #: Why systemd cannot be reached now; empty while it can.
        self.trouble = "cannot ask systemd: the connection is not open"
        #: CLOCK_MONOTONIC in seconds when this systemd began to bring up the host's services.
        self.started = 0.0
        self._clock = clock
        self._address = address
        self._timeout = timeout
        self._bus: MessageBus | None = None
        self._owner = ""
        self._tried = asyncio.Event()
        self._lost = False
        self._keeper: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        #: Units whose rows are about to be asked for, and the answer to come.
        #: Names that are asked for in this moment, and who waits for their rows.
        self._asking: list[tuple[str, asyncio.Future[UnitRow | None]]] = []
        self._in_flight = asyncio.Semaphore(_IN_FLIGHT)
        self._unanswered = 0
        self._arranging = asyncio.Lock()
        self._wanted: frozenset[str] = frozenset()
        self._callback: Callable[[str], None] = lambda _name: None
        self._rules: frozenset[str] = frozenset()
        self._watched: dict[str, _Watched] = {}
        self._by_path: dict[str, _Watched] = {}
        self._by_name: dict[str, _Watched] = {}
        self._cache: dict[str, _Cached] = {}
        self._typing: dict[str, set[asyncio.Task[None]]] = {}
        self._host_state = ("", 0.0)

    async def open(self) -> None:
        """Connect, and stay connected until `close`.

        Raises Unavailable if the first attempt fails; further attempts go on in the background.
        """
        self._keeper = asyncio.create_task(self._keep_connected(), name="systemd")
        await self._tried.wait()
        if self.trouble:
            raise Unavailable(self.trouble)

    async def close(self) -> None:
        """End the connection and everything that waits for it."""
        tasks = [*self._tasks, *([self._keeper] if self._keeper else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._keeper = None

    @property
    def connected(self) -> bool:
        return self._bus is not None

    # Questions

    async def unit(self, name: str) -> UnitState:
        """The state of one unit; a unit that does not exist has the load state `not-found`.

        A watched unit that nothing was signalled of costs one small call, any other two.
        """
        cached = self._cache.get(name)
        if cached is not None and await self._still_holds(cached):
            return cached.state
        for _attempt in range(3):
            changes = self._changes(name)
            unit, own = await asyncio.gather(
                self._get_all(name, _UNIT), self._get_all(name, kind_interface(name))
            )
            job = await self._read_job(*unit.get("Job", (0, "/")))
            # A job without a type has ended since, and the state is older than that.
            if changes == self._changes(name) and (job is None or job.type):
                break
        state = read_state(name, unit, own, job, self._clock)
        if name in self._wanted:
            self._cache[name] = _Cached(state=state, changes=changes, at=_monotonic())
        return state

    async def units(self, names: Iterable[str]) -> tuple[UnitRow, ...]:
        """Rows of the units of these names; what does not exist has the load state `not-found`."""
        (rows,) = await self._ask_manager("ListUnitsByNames", "as", [list(names)])
        return tuple(_read_row(row) for row in rows)

    async def list_units(
        self, patterns: Iterable[str], states: Iterable[str] = ()
    ) -> tuple[UnitRow, ...]:
        """Units of any of these names (`*` as in a shell) in any of these states; empty: in all.

        However they came to be loaded: those that nothing has referred to are not among them.
        """
        body = [list(states), list(patterns)]
        (rows,) = await self._ask_manager("ListUnitsByPatterns", "asas", body)
        return tuple(_read_row(row) for row in rows)

    def find_primary(self, names: Iterable[str]) -> frozenset[str]:
        """The primary names of units that are watched; of others the names themselves."""
        known = self._by_name
        return frozenset(known[name].id if name in known else name for name in names)

    async def version(self) -> str:
        """systemd's version as it says it: `252.38-1~deb12u1`."""
        return str(await self._get(_MANAGER_PATH, _MANAGER, "Version"))

    async def host_state(self) -> str:
        """`initializing`, `starting`, `running`, `degraded`, `maintenance`, `stopping`; 1 s old."""
        state, read = self._host_state
        if not state or _monotonic() - read > _HOST_BELIEVED:
            state = str(await self._get(_MANAGER_PATH, _MANAGER, "SystemState"))
            self._host_state = (state, _monotonic())
        return state

    async def job_types_known(self, unit: str) -> None:
        """Wait until the type of every job seen of a unit was asked for."""
        if tasks := self._typing.get(unit):
            await asyncio.wait(set(tasks))

    # Watching

    async def watch(self, names: Iterable[str], callback: Callable[[str], None]) -> None:
        """From now on tell `callback` the name of each of these units that changes, no others.

        It is called on the event loop as the signal arrives, and for each of them when the bus is
        back after it was away. Without a connection, this takes effect with the next one; it never
        raises.
        """
        self._wanted = frozenset(names)
        self._callback = callback
        self._cache = {name: kept for name, kept in self._cache.items() if name in self._wanted}
        if self._bus is not None:
            await self._arrange_anew(self._bus)

    async def _arrange_watches(self, bus: MessageBus) -> list[_Watched]:
        """Bring the match rules in line with what is wanted, then list all that is watched again.

        Returns what is in another state than it was last seen in.
        """
        async with self._arranging:
            self._cache.clear()
            self._take_up(
                # One call per name, because only the answer tells which unit an alias stands for.
                await asyncio.gather(*(self._resolve(bus, name) for name in sorted(self._wanted)))
            )
            rules = _match_rules({id: watched.path for id, watched in self._watched.items()})
            for rule in sorted(rules - self._rules):
                await self._ask(bus, _BUS, _BUS_PATH, _BUS, "AddMatch", "s", [rule])
            for rule in sorted(self._rules - rules):
                await self._ask(bus, _BUS, _BUS_PATH, _BUS, "RemoveMatch", "s", [rule])
            self._rules = rules
            # Only now that signals come can a state be taken as the one to count from. A signal
            # that overtakes this answer on its way through the event loop is newer than it.
            changes = {id: watched.changes for id, watched in self._watched.items()}
            (rows,) = await self._ask(
                bus, _SYSTEMD, _MANAGER_PATH, _MANAGER, "ListUnitsByNames", "as", [list(changes)]
            )
            moved = []
            for row in map(_read_row, rows):
                watched = self._watched.get(row.id)
                if watched is None or watched.changes != changes[row.id]:
                    continue
                self.stops.see_state(row.id, row.active_state, _monotonic())
                if watched.seen != (row.active_state, row.sub_state):
                    watched.seen = (row.active_state, row.sub_state)
                    moved.append(watched)
            return moved

    def _take_up(self, found: Iterable[tuple[str, UnitRow]]) -> None:
        """From now on take signals of exactly these units; what is known of others is forgotten."""
        before, self._watched = self._watched, {}
        for name, row in found:
            watched = self._watched.get(row.id)
            if watched is None:
                watched = before.get(row.id) or _Watched(
                    id=row.id, path=row.path, names=set(), seen=(row.active_state, row.sub_state)
                )
                watched.names = set()
                self._watched[row.id] = watched
            watched.names.add(name)
        self._by_path = {watched.path: watched for watched in self._watched.values()}
        self._by_name = {name: w for w in self._watched.values() for name in w.names}
        self.stops.watch(self._watched)

    async def _resolve(self, bus: MessageBus, name: str) -> tuple[str, UnitRow]:
        (rows,) = await self._ask(
            bus, _SYSTEMD, _MANAGER_PATH, _MANAGER, "ListUnitsByNames", "as", [[name]]
        )
        if rows:
            return name, _read_row(rows[0])
        gone = UnitRow(
            id=name,
            description="",
            load_state="not-found",
            active_state="inactive",
            sub_state="dead",
            path=unit_path(name),
            job=None,
        )
        return name, gone

    def _tell(self, watched: _Watched) -> None:
        for name in sorted(watched.names):
            try:
                self._callback(name)
            except Exception:
                log.exception("cannot pass on a change of %s", name)

    def _take_message(self, bus: MessageBus, message: Message) -> None:
        # A signal that somebody sends to this connection alone needs no match rule, so anyone on
        # the bus could pretend to be systemd: only its owner's word and the bus's own count.
        if message.message_type is not MessageType.SIGNAL:
            return
        if message.sender == _BUS and message.member == "NameOwnerChanged":
            if message.body[0] == _SYSTEMD and message.body[2] != self._owner:
                self._drop(bus, "systemd left the bus")
            return
        if message.sender != self._owner:
            return
        match message.member:
            case "PropertiesChanged":
                self._take_properties(message.path or "", *message.body[:2])
            case "JobNew":
                self._take_new_job(*message.body)
            case "JobRemoved":
                self._take_ended_job(*message.body)
            case "Reloading" if not message.body[0]:
                # Aliases, conditions and dependencies may be others now.
                self._spawn(self._arrange_anew(bus))

    def _take_properties(self, path: str, interface: str, changed: Mapping[str, Any]) -> None:
        watched = self._by_path.get(path)
        if watched is None or interface != _UNIT:
            return
        watched.changes += 1
        active, sub = changed.get("ActiveState"), changed.get("SubState")
        if active is None or sub is None:
            return
        self.stops.see_state(watched.id, active.value, _monotonic())
        if watched.seen != (active.value, sub.value):
            watched.seen = (active.value, sub.value)
            self._tell(watched)

    def _take_new_job(self, job: int, path: str, unit: str) -> None:
        if self.stops.see_job(unit, job):
            task = self._spawn(self._type_job(unit, job, path))
            tasks = self._typing.setdefault(unit, set())
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    def _take_ended_job(self, job: int, _path: str, unit: str, result: str) -> None:
        watched = self._watched.get(unit)
        if watched is None:
            return
        self.stops.end_job(unit, job, result)
        watched.changes += 1
        self._tell(watched)

    async def _type_job(self, unit: str, job: int, path: str) -> None:
        job_type = None
        # A job that is over already has no type any more.
        with contextlib.suppress(Unavailable):
            job_type = str(await self._get(path, _JOB, "JobType"))
        self.stops.type_job(unit, job, job_type)

    async def _arrange_anew(self, bus: MessageBus) -> None:
        try:
            for watched in await self._arrange_watches(bus):
                self._tell(watched)
        except Unavailable as error:
            self._drop(bus, str(error))

    def _changes(self, name: str) -> int:
        watched = self._by_name.get(name)
        return watched.changes if watched else 0

    async def _still_holds(self, cached: _Cached) -> bool:
        state = cached.state
        if _monotonic() - cached.at > _BELIEVED or cached.changes != self._changes(state.name):
            return False
        row = await self._find_row(state.name)
        return row is not None and (
            (row.load_state, row.active_state, row.sub_state, row.job)
            == (state.load_state, state.active_state, state.sub_state, state.job)
        )

    async def _find_row(self, name: str) -> UnitRow | None:
        """systemd's row of one unit, in one answer with whatever is asked for in this moment."""
        if not self._asking:
            self._spawn(self._ask_together())
        answer: asyncio.Future[UnitRow | None] = asyncio.get_running_loop().create_future()
        self._asking.append((name, answer))
        return await answer

    async def _ask_together(self) -> None:
        await asyncio.sleep(0)
        # Whoever comes from now on is not served by what is asked now.
        asked, self._asking = self._asking, []
        try:
            rows = await self.units([name for name, _ in asked])
            # In the order of the names, of which those are left out that no unit may have.
            complete = len(rows) == len(asked)
            for place, (_, answer) in enumerate(asked):
                # Whoever was given up meanwhile waits no more.
                if not answer.done():
                    answer.set_result(rows[place] if complete else None)
        except Unavailable as error:
            for _, answer in asked:
                if not answer.done():
                    answer.set_exception(Unavailable(str(error)))
        finally:
            for _, answer in asked:
                answer.cancel()

    # The connection

    async def _keep_connected(self) -> None:
        wait = _FIRST_WAIT
        while True:
            began = _monotonic()
            bus = _Bus(
                bus_address=self._address or None,
                bus_type=BusType.SYSTEM,
                auth_timeout=self._timeout,
            )
            try:
                await self._connect(bus)
                self._tried.set()
                await _wait_for_end(bus)
                raise Unavailable(self.trouble or "the bus closed the connection")
            except Exception as error:
                # Whatever ends a connection, this loop is what brings it back.
                why = str(error) or type(error).__name__
                self._lose(why if isinstance(error, Unavailable) else f"cannot reach D-Bus: {why}")
            finally:
                self._bus = None
                await _disconnect(bus)
            self._tried.set()
            if _monotonic() - began > 2 * _LONGEST_WAIT:
                wait = _FIRST_WAIT
            await asyncio.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT)

    async def _connect(self, bus: MessageBus) -> None:
        async with asyncio.timeout(self._timeout):
            await bus.connect()
        self._owner = ""
        bus.add_message_handler(functools.partial(self._take_message, bus))
        rules = _match_rules({})
        for rule in sorted(rules):
            await self._ask(bus, _BUS, _BUS_PATH, _BUS, "AddMatch", "s", [rule])
        self._rules = rules
        (self._owner,) = await self._ask(
            bus, _BUS, _BUS_PATH, _BUS, "GetNameOwner", "s", [_SYSTEMD]
        )
        await self._ask(bus, _SYSTEMD, _MANAGER_PATH, _MANAGER, "Subscribe")
        body = [_MANAGER, "UserspaceTimestampMonotonic"]
        (started,) = await self._ask(bus, _SYSTEMD, _MANAGER_PATH, _PROPERTIES, "Get", "ss", body)
        self.started = started / 1e6
        arranged = None
        while arranged != self._wanted:
            arranged = self._wanted
            await self._arrange_watches(bus)
        self._bus = bus
        self._unanswered = 0
        self.trouble = ""
        if self._lost:
            self._lost = False
            log.info("systemd can be reached again")
            for watched in self._watched.values():
                self._tell(watched)

    def _lose(self, why: str) -> None:
        if not self._lost:
            log.warning("systemd cannot be reached, trying again: %s", why)
        self._lost = True
        self.trouble = why
        self._bus = None
        self._host_state = ("", 0.0)
        self._cache.clear()
        self.stops.lose_sight()

    def _drop(self, bus: MessageBus, why: str) -> None:
        """Have the connection made anew."""
        if bus is self._bus:
            self.trouble = why if why.startswith("cannot") else f"cannot ask systemd: {why}"
            self._bus = None
        bus.disconnect()

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # Calls

    async def _get_all(self, name: str, interface: str) -> dict[str, Any]:
        (properties,) = await self._ask_systemd(
            unit_path(name), _PROPERTIES, "GetAll", "s", [interface]
        )
        return dict(properties)

    async def _get(self, path: str, interface: str, name: str) -> Any:
        (value,) = await self._ask_systemd(path, _PROPERTIES, "Get", "ss", [interface, name])
        return value

    async def _read_job(self, id: int, path: str) -> Job | None:
        if not id:
            return None
        try:
            return Job(id=id, type=str(await self._get(path, _JOB, "JobType")))
        except Unavailable:
            return Job(id=id, type="")

    async def _ask_manager(self, member: str, signature: str, body: list[Any]) -> list[Any]:
        return await self._ask_systemd(_MANAGER_PATH, _MANAGER, member, signature, body)

    async def _ask_systemd(
        self, path: str, interface: str, member: str, signature: str, body: list[Any]
    ) -> list[Any]:
        if self._bus is None:
            raise Unavailable(self.trouble or "cannot ask systemd: the connection was lost")
        return await self._ask(self._bus, _SYSTEMD, path, interface, member, signature, body)

    async def _ask(
        self,
        bus: MessageBus,
        destination: str,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        body: list[Any] | None = None,
    ) -> list[Any]:
        """One call; raises Unavailable for whatever keeps it from an answer."""
        call = Message(
            destination=destination,
            path=path,
            interface=interface,
            member=member,
            signature=signature,
            body=body or [],
            # Without it the bus would try to start systemd where there is none.
            flags=MessageFlag.NO_AUTOSTART,
        )
        async with self._in_flight:
            if not bus.connected:
                raise Unavailable("cannot ask systemd: the connection was lost")
            try:
                async with asyncio.timeout(self._timeout):
                    reply = await bus.call(call)
            except TimeoutError:
                self._unanswered += 1
                if self._unanswered >= _DEAF_AFTER:
                    self._drop(bus, "it does not answer")
                raise Unavailable(
                    f"cannot ask systemd: no answer to {member} within {self._timeout:g} s"
                ) from None
            except Exception as error:
                # dbus-fast hands on whatever ended the connection: OSError, EOFError, its own.
                raise Unavailable(
                    f"cannot ask systemd: the connection was lost ({error})"
                ) from error
        self._unanswered = 0
        if reply is None:
            raise Unavailable("cannot ask systemd: the connection was lost")
        if reply.message_type is MessageType.ERROR:
            text = reply.body[0] if reply.body else reply.error_name
            raise Unavailable(f"cannot ask systemd: {member} failed: {text}")
        return list(unpack_variants(reply.body))


class _Bus(MessageBus):
    """dbus-fast's connection, which answers a call on a broken pipe in one way only."""

    def send(self, msg: Message) -> asyncio.Future[None]:  # type: ignore[override]
        # dbus-fast 5.2 marks the connection as ended and fails every call that waits, and then
        # raises once more from here: whoever sent would learn it twice, and what nobody fetched
        # from the futures would fill the log.
        if not msg.serial:
            msg.serial = self.next_serial()
        sent: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        sent.add_done_callback(lambda future: future.cancelled() or future.exception())
        if self._writer is not None:
            with contextlib.suppress(OSError, ValueError):
                self._writer.schedule_write(msg, sent)
        return sent


async def _disconnect(bus: MessageBus) -> None:
    """Close a connection, in whatever state it is, and wait until its socket is gone."""
    if bus.connected:
        bus.disconnect()
        with contextlib.suppress(Exception):
            await _wait_for_end(bus)


async def _wait_for_end(bus: MessageBus) -> None:
    await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]


def _match_rules(paths: Mapping[str, str]) -> frozenset[str]:
    """What must be told of these units (primary name -> object path), and of systemd itself."""
    manager = f"type='signal',sender='{_SYSTEMD}',path='{_MANAGER_PATH}',interface='{_MANAGER}'"
    changed = (
        f"type='signal',sender='{_SYSTEMD}',interface='{_PROPERTIES}',"
        f"member='PropertiesChanged',arg0='{_UNIT}'"
    )
    rules = {
        f"type='signal',sender='{_BUS}',path='{_BUS_PATH}',interface='{_BUS}',"
        f"member='NameOwnerChanged',arg0='{_SYSTEMD}'",
        f"{manager},member='Reloading'",
    }
    if len(paths) > _MOST_NARROW_UNITS:
        rules |= {f"{manager},member='JobNew'", f"{manager},member='JobRemoved'"}
        rules |= {f"{changed},path_namespace='/org/freedesktop/systemd1/unit'"}
        return frozenset(rules)
    for id, path in paths.items():
        rules |= {f"{manager},member='{member}',arg2='{id}'" for member in ("JobNew", "JobRemoved")}
        rules |= {f"{changed},path='{path}'"}
    return frozenset(rules)


def _monotonic() -> float:
    return asyncio.get_running_loop().time()


def _read_row(row: list[Any]) -> UnitRow:
    id, description, load, active, sub, _following, path, job, job_type, _job_path = row
    return UnitRow(
        id=id,
        description=description,
        load_state=load,
        active_state=active,
        sub_state=sub,
        path=path,
        job=Job(id=job, type=job_type) if job else None,
    )
