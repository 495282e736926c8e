"""Real servers on loopback that messages are sent to."""

from __future__ import annotations

import email
import email.policy
import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from ports import hold_port

from agent.notify.client import deliver
from agent.notify.delivery import Delivery, DeliveryResult


@dataclass
class Mailbox:
    """An aiosmtpd handler that keeps mails, and refuses those whom it is told to."""

    mails: list[EmailMessage] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address in self.unknown:
            return "550 5.1.1 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        self.mails.append(mail)
        return "250 OK"


@pytest.fixture
def free_port() -> int:
    """Refuses connections until `start_smtp`."""
    return hold_port()


@pytest.fixture
def start_smtp(free_port: int) -> Iterator[Callable[..., Mailbox]]:
    """Start a mail server on `free_port`; with `reply`, it refuses every login with that."""
    controllers: list[Controller] = []

    def start(reply: str = "") -> Mailbox:
        def refuse(
            server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: LoginPassword
        ) -> AuthResult:
            return AuthResult(success=False, handled=False, message=reply)

        mailbox = Mailbox()
        options = {"authenticator": refuse, "auth_require_tls": False} if reply else {}
        controller = Controller(mailbox, hostname="127.0.0.1", port=free_port, **options)
        controller.start()
        controllers.append(controller)
        return mailbox

    yield start
    for controller in controllers:
        controller.stop()


@dataclass
class Webhook:
    """A real HTTP server; `statuses` are answered one after the other, then 200."""

    port: int
    requests: list[tuple[Mapping[str, str], Any]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"json://127.0.0.1:{self.port}/hook"


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            hook.requests.append((dict(self.headers), json.loads(content)))
            self.send_response(hook.statuses.pop(0) if hook.statuses else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hook = Webhook(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield hook
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port whose server accepts connections and never says a word."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        yield listening.getsockname()[1]


@pytest.fixture
def send() -> Callable[..., Any]:
    """Deliver, and return the results in their order of arrival."""

    async def send(*batch: Delivery, timeout: float = 60, limit: float = 20) -> list[Any]:
        results: list[DeliveryResult] = []

        async def keep(result: DeliveryResult) -> None:
            results.append(result)

        await deliver(batch, timeout=timeout, limit=limit, on_result=keep)
        return results

    return send
