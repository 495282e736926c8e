"""The sender, through the agent's side of it, against real servers on loopback."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from agent.notify.client import deliver
from agent.notify.delivery import Delivery, DeliveryResult

#: Every character that has a meaning in a URL, as it is and as a URL carries it.
PASSWORD = "h#nt:er/2@?&=+% !"
QUOTED = "h%23nt%3Aer%2F2%40%3F%26%3D%2B%25%20%21"


def letter(id: str, url: str, **fields: str) -> Delivery:
    defaults = {
        "route": f"route of {id}",
        "title": "[healed] nginx.service on web1 — failed for 1.2 s",
        "body": "nginx.service größer → 日本\n\nMore: hostmend incident show 42\n",
        "severity": "critical",
        "message_id": f"5f1c.{id}",
    }
    return Delivery(id=id, url=url, **{**defaults, **fields})


def mail_url(port: int, *, login: str = "", to: str = "ops@example.org") -> str:
    return f"mailto://{login}127.0.0.1:{port}/?from=hostmend@example.org&to={to}&mode=insecure"


async def test_a_mail_is_delivered_once_when_its_server_comes_back(free_port, start_smtp, send):
    mail = letter("n7", mail_url(free_port))
    [down] = await send(mail)
    assert not down.ok
    assert down.retry
    assert "Connection refused" in down.error

    mailbox = start_smtp()
    assert await send(mail) == [DeliveryResult(id="n7", ok=True)]

    [received] = mailbox.mails
    assert received.get_all("Message-ID") == ["<5f1c.n7@127.0.0.1>"]
    assert received["X-Hostmend-Message-ID"] == "5f1c.n7"
    assert received["X-Hostmend-Severity"] == "critical"
    assert received["Auto-Submitted"] == "auto-generated"
    assert received["Subject"] == mail.title
    assert received["To"] == "ops@example.org"
    assert received.get_content_type() == "text/plain"
    assert received.get_content_charset() == "utf-8"
    assert received.get_content().splitlines() == mail.body.splitlines()


async def test_a_repeated_mail_carries_the_same_message_id(free_port, start_smtp, send):
    mailbox = start_smtp()
    for _ in range(2):
        await send(letter("n7", mail_url(free_port)))
    first, second = mailbox.mails
    assert first["Message-ID"] == second["Message-ID"]


async def test_several_mails_of_a_route_each_carry_their_own_id(free_port, start_smtp, send):
    mailbox = start_smtp()
    results = await send(
        *(letter(id, mail_url(free_port), route="ops") for id in ("n1", "n2", "n3"))
    )
    assert [result.id for result in results] == ["n1", "n2", "n3"]
    assert all(result.ok for result in results)
    assert [mail["X-Hostmend-Message-ID"] for mail in mailbox.mails] == [
        "5f1c.n1",
        "5f1c.n2",
        "5f1c.n3",
    ]


async def test_a_message_id_cannot_smuggle_a_header(free_port, start_smtp, send):
    mailbox = start_smtp()
    [result] = await send(letter("n7", mail_url(free_port), message_id="a\r\nBcc: eve@example.org"))
    assert result.ok
    [received] = mailbox.mails
    assert received["Bcc"] is None
    assert received["Message-ID"] == "<a--Bcc--eve-example.org@127.0.0.1>"


class Enough(Exception):
    """Ends a delivery whose rest a test does not wait for."""


async def test_a_silent_server_delays_no_other_route(silent_port, webhook):
    # More silent routes than any pool has threads.
    silent = [letter(f"s{i}", mail_url(silent_port)) for i in range(24)]

    async def see_first(result: DeliveryResult) -> None:
        assert result == DeliveryResult(id="n1", ok=True)
        raise Enough

    with pytest.raises(Enough):
        await deliver(
            [*silent, letter("n1", webhook.url)], timeout=60, limit=60, on_result=see_first
        )


async def test_a_silent_server_is_waited_for_no_longer_than_the_limit(silent_port, send):
    results = await send(
        *(letter(id, mail_url(silent_port), route="ops") for id in ("n1", "n2")), limit=0.5
    )
    assert [(result.id, result.ok, result.retry) for result in results] == [
        ("n1", False, True),
        ("n2", False, True),
    ]
    assert "no answer within 0.5 s" in results[0].error


async def test_a_refused_login_is_named_and_tried_again(free_port, start_smtp, send):
    mailbox = start_smtp("535 5.7.8 who are you")
    [result] = await send(letter("n1", mail_url(free_port, login=f"ops:{QUOTED}@")))
    assert not result.ok
    assert result.retry
    assert "535" in result.error
    assert "who are you" in result.error
    assert not mailbox.mails


async def test_a_server_that_repeats_the_password_does_not_spread_it(free_port, start_smtp, send):
    echoes = [
        PASSWORD,
        QUOTED,
        base64.b64encode(f"\0ops\0{PASSWORD}".encode()).decode(),
        base64.b64encode(PASSWORD.encode()).decode(),
    ]
    start_smtp("535 cannot accept " + " or ".join(echoes))
    [result] = await send(letter("n1", mail_url(free_port, login=f"ops:{QUOTED}@")))
    assert "cannot accept ***" in result.error
    for part in ("h#nt", "er/2", "h%23nt", *echoes):
        assert part not in result.error


async def test_a_password_that_smtp_cannot_carry_is_not_shown(free_port, start_smtp, send):
    start_smtp("535 no")
    [result] = await send(letter("n1", mail_url(free_port, login="ops:gr%C3%BC%C3%9Fe@")))
    assert not result.ok
    assert "ASCII" in result.error
    assert "fc" not in result.error


async def test_a_mail_that_reached_some_recipients_is_not_sent_to_them_again(
    free_port, start_smtp, send
):
    mailbox = start_smtp()
    mailbox.unknown.add("gone@example.org")
    [result] = await send(letter("n1", mail_url(free_port, to="ops@example.org,gone@example.org")))
    assert result.ok
    assert "gone@example.org was refused: 550" in result.error
    assert [mail["To"] for mail in mailbox.mails] == ["ops@example.org"]


async def test_a_mail_that_nobody_accepts_is_tried_again(free_port, start_smtp, send):
    start_smtp().unknown.add("gone@example.org")
    [result] = await send(letter("n1", mail_url(free_port, to="gone@example.org")))
    assert not result.ok
    assert result.retry
    assert "gone@example.org was refused: 550" in result.error


async def test_a_webhook_receives_the_message_and_its_id(webhook, send):
    message = letter("n1", webhook.url)
    assert await send(message) == [DeliveryResult(id="n1", ok=True)]
    [(headers, content)] = webhook.requests
    assert content["title"] == message.title
    assert content["message"].rstrip() == message.body.rstrip()
    assert content["type"] == "failure"
    assert headers["X-Hostmend-Message-ID"] == "5f1c.n1"
    assert headers["X-Hostmend-Severity"] == "critical"


async def test_a_severity_becomes_a_kind_of_apprise(webhook, send):
    severities = ("ok", "warning", "critical", "unknown")
    await send(*(letter(s, webhook.url, route="ops", severity=s) for s in severities))
    kinds = [content["type"] for _, content in webhook.requests]
    assert kinds == ["success", "warning", "failure", "warning"]


async def test_a_message_too_long_for_a_service_is_cut_unless_its_url_says_otherwise(webhook, send):
    long = "first line\n" + "x" * 40_000
    results = await send(
        Delivery(id="n1", route="a", url=webhook.url, title="t", body=long),
        Delivery(id="n2", route="b", url=f"{webhook.url}?overflow=upstream", title="t", body=long),
    )
    assert all(result.ok for result in results)
    bodies = sorted((content["message"] for _, content in webhook.requests), key=len)
    assert [len(body) for body in bodies] == [32_768, len(long)]
    assert bodies[0].startswith("first line\n")


async def test_a_service_that_answers_with_an_error_is_tried_again(webhook, send):
    webhook.statuses = [503]
    [result] = await send(letter("n1", webhook.url))
    assert not result.ok
    assert result.retry
    assert "503" in result.error


async def test_an_optional_service_that_fails_is_not_called_delivered(webhook, send):
    webhook.statuses = [503]
    [result] = await send(letter("n1", f"{webhook.url}?optional=yes"))
    assert not result.ok
    assert result.retry


async def test_a_poisoned_message_does_not_block_the_next_one_of_its_route(webhook, send):
    webhook.statuses = [400]
    results = await send(
        letter("n1", webhook.url, route="ops", order="incident 1"),
        letter("n2", webhook.url, route="ops", order="incident 2"),
    )
    assert [(result.id, result.ok) for result in results] == [("n1", False), ("n2", True)]


async def test_text_that_no_server_can_carry_fails_alone(webhook, send):
    results = await send(
        letter("n1", webhook.url, route="ops", title="\ud800", body="\ud800"),
        letter("n2", webhook.url, route="ops"),
    )
    assert [(result.id, result.ok) for result in results][1] == ("n2", True)


async def test_messages_of_one_incident_keep_their_order(webhook, send):
    webhook.statuses = [503]
    results = await send(
        letter("n1", webhook.url, route="ops", order="incident 1"),
        letter("n2", webhook.url, route="ops", order="incident 1"),
        letter("n3", webhook.url, route="ops", order="incident 2"),
        letter("n4", webhook.url, route="ops"),
    )
    assert [(result.id, result.ok, result.retry) for result in results] == [
        ("n1", False, True),
        ("n2", False, True),
        ("n3", True, False),
        ("n4", True, False),
    ]
    assert "earlier message" in results[1].error
    assert len(webhook.requests) == 3


#: An unusable URL, and what is said of it.
UNUSABLE = {
    "nonsense://Tok3nTok3n/x": "Apprise knows no such service",
    "Tok3nTok3n": "Apprise knows no such service",
    "": "Apprise knows no such service",
    "json://": "not a complete json:// URL",
    "slack://Tok3nTok3n": "Slack",
    "mailto://ops:Tok3nTok3n@@/?to=x": "From",
    "json://a.example.org/Tok3nTok3n, json://b.example.org/": "more than one URL",
}


async def test_a_url_that_is_no_service_is_not_tried_again_and_blocks_nobody(send, webhook):
    results = await send(*(letter(url, url) for url in UNUSABLE), letter("good", webhook.url))
    by_id = {result.id: result for result in results}
    assert by_id.pop("good").ok
    assert by_id.keys() == UNUSABLE.keys()
    for url, said in UNUSABLE.items():
        assert not by_id[url].ok
        assert not by_id[url].retry
        assert said in by_id[url].error
        assert "Tok3nTok3n" not in by_id[url].error


async def test_a_route_with_neither_url_nor_file_is_refused(send):
    [result] = await send(Delivery(id="n1", route="ops", title="t", body="b"))
    assert result == DeliveryResult(
        id="n1", ok=False, error="cannot use route ops: give it either url or url_file"
    )


async def test_the_secrets_of_a_webhook_are_in_no_error(free_port, webhook, send):
    webhook.statuses = [403]
    secret = f"127.0.0.1:{{port}}/hooks/S3cretPath?+X-Api-Key=S3cretHeader&-token={QUOTED}"
    results = await send(
        letter("n1", f"json://ops:{QUOTED}@" + secret.format(port=webhook.port)),
        letter("n2", f"json://ops:{QUOTED}@" + secret.format(port=free_port)),
    )
    assert len(results) == 2
    for result in results:
        assert not result.ok
        assert "json://127.0.0.1:" in result.error
        for part in ("S3cret", PASSWORD, QUOTED, "h#nt", "h%23nt"):
            assert part not in result.error


def write_urls(path: Path, *lines: str, mode: int = 0o600) -> str:
    path.write_text("\n".join(lines) + "\n")
    path.chmod(mode)
    return str(path)


def by_file(id: str, file: str) -> Delivery:
    return Delivery(
        id=id, route="ops", url_file=file, title="t", body="b", severity="ok", message_id=id
    )


async def test_every_url_of_a_file_receives_the_message(
    tmp_path, webhook, free_port, start_smtp, send
):
    mailbox = start_smtp()
    file = write_urls(
        tmp_path / "ops", "# the night shift", "", mail_url(free_port), f"  {webhook.url}  "
    )
    assert await send(by_file("n1", file)) == [DeliveryResult(id="n1", ok=True)]
    assert len(mailbox.mails) == 1
    assert len(webhook.requests) == 1


async def test_a_message_that_one_service_of_a_file_took_is_delivered_with_a_remark(
    tmp_path, webhook, free_port, send
):
    file = write_urls(tmp_path / "ops", mail_url(free_port), "nonsense://x", webhook.url)
    [result] = await send(by_file("n1", file))
    assert result.ok
    assert not result.retry
    assert "Connection refused" in result.error
    assert "no such service" in result.error


async def test_a_message_that_no_service_of_a_file_took_is_tried_again(tmp_path, free_port, send):
    file = write_urls(tmp_path / "ops", "nonsense://x", mail_url(free_port))
    [result] = await send(by_file("n1", file))
    assert not result.ok
    assert result.retry


async def test_a_file_that_others_may_read_is_refused_until_it_is_closed(tmp_path, webhook, send):
    file = write_urls(tmp_path / "ops", webhook.url, mode=0o644)
    [refused] = await send(by_file("n1", file))
    assert not refused.ok
    assert refused.retry
    assert f"chmod 0600 {file}" in refused.error
    assert not webhook.requests
    (tmp_path / "ops").chmod(0o640)
    [taken] = await send(by_file("n1", file))
    assert taken.ok
