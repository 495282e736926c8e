"""Servers that answer exactly what a test wants, byte by byte, and certificates for them."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from agent.checks.http import HttpOptions, gather, look
from agent.clock import Clock
from agent.core.model import Evidence, Finding
from agent.errors import Unavailable
from agent.host.http import HttpClient
from agent.host.machine import Machine

Speak = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Served:
    """A server, what it was asked, and by which TLS name."""

    port: int
    asked: list[bytes] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., Awaitable[Served]]]:
    """Serves bytes, or whatever a coroutine does with each connection, on loopback."""
    servers: list[asyncio.Server] = []
    tasks: set[asyncio.Task[Any]] = set()

    async def serve(
        answer: bytes | Speak | Callable[[bytes], bytes],
        *,
        tls: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
    ) -> Served:
        served = Served(port=0)

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            try:
                # Only the end of the test cancels it.
                with contextlib.suppress(
                    OSError, asyncio.IncompleteReadError, asyncio.CancelledError
                ):
                    head = await reader.readuntil(b"\r\n\r\n")
                    served.asked.append(head)
                    if isinstance(answer, bytes):
                        writer.write(answer)
                    elif asyncio.iscoroutinefunction(answer):
                        await answer(reader, writer)
                    else:
                        writer.write(answer(head))
                    await writer.drain()
            finally:
                tasks.discard(task)
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()

        if tls is not None:
            tls.sni_callback = lambda _object, name, _context: served.names.append(name)
        server = await asyncio.start_server(talk, host, 0, ssl=tls)
        servers.append(server)
        served.port = server.sockets[0].getsockname()[1]
        return served

    yield serve
    for server in servers:
        server.close()
    for task in tuple(tasks):
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for server in servers:
        await server.wait_closed()


async def resolve_nothing(name: str) -> tuple[str, ...]:
    raise Unavailable(f"cannot resolve {name}: nobody knows it")


def complete(**fields: Any) -> HttpOptions:
    return HttpOptions(type="http", **{"timeout": "5s", **fields})


@pytest.fixture
def look_at() -> Callable[..., Awaitable[Finding]]:
    """One look with these options."""

    async def look_at(resolve: Any = resolve_nothing, **fields: Any) -> Finding:
        machine = Machine(clock=Clock(), http=HttpClient(resolve))
        (finding,) = await look(complete(**fields), machine)
        return finding

    return look_at


@pytest.fixture
def gather_of() -> Callable[..., Awaitable[tuple[Evidence, ...]]]:
    """The evidence with these options."""

    async def gather_of(resolve: Any = resolve_nothing, **fields: Any) -> tuple[Evidence, ...]:
        machine = Machine(clock=Clock(), http=HttpClient(resolve))
        options = complete(**fields)
        (finding,) = await look(options, machine)
        return await gather(options, finding, machine)

    return gather_of


@dataclass
class Authority:
    """An authority of these tests' own, which signs whatever it is told to."""

    directory: Path
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate
    file: Path
    count: int = 0

    def sign(
        self, name: str, *, begins: float = -1.0, ends: float = 30.0, self_signed: bool = False
    ) -> x509.Certificate:
        """A certificate, its days counted from now; its key lies beside it."""
        return self._write(name, begins, ends, self_signed)[0]

    def serve_as(self, name: str, **days: Any) -> ssl.SSLContext:
        """A server's context with a certificate for this name."""
        _, file = self._write(
            name, days.get("begins", -1.0), days.get("ends", 30.0), days.get("self_signed", False)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context

    def _write(
        self, name: str, begins: float, ends: float, self_signed: bool
    ) -> tuple[x509.Certificate, Path]:
        self.count += 1
        key = ec.generate_private_key(ec.SECP256R1())
        subject = make_name(name)
        issuer = subject if self_signed else self.certificate.subject
        alternative: x509.GeneralName
        try:
            alternative = x509.IPAddress(ipaddress.ip_address(name))
        except ValueError:
            alternative = x509.DNSName(name)
        made = (
            start(subject, issuer, key, begins, ends)
            .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
            .sign(key if self_signed else self.key, hashes.SHA256())
        )
        file = self.directory / f"{self.count}.pem"
        chain = [made] if self_signed else [made, self.certificate]
        pem = b"".join(item.public_bytes(serialization.Encoding.PEM) for item in chain)
        file.write_bytes(pem + write_key(key))
        return made, file


def make_name(text: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "CH"),
            x509.NameAttribute(NameOID.COMMON_NAME, text),
        ]
    )


def start(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    begins: float,
    ends: float,
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + datetime.timedelta(days=begins))
        .not_valid_after(now + datetime.timedelta(days=ends))
    )


def write_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    directory = tmp_path_factory.mktemp("authority")
    key = ec.generate_private_key(ec.SECP256R1())
    name = make_name("Authority of the tests")
    certificate = (
        start(name, name, key, -100.0, 100.0)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = directory / "authority.pem"
    file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return Authority(directory=directory, key=key, certificate=certificate, file=file)
