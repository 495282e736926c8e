"""TLS with a certificate of one's own, renewed while the agent runs."""

from __future__ import annotations

import logging
import ssl
import stat
from pathlib import Path

from agent.errors import Unavailable

log = logging.getLogger(__name__)

#: What tells that a file was replaced: inode, size, time of change in nanoseconds.
_Stamp = tuple[int, int, int]


class Certificate:
    """A certificate with its key, as the files have them.

    The files are looked at for each handshake, which costs two stat(2) and needs no timer: the next
    connection has a renewed certificate. One that cannot be used changes nothing, and is logged.
    """

    def __init__(self, cert: Path, key: Path) -> None:
        """Raises Unavailable when the files cannot be used."""
        self._cert = cert
        self._key = key
        self._seen = self._read_stamps()
        self._current = self._load()
        #: For the listener; each handshake passes from it to the certificate of that moment.
        self.context = self._load()
        self.context.sni_callback = self._choose

    def _choose(
        self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext
    ) -> None:
        self._renew()
        connection.context = self._current

    def _renew(self) -> None:
        stamps = self._read_stamps()
        if stamps == self._seen:
            return
        # Before the files are read: what changes after this is seen next time. And even if they
        # cannot be used: a certificate may be replaced a moment before its key.
        self._seen = stamps
        try:
            self._current = self._load()
        except Unavailable as error:
            log.error("%s; the certificate from before stays", error)
        else:
            log.info("the certificate in %s was renewed", self._cert)

    def _read_stamps(self) -> tuple[_Stamp | None, ...]:
        return tuple(_read_stamp(path) for path in (self._cert, self._key))

    def _load(self) -> ssl.SSLContext:
        self._refuse_open_key()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        # A resumed session would show the certificate that it began with.
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        try:
            # An encrypted key would otherwise ask for its password on the terminal.
            context.load_cert_chain(self._cert, self._key, password="")
        except ssl.SSLError as error:
            raise Unavailable(
                f"cannot use the certificate {self._cert} with the key {self._key}: "
                f"{error.reason or error}; they must be PEM, belong together, and have no password"
            ) from error
        except OSError as error:
            raise Unavailable(
                f"cannot read {self._cert} or {self._key}: {error.strerror}"
            ) from error
        return context

    def _refuse_open_key(self) -> None:
        try:
            mode = stat.S_IMODE(self._key.stat().st_mode)
        except OSError as error:
            raise Unavailable(f"cannot read {self._key}: {error.strerror}") from error
        if mode & (stat.S_IRWXO | stat.S_IWGRP):
            raise Unavailable(
                f"cannot use the key {self._key}: its mode {mode:04o} lets others in; "
                f"run chmod 0640 {self._key}"
            )


def _read_stamp(path: Path) -> _Stamp | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_ino, status.st_size, status.st_mtime_ns)
