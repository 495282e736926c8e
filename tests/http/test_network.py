"""The way in over the network: certificates and their renewal, slow clients and too many."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import pytest
from fake_agent import FakeAgent
from fake_server import Places
from serving import Web, serve_web

from agent.agent import Role
from agent.errors import HostmendError, Invalid, Unavailable
from api.addresses import is_loopback, name_client
from api.client import Client, Unreachable, read_remote
from api.server import Listening, serve
from api.sockets import TcpListener
from api.tls import Certificate

#: Only against hanging.
LONG = 60.0


def make_certificate(directory: Path, name: str, *, password: str = "") -> tuple[Path, Path]:
    """A certificate that signs itself, for localhost and 127.0.0.1."""
    cert, key = directory / f"{name}.pem", directory / f"{name}.key"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-subj", f"/CN={name}", "-days", "2", "-keyout", key, "-out", cert),
            *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
            *(("-passout", f"pass:{password}") if password else ("-nodes",)),
        ],
        check=True,
        capture_output=True,
    )
    key.chmod(0o600)
    return cert, key


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    directory = tmp_path_factory.mktemp("made")
    return {name: make_certificate(directory, name) for name in ("first", "second")}


class Files:
    """Where the agent looks for its certificate."""

    def __init__(self, directory: Path) -> None:
        self.cert, self.key = directory / "cert.pem", directory / "key.pem"

    def put(self, target: Path, source: Path) -> None:
        """As certbot and others do it: a file takes the place of the one before."""
        fresh = target.with_suffix(".new")
        fresh.write_bytes(source.read_bytes())
        fresh.chmod(0o600)
        fresh.replace(target)

    def put_both(self, pair: tuple[Path, Path]) -> None:
        self.put(self.cert, pair[0])
        self.put(self.key, pair[1])


@pytest.fixture
def files(tmp_path: Path, made) -> Files:
    files = Files(tmp_path)
    files.put_both(made["first"])
    return files


@pytest.fixture
async def secure(tmp_path: Path, agent: FakeAgent, files: Files) -> AsyncIterator[Web]:
    places = {"tls_cert": files.cert, "tls_key": files.key}
    async with serve_web(tmp_path / "hostmend.sock", agent, **places) as web:
        yield web


async def find_certificate(web: Web) -> str:
    """Whose certificate the next connection is shown."""
    port = web.tcp.base_url.port
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return ssl.DER_cert_to_PEM_cert(shown)


def as_pem(pair: tuple[Path, Path]) -> str:
    return pair[0].read_text()


async def test_a_renewed_certificate_serves_the_next_connection(secure, files, made) -> None:
    async with asyncio.timeout(LONG):
        assert await find_certificate(secure) == as_pem(made["first"])
        files.put_both(made["second"])
        assert await find_certificate(secure) == as_pem(made["second"])
        files.put_both(made["first"])
        assert await find_certificate(secure) == as_pem(made["first"])
        assert (await secure.tcp.get("/healthz")).status_code == 200
        assert (await secure.unix.get("/v1/status")).status_code == 200


async def test_half_a_renewal_changes_nothing_until_it_is_whole(
    secure, files, made, caplog
) -> None:
    async with asyncio.timeout(LONG):
        files.put(files.cert, made["second"][0])
        for _ in range(3):
            assert await find_certificate(secure) == as_pem(made["first"])
        said = [m for m in caplog.messages if "the certificate from before stays" in m]
        assert len(said) == 1
        files.put(files.key, made["second"][1])
        assert await find_certificate(secure) == as_pem(made["second"])
        files.key.unlink()
        assert await find_certificate(secure) == as_pem(made["second"])


async def test_an_open_connection_survives_the_renewal(secure, files, made) -> None:
    new = await secure.agent.create_token("me", role=Role.VIEWER, by="tester")
    headers = {"Authorization": f"Bearer {new.secret}"}
    async with (
        asyncio.timeout(LONG),
        secure.tcp.stream("GET", "/v1/events", headers=headers) as stream,
    ):
        lines = stream.aiter_lines()
        await anext(lines)
        files.put_both(made["second"])
        assert await find_certificate(secure) == as_pem(made["second"])
        reader = asyncio.create_task(anext(lines))
        while not reader.done():
            await secure.agent.happen("look", number=1)
            await asyncio.sleep(0.01)
        await reader


async def test_plain_http_is_not_spoken_where_tls_is(secure) -> None:
    port = secure.tcp.base_url.port
    async with asyncio.timeout(LONG), httpx.AsyncClient(trust_env=False, verify=False) as client:
        with pytest.raises(httpx.TransportError):
            await client.get(f"http://127.0.0.1:{port}/healthz")


def ask(url: str, token_file: Path, ca_file: Path | None) -> object:
    with Client(read_remote(url, token_file, ca_file)) as client:
        return client.get("/v1/status")["host"]


async def test_a_client_believes_the_certificate_that_it_was_given_and_no_other(
    secure, files, made, tmp_path
) -> None:
    new = await secure.agent.create_token("me", role=Role.VIEWER, by="tester")
    token_file = tmp_path / "token"
    token_file.write_text(new.secret)
    token_file.chmod(0o600)
    url = f"https://localhost:{secure.tcp.base_url.port}"
    async with asyncio.timeout(LONG):
        assert await asyncio.to_thread(ask, url, token_file, made["first"][0]) == "web1"
        for wrong in (made["second"][0], None):
            with pytest.raises(Unreachable, match="cannot trust the agent at https://localhost"):
                await asyncio.to_thread(ask, url, token_file, wrong)
        # Nobody asked with the token before the certificate was believed.
        assert len([o for o in secure.agent.orders if o[1] != "tester"]) == 0
    with pytest.raises(Invalid, match="cannot use the certificates in"):
        read_remote(url, token_file, token_file)


def test_a_certificate_that_cannot_be_used_is_refused(tmp_path: Path, made) -> None:
    cert, key = made["first"]
    locked = make_certificate(tmp_path, "locked", password="geheim")
    opened = tmp_path / "open.key"
    opened.write_bytes(key.read_bytes())
    opened.chmod(0o644)
    for pair, said in (
        ((cert, made["second"][1]), "belong together"),
        ((tmp_path / "none.pem", key), "cannot read"),
        ((cert, tmp_path / "none.key"), "cannot read"),
        ((key, key), "belong together"),
        (locked, "have no password"),
        ((cert, opened), "lets others in; run chmod 0640"),
    ):
        with pytest.raises(Unavailable, match=said):
            Certificate(*pair)


async def start(agent: FakeAgent, places: Places) -> Listening:
    answering: asyncio.Future[Listening] = asyncio.get_running_loop().create_future()

    async def drain() -> None:
        pass

    serving = asyncio.create_task(serve(agent, places, ready=answering.set_result, drain=drain))
    async with asyncio.timeout(LONG):
        listening = await answering
    serving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serving
    return listening


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "127.0.0.1"])
async def test_without_tls_nothing_leaves_this_host_unless_it_is_allowed(
    tmp_path: Path, agent: FakeAgent, host: str
) -> None:
    listening = await start(agent, Places(tmp_path / "s.sock", (host, 0)))
    if host == "127.0.0.1":
        assert (listening.http is not None, listening.problem) == (True, "")
        return
    assert listening.http is None
    assert "set HOSTMEND_TLS_CERT and HOSTMEND_TLS_KEY" in listening.problem
    allowed = await start(agent, Places(tmp_path / "s.sock", (host, 0), allow_plain=True))
    assert allowed.http is not None


async def test_a_broken_certificate_does_not_keep_the_agent_from_its_work(
    tmp_path: Path, agent: FakeAgent
) -> None:
    none = tmp_path / "none.pem"
    listening = await start(agent, Places(tmp_path / "s.sock", tls_cert=none, tls_key=none))
    assert listening.http is None
    assert "No such file" in listening.problem


# Slow clients, and too many


@pytest.fixture
def hurried() -> Iterator[pytest.MonkeyPatch]:
    """Little time for each request, until it is undone."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("api.server.REQUEST_SECONDS", 0.4)
        yield patched


