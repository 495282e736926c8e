"""Messages while their servers are down: a real mail server, the real sender, and time that jumps.

The back-off is the real one, on a coarser grid; the clock is moved past waits in which nothing
happens.
"""

from __future__ import annotations

import asyncio
import email
import email.policy
import math
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from email.message import EmailMessage
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from ports import hold_port

from agent.clock import Clock
from agent.core.model import (
    Decision,
    Finding,
    Host,
    Incident,
    Notice,
    NoticeState,
    Policy,
    Reason,
    State,
    Status,
    Tick,
)
from agent.engine import Engine
from agent.notify import delivery
from agent.notify.backoff import next_attempt
from agent.notify.client import deliver
from agent.notify.message import compose
from agent.store.state import Listing
from agent.store.state import State as StateFile
from agent.worker import Delivery, JobEnd, Worker

HOUR = 3600.0
#: Only against hanging.
LONG = 60.0
START = 1_769_846_400.0
ORIGIN = "0123456789abcdef"


def next_attempt_on_a_grid(attempts: int, now: float, notice_id: str) -> float:
    """The real one, or up to five minutes later: what is due at nearly one time goes together."""
    return math.ceil(next_attempt(attempts, now, notice_id) / 300.0) * 300.0


class JumpingClock(Clock):
    """Stands still until a test moves it."""

    def __init__(self) -> None:
        self.instant = START

    def now(self) -> float:
        return self.instant

    def wall_ahead(self) -> float:
        return 0.0


