"""Redis, and what speaks as it does (Valkey), asked over one connection in its own protocol.

That takes a few lines over a connection that there is already. `redis-cli` would be a child for
each look and has to be there; a library would stay in memory for the sake of six commands.

The protocol: https://redis.io/docs/latest/develop/reference/protocol-spec/ (RESP2, which every
server speaks until it is asked for another one).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.errors import Unavailable
from agent.host import connection
from agent.host.connection import Connection, Ended, Failure, Peer
from agent.host.database import Trouble, Written
from agent.host.dialogue import Talk, show_bytes
from agent.host.url import mask_secrets

#: What is read and written: it goes by itself, and is the same each time.
PROBE = "hostmend:probe"
PROBE_SECONDS = 60
#: Bytes of all answers: INFO has some 6 KB, and a line for each database and each replica.
_LIMIT = 1024 * 1024
_MOST_ITEMS = 1000

_TROUBLES = {
    connection.Trouble.REFUSED: Trouble.REFUSED,
    connection.Trouble.MISSING: Trouble.REFUSED,
    connection.Trouble.RESET: Trouble.REFUSED,
    connection.Trouble.UNREACHABLE: Trouble.REFUSED,
    connection.Trouble.TIMEOUT: Trouble.TIMEOUT,
}
#: How an error begins (`redis/src/server.c`, createSharedObjects). One without an entry is one
#: where none should be.
_ERRORS = {
    "DENIED": Trouble.DENIED,
    "LOADING": Trouble.STARTING,
    "NOAUTH": Trouble.DENIED,
    "WRONGPASS": Trouble.DENIED,
}
_FULL = "max number of clients"
#: It has no password, and lets in whoever comes.
_NEEDS_NONE = "without any password configured"
#: Another node of its cluster has the key: this one answers all the same.
_ELSEWHERE = ("MOVED", "ASK")
#: Writes are refused until it can save again, and PING says so too; or for want of memory.
_STOPPED, _OUT_OF_MEMORY = "MISCONF", "OOM"


@dataclass(frozen=True, kw_only=True)
class Login:
    """Who asks."""

    #: Empty: the user `default`.
    user: str = ""
    #: Empty: nobody in particular.
    password: str = field(default="", repr=False)


@dataclass(frozen=True, kw_only=True)
class Loading:
    """A load of the data set that goes on."""

    seconds: float
    percent: float


@dataclass(kw_only=True)
class RedisAnswer:
    """What the server said, as far as it came."""

    #: It read, or answered that this user may not.
    read: bool = False
    #: Why it did not.
    trouble: Trouble | None = None
    why: str = ""
    #: It answers, and this user may not read the key: what he may not.
    limited: str = ""
    #: Everything that was asked came.
    complete: bool = False
    #: Its words where it takes no writes because it cannot save them; empty: it does.
    stopped: str = ""
    #: Its words where it takes no writes for want of memory.
    out_of_memory: str = ""
    #: `INFO`, by name; empty where it was not asked or this user may not have it.
    info: Mapping[str, str] = field(default_factory=dict)
    #: `CONFIG GET`, as far as this user may have it.
    settings: dict[str, str] = field(default_factory=dict)
    loading: Loading | None = None
    written: Written = Written.LEFT_OUT
    #: What the write was answered, where it failed or was left out.
    write_error: str = ""

    def number(self, name: str) -> float | None:
        """A value of INFO as a number."""
        try:
            return float(self.info.get(name, ""))
        except ValueError:
            return None


class _Refused(Exception):
    """The server answered with an error; it stays in this module."""

    def __init__(self, words: str) -> None:
        super().__init__(words)
        self.words = words
        #: `ERR`, `NOAUTH`, `MISCONF` ...
        self.code = words.partition(" ")[0]


Reply = str | int | list["Reply"] | None


async def ask_redis(
    peer: Peer,
    seconds: float,
    *,
    login: Login | None = None,
    deep: bool = False,
    write: bool = False,
) -> RedisAnswer:
    """Asks the server within so many seconds: whether it reads, with `deep` how it is, and with
    `write` whether it writes, unless it is a replica.

    `peer` has an address or a path. Raises Unavailable when this host itself cannot even try.
    """
    login = login or Login()
    answer = RedisAnswer()
    talked = Connection(peer, _resolve_nothing, seconds)

    async def work(opened: Connection) -> None:
        await opened.open()
        server = _Server(Talk(opened, _LIMIT))
        await _hold_talk(server, answer, login, deep=deep, write=write)

    result = await talked.run(work)
    if isinstance(result, Failure) and answer.trouble is None:
        _judge_failure(result, answer)
    answer.why = mask_secrets(answer.why, {login.password})
    answer.write_error = mask_secrets(answer.write_error, {login.password})
    return answer


def _judge_failure(failure: Failure, answer: RedisAnswer) -> None:
    """What was said before the conversation broke off counts."""
    if answer.read:
        if answer.written is Written.TIMEOUT:
            answer.write_error = failure.why
        return
    answer.trouble = _TROUBLES.get(failure.trouble, Trouble.ERROR)
    answer.why = failure.why


async def _hold_talk(
    server: _Server, answer: RedisAnswer, login: Login, *, deep: bool, write: bool
) -> None:
    """Fills the answer. Raises Ended."""
    try:
        await _log_in(server, login)
        await _read(server, answer)
    except _Refused as refused:
        found = _ERRORS.get(refused.code, Trouble.ERROR)
        answer.trouble = Trouble.FULL if _FULL in refused.words else found
        answer.why = refused.words
        if answer.trouble is Trouble.STARTING:
            answer.loading = await _read_loading(server)
        return
    answer.read = True
    if deep or write:
        # Whether it is a replica is known only from this.
        await _read_state(server, answer)
    if write:
        await _write(server, answer)
    answer.complete = True


async def _log_in(server: _Server, login: Login) -> None:
    if not login.password:
        return
    try:
        await server.ask("AUTH", *((login.user,) if login.user else ()), login.password)
    except _Refused as refused:
        if _NEEDS_NONE not in refused.words:
            raise


async def _read(server: _Server, answer: RedisAnswer) -> None:
    """A key is read, whether it is there or not: PING says nothing of that."""
    try:
        await server.ask("GET", PROBE)
    except _Refused as refused:
        if refused.code == "NOPERM" or refused.code in _ELSEWHERE:
            answer.limited = refused.words
        else:
            raise
    try:
        await server.ask("PING")
    except _Refused as refused:
        if refused.code == _STOPPED:
            answer.stopped = refused.words
        elif refused.code != "NOPERM":
            raise


async def _read_state(server: _Server, answer: RedisAnswer) -> None:
    try:
        answer.info = _read_info(await server.ask("INFO"))
    except _Refused as refused:
        answer.limited = answer.limited or refused.words
    for name in ("logfile", "dir", "maxclients"):
        try:
            found = await server.ask("CONFIG", "GET", name)
        except _Refused:
            # Whoever renamed or forbade it had reasons: what it would add is little.
            return
        if isinstance(found, list) and len(found) == 2:
            answer.settings[name] = str(found[1])


async def _read_loading(server: _Server) -> Loading | None:
    try:
        info = _read_info(await server.ask("INFO", "persistence"))
        began = float(info["loading_start_time"])
        percent = float(info.get("loading_loaded_perc", "0"))
    except (_Refused, KeyError, ValueError):
        return None
    return Loading(seconds=max(0.0, time.time() - began), percent=percent)


async def _write(server: _Server, answer: RedisAnswer) -> None:
    if answer.info.get("role") != "master":
        answer.write_error = (
            "it is a replica" if "role" in answer.info else "whether it is a replica cannot be told"
        )
        return
    answer.written = Written.TIMEOUT
    try:
        await server.ask("SET", PROBE, str(int(time.time())), "EX", str(PROBE_SECONDS))
    except _Refused as refused:
        # NOREPLICAS and whatever else there is.
        answer.written, answer.write_error = Written.FAILED, refused.words
        if refused.code == _STOPPED:
            answer.stopped = refused.words
        elif refused.code == _OUT_OF_MEMORY:
            answer.out_of_memory = refused.words
        elif refused.code in ("NOPERM", "READONLY", *_ELSEWHERE):
            answer.written = Written.LEFT_OUT
    else:
        answer.written = Written.DONE


def _read_info(reply: Reply) -> Mapping[str, str]:
    """`INFO`: lines of `name:value`, and comments."""
    pairs = {}
    for line in str(reply or "").splitlines():
        name, colon, value = line.partition(":")
        if colon and not name.startswith("#"):
            pairs[name] = value
    return pairs


class _Server:
    """The other side: a command, and what it answers."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk

    async def ask(self, *words: str) -> Reply:
        """Raises _Refused where the server answers with an error, and Ended."""
        parts = [word.encode() for word in words]
        sent = b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)
        self._talk.say(b"*%d\r\n%b" % (len(parts), sent))
        return await self._hear(depth=0)

    async def _hear(self, depth: int) -> Reply:
        line = await self._talk.hear_line()
        kind, rest = line[:1], line[1:]
        match kind:
            case b"+":
                return rest.decode(errors="replace")
            case b"-":
                raise _Refused(rest.decode(errors="replace"))
            case b":":
                return _read_number(rest, line)
            case b"$":
                if (size := _read_number(rest, line)) < 0:
                    return None
                data = await self._talk.hear_bytes(size + 2)
                return data[:-2].decode(errors="replace")
            case b"*" if depth == 0 and (count := _read_number(rest, line)) <= _MOST_ITEMS:
                return [await self._hear(depth=1) for _ in range(count)]
        raise _not_redis(line)


def _read_number(text: bytes, line: bytes) -> int:
    try:
        number = int(text)
    except ValueError:
        raise _not_redis(line) from None
    if number > _LIMIT:
        raise _not_redis(line)
    return number


def _not_redis(line: bytes) -> Ended:
    return Ended(
        connection.Trouble.INVALID, f"what answers does not speak as Redis does: {show_bytes(line)}"
    )


async def _resolve_nothing(name: str) -> tuple[str, ...]:
    raise Unavailable(f"cannot resolve {name}: Redis is asked at an address")
