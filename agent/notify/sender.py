"""Sends messages: a short-lived process, and the only module that imports apprise.

Apprise costs 25 MB of memory and blocks while it talks to servers, so it lives in a child that
takes one batch and ends: `python -P -m agent.notify.sender`.

One line of JSON comes in on stdin (`delivery.Batch`), and one goes out on stdout for each delivery
as soon as its result is known (`delivery.DeliveryResult`). End-of-file on stdin means that the
agent is gone: the process ends at once. With `--check` nothing is sent: each result says whether
the delivery's URL can be used.

Each route has a thread, and each service of it gets a thread of its own per delivery that is left
behind when its time is over, so that one server's silence delays no other route.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
import smtplib
import sys
import threading
from collections.abc import Callable, Container, Iterable, Mapping
from concurrent.futures import Future, wait
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import apprise

from agent.core.model import Status
from agent.errors import ConfigError, Unavailable
from agent.notify.delivery import (
    Batch,
    Delivery,
    DeliveryResult,
    decode_batch,
    encode_result,
)
from agent.notify.masking import MAIL_SCHEMES, describe_url, mask_url_parts
from agent.notify.url_file import read_url_file

#: Characters of an error that are worth keeping.
ERROR_LENGTH = 500

SEVERITIES: Mapping[str, apprise.NotifyType] = {
    Status.OK: apprise.NotifyType.SUCCESS,
    Status.WARNING: apprise.NotifyType.WARNING,
    Status.CRITICAL: apprise.NotifyType.FAILURE,
    Status.UNKNOWN: apprise.NotifyType.WARNING,
}

#: Whether another attempt may do better, for each way in which Apprise may fail.
RETRY: Mapping[apprise.AppriseResultStatus, bool] = {
    apprise.AppriseResultStatus.FAILURE: True,
    apprise.AppriseResultStatus.TIMEOUT: True,
    apprise.AppriseResultStatus.PARTIAL: True,
    apprise.AppriseResultStatus.NOMATCH: False,
}


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """What one service did with one delivery."""

    ok: bool
    retry: bool = False
    error: str = ""


@dataclass(kw_only=True)
class _Mail:
    """What the mail plugin does not tell: kept while one delivery goes through it."""

    message_id: str
    accepted: int = 0
    reasons: list[str] = field(default_factory=list)


_mail: ContextVar[_Mail | None] = ContextVar("_mail", default=None)


# Where a route leads


def _urls_of(delivery: Delivery) -> list[str]:
    if delivery.url is not None and delivery.url_file is None:
        return [delivery.url.strip()]
    if delivery.url_file is not None and delivery.url is None:
        return read_url_file(delivery.url_file)
    raise ConfigError(f"cannot use route {delivery.route}: give it either url or url_file")


def _open_service(url: str) -> apprise.NotifyBase:
    """The one service of a URL. Raises ConfigError."""
    shown = describe_url(url)
    # `Apprise.add()` would split these and go on with what it understands.
    if re.search(r"[\s,;][A-Za-z0-9]{1,32}://", url):
        raise ConfigError(
            f"cannot use {shown}: it holds more than one URL; "
            "write them in a url_file, one a line, or make a route for each"
        )
    scheme = url.partition("://")[0].strip().lower()
    if "://" not in url or scheme not in _schemes():
        raise ConfigError(
            f"cannot use {shown}: Apprise knows no such service; "
            "its services are listed at https://appriseit.com/services/"
        )
    try:
        service = apprise.Apprise.instantiate(url, asset=_asset(), suppress_exceptions=False)
    except Exception as error:
        why = mask_url_parts(str(error), url)[:ERROR_LENGTH]
        raise ConfigError(f"cannot use {shown}: {why}") from None
    if service is None:
        raise ConfigError(
            f"cannot use {shown}: it is not a complete {scheme}:// URL (special characters in a "
            "password are written as %40 and the like), or a library that it needs is missing"
        )
    if service.overflow_mode is apprise.OverflowMode.UPSTREAM and "overflow=" not in url:
        # Apprise's default sends what the server then refuses, every time. What matters most
        # stands first, so a cut message is the better one.
        service.overflow_mode = apprise.OverflowMode.TRUNCATE
    if scheme in MAIL_SCHEMES:
        # 5.5 s between two mails is for chat services' limits; SMTP servers have none of the kind.
        service.request_rate_per_sec = 0
    return service


def _schemes() -> Container[str]:
    manager: Container[str] = apprise.NotificationManager()  # type: ignore[no-untyped-call]
    return manager


def _asset() -> apprise.AppriseAsset:
    return apprise.AppriseAsset(
        app_id="hostmend",
        app_desc="hostmend",
        storage_mode=apprise.PersistentStoreMode.MEMORY,
        # Zero: Apprise then works in the calling thread. Its own pool is small and shared, and
        # a few silent servers would fill it.
        service_timeout=0,
        interpret_emojis=False,
    )


# One delivery to one service


def _note_reason(error: Exception) -> None:
    mail = _mail.get()
    if mail is None:
        return
    match error:
        case smtplib.SMTPResponseException():
            mail.reasons.append(f"{error.smtp_code} {_text_of(error.smtp_error)}")
        case smtplib.SMTPRecipientsRefused():
            mail.reasons += _refusals(error.recipients)
        case UnicodeEncodeError():
            # Its own text holds the character, and so a part of the password.
            mail.reasons.append("smtplib takes only ASCII in a user name and a password")
        case _:
            mail.reasons.append(str(error) or type(error).__name__)


def _refusals(refused: Mapping[str, tuple[int, bytes]]) -> list[str]:
    return [
        f"{address} was refused: {code} {_text_of(reply)}"
        for address, (code, reply) in refused.items()
    ]


def _text_of(reply: bytes | str) -> str:
    return reply.decode("utf-8", "replace") if isinstance(reply, bytes) else reply


def teach_mail_plugin() -> None:
    """Give Apprise's mail plugin a stable Message-ID and a voice.

    It takes further headers, but adds a random Message-ID of its own in any case, and servers
    refuse a mail with two; and it only debug-logs why a mail failed. So two names that it looks up
    are replaced, in this process only. A version that has them no longer sends as it likes, and
    the X-Hostmend-Message-ID stays.
    """
    try:
        plugin: Any = importlib.import_module("apprise.plugins.email.base")
        make_msgid, controller = plugin.make_msgid, plugin.AppriseSMTPController
    except (ImportError, AttributeError):
        return

    def make_stable_msgid(idstring: str | None = None, domain: str | None = None) -> str:
        mail = _mail.get()
        if mail is None:
            return str(make_msgid(idstring, domain))
        return f"<{mail.message_id}@{domain or 'hostmend.invalid'}>"

    class TellingController(controller):  # type: ignore[misc,valid-type]
        """The connection to a mail server."""

        def __enter__(self) -> Any:
            try:
                return super().__enter__()
            except Exception as error:
                _note_reason(error)
                raise

        def sendmail(self, from_addr: str, to_addrs: list[str], message: str) -> bool:
            """Send to one recipient and the copies; True when nobody was refused."""
            mail = _mail.get()
            socket = getattr(self, "_socket", None)
            if mail is None or socket is None:
                return bool(super().sendmail(from_addr, to_addrs, message))
            try:
                refused = socket.sendmail(from_addr, to_addrs, message)
            except (OSError, smtplib.SMTPException, RuntimeError) as error:
                _note_reason(error)
                return False
            mail.reasons += _refusals(refused)
            mail.accepted += 1
            return not refused

    plugin.make_msgid = make_stable_msgid
    plugin.AppriseSMTPController = TellingController


def _name_message(service: apprise.NotifyBase, delivery: Delivery, message_id: str) -> None:
    """Set the headers that mail and the webhook services (json, xml, form) can carry."""
    headers = getattr(service, "headers", None)
    if not isinstance(headers, dict):
        return
    ours = {
        "X-Hostmend-Message-ID": message_id,
        "X-Hostmend-Severity": delivery.severity,
        # RFC 3834: no vacation replies to a machine.
        "Auto-Submitted": "auto-generated",
    }
    for name, value in ours.items():
        for present in [key for key in headers if key.lower() == name.lower()]:
            del headers[present]
        headers[name] = value


def _send(service: apprise.NotifyBase, url: str, delivery: Delivery) -> _Answer:
    """Hand one delivery to one service."""
    # The id goes into headers: only what needs no quoting there.
    message_id = re.sub(r"[^A-Za-z0-9._-]", "-", delivery.message_id or delivery.id)
    mail = _Mail(message_id=message_id)
    _mail.set(mail)
    shown = describe_url(url)
    _name_message(service, delivery, message_id)
    sender = apprise.Apprise(asset=_asset())
    sender.add(service)
    result = sender.notify(
        body=delivery.body or delivery.title,
        title=delivery.title,
        notify_type=SEVERITIES.get(delivery.severity, apprise.NotifyType.WARNING),
        body_format=apprise.NotifyFormat.TEXT,
        log_level=logging.WARNING,
    )
    # `?optional=yes` turns every failure into a success: what counts is what was accepted.
    accepted = any(
        attempt.status is apprise.AppriseResultStatus.SUCCESS for each in result for attempt in each
    )
    said = [*mail.reasons, *([] if mail.reasons else _warnings_of(result))]
    why = mask_url_parts("; ".join(dict.fromkeys(said)), url)[:ERROR_LENGTH]
    if accepted:
        return _Answer(ok=True)
    if mail.accepted:
        # Some recipients have it. Trying again would send it to them again, for days.
        return _Answer(ok=True, error=f"{shown} did not reach everybody: {why}")
    return _Answer(
        ok=False,
        retry=RETRY.get(result.status, True),
        error=f"cannot send by {shown}: {why or result.status.name.lower()}",
    )


def _warnings_of(result: apprise.AppriseResult) -> Iterable[str]:
    return (entry.message for entry in result.logs())


# One route


class _Route:
    """One route's services, opened once, and its deliveries, in order."""

    def __init__(self, deliveries: list[Delivery], limit: float) -> None:
        self._deliveries = deliveries
        self._limit = limit
        self._services: dict[str, apprise.NotifyBase] = {}

    def run(self, report: Callable[[DeliveryResult], None], *, check: bool) -> None:
        """Report each delivery's result. Never raises."""
        waiting: set[str] = set()
        for delivery in self._deliveries:
            if delivery.order and delivery.order in waiting:
                result = DeliveryResult(
                    id=delivery.id,
                    ok=False,
                    retry=True,
                    error="waits for an earlier message of the same incident",
                )
            else:
                try:
                    result = self._deliver(delivery, check=check)
                except Exception as error:
                    # The text of an unforeseen error may hold anything: its kind must do.
                    result = DeliveryResult(
                        id=delivery.id,
                        ok=False,
                        retry=True,
                        error=f"cannot send by route {delivery.route}: {type(error).__name__}",
                    )
            if result.retry:
                waiting.add(delivery.order)
            report(result)

    def _deliver(self, delivery: Delivery, *, check: bool) -> DeliveryResult:
        try:
            urls = _urls_of(delivery)
        except (ConfigError, Unavailable) as error:
            retry = isinstance(error, Unavailable)
            return DeliveryResult(id=delivery.id, ok=False, retry=retry, error=str(error))
        attempt = self._check if check else self._try_in_time
        answers = attempt(delivery, list(dict.fromkeys(urls)))
        failed = [answer for answer in answers if answer.error]
        errors = "; ".join(answer.error for answer in failed)[: 2 * ERROR_LENGTH]
        if check:
            return DeliveryResult(id=delivery.id, ok=not failed, error=errors)
        if any(answer.ok for answer in answers):
            # Somebody was told. Another attempt would tell the same people again.
            return DeliveryResult(id=delivery.id, ok=True, error=errors)
        return DeliveryResult(
            id=delivery.id, ok=False, retry=any(answer.retry for answer in answers), error=errors
        )

    def _check(self, _delivery: Delivery, urls: list[str]) -> list[_Answer]:
        answers = []
        for url in urls:
            try:
                _open_service(url)
                answers.append(_Answer(ok=True))
            except ConfigError as error:
                answers.append(_Answer(ok=False, error=str(error)))
        return answers

    def _try_in_time(self, delivery: Delivery, urls: list[str]) -> list[_Answer]:
        """Every service's answer. All work at once; none is waited for past the limit."""
        answers: dict[str, Future[_Answer]] = {url: Future() for url in urls}
        for url, answer in answers.items():
            # Not a pool: its workers would be waited for, and could all hang.
            threading.Thread(target=self._try, args=(url, delivery, answer), daemon=True).start()
        wait(answers.values(), timeout=self._limit)
        late = f"no answer within {self._limit:g} s"
        return [
            answer.result()
            if answer.done()
            else _Answer(ok=False, retry=True, error=f"cannot send by {describe_url(url)}: {late}")
            for url, answer in answers.items()
        ]

    def _try(self, url: str, delivery: Delivery, answer: Future[_Answer]) -> None:
        try:
            # Taken while in use: a service that hangs is never used by a second thread.
            service = self._services.pop(url, None) or _open_service(url)
            result = _send(service, url, delivery)
            self._services[url] = service
        except ConfigError as error:
            result = _Answer(ok=False, error=str(error))
        except Exception as error:
            # The text of an unforeseen error may hold anything: its kind must do.
            why = f"cannot send by {describe_url(url)}: {type(error).__name__}"
            result = _Answer(ok=False, retry=True, error=why)
        answer.set_result(result)