class Mailbox:
    """An aiosmtpd handler that keeps mails."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        self.mails.append(email.message_from_bytes(envelope.content, policy=email.policy.default))
        return "250 OK"

    @property
    def ids(self) -> list[str]:
        return [str(mail["Message-ID"]).strip("<>").split("@")[0] for mail in self.mails]


class Post:
    """A state with notices in it, the worker and the sender: an agent as far as mail goes."""

    def __init__(self, path: Path, clock: JumpingClock, port: int) -> None:
        self.clock = clock
        self.tries = 0
        #: Seconds that a batch may take.
        self.limit = 60.0
        mail = f"mailto://127.0.0.1:{port}/?smtp=127.0.0.1&mode=insecure&from=h@lab.example&to="
        self.urls = {
            "ops": f"{mail}ops@lab.example",
            "poisoned": "nosuchservice://token@nowhere/",
        }
        self.writer = ThreadPoolExecutor(1)
        self.state = StateFile(path, reserve=0)
        self.engine = Engine(state=self.state, clock=clock, policy=Policy(), writer=self.writer)
        #: The agent dies on the spot, so often, after a server accepted and before it is marked.
        self.dies = 0
        self.worker = Worker(
            host=lambda: self.engine.host,
            take=self.engine.take,
            read=self.engine.read,
            jobs=NoJobs(),
            deliver=self._deliver,
            next_attempt=next_attempt_on_a_grid,
            clock=clock,
            on_run_event=lambda _run, _event: None,
            on_notice=lambda _notice: None,
        )

    async def _deliver(
        self, notices: Sequence[Notice], on_result: Callable[[Delivery], Awaitable[None]]
    ) -> None:
        self.tries += 1
        batch = []
        for notice in notices:
            message = compose(notice, host="web1", origin=ORIGIN, now=self.clock.now())
            batch.append(
                delivery.Delivery(
                    id=notice.id,
                    route=notice.route,
                    url=self.urls[notice.route],
                    url_file=None,
                    title=message.title,
                    body=message.body,
                    severity=message.severity,
                    message_id=message.message_id,
                )
            )

        async def hand_on(result: delivery.DeliveryResult) -> None:
            if result.ok and self.dies:
                self.dies -= 1
                raise asyncio.CancelledError
            await on_result(
                Delivery(notice=result.id, ok=result.ok, retry=result.retry, error=result.error)
            )

        await deliver(batch, timeout=self.limit, limit=self.limit, on_result=hand_on)

    async def round(self) -> float | None:
        """One round of deliveries; the wait until the next."""
        return await self.worker._deliver_due()

    async def pass_time(self, until: float) -> None:
        """Rounds, and jumps over the waits between them, until an instant or nothing is due."""
        while True:
            wait = await self.round()
            if wait is None:
                return
            if self.clock.instant + wait >= until:
                self.clock.instant = until
                return
            self.clock.instant += wait

    def close(self) -> None:
        self.engine.close()
        self.state.close()
        self.writer.shutdown()


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(LONG):
        while not what():  # noqa: ASYNC110 - the world outside has no event to wait for
            await asyncio.sleep(0.05)


class NoJobs:
    async def carry_out(self, *_arguments: object) -> JobEnd:
        raise AssertionError("there are no runs")

    rejoin = carry_out


def incident(number: int) -> Incident:
    finding = Finding(subject=f"unit{number}", status=Status.CRITICAL, cause="failed")
    return Incident(
        id=f"i{number}", check="web", subject=finding.subject, state=State.OPEN, finding=finding,
        before=finding, looked=START, began=START, opened=START, entered=START, seen=START,
        look_ended=START,
    )  # fmt: skip


def write_notices(post: Post, *routes: str) -> list[Notice]:
    """Three messages of each of two incidents, to each route, all at once."""
    found = []
    number = 1
    for reason in (Reason.OPENED, Reason.ESCALATED, Reason.ENDED):
        for which in (1, 2):
            for route in routes:
                found.append(
                    Notice(
                        id=f"n{number}",
                        route=route,
                        reason=reason,
                        created=post.clock.now(),
                        expires=post.clock.now() + 72 * HOUR,
                        incident=incident(which),
                        details={"why": "a test"},
                        due=post.clock.now(),
                    )
                )
                number += 1
    post.state.save(Host(), Decision(host=Host(serial=number), notices=tuple(found)))
    return found


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port whose server accepts connections and never says a word."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        yield int(listening.getsockname()[1])


@pytest.fixture
def port() -> int:
    return hold_port()


@pytest.fixture
def start_mail(port: int) -> Iterator[Callable[[], Mailbox]]:
    controllers: list[Controller] = []

    def start() -> Mailbox:
        mailbox = Mailbox()
        controller = Controller(mailbox, hostname="127.0.0.1", port=port)
        controller.start()
        controllers.append(controller)
        return mailbox

    yield start
    for controller in controllers:
        controller.stop()


async def test_everything_arrives_in_order_after_an_hour_without_a_mail_server(
    tmp_path: Path, port: int, start_mail: Callable[[], Mailbox]
) -> None:
    clock = JumpingClock()
    post = Post(tmp_path / "state.db", clock, port)
    written = write_notices(post, "poisoned", "ops")
    try:
        await post.pass_time(START + HOUR)
        assert post.state.count_due() == len(written)
        assert 5 <= post.tries <= 20
        mailbox = start_mail()
        await post.pass_time(START + 1.5 * HOUR)
        wanted = [notice for notice in written if notice.route == "ops"]
        judge_arrivals(mailbox, wanted)
        assert set(Counter(mailbox.ids).values()) == {1}
        # The poisoned route blocked nobody, and is still tried until its messages expire.
        left = post.state.due_notices()
        assert {notice.route for notice in left} == {"poisoned"}
        assert all(notice.poisoned and "nosuchservice" in notice.error for notice in left)
        clock.instant = START + 73 * HOUR
        await post.pass_time(START + 74 * HOUR)
        kept = post.state.list_notices(Listing(limit=100))
        assert {(n.route, n.state) for n in kept} == {
            ("ops", NoticeState.DELIVERED),
            ("poisoned", NoticeState.EXPIRED),
        }
        assert len(mailbox.mails) == len(wanted)
    finally:
        post.close()


async def test_a_dead_route_delays_no_message_that_is_written_meanwhile(
    tmp_path: Path, port: int, silent_port: int, start_mail: Callable[[], Mailbox]
) -> None:
    post = Post(tmp_path / "state.db", JumpingClock(), port)
    post.urls["dead"] = f"json://127.0.0.1:{silent_port}/hook"
    # Nothing ends the waiting for the dead one within this test.
    post.limit = 3600.0
    mailbox = start_mail()
    try:
        write_notices(post, "dead")
        post.worker.start()
        await until(lambda: bool(post.tries))
        first = Notice(
            id="n100", route="ops", reason=Reason.OPENED, created=START,
            expires=START + 72 * HOUR, incident=incident(1), due=START,
        )  # fmt: skip
        later = replace(first, id="n101", reason=Reason.ENDED)
        for number, notice in ((100, first), (101, later)):
            told = Decision(host=Host(serial=number), notices=(notice,))
            post.state.save(Host(), told)
            post.worker.hear(Tick(), told)
            await until(lambda: {n.route for n in post.state.due_notices()} == {"dead"})
        assert mailbox.ids == [f"{ORIGIN}.n100", f"{ORIGIN}.n101"]
        assert {n.attempts for n in post.state.due_notices()} == {0}
    finally:
        post.worker.close()
        await asyncio.wait(post.worker._batches)
        post.close()


async def test_a_repeat_has_the_same_id_and_only_follows_a_death_before_the_mark(
    tmp_path: Path, port: int, start_mail: Callable[[], Mailbox]
) -> None:
    clock = JumpingClock()
    mailbox = start_mail()
    post = Post(tmp_path / "state.db", clock, port)
    written = write_notices(post, "ops")
    deaths = 2
    for _ in range(deaths):
        post.dies = 1
        with pytest.raises(asyncio.CancelledError):
            await post.pass_time(START + HOUR)
        post.close()
        post = Post(tmp_path / "state.db", clock, port)
    try:
        await post.pass_time(START + 2 * HOUR)
        judge_arrivals(mailbox, written)
        counts = Counter(mailbox.ids)
        repeated = {key: count - 1 for key, count in counts.items() if count > 1}
        # A death marks none of its batch that had not been marked: one message of each incident.
        assert 1 <= sum(repeated.values()) <= deaths * 2
        by_id: dict[str, set[str]] = {}
        for mail, key in zip(mailbox.mails, mailbox.ids, strict=True):
            by_id.setdefault(key, set()).add(str(mail["Subject"]))
        assert all(len(subjects) == 1 for subjects in by_id.values())
    finally:
        post.close()


def judge_arrivals(mailbox: Mailbox, wanted: Sequence[Notice]) -> None:
    """Each arrived, with its own id, and those of one incident in the order they were written."""
    assert set(mailbox.ids) == {f"{ORIGIN}.{notice.id}" for notice in wanted}
    first: dict[str, int] = {}
    for place, key in enumerate(mailbox.ids):
        first.setdefault(key, place)
    for which in {notice.order for notice in wanted}:
        places = [first[f"{ORIGIN}.{n.id}"] for n in wanted if n.order == which]
        assert places == sorted(places)
