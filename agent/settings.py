"""Where this agent keeps its things: built-in places, changed by the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from agent.errors import ConfigError

#: sockaddr_un.sun_path without its closing zero (unix(7)).
_LONGEST_SOCKET_PATH = 107


def _home(variable: str, otherwise: str) -> Path:
    """A base directory of the XDG specification, which says to ignore relative paths."""
    named = Path(os.environ.get(variable, ""))
    return named if named.is_absolute() else Path.home() / otherwise


def _is_root() -> bool:
    return os.geteuid() == 0


def _default_config() -> Path:
    if _is_root():
        return Path("/etc/hostmend/hostmend.yml")
    return _home("XDG_CONFIG_HOME", ".config") / "hostmend/hostmend.yml"


def _default_state_dir() -> Path:
    if _is_root():
        return Path("/var/lib/hostmend")
    return _home("XDG_STATE_HOME", ".local/state") / "hostmend"


def _default_runtime_dir(read: Mapping[str, Any]) -> Path:
    if _is_root():
        return Path("/run/hostmend")
    named = Path(os.environ.get("XDG_RUNTIME_DIR", ""))
    # Without a session there is no private tmpfs; a directory under /tmp could be somebody else's.
    return named / "hostmend" if named.is_absolute() else read.get("state_dir", Path()) / "run"


def _read_path(value: object) -> object:
    if isinstance(value, str):
        if "\0" in value:
            raise ValueError("it holds a zero byte")
        return Path(value).expanduser().absolute()
    return value


def _read_listen(value: object) -> object:
    if not isinstance(value, str):
        return value
    host, colon, port = value.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not (
        colon
        and host.strip("[]")
        and port.isascii()
        and port.isdigit()
        and int(port) <= 65535
        and bracketed == (":" in host)
    ):
        raise ValueError(
            f"{value!r} is not an address and a port: "
            "write for example 127.0.0.1:8642 or [::1]:8642"
        )
    return host.strip("[]"), int(port)


_Path = Annotated[Path, BeforeValidator(_read_path)]


class Settings(BaseSettings):
    """Paths and addresses of one agent; made by `read_settings`."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", env_ignore_empty=True, populate_by_name=True
    )

    #: The main configuration file; `conf.d/` is looked for beside it.
    config: _Path = Field(default_factory=_default_config, validation_alias="HOSTMEND_CONFIG")
    #: What must survive a reboot.
    state_dir: _Path = Field(
        default_factory=_default_state_dir, validation_alias="HOSTMEND_STATE_DIR"
    )
    #: The socket, runs' private data, temporary files.
    runtime_dir: _Path = Field(
        default_factory=_default_runtime_dir, validation_alias="HOSTMEND_RUNTIME_DIR"
    )
    #: Host and port of HTTP; port 0 takes any free one.
    listen: Annotated[tuple[str, int], NoDecode, BeforeValidator(_read_listen)] = Field(
        default=("127.0.0.1", 8642), validation_alias="HOSTMEND_LISTEN"
    )
    #: The agent's own certificate, with those that signed it, and its key, in PEM: HTTP is
    #: encrypted. Both or neither.
    tls_cert: _Path | None = Field(default=None, validation_alias="HOSTMEND_TLS_CERT")
    tls_key: _Path | None = Field(default=None, validation_alias="HOSTMEND_TLS_KEY")
    #: HTTP without TLS may leave this host.
    allow_plain: bool = Field(default=False, validation_alias="HOSTMEND_ALLOW_PLAIN")

    @property
    def socket_path(self) -> Path:
        """The UNIX socket that the command talks to."""
        return self.runtime_dir / "hostmend.sock"


def read_settings() -> Settings:
    """The settings of this process. Raises ConfigError that names the variable."""
    try:
        settings = Settings()
    except ValidationError as error:
        first = error.errors()[0]
        why = str(first.get("ctx", {}).get("error", first["msg"]))
        raise ConfigError(f"cannot use it: {why}", key=str(first["loc"][0])) from error
    except RuntimeError as error:  # Path.home and Path.expanduser
        raise ConfigError(
            f"cannot find a home directory: {error}; set HOSTMEND_CONFIG, HOSTMEND_STATE_DIR "
            "and HOSTMEND_RUNTIME_DIR, or HOME"
        ) from error
    if (settings.tls_cert is None) != (settings.tls_key is None):
        key = "HOSTMEND_TLS_CERT" if settings.tls_cert else "HOSTMEND_TLS_KEY"
        raise ConfigError(
            "cannot use it alone: HOSTMEND_TLS_CERT and HOSTMEND_TLS_KEY belong together", key=key
        )
    if len(os.fsencode(settings.socket_path)) > _LONGEST_SOCKET_PATH:
        raise ConfigError(
            f"cannot use it: the socket's path {settings.socket_path} would be longer than "
            f"{_LONGEST_SOCKET_PATH} bytes; name a shorter directory",
            key="HOSTMEND_RUNTIME_DIR",
        )
    return settings