# The process


def send_batch(batch: Batch, report: Callable[[DeliveryResult], None], *, check: bool) -> None:
    """Deliver a batch, or check its URLs. `report` is called once per delivery, from any thread."""
    routes: dict[tuple[str, str | None, str | None], list[Delivery]] = {}
    for delivery in batch.deliveries:
        key = (delivery.route, delivery.url, delivery.url_file)
        routes.setdefault(key, []).append(delivery)
    threads = [
        threading.Thread(
            target=_Route(deliveries, batch.limit).run,
            args=(report,),
            kwargs={"check": check},
            daemon=True,
        )
        for deliveries in routes.values()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _quiet_logging() -> None:
    """Below INFO Apprise logs tokens and whole payloads; results carry its warnings already."""
    logging.getLogger().addHandler(logging.NullHandler())
    logger = logging.getLogger("apprise")
    logger.setLevel(logging.INFO)
    logger.propagate = False


def _end_with_agent() -> None:
    """Wait for the end of stdin: the agent is gone, and nobody records results any more."""
    with suppress(OSError):
        while os.read(0, 1024):
            pass
    os._exit(1)


def main(arguments: list[str]) -> int:
    """Serve one batch from stdin; 0 when every delivery has its line, whatever it says."""
    # Whatever a plugin prints goes to stderr: stdout carries results and nothing else.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    _quiet_logging()
    teach_mail_plugin()
    line = bytearray()
    while not line.endswith(b"\n"):
        # Not through a buffer, which could swallow the end-of-file that _end_with_agent waits for.
        chunk = os.read(0, 1 << 16)
        if not chunk:
            return 2
        line += chunk
    batch = decode_batch(bytes(line))
    threading.Thread(target=_end_with_agent, daemon=True).start()
    lock = threading.Lock()

    def report(result: DeliveryResult) -> None:
        with lock:
            try:
                out.write(encode_result(result))
                out.flush()
            except OSError:
                os._exit(1)

    send_batch(batch, report, check="--check" in arguments)
    return 0


if __name__ == "__main__":
    # Threads of services that hang would hold back an ordinary exit.
    os._exit(main(sys.argv[1:]))
