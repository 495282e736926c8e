"""The server: sockets, signals, drain. One uvicorn server answers on all sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import Any, Protocol

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from agent.agent import AgentFacade
from agent.errors import HostmendError, Unavailable
from api.addresses import is_loopback
from api.app import create_app
from api.auth import PEER, Peer, TcpPeer
from api.limits import Rates
from api.problems import MEDIA_TYPE
from api.sockets import TcpListener, open_tcp_socket, open_unix_socket, read_unix_peer
from api.tls import Certificate
from api.trail import record

log = logging.getLogger(__name__)
#: For what strangers send: they must not be able to fill the log.
_unheard = logging.getLogger(f"{__name__}.network")
_unheard.setLevel(logging.ERROR)

#: How long requests that are being answered may still take when everything else is done.
GRACE_SECONDS = 3
#: How long a client on the network may take to encrypt, and to send one request.
REQUEST_SECONDS = 15.0


class Places(Protocol):
    """What of `agent.settings.Settings` a server needs."""

    @property
    def socket_path(self) -> Path: ...
    @property
    def listen(self) -> tuple[str, int]: ...
    @property
    def tls_cert(self) -> Path | None: ...
    @property
    def tls_key(self) -> Path | None: ...
    @property
    def allow_plain(self) -> bool: ...


@dataclass(frozen=True, kw_only=True)
class Listening:
    """Where the agent answers."""

    socket: Path
    #: Host and port; None: not over TCP, `problem` says why.
    http: tuple[str, int] | None
    tls: bool = False
    problem: str = ""


async def serve(
    agent: AgentFacade,
    settings: Places,
    *,
    ready: Callable[[Listening], None],
    drain: Callable[[], Awaitable[None]],
    socket_group: str | None = None,
    version: str = "",
    rates: Rates | None = None,
) -> None:
    """Answers until SIGTERM or SIGINT, and returns after everything was drained.

    `ready` is called once requests are answered. `drain` is awaited while they still are, so that
    people can see what is being waited for; a second signal ends the waiting. SIGHUP reloads the
    configuration. Only the main thread may call this. Raises Unavailable when the UNIX socket
    cannot be had; a taken TCP port does not keep an agent from its work.
    """
    signals = _Signals()
    with signals.owned(on_reload=lambda: _reload(agent)):
        unix = open_unix_socket(settings.socket_path, group=socket_group)
        try:
            tcp, certificate, problem = _try_tcp(settings)
            app = create_app(agent, version=version, rates=rates)
            server = _Server(
                uvicorn.Config(
                    app,
                    http=_Connection,
                    ws="none",
                    lifespan="off",
                    log_config=None,
                    access_log=False,
                    proxy_headers=False,
                    server_header=False,
                    timeout_graceful_shutdown=GRACE_SECONDS,
                ),
                tcp=tcp,
                certificate=certificate,
            )
            listening = Listening(
                socket=settings.socket_path,
                http=tcp.getsockname()[:2] if tcp else None,
                tls=certificate is not None,
                problem=problem,
            )
            await _answer(
                server,
                unix.socket,
                signals,
                app.state.stopping,
                ready=lambda: ready(listening),
                drain=drain,
            )
        finally:
            unix.remove()
            unix.socket.close()


def _try_tcp(settings: Places) -> tuple[TcpListener | None, Certificate | None, str]:
    """The listener and its certificate, or why there is none: repairing does not depend on it."""
    try:
        certificate = _find_certificate(settings)
        return open_tcp_socket(settings.listen), certificate, ""
    except Unavailable as error:
        log.error("%s; the agent goes on without HTTP over TCP", error)
        return None, None, str(error)


def _find_certificate(settings: Places) -> Certificate | None:
    if settings.tls_cert is not None and settings.tls_key is not None:
        return Certificate(settings.tls_cert, settings.tls_key)
    host, port = settings.listen
    if not (is_loopback(host) or settings.allow_plain):
        raise Unavailable(
            f"cannot listen on {host} port {port} without TLS: everybody on the way could read the "
            "tokens; set HOSTMEND_TLS_CERT and HOSTMEND_TLS_KEY, or HOSTMEND_ALLOW_PLAIN=1 where "
            "something else encrypts"
        )
    return None


async def _answer(
    server: _Server,
    unix: socket.socket,
    signals: _Signals,
    stopping: asyncio.Event,
    *,
    ready: Callable[[], None],
    drain: Callable[[], Awaitable[None]],
) -> None:
    serving = asyncio.create_task(server.serve(sockets=[unix]))
    stopped = asyncio.create_task(signals.stop.wait())
    try:
        await server.until_started(serving)
        if not stopped.done():
            ready()
            await asyncio.wait((serving, stopped), return_when=asyncio.FIRST_COMPLETED)
        # Streams end now: a dashboard that is left open is not waited for.
        stopping.set()
        await _drain(drain, signals)
    finally:
        stopped.cancel()
        stopping.set()
        server.stop()
        await serving


async def _drain(drain: Callable[[], Awaitable[None]], signals: _Signals) -> None:
    draining = asyncio.ensure_future(drain())
    hurried = asyncio.create_task(signals.hurry.wait())
    await asyncio.wait((draining, hurried), return_when=asyncio.FIRST_COMPLETED)
    hurried.cancel()
    if not draining.done():
        log.warning("a second signal: the agent stops without waiting any longer")
        draining.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await draining


async def _reload(agent: AgentFacade) -> None:
    try:
        await record(agent, lambda: agent.reload(by="SIGHUP"), by="SIGHUP", what="reload_config")
    except HostmendError as error:
        log.error("cannot reload the configuration, the running one stays: %s", error)


class _Signals:
    """SIGTERM and SIGINT, SIGHUP."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        #: A second signal to stop.
        self.hurry = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.contextmanager
    def owned(self, *, on_reload: Callable[[], Coroutine[Any, Any, None]]) -> Iterator[None]:
        loop = asyncio.get_running_loop()

        def reload() -> None:
            task = loop.create_task(on_reload())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        handlers = {
            signal.SIGTERM: self._stop,
            signal.SIGINT: self._stop,
            signal.SIGHUP: reload,
        }
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
        try:
            yield
        finally:
            for number in handlers:
                loop.remove_signal_handler(number)

    def _stop(self) -> None:
        if self.stop.is_set():
            self.hurry.set()
        self.stop.set()