SLOW: dict[str, Callable[[int], bytes]] = {
    "nothing": lambda number: b"",
    "headers": lambda number: b"GET /healthz HTTP/1.1\r\n" if number == 0 else b"X: y\r\n",
    "a body": lambda number: (
        b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\n"
        if number == 0
        else b"x"
    ),
    "a second request": lambda number: (
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" if number == 0 else b"G"
    ),
}


@pytest.mark.parametrize("kind", SLOW)
async def test_a_client_that_sends_slowly_is_cut_off(web, kind, caplog, hurried) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", web.tcp.base_url.port)
    number = 0
    async with asyncio.timeout(LONG):
        with contextlib.suppress(ConnectionError):
            while not reader.at_eof():
                writer.write(SLOW[kind](number))
                await writer.drain()
                number += 1
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(1000), 0.02)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        # On a machine that has much else to do this client may be slow as well.
        hurried.undo()
        assert (await web.tcp.get("/healthz")).status_code == 200
    assert not [r for r in caplog.records if r.levelname == "ERROR"]


@pytest.mark.usefixtures("hurried")
async def test_a_long_answer_is_not_cut_off(web) -> None:
    new = await web.agent.create_token("me", role=Role.VIEWER, by="tester")
    headers = {"Authorization": f"Bearer {new.secret}"}
    async with (
        asyncio.timeout(LONG),
        web.tcp.stream("GET", "/v1/events", headers=headers) as stream,
    ):
        lines = stream.aiter_lines()
        await anext(lines)
        await asyncio.sleep(1.0)
        reader = asyncio.create_task(anext(lines))
        while not reader.done():
            await web.agent.happen("look", number=1)
            await asyncio.sleep(0.01)
        await reader


