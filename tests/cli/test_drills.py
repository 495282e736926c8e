"""`hostmend drill` and `hostmend rehearsal`."""

from __future__ import annotations

import json

import pytest

from agent.remedies.catalog import SHIPPED, Catalog


@pytest.mark.parametrize(("unit", "code"), [("nginx.service", 0), ("other.service", 1)])
async def test_a_drill_that_does_not_pass_is_exit_code_1(agent, hostmend, unit, code) -> None:
    result = await hostmend("drill", "run", "kill-service", "-o", f"unit={unit}", "--within", "1m")
    assert result.code == code
    assert f"d3 kill-service: {'failed' if code else 'passed'}" in result.out
    drill = agent.drill_list["d3"]
    assert (drill.options, drill.budget) == ({"unit": unit}, 60.0)


async def test_a_drill_that_is_refused_says_why(agent, hostmend) -> None:
    agent.no_drills = "this host does not allow any"
    result = await hostmend("drill", "run", "kill-service", "-o", "unit=nginx.service")
    assert (result.code, "does not allow any" in result.err) == (1, True)
    wrong = await hostmend("drill", "run", "kill-service", "-o", "nginx.service")
    assert (wrong.code, "KEY=VALUE" in wrong.err) == (2, True)


async def test_drills_are_listed_shown_and_ended(agent, hostmend) -> None:
    listed = await hostmend("drill", "list")
    assert [line.split()[0] for line in listed.out.splitlines()[1:]] == ["d2", "d1"]
    assert "verified in 2.0 s" in (await hostmend("drill", "show", "d1")).out
    assert (await hostmend("drill", "end", "d1")).code == 0
    assert agent.orders[-1][0] == "end d1"
    assert (await hostmend("drill", "show", "d9")).code == 1


async def test_every_shipped_fault_is_listed_without_an_agent(hostmend) -> None:
    told = json.loads((await hostmend("drill", "faults", "--json")).out)["items"]
    assert {each["name"] for each in told} == set(Catalog.load([SHIPPED / "faults"]).remedies)
    assert not any("keep" in each["options"] for each in told)
    plain = (await hostmend("drill", "faults")).out
    assert "[leave_bytes]" in plain


@pytest.mark.parametrize("verb", [("allow", "--for", "1h"), ("forbid",), ("faults",), ("guard",)])
async def test_what_is_about_this_host_alone_asks_no_other(hostmend, tmp_path, verb) -> None:
    token = tmp_path / "token"
    token.write_text("hm_secret\n")
    token.chmod(0o600)
    server = ("--server", "http://127.0.0.1:1", "--token-file", str(token))
    result = await hostmend(*server, "drill", *verb)
    assert (result.code, "about this host alone" in result.err) == (2, True)


async def test_drills_are_allowed_for_a_week_at_most(hostmend) -> None:
    result = await hostmend("drill", "allow", "--for", "8d")
    assert result.code in (1, 2)
    assert "7 days" in result.err or "root" in result.err


async def test_rehearsals_that_were_kept_are_listed_and_shown(agent, hostmend) -> None:
    listed = await hostmend("rehearsal", "list")
    assert [line.split()[0] for line in listed.out.splitlines()[1:]] == ["h2", "h1"]
    shown = await hostmend("rehearsal", "show", "h1")
    assert shown.out.startswith("PASS - 0 blocking")
    assert "https://staging.example beside https://shop.example" in shown.out
    assert (await hostmend("rehearsal", "show", "h9")).code == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--drill", "kill-service unit=x.service"), "--candidate-agent"),
        (("--drill", "kill-service nginx", "--candidate-agent", "http://x"), "write for example"),
        (("--drill", "'", "--candidate-agent", "http://x"), "No closing quotation"),
    ],
)
async def test_a_rehearsal_with_half_a_drill_is_wrong_usage(hostmend, options, said) -> None:
    sides = ("http://a.invalid", "--baseline", "http://b.invalid")
    result = await hostmend("rehearse", *sides, *options)
    assert (result.code, said in result.err) == (2, True), result.err
