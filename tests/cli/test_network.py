"""The command against another host's agent, and what it says of access and silences."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_agent import make_busy_agent
from serving import serve_web

from agent.agent import Role
from agent.core.model import Silence
from api.cli.main import COMMANDS, LOCAL

EVERYWHERE = [
    ("status",),
    ("digest",),
    ("digest", "--for", "7d"),
    ("checks",),
    ("pause",),
    ("resume",),
    ("reload",),
    ("incidents", "--all"),
    ("incident", "show", "i1"),
    ("incident", "explain", "i2"),
    ("incident", "ack", "i2"),
    ("incident", "approve", "i2"),
    ("remedies",),
    ("remedy", "show", "restart-service"),
    ("remedy", "run", "restart-service", "-o", "unit=x.service"),
    ("runs",),
    ("run-show", "r1"),
    ("notices",),
    ("actions",),
    ("silence", "add", "--check", "web", "--for", "1h"),
    ("silence", "list"),
    ("silence", "end", "s1"),
    ("token", "create", "ci", "--role", "viewer"),
    ("token", "list"),
    ("token", "revoke", "t2"),
]


@pytest.fixture
async def far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An agent that can be reached over TCP alone, and the options that name it."""
    agent = make_busy_agent()
    new = await agent.create_token("me", role=Role.ADMIN, by="tester")
    file = tmp_path / "token"
    file.write_text(new.secret + "\n")
    file.chmod(0o600)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    async with serve_web(elsewhere / "s.sock", agent) as web:
        monkeypatch.setenv("HOSTMEND_SERVER", str(web.tcp.base_url).rstrip("/"))
        monkeypatch.setenv("HOSTMEND_TOKEN_FILE", str(file))
        yield web


async def test_every_command_of_a_client_works_against_another_host(far, hostmend) -> None:
    for words in EVERYWHERE:
        result = await hostmend(*words)
        assert (result.code, result.err) == (0, "") or words[0] == "token", (words, result)
        assert result.code == 0, (words, result)
    # What these are for is not the case there, and that is an answer of the agent too.
    for words in (("confirm",), ("run-cancel", "r1"), ("push", "web")):
        result = await hostmend(*words)
        assert (result.code, "cannot " in result.err) == (1, True), (words, result)
    asked = {words[0] for words in EVERYWHERE} | {"confirm", "run-cancel", "push"}
    assert set(COMMANDS) - LOCAL <= asked
    assert {by for _, by in far.agent.orders if by and by != "tester"} == {"token me (t1)"}


async def test_options_say_the_same_as_the_environment(
    far, hostmend, monkeypatch, tmp_path
) -> None:
    url = str(far.tcp.base_url)
    monkeypatch.delenv("HOSTMEND_SERVER")
    monkeypatch.delenv("HOSTMEND_TOKEN_FILE")
    assert (await hostmend("status")).code == 3
    options = ("--server", url, "--token-file", str(tmp_path / "token"))
    assert (await hostmend(*options, "status")).code == 0
    assert (await hostmend("status")).code == 3


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("web1", "write for example https://web1:8642"),
        ("ftp://web1", "write for example https://web1:8642"),
        ("https://web1/v1", "write for example https://web1:8642"),
        ("https://me:geheim@web1", "write it as https://HOST:PORT"),
        ("http://192.0.2.1:8642", "use https, or set HOSTMEND_ALLOW_PLAIN=1"),
    ],
)
async def test_a_server_that_cannot_be_used_is_refused(far, hostmend, url, said) -> None:
    result = await hostmend("--server", url, "status")
    assert result.code == 1
    assert said in result.err
    assert "geheim" not in result.err


async def test_a_token_file_is_refused_where_others_could_read_it(far, hostmend, tmp_path) -> None:
    file = tmp_path / "token"
    secret = file.read_text().strip()
    file.chmod(0o644)
    result = await hostmend("status")
    assert (result.code, f"chmod 0600 {file}" in result.err) == (1, True)
    file.chmod(0o600)
    for content in ("", f"{secret} more", "\xff"):
        file.write_text(content)
        result = await hostmend("status")
        assert (result.code, "must hold one secret" in result.err) == (1, True)
        assert secret not in result.err
    file.unlink()
    assert "No such file" in (await hostmend("status")).err