class _Server(uvicorn.Server):
    """uvicorn's server, without its signals and without its wake-ups."""

    def __init__(
        self, config: uvicorn.Config, *, tcp: TcpListener | None, certificate: Certificate | None
    ) -> None:
        super().__init__(config)
        self._tcp = tcp
        self._certificate = certificate
        self._stop = asyncio.Event()
        self._started = asyncio.Event()

    def stop(self) -> None:
        self.should_exit = True
        self._stop.set()

    async def until_started(self, serving: asyncio.Task[None]) -> None:
        """Returns once requests are answered. Raises what kept it from that."""
        started = asyncio.create_task(self._started.wait())
        await asyncio.wait((started, serving), return_when=asyncio.FIRST_COMPLETED)
        started.cancel()
        if serving.done():
            await serving

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listens on TCP by itself: uvicorn would encrypt all sockets or none."""
        await super().startup(sockets)
        if self._tcp is None:
            return
        tls: dict[str, Any] = {}
        if self._certificate is not None:
            tls = {
                "ssl": self._certificate.context,
                "ssl_handshake_timeout": REQUEST_SECONDS,
                "ssl_shutdown_timeout": GRACE_SECONDS,
            }
        loop = asyncio.get_running_loop()
        self.servers.append(await loop.create_server(self._make_connection, sock=self._tcp, **tls))

    def _make_connection(self) -> asyncio.Protocol:
        return _Connection(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn raises each signal again after it served, which would end the process there.
        yield

    async def main_loop(self) -> None:
        """Waits for the end; what uvicorn does each second, a connection does when it is used."""
        self._started.set()
        await self._stop.wait()


class _Connection(H11Protocol):
    """A connection that tells the application who is at its other end.

    `scope["state"]` is copied from `app_state`, which nothing in a request can reach. Whoever comes
    over the network has a limited time for each request: uvicorn only ends a connection on which
    nothing at all is said, and that only after the first answer.
    """

    _is_limited = False
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        peer = _find_peer(transport)
        self._is_limited = isinstance(peer, TcpPeer)
        if self._is_limited:
            self.logger = _unheard
        self.app_state = {**self.app_state, PEER: peer}
        self._watch_request()

    def handle_events(self) -> None:
        date = (b"date", formatdate(usegmt=True).encode())
        self.server_state.default_headers = [date, *self.config.encoded_headers]
        super().handle_events()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch_request()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch_request()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unset_deadline()
        super().connection_lost(exc)

    def _watch_request(self) -> None:
        """The time for a request runs from when one may come until all of it has come; a byte now
        and then does not lengthen it."""
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._unset_deadline()
        elif self._is_limited and self._deadline is None and not self.transport.is_closing():
            self._deadline = self.loop.call_later(REQUEST_SECONDS, self.transport.abort)

    def _unset_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def send_400_response(self, msg: str) -> None:
        """What is not HTTP gets a problem too."""
        problem = {
            "type": "about:blank",
            "title": "Bad Request",
            "status": 400,
            "detail": f"cannot read the request: {msg}",
        }
        headers = [("content-type", MEDIA_TYPE), ("connection", "close")]
        for event in (
            h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
            h11.Data(data=json.dumps(problem).encode()),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


def _find_peer(transport: asyncio.Transport) -> Peer:
    connection = transport.get_extra_info("socket")
    if connection.family == socket.AF_UNIX:
        return read_unix_peer(connection)
    address = transport.get_extra_info("peername") or ("",)
    return TcpPeer(address=str(address[0]))
