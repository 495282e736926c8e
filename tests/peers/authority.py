"""An authority for tests, and the certificates that it signs."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass
class Authority:
    """An authority of these tests' own, which signs whatever it is told to."""

    directory: Path
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate
    file: Path
    count: int = 0

    def sign(
        self, name: str, *, begins: float = -1.0, ends: float = 30.0, self_signed: bool = False
    ) -> x509.Certificate:
        """A certificate, its days counted from now; its key lies beside it."""
        return self._write(name, begins=begins, ends=ends, self_signed=self_signed)[0]

    def serve_as(self, name: str, **kind: Any) -> ssl.SSLContext:
        """A server's context with a certificate for this name, made as `sign` does."""
        _, file = self._write(name, **kind)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context

    def appoint(self, name: str, *, begins: float = -1.0, ends: float = 30.0) -> Authority:
        """An authority below this one."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            start(make_name(name), self.certificate.subject, key, begins, ends)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
        )
        directory = self.directory / f"below-{name.replace(' ', '-')}"
        directory.mkdir(exist_ok=True)
        file = directory / "authority.pem"
        file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return Authority(directory=directory, key=key, certificate=certificate, file=file)

    def _write(
        self,
        name: str,
        *,
        begins: float = -1.0,
        ends: float = 30.0,
        self_signed: bool = False,
        beside: Iterable[x509.Certificate] = (),
    ) -> tuple[x509.Certificate, Path]:
        self.count += 1
        key = ec.generate_private_key(ec.SECP256R1())
        subject = make_name(name)
        issuer = subject if self_signed else self.certificate.subject
        alternative: x509.GeneralName
        try:
            alternative = x509.IPAddress(ipaddress.ip_address(name))
        except ValueError:
            alternative = x509.DNSName(name)
        made = (
            start(subject, issuer, key, begins, ends)
            .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
            .sign(key if self_signed else self.key, hashes.SHA256())
        )
        file = self.directory / f"{self.count}.pem"
        chain = [made, *([] if self_signed else [self.certificate]), *beside]
        pem = b"".join(item.public_bytes(serialization.Encoding.PEM) for item in chain)
        file.write_bytes(pem + write_key(key))
        return made, file


def make_name(text: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "CH"),
            x509.NameAttribute(NameOID.COMMON_NAME, text),
        ]
    )


def start(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    begins: float,
    ends: float,
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + datetime.timedelta(days=begins))
        .not_valid_after(now + datetime.timedelta(days=ends))
    )


def write_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def make_authority(directory: Path) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    name = make_name("Authority of the tests")
    certificate = (
        start(name, name, key, -100.0, 100.0)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = directory / "authority.pem"
    file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return Authority(directory=directory, key=key, certificate=certificate, file=file)