async def test_a_wrong_token_and_a_missing_server_are_said(far, hostmend, tmp_path) -> None:
    (tmp_path / "token").write_text("hm_wrong")
    result = await hostmend("status")
    assert result.code == 1
    assert "this token is unknown, was revoked or has expired" in result.err
    assert "hm_wrong" not in result.err
    result = await hostmend("--server", "http://127.0.0.1:1", "status")
    assert (result.code, "Connection refused" in result.err) == (3, True)


async def test_what_is_about_this_host_alone_takes_no_server(far, hostmend) -> None:
    result = await hostmend("--server", "https://web1:8642", "check")
    assert (result.code, "is about this host alone" in result.err) == (2, True)


# Tokens


async def test_a_token_is_made_shown_once_and_revoked(agent, hostmend) -> None:
    made = await hostmend("token", "create", "ci", "--role", "operator", "--expires", "30d")
    assert made.code == 0
    secret = made.out.strip()
    assert agent.secrets == {secret: "t1"}
    assert "Token t1 for ci: operator, expires" in made.err
    listed = await hostmend("token", "list")
    assert "ci    operator  expires in" in listed.out
    assert secret not in listed.out + (await hostmend("token", "list", "--json")).out
    assert (await hostmend("token", "revoke", "t1")).code == 0
    assert "revoked" in (await hostmend("token", "list")).out
    assert (await hostmend("token", "revoke", "t1")).code == 1
    for words in (("--role", "king"), (), ("--role", "viewer", "--expires", "soon")):
        assert (await hostmend("token", "create", "x", *words)).code == 2


async def test_who_did_what_is_listed(agent, hostmend) -> None:
    assert (await hostmend("actions")).out == "No orders.\n"
    await hostmend("pause", "--for", "30m", "--why", "upgrade")
    await hostmend("incident", "close", "i1")
    out = (await hostmend("actions")).out.splitlines()
    assert "close i1" in out[1]
    assert "refused" in out[1]
    assert "it is resolved already" in out[1]
    assert '{"why": "upgrade", "for_seconds": 1800.0}' in out[2]
    items = json.loads((await hostmend("actions", "--json")).out)["items"]
    assert [item["id"] for item in items] == ["a2", "a1"]


# Silences


async def test_a_recurring_window_is_listed_as_it_opens_next(agent, hostmend) -> None:
    starts = agent.now() + 3600.5
    agent.windows = (
        Silence(
            id="backup", starts=starts, ends=starts + 7200, by="the configuration",
            checks=("*",), runs=True, recurring=True,
        ),
    )  # fmt: skip
    (line,) = (await hostmend("silence", "list")).out.splitlines()[1:]
    for said in ("backup", "maintenance", "everything", "begins in 1 h, for 2 h"):
        assert said in line
    refused = await hostmend("silence", "end", "backup")
    assert refused.code == 1
    assert "hostmend reload" in refused.err
    (shown,) = json.loads((await hostmend("silence", "list", "--json")).out)["items"]
    assert shown["recurring"] is True


async def test_a_silence_is_made_listed_and_ended(agent, hostmend) -> None:
    assert (await hostmend("silence", "list")).out == "No silences.\n"
    words = ("--check", "web", "--subject", "nginx.service", "--for", "2h", "--comment", "renewal")
    made = await hostmend("silence", "add", *words)
    assert made.out.startswith("s1: web (nginx.service) silent until ")
    await hostmend("silence", "add", "--label", "tier=front", "--for", "1h")
    await hostmend("silence", "add", "--all", "--for", "1h")
    found = json.loads((await hostmend("silence", "list", "--json")).out)["items"]
    assert [(s["checks"], s["labels"], s["runs"]) for s in found] == [
        (["*"], {}, False),
        ([], {"tier": "front"}, False),
        (["web"], {}, False),
    ]
    table = (await hostmend("silence", "list")).out
    for said in ("everything", "tier=front", "web (nginx.service)", "renewal"):
        assert said in table
    assert (await hostmend("silence", "end", "s1")).out == "s1 has ended.\n"
    assert (await hostmend("silence", "end", "s1")).code == 1
    assert len(agent.silence_list) == 2


@pytest.mark.parametrize(
    "words",
    [
        ("--for", "1h"),
        ("--all", "--check", "web", "--for", "1h"),
        ("--check", "web"),
        ("--check", "web", "--for", "soon"),
        ("--label", "tier", "--for", "1h"),
    ],
    ids=" ".join,
)
async def test_a_silence_that_says_too_little_or_too_much_is_wrong_usage(
    agent, hostmend, words
) -> None:
    assert (await hostmend("silence", "add", *words)).code == 2
    assert agent.silence_list == ()
