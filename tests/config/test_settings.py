"""Places and addresses, from the user that runs it and from the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent import settings as module
from agent.errors import ConfigError
from agent.settings import Settings, read_settings

VARIABLES = (
    "HOSTMEND_CONFIG",
    "HOSTMEND_STATE_DIR",
    "HOSTMEND_RUNTIME_DIR",
    "HOSTMEND_LISTEN",
    "HOSTMEND_TLS_CERT",
    "HOSTMEND_TLS_KEY",
    "HOSTMEND_ALLOW_PLAIN",
    "XDG_CONFIG_HOME",
    "XDG_STATE_HOME",
    "XDG_RUNTIME_DIR",
)


@pytest.fixture(autouse=True)
def nothing_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", "/home/op")


@pytest.fixture
def as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.os, "geteuid", lambda: 0)


@pytest.fixture
def as_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.os, "geteuid", lambda: 1000)


def places(settings: Settings) -> tuple[str, str, str, str]:
    return (
        str(settings.config),
        str(settings.state_dir),
        str(settings.runtime_dir),
        str(settings.socket_path),
    )


@pytest.mark.usefixtures("as_root")
def test_root_uses_the_places_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "/elsewhere")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/elsewhere")
    assert places(read_settings()) == (
        "/etc/hostmend/hostmend.yml",
        "/var/lib/hostmend",
        "/run/hostmend",
        "/run/hostmend/hostmend.sock",
    )
    assert read_settings().listen == ("127.0.0.1", 8642)


@pytest.mark.usefixtures("as_user")
def test_anybody_else_uses_the_home_directory_and_never_a_shared_one() -> None:
    assert places(read_settings()) == (
        "/home/op/.config/hostmend/hostmend.yml",
        "/home/op/.local/state/hostmend",
        "/home/op/.local/state/hostmend/run",
        "/home/op/.local/state/hostmend/run/hostmend.sock",
    )


@pytest.mark.usefixtures("as_user")
def test_xdg_directories_are_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "/c")
    monkeypatch.setenv("XDG_STATE_HOME", "/s")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    assert places(read_settings())[:3] == (
        "/c/hostmend/hostmend.yml",
        "/s/hostmend",
        "/run/user/1000/hostmend",
    )


@pytest.mark.usefixtures("as_user")
def test_relative_xdg_directories_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "c")
    monkeypatch.setenv("XDG_STATE_HOME", "")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "r")
    assert places(read_settings())[:3] == (
        "/home/op/.config/hostmend/hostmend.yml",
        "/home/op/.local/state/hostmend",
        "/home/op/.local/state/hostmend/run",
    )


@pytest.mark.parametrize("who", ["as_root", "as_user"])
def test_hostmends_own_variables_win(
    who: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    request.getfixturevalue(who)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOSTMEND_CONFIG", "here.yml")
    monkeypatch.setenv("HOSTMEND_STATE_DIR", "~/state")
    monkeypatch.setenv("HOSTMEND_RUNTIME_DIR", "/r")
    monkeypatch.setenv("HOSTMEND_LISTEN", "[::1]:0")
    settings = read_settings()
    assert places(settings) == (
        str(tmp_path / "here.yml"),
        "/home/op/state",
        "/r",
        "/r/hostmend.sock",
    )
    assert settings.listen == ("::1", 0)


@pytest.mark.usefixtures("as_user")
def test_without_a_session_a_second_agent_s_runtime_follows_its_state(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOSTMEND_STATE_DIR", "/second")
    assert str(read_settings().runtime_dir) == "/second/run"


@pytest.mark.usefixtures("as_root")
def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSTMEND_LISTEN", "")
    monkeypatch.setenv("HOSTMEND_CONFIG", "")
    assert read_settings().listen == ("127.0.0.1", 8642)
    assert str(read_settings().config) == "/etc/hostmend/hostmend.yml"


@pytest.mark.parametrize(
    "listen", ["foo", ":8642", "host:", "host:http", "127.0.0.1:65536", "::1:80", "[::1]", "[h]:1"]
)
def test_a_bad_address_is_an_error_that_names_the_variable(
    listen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOSTMEND_LISTEN", listen)
    with pytest.raises(ConfigError) as caught:
        read_settings()
    assert str(caught.value) == (
        f"HOSTMEND_LISTEN: cannot use it: {listen!r} is not an address and a port: "
        "write for example 127.0.0.1:8642 or [::1]:8642"
    )


def test_a_directory_too_long_for_a_socket_is_an_error_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOSTMEND_RUNTIME_DIR", "/" + "d" * 92)
    assert len(str(read_settings().socket_path)) == 107
    monkeypatch.setenv("HOSTMEND_RUNTIME_DIR", "/" + "d" * 93)
    with pytest.raises(ConfigError, match="HOSTMEND_RUNTIME_DIR: cannot use it: the socket's path"):
        read_settings()


def test_a_home_that_does_not_exist_is_an_error_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOSTMEND_CONFIG", "~nobody-of-that-name/hostmend.yml")
    with pytest.raises(ConfigError, match=r"cannot find a home directory: .*set HOSTMEND_CONFIG"):
        read_settings()


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize("variable", ["HOSTMEND_TLS_CERT", "HOSTMEND_TLS_KEY"])
def test_a_certificate_and_its_key_come_together(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (read_settings().tls_cert, read_settings().tls_key) == (None, None)
    monkeypatch.setenv(variable, "/etc/hostmend/tls/some.pem")
    with pytest.raises(ConfigError, match=f"{variable}: cannot use it alone"):
        read_settings()
    monkeypatch.setenv("HOSTMEND_TLS_CERT", "/etc/hostmend/tls/cert.pem")
    monkeypatch.setenv("HOSTMEND_TLS_KEY", "/etc/hostmend/tls/key.pem")
    assert str(read_settings().tls_key) == "/etc/hostmend/tls/key.pem"


@pytest.mark.usefixtures("as_root")
def test_plain_http_is_allowed_in_words_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not read_settings().allow_plain
    monkeypatch.setenv("HOSTMEND_ALLOW_PLAIN", "1")
    assert read_settings().allow_plain
    monkeypatch.setenv("HOSTMEND_ALLOW_PLAIN", "perhaps")
    with pytest.raises(ConfigError, match="HOSTMEND_ALLOW_PLAIN"):
        read_settings()
