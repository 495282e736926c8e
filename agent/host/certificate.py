"""What a server's certificate says: whose it is, from whom, and until when.

OpenSSL tells Python nothing of a certificate that it did not verify but its bytes, and those are
the ones that people ask about. They are read here: DER (X.690) and RFC 5280, section 4.1.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

_SEQUENCE, _SET, _OID = 0x30, 0x31, 0x06
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18
#: Context tags of TBSCertificate: [0] its version, [3] its extensions.
_VERSION, _EXTENSIONS = 0xA0, 0xA3
#: Text types of names, and how they are encoded.
_TEXTS = {0x0C: "utf-8", 0x13: "ascii", 0x14: "latin-1", 0x16: "ascii", 0x1E: "utf-16-be"}
#: Common name, organisation.
_COMMON_NAME, _ORGANISATION = b"\x55\x04\x03", b"\x55\x04\x0a"
_ALTERNATIVE_NAMES = b"\x55\x1d\x11"
_DNS_NAME, _ADDRESS = 0x82, 0x87


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """The parts of a certificate that people ask for."""

    subject: str
    issuer: str
    #: DNS names and addresses that it is for.
    names: tuple[str, ...]
    #: Seconds since 1970.
    begins: float
    ends: float


def read_certificate(der: bytes) -> Certificate | None:
    """A certificate from its bytes; None for bytes that are none."""
    try:
        (_, whole), *_ = _parts(der)
        (_, signed), *_ = _parts(whole)
        fields = [part for part in _parts(signed) if part[0] != _VERSION]
        # Serial number, signature algorithm, issuer, validity, subject, key, and more.
        issuer, validity, subject = (fields[position][1] for position in (2, 3, 4))
        begins, ends = (_read_time(*part) for part in _parts(validity))
        names = [name for tag, body in fields if tag == _EXTENSIONS for name in _read_names(body)]
        return Certificate(
            subject=_read_name(subject),
            issuer=_read_name(issuer),
            names=tuple(names),
            begins=begins,
            ends=ends,
        )
    except (ValueError, IndexError):
        return None


def read_chain(connection: ssl.SSLObject, *, whole: bool) -> tuple[Certificate, ...]:
    """The certificates that a server sent, its own first and, if not `whole`, alone."""
    own = connection.getpeercert(binary_form=True)
    ders = _list_ders(connection, "get_unverified_chain") if whole else []
    return _read_all(ders or ([own] if own else []))


def read_verified_chain(connection: ssl.SSLObject) -> tuple[Certificate, ...]:
    """The certificates that a server's own was verified by, itself first, the authority last."""
    return _read_all(_list_ders(connection, "get_verified_chain"))


def _read_all(ders: list[bytes]) -> tuple[Certificate, ...]:
    return tuple(found for der in ders if (found := read_certificate(der)) is not None)


def _list_ders(connection: ssl.SSLObject, method: str) -> list[bytes]:
    # Public since Python 3.13; before, the object below has it.
    inner = getattr(connection, "_sslobj", None)
    read = getattr(connection, method, None) or getattr(inner, method, None)
    ders: list[bytes] = []
    for item in (read() if read is not None else None) or ():
        is_der = isinstance(item, bytes)
        ders.append(item if is_der else ssl.PEM_cert_to_DER_cert(item.public_bytes()))
    return ders


def describe_certificate(certificate: Certificate) -> str:
    """One line on a certificate, for people."""
    names = f" for {', '.join(certificate.names[:10])}" if certificate.names else ""
    begins, ends = write_date(certificate.begins), write_date(certificate.ends)
    return (
        f"{certificate.subject or 'nameless'}{names}: from {certificate.issuer or 'nameless'}, "
        f"{begins} to {ends}"
    )


def write_date(at: float) -> str:
    """Seconds since 1970 as `2026-01-31 08:15:00 UTC`."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _parts(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and content of each element. Raises ValueError or IndexError for what is not DER."""
    at = 0
    while at < len(data):
        tag, size, at = data[at], data[at + 1], at + 2
        if size & 0x80:
            width = size & 0x7F
            if not 1 <= width <= 4:
                raise ValueError("not DER")
            size, at = int.from_bytes(data[at : at + width], "big"), at + width
        if at + size > len(data):
            raise ValueError("not DER")
        yield tag, data[at : at + size]
        at += size


def _read_time(tag: int, body: bytes) -> float:
    text = body.decode("ascii")
    if tag == _UTC_TIME:
        text = ("19" if int(text[:2]) >= 50 else "20") + text
    elif tag != _GENERALIZED_TIME:
        raise ValueError("no time")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


def _read_name(body: bytes) -> str:
    """The common name, else the organisation; empty when there is neither."""
    found: dict[bytes, str] = {}
    for _, entries in _parts(body):
        for _, entry in _parts(entries):
            (_, kind), (tag, text) = _parts(entry)
            found.setdefault(kind, text.decode(_TEXTS.get(tag, "latin-1"), "replace"))
    return found.get(_COMMON_NAME) or found.get(_ORGANISATION, "")


def _read_names(body: bytes) -> Iterator[str]:
    for _, extensions in _parts(body):
        for _, extension in _parts(extensions):
            (_, kind), *_, (_, value) = _parts(extension)
            if kind != _ALTERNATIVE_NAMES:
                continue
            for _, names in _parts(value):
                for tag, name in _parts(names):
                    if tag == _DNS_NAME:
                        yield name.decode("ascii", "replace")
                    elif tag == _ADDRESS:
                        yield _write_address(name)


def _write_address(packed: bytes) -> str:
    return str(ipaddress.ip_address(packed)) if len(packed) in (4, 16) else packed.hex()
