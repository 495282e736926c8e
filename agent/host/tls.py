"""What is trusted in TLS, and who we are there: contexts, made once and kept."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from agent.errors import Unavailable

#: Contexts kept; each distinct set of files needs one.
_CONTEXTS = 32


@dataclass(frozen=True, kw_only=True)
class Trust:
    """Whom to believe over TLS, and what to show."""

    #: Whether the certificate must be good.
    verify: bool = True
    #: Certificates of authorities to trust, PEM; None for the system's.
    ca_file: Path | None = None
    #: Our own certificate for servers that ask for one, PEM.
    client_cert: Path | None = None
    #: Its key, PEM without a password; None: it is in the same file.
    client_key: Path | None = None
    #: What is spoken within (ALPN, RFC 7301); empty: nothing is said of it.
    speaks: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        used = (self.ca_file if self.verify else None, self.client_cert, self.client_key)
        return tuple(file for file in used if file is not None)


class Contexts:
    """TLS contexts: loading the certificates of authorities takes milliseconds and memory."""

    def __init__(self) -> None:
        self._kept: dict[tuple[Trust, tuple[int, ...]], ssl.SSLContext] = {}

    def get(self, trust: Trust) -> ssl.SSLContext:
        """The context; a file that has changed is read again. Raises Unavailable."""
        changed = tuple(_read_change(file) for file in trust.files)
        key = (trust, changed)
        if key not in self._kept:
            context = _make_context(trust)
            while len(self._kept) >= _CONTEXTS:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = context
        return self._kept[key]


def _read_change(file: Path) -> int:
    try:
        return file.stat().st_mtime_ns
    except OSError:  # whoever reads it says so
        return 0


def _make_context(trust: Trust) -> ssl.SSLContext:
    try:
        if trust.verify:
            context = ssl.create_default_context(cafile=trust.ca_file)
        else:
            # Without the system's authorities, which take up to 5 MB.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
    except OSError as error:
        raise Unavailable(
            f"cannot read authorities from {trust.ca_file}: {explain_file(error)}"
        ) from error
    if trust.speaks:
        context.set_alpn_protocols(list(trust.speaks))
    if trust.client_cert is not None:
        try:
            load_pair(context, trust.client_cert, trust.client_key)
        except (OSError, ValueError) as error:
            raise Unavailable(
                f"cannot use the certificate {trust.client_cert}: {explain_file(error)}"
            ) from error
    return context


def load_pair(context: ssl.SSLContext, certificate: Path, key: Path | None) -> None:
    """Loads a certificate and its key. Raises OSError or ValueError when they do not belong
    together; Locked when the key has a password, which nobody is asked for."""
    context.load_cert_chain(certificate, key, password=_refuse_password)


class Locked(ValueError):
    """A key has a password."""


def _refuse_password() -> str:
    raise Locked("its key has a password")


def explain_file(error: Exception) -> str:
    """What is wrong with a file of certificates or keys."""
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).lower().replace("_", " ")
    return getattr(error, "strerror", None) or str(error)
