"""The child of an audit: it comes back with data, or whoever ordered it hears why not."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterable
from pathlib import Path

import pytest
from aiohttp import web
from audit_scene import Serve, make_plan, page

from agent.audit import client
from agent.audit.client import order_audit
from agent.audit.order import Order, read_order, write_order
from agent.audit.plan import Known, Rule
from agent.audit.readers import BIG
from agent.errors import Conflict, Invalid, Unavailable
from agent.host.child import make_environment
from agent.host.processes import find_descendants, read_processes


def list_children() -> list[int]:
    """Processes of audits below this one."""
    return [
        process.pid
        for process in find_descendants(os.getpid(), read_processes())
        if b"agent.audit.child" in read_command(process.pid)
    ]


def read_command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


async def wait_for(found: object, seconds: float = 20.0) -> None:
    """Until a condition holds."""
    async with asyncio.timeout(seconds):
        while not found():  # type: ignore[operator]  # noqa: ASYNC110 - other processes
            await asyncio.sleep(0.01)


def big_page(links: Iterable[str]) -> str:
    return page("x" * BIG, *(f'<a href="{link}">x</a>' for link in links), title="big")


async def test_an_audit_comes_back_whole(serve: Serve) -> None:
    site = await serve({"/": big_page(["/a", "/gone"]), "/a": page("ok")})
    progress: list[dict[str, int]] = []
    audit = await order_audit(
        Order(plan=make_plan(site.url)), on_progress=lambda counts: progress.append(dict(counts))
    )
    assert audit.complete
    assert [defect.target for defect in audit.defects] == [f"{site.root}/gone"]
    # The big page was read beside the rest, with all that is in it.
    assert [seen.title for seen in audit.urls] == ["big", "", ""]
    assert progress[0]["requests"] >= 0
    assert list_children() == []


async def test_an_order_travels_as_it_is() -> None:
    plan = make_plan(
        "https://u:p@h.example/",
        hosts=("a.example",),
        rules=(Rule(urls="/x", critical={"a": "[STATUS] == 1"}),),
        known=(Known(target="/y", reason="z", until=5.0, kinds=("missing",)),),
    )
    order = Order(plan=plan, book={"format": 1}, urls=False)
    assert read_order(write_order(order)) == order
    for line in (b"", b"{}", b'{"plan": {}}', write_order(order).replace(b"seconds", b"secs")):
        with pytest.raises(Invalid):
            read_order(line)


async def test_a_child_that_dies_is_said_to(serve: Serve) -> None:
    async def hang(_request: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    site = await serve({"/": big_page(["/hang"]), "/hang": hang})
    task = asyncio.ensure_future(order_audit(Order(plan=make_plan(site.url))))
    await wait_for(lambda: "/hang" in site.paths)
    (child,) = list_children()
    os.kill(child, signal.SIGKILL)
    with pytest.raises(Unavailable, match=r"the child that does it ended \(signal 9\)"):
        await task
    await wait_for(lambda: not list_children())


async def test_a_child_that_hangs_is_ended(serve: Serve) -> None:
    site = await serve({"/": page("ok")})
    site.answers["/"] = stop_asker
    order = Order(plan=make_plan(site.url, seconds=0.5))
    with pytest.raises(Unavailable, match="hung"):
        await order_audit(order, grace=0.5)
    assert list_children() == []


def stop_asker(_request: web.Request) -> web.Response:
    for pid in list_children():
        os.kill(pid, signal.SIGSTOP)
    return web.Response(text=page("ok"), content_type="text/html")


async def test_a_cancelled_audit_leaves_no_child(serve: Serve) -> None:
    async def hang(_request: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    site = await serve({"/": hang})
    task = asyncio.ensure_future(order_audit(Order(plan=make_plan(site.url))))
    await wait_for(lambda: "/" in site.paths)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list_children() == []


async def test_a_child_ends_with_whoever_ordered_it(serve: Serve) -> None:
    async def hang(_request: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    site = await serve({"/": big_page(["/hang"]), "/hang": hang})
    order = write_order(Order(plan=make_plan(site.url)))
    process = await asyncio.create_subprocess_exec(
        *client.COMMAND, stdin=-1, stdout=-1, env=make_environment(()), start_new_session=True
    )
    assert process.stdin is not None
    process.stdin.write(order)
    await wait_for(lambda: "/hang" in site.paths)
    process.stdin.close()
    async with asyncio.timeout(20):
        await process.wait()
    await wait_for(lambda: not list_children())


async def test_what_cannot_be_done_is_said_in_words(serve: Serve, tmp_path: Path) -> None:
    site = await serve({"/": page("ok")})
    plan = make_plan(site.url, credentials=str(tmp_path / "none"))
    with pytest.raises(Unavailable, match="cannot read credentials"):
        await order_audit(Order(plan=plan))
    with pytest.raises(Unavailable, match="cannot use the state file"):
        await order_audit(Order(plan=make_plan(site.url), journal=tmp_path / "no/dir"))


# Going on


async def test_a_killed_audit_goes_on_where_it_was(serve: Serve, tmp_path: Path) -> None:
    hung = asyncio.Event()

    async def hang(_request: web.Request) -> web.Response:
        if not hung.is_set():
            hung.set()
            await asyncio.sleep(60)
        return web.Response(text=page('<a href="/end#gone">x</a>'), content_type="text/html")

    first = [f"/p{n}" for n in range(30)]
    site = await serve(
        {
            "/": page(*(f'<a href="{path}">x</a>' for path in first), '<a href="/gone">x</a>'),
            **{
                path: page('<a href="/p0#there">x</a>', '<a href="/hang">x</a>', title=path)
                for path in first
            },
            "/old": web.Response(status=301, headers={"Location": "/p1"}),
            "/hang": hang,
            "/end": page('<a href="/old#nowhere">x</a>'),
        }
    )
    journal = tmp_path / "state"
    order = Order(plan=make_plan(site.url, at_once=1), journal=journal)
    task = asyncio.ensure_future(order_audit(order))
    async with asyncio.timeout(30):
        await hung.wait()
    os.kill(list_children()[0], signal.SIGKILL)
    with pytest.raises(Unavailable):
        await task
    assert journal.stat().st_mode & 0o777 == 0o600
    # As if it had been killed in the middle of a line.
    journal.write_bytes(journal.read_bytes() + b'{"url": "http://127.0')
    before = len(site.asked)

    audit = await order_audit(Order(plan=order.plan, journal=journal, resume=True))
    again = {path for _, path in site.asked[before:]}
    # Two pages lack what links look for in them, and are read again before that is said.
    assert again.isdisjoint(first[2:])
    whole = await order_audit(Order(plan=order.plan))
    assert {d.key: d.referrers_count for d in audit.defects} == {
        d.key: d.referrers_count for d in whole.defects
    }
    assert sorted(audit.defects, key=lambda d: d.key)[0].referrers == (
        sorted(whole.defects, key=lambda d: d.key)[0].referrers
    )
    assert audit.counts["replayed"] >= 31
    assert audit.counts["pages"] == whole.counts["pages"]
    # There is nothing left to go on with.
    assert not journal.exists()


async def test_only_the_same_audit_is_gone_on_with(serve: Serve, tmp_path: Path) -> None:
    from agent.audit.journal import Journal

    journal = Journal(tmp_path / "state", "abc", resume=False)
    journal.close()
    with pytest.raises(Conflict, match="other options"):
        Journal(tmp_path / "state", "other", resume=True)
    (tmp_path / "notes").write_text("something else\n")
    with pytest.raises(Conflict, match="no state file"):
        Journal(tmp_path / "notes", "abc", resume=True)
    site = await serve({"/": page("ok")})
    order = Order(plan=make_plan(site.url), journal=tmp_path / "none yet", resume=True)
    assert (await order_audit(order)).complete


async def test_the_time_of_an_audit_is_its_own_and_the_rest_waits(
    serve: Serve, tmp_path: Path
) -> None:
    async def hang(_request: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    site = await serve({"/": page('<a href="/a">x</a><a href="/hang">x</a>'), "/a": page("ok")})
    site.answers["/hang"] = hang
    order = Order(plan=make_plan(site.url, seconds=1.0), journal=tmp_path / "state")
    assert (await order_audit(order)).ending == "time"
    site.answers["/hang"] = page("ok")
    before = len(site.asked)
    audit = await order_audit(Order(plan=order.plan, journal=order.journal, resume=True))
    assert audit.complete
    assert ("GET", "/hang") in site.asked[before:]
    assert audit.counts["replayed"] == 2
