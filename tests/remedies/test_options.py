"""Options: types, limits, and what is never taken."""

from __future__ import annotations

import json

import pytest

from agent.errors import RemedyError
from agent.remedies.options import Option, check_options, make_inert


def check(option: Option, value: object, **more: object) -> object:
    return check_options("mend", {"it": option}, {"it": value}, **more)["it"]


@pytest.mark.parametrize(
    ("option", "given", "taken"),
    [
        (Option(type="str"), "{{ x }}", "{{ x }}"),
        (Option(type="str"), 5, "5"),
        (Option(type="int"), "-12", -12),
        (Option(type="float"), "1.5", 1.5),
        (Option(type="bool"), "yes", True),
        (Option(type="bool"), "off", False),
        (Option(type="bool"), 0, False),
        (Option(type="list"), "a, b", ["a", "b"]),
        (Option(type="list", elements="int"), ["1", 2], [1, 2]),
        (Option(type="dict"), '{"a": {"b": [1, null]}}', {"a": {"b": [1, None]}}),
        (Option(type="path"), "/var/log", "/var/log"),
        (Option(type="unit"), "getty@tty1.service", "getty@tty1.service"),
        (Option(type="unit"), r"srv-\x2dx.mount", r"srv-\x2dx.mount"),
        (Option(type="argv"), ["nginx", "-t"], ["nginx", "-t"]),
        (Option(type="argv"), "/usr/sbin/nginx -c 'a b'", ["/usr/sbin/nginx", "-c", "a b"]),
        (Option(type="duration"), "1m30s", 90),
        (Option(type="duration"), 0.5, 0.5),
        (Option(choices=("a", "b")), "b", "b"),
    ],
)
def test_a_good_value_is_converted_and_may_be_checked_again(option, given, taken):
    value = check(option, given)
    assert value == taken
    assert type(value) is type(taken)
    assert check(option, value) == taken


@pytest.mark.parametrize(
    ("option", "given", "why"),
    [
        (Option(type="str"), "a\nb", "control characters"),
        (Option(type="str"), "\x1b[2J", "control characters"),
        (Option(type="str"), "\u202etxt", "control characters"),
        (Option(type="str"), "x" * 5000, "longer than"),
        (Option(type="str"), ["a"], "must be text"),
        (Option(type="str"), True, "must be text"),
        (Option(type="int"), "1.5", "whole number"),
        (Option(type="int"), True, "whole number"),
        (Option(type="int"), 2**63, "whole number"),
        (Option(type="float"), "nan", "a number"),
        (Option(type="float"), "1e999", "a number"),
        (Option(type="float"), 10**400, "a number"),
        (Option(type="bool"), "perhaps", "true or false"),
        (Option(type="list"), {"a": 1}, "a list"),
        (Option(type="list"), ["a"] * 300, "more than"),
        (Option(type="dict"), "a=1", "JSON object"),
        (Option(type="dict"), {"ansible_host": "x"}, "belongs to Ansible"),
        (Option(type="dict"), {"a": [{"__ansible_unsafe": "x"}]}, "may hold only|belongs"),
        (Option(type="dict"), {"a": {"__ansible_vault": "x"}}, "may hold only|belongs"),
        (Option(type="dict"), {'a":1,"x': "y"}, "may hold only"),
        (Option(type="dict"), {"{{ x }}": 1}, "may hold only"),
        (Option(type="dict"), {1: 1}, "may hold only"),
        (Option(type="dict"), {"a": {"a": {"a": {"a": {"a": {"a": {"a": {}}}}}}}}, "nested deeper"),
        (Option(type="dict"), {"a": object()}, "must be text"),
        (Option(type="path"), "var/log", "absolute path"),
        (Option(type="path"), "/var/../etc", "absolute path"),
        (Option(type="path"), "/home/$USER", "absolute path"),
        (Option(type="unit"), "nginx", "with its suffix"),
        (Option(type="unit"), "-M.service", "with its suffix"),
        (Option(type="unit"), "../x.service", "with its suffix"),
        (Option(type="unit"), "a b.service", "with its suffix"),
        (Option(type="unit"), "{{x}}.service", "with its suffix"),
        (Option(type="unit"), "x" * 300 + ".service", "with its suffix"),
        (Option(type="unit"), "sshd.service", "never acts"),
        (Option(type="argv"), [], "begins with"),
        (Option(type="argv"), "", "begins with"),
        (Option(type="argv"), ["bin/nginx"], "begins with"),
        (Option(type="argv"), ["/usr/../nginx"], "begins with"),
        (Option(type="argv"), ["-x"], "begins with"),
        (Option(type="argv"), ["{{ x }}"], "begins with"),
        (Option(type="argv"), "nginx 'a", "cannot be split"),
        (Option(type="duration"), "soon", "not a duration"),
        (Option(type="duration"), -1, "negative"),
        (Option(choices=("a", "b")), "c", "none of a, b"),
        (Option(type="list", choices=("a", "b")), "a,c", "none of a, b"),
    ],
)
def test_a_bad_value_is_refused_with_the_reason(option, given, why):
    with pytest.raises(RemedyError, match=f"cannot run mend: option it: .*({why})"):
        check(option, given)


