"""Certificates in files: whole, ending, broken, and with keys that are theirs or not."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from authority import Authority
from cryptography.hazmat.primitives import serialization
from peers import complete, verdict

from agent.checks import CHECKS
from agent.checks import certificate as checked
from agent.checks.certificate import look, read_file
from agent.clock import Clock
from agent.core.model import Finding
from agent.host.machine import Machine


@pytest.fixture
def machine() -> Machine:
    return Machine(clock=Clock())


async def see(machine: Machine, *paths: Any, **fields: Any) -> Mapping[str, Finding]:
    options = complete("certificate", {"paths": list(map(str, paths)), **fields})
    return {finding.subject: finding for finding in await look(options, machine)}


async def see_one(machine: Machine, path: Any, **fields: Any) -> Finding:
    (finding,) = (await see(machine, path, **fields)).values()
    return finding


def sign(authority: Authority, place: Path, name: str = "shop.example", **days: Any) -> Path:
    """A certificate with its chain in `fullchain.pem`, and its key in `privkey.pem` beside it."""
    authority.sign(name, **days)
    whole = (authority.directory / f"{authority.count}.pem").read_bytes()
    at = whole.index(b"-----BEGIN PRIVATE KEY")
    place.mkdir(exist_ok=True)
    (place / "fullchain.pem").write_bytes(whole[:at])
    (place / "privkey.pem").write_bytes(whole[at:])
    return place / "fullchain.pem"


async def test_a_good_file_is_ok_and_told(
    machine: Machine, authority: Authority, tmp_path: Path
) -> None:
    path = sign(authority, tmp_path)
    finding = await see_one(machine, path, key="privkey.pem")
    assert verdict(finding) == ("ok", "")
    assert finding.facts["Certificate"].startswith("shop.example for shop.example: from Authority")
    assert finding.facts["Key"] == f"{tmp_path}/privkey.pem is its key"
    assert 29 < finding.measurements["certificate_expires_seconds"] / 86400 < 30


@pytest.mark.parametrize(
    ("days", "wanted", "words"),
    [
        ({"ends": 10.0}, ("warning", "expiring"), "ends in"),
        ({"ends": 2.0}, ("critical", "expiring"), "ends in"),
        ({"begins": -30.0, "ends": -1.0}, ("critical", "expired"), "ended 1 d ago"),
        ({"begins": 1.0}, ("critical", "not-yet-valid"), "begins in"),
    ],
)
async def test_time_is_judged(
    days: dict[str, float],
    wanted: tuple[str, str],
    words: str,
    machine: Machine,
    authority: Authority,
    tmp_path: Path,
) -> None:
    finding = await see_one(machine, sign(authority, tmp_path, **days))
    assert verdict(finding) == wanted
    assert words in finding.summary


async def test_a_certificate_of_the_chain_that_ends_first_is_what_counts(
    machine: Machine, authority: Authority, tmp_path: Path
) -> None:
    between = authority.appoint("Authority between", ends=5.0)
    finding = await see_one(machine, sign(between, tmp_path))
    assert verdict(finding) == ("warning", "expiring")
    assert "Authority between in " in finding.summary


async def test_each_file_of_a_pattern_has_a_finding(
    machine: Machine, authority: Authority, tmp_path: Path
) -> None:
    good = sign(authority, tmp_path / "good")
    ending = sign(authority, tmp_path / "ending", ends=5.0)
    lost = tmp_path / "lost" / "fullchain.pem"
    lost.parent.mkdir()
    lost.symlink_to(tmp_path / "nowhere")
    found = await see(machine, tmp_path / "*" / "fullchain.pem", key="privkey.pem")
    assert {path: verdict(finding) for path, finding in found.items()} == {
        str(good): ("ok", ""),
        str(ending): ("warning", "expiring"),
        str(lost): ("critical", "missing"),
    }
    assert "a link that leads nowhere" in found[str(lost)].summary


async def test_no_file_at_all_is_told(machine: Machine, tmp_path: Path) -> None:
    assert verdict(await see_one(machine, tmp_path / "*.pem")) == ("warning", "nothing")
    assert verdict(await see_one(machine, tmp_path / "a.pem")) == ("critical", "missing")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nothing of the kind",
        b"-----BEGIN CERTIFICATE-----\nnot base64!\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\n" * 20_000,
        os.urandom(100_000),
        b"\x30\x84\xff\xff\xff\xff",
    ],
    ids=["empty", "text", "base64", "der", "begins", "noise", "length"],
)
async def test_what_is_no_certificate_is_unusable(
    data: bytes, machine: Machine, tmp_path: Path
) -> None:
    path = tmp_path / "a.pem"
    path.write_bytes(data)
    assert verdict(await see_one(machine, path)) == ("critical", "unusable")


async def test_der_is_read_too(machine: Machine, authority: Authority, tmp_path: Path) -> None:
    path = tmp_path / "a.der"
    path.write_bytes(authority.sign("shop.example").public_bytes(serialization.Encoding.DER))
    assert verdict(await see_one(machine, path)) == ("ok", "")


# Keys


async def test_the_key_of_another_certificate_is_a_mismatch(
    machine: Machine, authority: Authority, tmp_path: Path
) -> None:
    path = sign(authority, tmp_path)
    before = (tmp_path / "privkey.pem").read_bytes()
    sign(authority, tmp_path, "other.example")
    (tmp_path / "privkey.pem").write_bytes(before)
    finding = await see_one(machine, path, key="privkey.pem")
    assert verdict(finding) == ("critical", "mismatch")
    assert finding.summary == f"the key {tmp_path}/privkey.pem is not that of {path}"
    # Together in one file it is seen without being named.
    path.write_bytes(path.read_bytes() + before)
    assert verdict(await see_one(machine, path)) == ("critical", "mismatch")


async def test_a_key_that_is_missing_or_none_is_told(
    machine: Machine, authority: Authority, tmp_path: Path
) -> None:
    path = sign(authority, tmp_path)
    assert verdict(await see_one(machine, path, key="key.pem")) == ("critical", "missing")
    (tmp_path / "key.pem").write_text("no key")
    assert verdict(await see_one(machine, path, key="key.pem")) == ("critical", "unusable")


async def test_nobody_is_asked_for_the_password_of_a_key(
    machine: Machine, authority: Authority, tmp_path: Path
) -> None:
    path = sign(authority, tmp_path)
    key = serialization.load_pem_private_key((tmp_path / "privkey.pem").read_bytes(), None)
    (tmp_path / "privkey.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"password"),
        )
    )
    finding = await see_one(machine, path, key="privkey.pem")
    assert verdict(finding) == ("ok", "")
    assert "has a password" in finding.facts["Key"]


async def test_what_hostmend_may_not_read_is_unknown(
    machine: Machine, authority: Authority, tmp_path: Path
) -> None:
    path = sign(authority, tmp_path)
    for name in ("privkey.pem", "fullchain.pem"):
        (tmp_path / name).chmod(0)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        finding = await see_one(machine, path)
    finally:
        if root:
            os.seteuid(0)
    assert verdict(finding) == ("unknown", "unreadable")


# Changes


async def test_a_file_is_read_again_when_it_or_its_key_has_changed(
    machine: Machine, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def count(path: str, key: str | None) -> Any:
        read.append(path)
        return read_file(path, key)

    monkeypatch.setattr(checked, "read_file", count)
    path = sign(authority, tmp_path)
    for _ in range(3):
        assert verdict(await see_one(machine, path, key="privkey.pem")) == ("ok", "")
    assert len(read) == 1
    before = (tmp_path / "privkey.pem").read_bytes()
    sign(authority, tmp_path, "other.example")
    assert verdict(await see_one(machine, path, key="privkey.pem")) == ("ok", "")
    (tmp_path / "privkey.pem").write_bytes(before)
    assert verdict(await see_one(machine, path, key="privkey.pem")) == ("critical", "mismatch")
    assert len(read) == 3


async def test_a_filesystem_that_hangs_is_unknown(
    machine: Machine, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    path = sign(authority, tmp_path / "hangs")
    other = sign(authority, tmp_path / "other")

    def hang(place: str, key: str | None) -> Any:
        if place == str(path):
            go_on.wait(60)
        return read_file(place, key)

    monkeypatch.setattr(checked, "read_file", hang)
    try:
        async with asyncio.timeout(30):
            finding = await see_one(machine, path, timeout="100ms")
            assert verdict(finding) == ("unknown", "hung")
            assert verdict(await see_one(machine, other)) == ("ok", "")
    finally:
        go_on.set()


async def test_evidence_is_every_certificate_of_the_file(
    machine: Machine, authority: Authority, tmp_path: Path
) -> None:
    path = sign(authority, tmp_path)
    options = complete("certificate", {"paths": [str(path)]})
    finding = await see_one(machine, path)
    (item,) = await CHECKS["certificate"].gather(options, finding, machine)
    assert item.title == f"Certificates in {path}"
    assert [line.partition(" ")[0] for line in item.text.splitlines()] == [
        "shop.example",
        "Authority",
    ]


async def test_certificates_that_servers_name_are_proposed(
    machine: Machine, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agent.host.webservers import Site

    named = sign(authority, tmp_path / "named")
    (tmp_path / "live").mkdir()
    sign(authority, tmp_path / "live" / "shop")
    site = Site(
        server="nginx", names=("shop.example",), address="127.0.0.1", port=443, tls=True,
        certificates=(named, tmp_path / "gone.pem", tmp_path / "live" / "shop" / "fullchain.pem"),
    )  # fmt: skip
    monkeypatch.setattr(checked, "_LETSENCRYPT", tmp_path / "live")
    monkeypatch.setattr(checked, "find_sites", lambda: (site,))
    live, other = await CHECKS["certificate"].propose(machine)
    assert live.options["paths"] == [f"{tmp_path}/live/*/fullchain.pem"]
    assert other.options["paths"] == [str(named)]
    assert other.why == "the configuration of nginx names them"
    for proposal in (live, other):
        options = complete("certificate", {**proposal.options, "timeout": "20s"})
        assert {verdict(f) for f in await look(options, machine)} == {("ok", "")}


RENEWAL = "version = 2.1.0\nfullchain = {live}/shop/fullchain.pem\n[renewalparams]\n"


@pytest.mark.parametrize(
    ("renewal", "servers", "steps"),
    [
        ("version = 2.1.0\nfullchain = /elsewhere.pem\n", ["nginx"], None),
        (RENEWAL, [], [{}]),
        (RENEWAL, ["nginx"], [{"validate": ["nginx", "-t"], "reload": "nginx.service"}]),
        # Whose unit has one name here and another there, or who of two, nobody guesses.
        (RENEWAL, ["apache"], [{}]),
        (RENEWAL, ["apache", "nginx"], [{}]),
    ],
)
async def test_what_certbot_renews_is_proposed_with_the_remedy_that_has_it_renewed(
    machine: Machine,
    authority: Authority,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    renewal: str,
    servers: list[str],
    steps: list[object] | None,
) -> None:
    from agent.config import load_config
    from agent.discovery import write_configuration
    from agent.host.webservers import Site
    from agent.remedies.catalog import SHIPPED, Catalog

    live = tmp_path / "live"
    live.mkdir()
    sites = tuple(
        Site(
            server=server, names=(), address="127.0.0.1", port=443, tls=True,
            certificates=(sign(authority, live / "shop"),),
        )
        for server in servers or ["none"]
    )  # fmt: skip
    (tmp_path / "renewal").mkdir()
    (tmp_path / "renewal" / "shop.conf").write_text(renewal.format(live=live))
    monkeypatch.setattr(checked, "_LETSENCRYPT", live)
    monkeypatch.setattr(checked, "find_sites", lambda: sites if servers else ())
    proposals = await CHECKS["certificate"].propose(machine)
    file = tmp_path / "hostmend.yml"
    file.write_text(write_configuration(proposals))
    check = load_config(file, catalog=Catalog.load([SHIPPED])).checks["letsencrypt"]
    ladder = check.policy.ladder
    assert [step.remedy for step in ladder] == ["renew-certificate"] * len(steps or [])
    assert [dict(step.options) for step in ladder] == (steps or [])
    (proposal,) = proposals
    assert ("certbot renews them" in proposal.why) == (steps is not None)


def test_reading_never_raises(tmp_path: Path) -> None:
    assert read_file(str(tmp_path), None).cause == "unusable"