@pytest.mark.usefixtures("hurried")
async def test_a_client_that_never_encrypts_is_cut_off(secure) -> None:
    async with asyncio.timeout(LONG):
        reader, writer = await asyncio.open_connection("127.0.0.1", secure.tcp.base_url.port)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()


def test_connections_beyond_the_limits_are_closed_at_once_and_others_taken_later() -> None:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(TcpListener(socket.AF_INET, at_most=3, each=2))
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        listener.setblocking(False)
        where = listener.getsockname()

        def connect(source: str) -> socket.socket:
            return stack.enter_context(
                socket.create_connection(where, LONG, source_address=(source, 0))
            )

        first, second = connect("127.0.0.1"), connect("127.0.0.1")
        taken = [stack.enter_context(listener.accept()[0]) for _ in range(2)]
        third = connect("127.0.0.1")
        other = connect("127.0.0.2")
        taken.append(stack.enter_context(listener.accept()[0]))
        assert taken[2].getpeername() == other.getsockname()
        assert third.recv(1) == b""
        late = connect("127.0.0.3")
        with pytest.raises(BlockingIOError):
            listener.accept()
        assert late.recv(1) == b""
        taken[0].close()
        taken[0].close()
        again = connect("127.0.0.1")
        assert stack.enter_context(listener.accept()[0]).getpeername() == again.getsockname()
        assert (first.fileno() >= 0, second.fileno() >= 0) == (True, True)


async def test_a_flood_of_connections_leaves_the_unix_socket_alone(web) -> None:
    flood = []
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    try:
        for _ in range(250):
            flood.append(socket.create_connection(("127.0.0.1", web.tcp.base_url.port), LONG))
            await asyncio.sleep(0)
        assert (await web.unix.get("/v1/status")).status_code == 200
        # Ours, and those of them that were taken.
        assert len(os.listdir("/proc/self/fd")) <= before + 250 + 110  # noqa: PTH208
    finally:
        for one in flood:
            one.close()
    async with asyncio.timeout(LONG):
        while True:
            try:
                assert (await web.tcp.get("/healthz")).status_code == 200
            except httpx.TransportError:
                continue
            break


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_who_is_one_client(address: str, client: str) -> None:
    assert name_client(address) == client


def test_what_stays_on_this_host() -> None:
    for host in ("127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost"):
        assert is_loopback(host), host
    for host in ("0.0.0.0", "::", "192.0.2.1", "localhost.example", "web1", ""):
        assert not is_loopback(host), host


def test_an_answer_of_something_else_is_an_error_with_a_sentence() -> None:
    from api.client import Client

    client = Client(Path("/nowhere.sock"))
    with pytest.raises(HostmendError, match="it is no JSON; is that an agent"):
        client._read_json(httpx.Response(200, text="<html>"))
    client._http.close()