def test_unknown_options_are_refused_with_the_known_ones():
    with pytest.raises(RemedyError, match=r"no option limit, tags; its options are unit"):
        check_options("mend", {"unit": Option()}, {"unit": "a", "tags": "b", "limit": "c"})


def test_a_required_option_is_asked_for():
    with pytest.raises(RemedyError, match=r"option unit: it is required\. What to restart"):
        check_options("mend", {"unit": Option(required=True, description="What to restart")}, {})


def test_defaults_fill_what_is_not_given():
    options = {"a": Option(default="x"), "b": Option(), "c": Option(default="y")}
    assert check_options("mend", options, {"c": "z", "b": None}) == {"a": "x", "c": "z"}


def test_options_are_capped_together():
    options = {f"o{i}": Option() for i in range(20)}
    with pytest.raises(RemedyError, match="longer than"):
        check_options("mend", options, dict.fromkeys(options, "x" * 4000))


def test_a_configured_option_takes_only_what_the_configuration_names():
    unit = Option(type="unit", configured_only=True)
    named = ("web.service", ("nginx", "-t"))
    assert check(unit, "web.service", configured=named) == "web.service"
    for other in ("db.service", "web.socket"):
        with pytest.raises(RemedyError, match="not named by the configuration"):
            check(unit, other, configured=named)
    with pytest.raises(RemedyError, match="not named"):
        check(unit, "web.service")
    argv = Option(type="argv", configured_only=True)
    assert check(argv, "nginx -t", configured=named) == ["nginx", "-t"]
    with pytest.raises(RemedyError, match="not named"):
        check(argv, ["nginx", "-s", "stop"], configured=named)
    with pytest.raises(RemedyError, match="not named"):
        check(argv, ["web.service", "web.service"], configured=(*named, "-t"))
    units = Option(type="list", elements="unit", configured_only=True)
    assert check(units, "web.service", configured=named) == ["web.service"]
    kept = Option(type="duration", configured_only=True, default=604_800)
    assert [check(kept, value, configured=(86_400,)) for value in ("1d", "7d")] == [86_400, 604_800]
    with pytest.raises(RemedyError, match="not named"):
        check(kept, "0s", configured=(86_400,))


def test_every_text_is_made_inert_and_nothing_else():
    value = {"a": "x", "b": [1, True, None, 1.5, "{{ y }}", {"c": ["z"]}]}
    assert make_inert(value) == {
        "a": {"__ansible_unsafe": "x"},
        "b": [1, True, None, 1.5, {"__ansible_unsafe": "{{ y }}"},
              {"c": [{"__ansible_unsafe": "z"}]}],
    }  # fmt: skip
    json.dumps(make_inert(value))
