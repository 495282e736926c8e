"""What a valid configuration becomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import time
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from agent.checks.check import CheckType
from agent.config import Config, load_config, load_config_errors
from agent.config.schedule import LAST, WeeklySchedule, local_zone
from agent.core.model import (
    Changes,
    CheckPolicy,
    Confirm,
    Maintenance,
    Mode,
    Policy,
    Reason,
    Risk,
    Status,
    Step,
)
from agent.errors import ConfigError
from agent.remedies.catalog import Catalog

Load = Callable[..., Config]
Errors = Callable[..., tuple[ConfigError, ...]]
Write = Callable[..., Path]

WEB = "web: {type: unit, unit: nginx.service"


def test_without_any_file_nothing_is_checked_and_nothing_is_mended(load: Load) -> None:
    config = load(None)
    assert config.files == ()
    assert config.checks == {}
    assert config.policy == Policy(mode=Mode.OFF)


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "checks:\npolicy:\nroutes:\n", "---\n"])
def test_a_file_with_nothing_in_it_means_the_defaults(load: Load, text: str) -> None:
    config = load(text)
    assert config.policy == Policy()
    assert len(config.files) == 1


def test_every_key_of_policy_reaches_the_core(load: Load) -> None:
    config = load(
        """
        policy:
          mode: approve
          act_alone_up_to: high
          runs_per_hour: 1
          slots: 2
          attempts_window: 3h
          storm: {at: 4, within: 5s, group_wait: 6s}
          recurring: {after: 7, within: 8h}
          held_after: 9s
          inhibit_for: 10s
          unknown_for: 11s
          retry_after: 12s
          retry_at_most: 13s
          remind_after: 14s
          approval_for: 15s
          notice_for: 1h1m1s
          warm: true
        """
    )
    assert config.policy == Policy(
        mode=Mode.APPROVE,
        act_alone_up_to=Risk.HIGH,
        runs_per_hour=1,
        slots=2,
        attempts_window=3 * 3600.0,
        storm_at=4,
        storm_window=5.0,
        group_wait=6.0,
        recurring_after=7,
        recurring_window=8 * 3600.0,
        held_after=9.0,
        inhibit_for=10.0,
        unknown_for=11.0,
        retry_after=12.0,
        retry_at_most=13.0,
        remind_after=14.0,
        approval_for=15.0,
        notice_for=3661.0,
    )
    assert config.warm is True


def test_off_is_a_mode_and_not_false(load: Load) -> None:
    assert load("policy: {mode: off}").policy.mode is Mode.OFF


def test_a_check_begins_with_the_general_defaults(load: Load) -> None:
    config = load("checks: {data: {type: volume, path: /data}}")
    assert config.policy.checks["data"] == CheckPolicy(
        name="data", confirm=Confirm(times=2, of=3), ladder=()
    )
    assert config.checks["data"].options.attempts == 2


def test_the_configuration_wins_over_the_type_and_the_type_over_the_general(load: Load) -> None:
    config = load(f"checks:\n  a: {{type: unit, unit: a.service}}\n  {WEB}, every: 1s}}\n")
    assert config.policy.checks["a"].every == 30.0
    assert config.policy.checks["a"].ladder[0].attempts == 3
    assert config.policy.checks["web"].every == 1.0
    assert config.policy.checks["web"].timeout == 10.0


def test_every_general_key_of_a_check_reaches_the_core(load: Load) -> None:
    check = load(
        """
        checks:
          data: {type: volume, path: /data}
          web:
            type: unit
            unit: nginx.service
            every: 1s
            timeout: 2s
            confirm: 4 of 5
            stable_for: 3s
            cool_down: 4s
            verify_for: 5s
            attempts: 6
            depends_on: [data]
            mode: shadow
            labels: {team: shop}
            ladder: []
        """
    ).policy.checks["web"]
    assert check == CheckPolicy(
        name="web",
        every=1.0,
        timeout=2.0,
        confirm=Confirm(times=4, of=5),
        stable_for=3.0,
        cool_down=4.0,
        verify_for=5.0,
        depends_on=("data",),
        ladder=(),
        mode=Mode.SHADOW,
        labels={"team": "shop"},
    )


def test_a_default_ladder_is_joined_with_what_the_remedy_says(load: Load) -> None:
    (step,) = load(f"checks: {{{WEB}}}}}").policy.checks["web"].ladder
    assert step == Step(
        key="restart-service",
        remedy="restart-service",
        causes=("failed", "stopped"),
        fills={"unit": "subject"},
        hidden=frozenset({"key"}),
        risk=Risk.LOW,
        changes=Changes.SERVICE,
        timeout=60.0,
        lock="unit:{unit}",
        digest="digest of restart-service",
        attempts=3,
    )


def test_a_step_says_otherwise_and_a_repeated_remedy_gets_a_key_of_its_own(load: Load) -> None:
    first, second = (
        load(
            """
            checks:
              data:
                type: volume
                path: /data
                ladder:
                  - {remedy: grow-volume, options: {size: 1G}, mode: approve, attempts: 1}
                  - {remedy: grow-volume, options: {size: 9G}, causes: [full]}
            """
        )
        .policy.checks["data"]
        .ladder
    )
    assert (first.key, first.mode, first.attempts) == ("grow-volume", Mode.APPROVE, 1)
    assert (first.risk, first.changes, first.timeout) == (Risk.HIGH, Changes.DATA, 600.0)
    assert (second.key, second.mode, second.attempts) == ("grow-volume#2", None, 2)
    assert second.options == {"size": "9G"}


def test_a_remedy_of_another_type_serves_causes_that_the_check_itself_names(load: Load) -> None:
    config = load(
        """
        checks:
          data:
            type: volume
            path: /data
            critical: {crowded: 95%}
            ladder:
              - {remedy: restart-service, causes: [crowded], options: {unit: db.service}}
        """
    )
    (step,) = config.policy.checks["data"].ladder
    assert step.causes == ("crowded",)
    assert step.options == {"unit": "db.service"}
    assert step.fills == {}


def test_options_that_are_never_shown_are_known_of_every_remedy(load: Load) -> None:
    assert load("version: 1").hidden == {("restart-service", "key")}


def test_configured_is_what_checks_name_and_what_ladders_fix(load: Load) -> None:
    config = load(
        f"""
        checks:
          {WEB}}}
          data:
            type: volume
            path: /data
            ladder:
              - remedy: restart-service
                causes: [full]
                options: {{unit: db.service, validate: [dbcheck, --all]}}
        """
    )
    assert config.configured == {"nginx.service", "db.service"}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{unit: nginx}", "unit: it must be a systemd unit with its suffix"),
        ("{unit: sshd.service}", "unit: hostmend never acts on sshd.service"),
        ("{validate: []}", "validate: it must be a list that begins with a program's name"),
        ("{validate: }", "validate: it must be a list"),
    ],
)
def test_a_value_that_an_option_cannot_take_is_an_error_at_its_line(
    errors: Errors, tmp_path: Path, value: str, message: str
) -> None:
    (error,) = errors(
        f"checks:\n  {WEB}, ladder: [\n    {{remedy: restart-service,\n     options: {value}}}]}}\n"
    )
    assert str(error).startswith(
        f"{tmp_path}/hostmend.yml:4: checks.web.ladder[0].options.{message}"
    )


def test_the_words_of_a_command_are_configured_only_together(load: Load) -> None:
    config = load(
        f"checks:\n  {WEB},\n"
        "   ladder: [{remedy: restart-service, options: {allowed: ls -l /srv}}]}\n"
    )
    assert config.configured == {"nginx.service", ("ls", "-l", "/srv")}


def test_files_of_conf_d_are_read_in_order_and_sections_grow_together(load: Load) -> None:
    config = load(
        f"version: 1\npolicy: {{mode: shadow}}\nchecks: {{{WEB}}}}}\n",
        b="checks:\n  data: {type: volume, path: /data, depends_on: [web]}\n",
        a='version: 1\npolicy: {slots: 2}\nroutes: {ops: {url: "json://example.org"}}\n',
        empty="# nothing\n",
    )
    assert list(config.checks) == ["web", "data"]
    assert (config.policy.mode, config.policy.slots) == (Mode.SHADOW, 2)
    assert [file.name for file in config.files] == ["hostmend.yml", "a.yml", "b.yml", "empty.yml"]


def test_conf_d_alone_is_a_configuration_too(load: Load) -> None:
    config = load(None, web=f"checks: {{{WEB}}}}}")
    assert list(config.checks) == ["web"]
    assert config.policy.mode is Mode.AUTO


def test_hidden_and_other_files_in_conf_d_are_passed_over(load: Load, tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d/.web.yml").write_text("][")
    (tmp_path / "conf.d/web.yml~").write_text("][")
    (tmp_path / "conf.d/README").write_text("][")
    assert load("version: 1").checks == {}


def test_a_file_that_its_name_would_leave_unread_is_an_error(load: Load, tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d/web.yaml").write_text("version: 1")
    with pytest.raises(ConfigError, match=r"web\.yaml: cannot use this name: only \*\.yml"):
        load("version: 1")


@pytest.mark.parametrize(
    ("first", "second", "key"),
    [
        ("checks:\n  web: {type: unit, unit: a.service}", None, "checks.web"),
        ("routes:\n  web: {url: 'json://example.org'}", None, "routes.web"),
        ("policy:\n  slots: 1", None, "policy.slots"),
        ("#\npublic_url: https://a.example", "#\npublic_url: https://a.example", "public_url"),
    ],
)
def test_a_name_defined_twice_is_an_error_that_names_both_places(
    errors: Errors, tmp_path: Path, first: str, second: str | None, key: str
) -> None:
    (error,) = errors(first, more=f"# one line more\n{second or first}")
    assert str(error) == (
        f"{tmp_path}/conf.d/more.yml:3: {key}: "
        f"is defined twice: it stands in {tmp_path}/hostmend.yml:2 too"
    )


def test_all_errors_are_told_in_the_order_of_files_and_lines(errors: Errors) -> None:
    found = errors(
        "routes:\n  r: {}\nchecks:\n  a: {type: nothing}\npolicy: {slots: 0}\n",
        more="checks:\n  b: {type: nothing}\n",
    )
    assert [(Path(e.file or "").name, e.line, e.key) for e in found] == [
        ("hostmend.yml", 2, "routes.r"),
        ("hostmend.yml", 4, "checks.a.type"),
        ("hostmend.yml", 5, "policy.slots"),
        ("more.yml", 2, "checks.b.type"),
    ]


def test_loading_raises_the_first_error(load: Load) -> None:
    with pytest.raises(ConfigError) as caught:
        load("policy: {slots: 0}\nchecks: {a: {type: nothing}}\n")
    assert (caught.value.line, caught.value.key) == (1, "policy.slots")


def test_two_circles_are_two_errors_and_a_diamond_is_none(errors: Errors) -> None:
    assert not errors(
        """
        checks:
          a: {type: volume, path: /a, depends_on: [b, c]}
          b: {type: volume, path: /b, depends_on: [d]}
          c: {type: volume, path: /c, depends_on: [d]}
          d: {type: volume, path: /d}
        """
    )
    found = errors(
        """
        checks:
          a: {type: volume, path: /a, depends_on: [b]}
          b: {type: volume, path: /b, depends_on: [a]}
          c: {type: volume, path: /c, depends_on: [c]}
        """
    )
    assert [error.message for error in found] == [
        "goes in a circle: a -> b -> a",
        "goes in a circle: c -> c",
    ]


def test_anchors_and_merge_keys_save_repetition(load: Load) -> None:
    config = load(
        """
        checks:
          a: &unit {type: unit, unit: a.service, every: 5s}
          b:
            <<: *unit
            unit: b.service
        """
    )
    assert config.policy.checks["b"].every == 5.0
    assert config.configured == {"a.service", "b.service"}


def test_an_error_below_an_alias_stands_where_it_was_written(errors: Errors) -> None:
    found = errors(
        "checks:\n"
        "  a: &unit\n"
        "    type: unit\n"
        "    unit: a.service\n"
        "    every: 5\n"
        "  b:\n"
        "    <<: *unit\n"
    )
    assert [(error.line, error.key) for error in found] == [
        (5, "checks.a.every"),
        (5, "checks.b.every"),
    ]


def test_a_time_of_day_stays_text(load: Load) -> None:
    config = load("checks: {data: {type: volume, path: /data, window: 22:00}}")
    assert config.checks["data"].options.window == "22:00"  # type: ignore[attr-defined]


def test_routes_take_everything_but_openings_unless_they_say_so(load: Load, tmp_path: Path) -> None:
    config = load(
        """
        routes:
          all: {url: "mailto://ops:secret@example.org"}
          some:
            url_file: secrets/ops
            reasons: [opened, escalated, opened]
            severity: critical
            labels: {team: shop}
        """
    )
    every, some = config.policy.routes
    assert set(every.reasons) == set(Reason) - {Reason.OPENED}
    assert every.severity is Status.WARNING
    assert some.reasons == (Reason.OPENED, Reason.ESCALATED)
    assert (some.severity, some.labels) == (Status.CRITICAL, {"team": "shop"})
    assert config.routes["some"].url_file == tmp_path / "secrets/ops"
    assert config.routes["some"].url is None
    assert config.routes["all"].url == "mailto://ops:secret@example.org"
    assert "secret@" not in repr(config)


def test_what_the_sender_says_of_a_url_is_an_error_at_its_line(
    write: Write, catalog: Catalog, types: Mapping[str, CheckType]
) -> None:
    path = write('routes:\n  ops:\n    url: "nosuch://x"\n')
    (error,) = load_config_errors(
        path, catalog=catalog, types=types, validate_url=lambda _url: "there is no such service"
    )
    assert (error.line, error.key) == (3, "routes.ops.url")
    assert error.message == "there is no such service"


def test_a_public_url_loses_its_last_slash(load: Load) -> None:
    assert load("public_url: https://host.example/").public_url == "https://host.example"


def test_a_file_that_cannot_be_read_is_an_error(
    tmp_path: Path, catalog: Catalog, types: Mapping[str, CheckType]
) -> None:
    path = tmp_path / "hostmend.yml"
    path.mkdir()
    with pytest.raises(ConfigError, match="cannot read it: Is a directory"):
        load_config(path, catalog=catalog, types=types)


def test_a_file_in_another_encoding_is_an_error_with_its_line(
    tmp_path: Path, catalog: Catalog, types: Mapping[str, CheckType]
) -> None:
    path = tmp_path / "hostmend.yml"
    path.write_bytes("version: 1\n# Prüfung\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"hostmend\.yml:2: cannot read it: it is not UTF-8"):
        load_config(path, catalog=catalog, types=types)


def test_a_file_that_is_too_large_is_refused(errors: Errors) -> None:
    (error,) = errors("# " + "x" * 1_000_000)
    assert error.message == "cannot read it: it is larger than 1000 kB"


def test_a_type_that_contradicts_the_catalogue_is_told_at_the_check(
    write: Write, types: Mapping[str, CheckType]
) -> None:
    path = write(f"checks:\n  {WEB}}}\n")
    (error,) = load_config_errors(path, catalog=Catalog(), types=types)
    assert (error.line, error.key) == (2, "checks.web.ladder[0].remedy")


def test_a_maintenance_window_is_complete(load: Load) -> None:
    config = load(
        f"""
        checks: {{{WEB}, labels: {{team: shop}}}}}}
        maintenance:
          patches:
            days: [sun, wed]
            weeks: [first, last]
            at: 04:30
            for: 2h
            timezone: Europe/Berlin
            checks: [web]
            subjects: [a.service]
            comment: patches
          all: {{at: 00:00, for: 1h, labels: {{team: shop}}}}
        """
    )
    whole, patches = config.policy.maintenance
    assert patches == Maintenance(
        name="patches",
        schedule=WeeklySchedule(
            days=frozenset({2, 6}),
            weeks=frozenset({1, LAST}),
            at=time(4, 30),
            lasts=7200.0,
            zone=ZoneInfo("Europe/Berlin"),
        ),
        checks=("web",),
        subjects=("a.service",),
        comment="patches",
    )
    assert (whole.checks, whole.labels) == ((), {"team": "shop"})
    assert isinstance(whole.schedule, WeeklySchedule)
    assert whole.schedule.days == frozenset(range(7))
    assert whole.schedule.zone == local_zone()
