"""`type: certificate`: certificates in files are good, belong to their keys, and do not end soon.

A server that was not told of a new file goes on with the old one: what it shows is for `tls`.
"""

from __future__ import annotations

import glob
import re
import ssl
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from agent.checks.check import CheckOptions, CheckType, Proposal
from agent.checks.service import VALIDATIONS
from agent.checks.validity import (
    EXPIRES_CRITICAL,
    EXPIRES_WARNING,
    VALIDITY_CAUSES,
    check_order,
    judge_time,
)
from agent.checks.values import AbsolutePath, Duration
from agent.core.model import Evidence, Finding, Status
from agent.host.certificate import Certificate, describe_certificate, read_certificate
from agent.host.logs import is_pattern
from agent.host.machine import Machine
from agent.host.space import Hung
from agent.host.tls import Locked, explain_file, load_pair
from agent.host.webservers import Site, find_sites

CAUSES = {
    **VALIDITY_CAUSES,
    "missing": "There is no such file, or a link leads nowhere.",
    "nothing": "No file matches the pattern.",
    "unusable": "There is no certificate in it, or it cannot be used with its key.",
    "mismatch": "The key is another certificate's.",
    "unreadable": "hostmend's user may not read it.",
    "hung": "The filesystem does not answer.",
}

MEASUREMENTS = {
    "certificate_expires_seconds": "Time until the first certificate in the file ends.",
}

#: Files of one check, and bytes of each.
_MOST_FILES, _MOST_BYTES = 500, 1024 * 1024
#: Of `timeout`, for reading.
_SHARE = 0.8
_BEGIN, _END = re.compile(rb"-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----"), b"-----END "
_KEY = re.compile(rb"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----")
#: What OpenSSL says of a key that is another's (sslerr.h, x509err.h).
_MISMATCH = frozenset({"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"})

_LETSENCRYPT = Path("/etc/letsencrypt/live")
_FULLCHAIN = re.compile(r"^fullchain\s*=\s*(.+?)\s*$", re.MULTILINE)
#: What a web server's unit is called on every distribution. Apache's is not.
_UNITS = {"nginx": "nginx.service"}


class ExpiresWarning(BaseModel):
    """When it will need attention."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    expires: Duration | None = EXPIRES_WARNING


class ExpiresCritical(BaseModel):
    """When it is too late, or nearly so."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    expires: Duration | None = EXPIRES_CRITICAL


def _check_key(key: str) -> str:
    if not key.startswith("/") and ("/" in key or key in ("", ".", "..")):
        raise ValueError(
            f"{key!r} is neither an absolute path nor a name in the certificate's directory: "
            "write for example privkey.pem"
        )
    return key


def _check_paths(paths: tuple[str, ...]) -> tuple[str, ...]:
    if not paths:
        raise ValueError("must not be empty")
    return paths


class CertificateOptions(CheckOptions):
    """Files with certificates."""

    type: Literal["certificate"]
    paths: Annotated[tuple[AbsolutePath, ...], AfterValidator(_check_paths)] = Field(
        description="Files, PEM or DER, or patterns: `/etc/letsencrypt/live/*/fullchain.pem`.",
    )
    key: Annotated[str, AfterValidator(_check_key)] | None = Field(
        default=None,
        description="The key's path, or its name in the directory of each certificate; left out: "
        "a key in the same file.",
    )
    warning: ExpiresWarning = Field(
        default_factory=ExpiresWarning, description="Limits of `warning`."
    )
    critical: ExpiresCritical = Field(
        default_factory=ExpiresCritical, description="Limits of `critical`."
    )

    @model_validator(mode="after")
    def _check_together(self) -> CertificateOptions:
        check_order(self.warning.expires, self.critical.expires)
        several = len(self.paths) > 1 or is_pattern(self.paths[0])
        if several and self.key is not None and self.key.startswith("/"):
            raise ValueError(
                "a key with a path is for one certificate: write its name alone, and each "
                "certificate has the key of that name beside it"
            )
        return self


@dataclass(frozen=True, kw_only=True)
class Read:
    """What was found in one file. Exactly one of `chain` and `cause` is empty."""

    path: str
    #: The file's own certificate first.
    chain: tuple[Certificate, ...] = ()
    cause: str = ""
    why: str = ""
    #: What is wrong with the key: a cause and words; empty where nothing is.
    key_cause: str = ""
    key_why: str = ""
    #: What is known of the key, in words; empty where there is none.
    key: str = ""


async def look(options: CertificateOptions, machine: Machine) -> tuple[Finding, ...]:
    """One finding for each file."""
    assert options.timeout is not None  # noqa: S101 - the configuration filled it in
    known: dict[str, tuple[object, Read]] = machine.memory.notes.setdefault("certificates", {})
    found: list[Finding] = []
    kept: dict[str, tuple[object, Read]] = {}
    for pattern in options.paths:
        try:
            rows = await machine.space.patience.call(
                f"the certificates {pattern}",
                options.timeout * _SHARE / len(options.paths),
                partial(_read_all, pattern, options.key, dict(known)),
            )
        except Hung as error:
            found.append(_find(pattern, Status.UNKNOWN, "hung", f"cannot look: {error}"))
            continue
        kept.update({read.path: (version, read) for version, read in rows})
        # Seconds since 1970, as certificates count.
        found += [judge(options, read, now=time.time()) for _, read in rows]
        if not rows:
            summary = f"no file matches {pattern}"
            found.append(_find(pattern, Status.WARNING, "nothing", summary))
    known.clear()
    known.update(kept)
    return tuple({finding.subject: finding for finding in found}.values())


def _read_all(
    pattern: str, key: str | None, known: dict[str, tuple[object, Read]]
) -> list[tuple[object, Read]]:
    """Each file with its version; what was read of that version before is not read again."""
    paths = [pattern]
    if is_pattern(pattern):
        # With links that lead nowhere: glob(7) finds them as long as their name is no pattern.
        paths = sorted(islice(glob.iglob(pattern), _MOST_FILES))  # noqa: PTH207
    rows: list[tuple[object, Read]] = []
    for path in paths:
        place = None if key is None else str(Path(path).parent / key)
        version = (_version(path), None if place is None else _version(place))
        before, read = known.get(path, (None, None))
        if read is None or before != version or None in version[:1]:
            read = read_file(path, place)
        rows.append((version, read))
    return rows


def _version(path: str) -> tuple[int, ...] | None:
    try:
        told = Path(path).stat()
    except OSError:
        return None
    return (told.st_ino, told.st_size, told.st_mtime_ns, told.st_ctime_ns)


def read_file(path: str, key: str | None) -> Read:
    """A file's certificates, and whether the key is theirs. It may hang, and never raises."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        dangling = Path(path).is_symlink()
        why = f"{path} is a link that leads nowhere" if dangling else f"there is no {path}"
        return Read(path=path, cause="missing", why=why)
    except PermissionError:
        return Read(path=path, cause="unreadable", why=f"hostmend's user may not read {path}")
    except OSError as error:
        return Read(path=path, cause="unusable", why=f"cannot read {path}: {error.strerror}")
    chain = tuple(_parse(data))
    if not chain:
        return Read(path=path, cause="unusable", why=f"{path} holds no certificate")
    if key is None and not _KEY.search(data):
        return Read(path=path, chain=chain)
    return _try_key(Read(path=path, chain=chain), key)


def _parse(data: bytes) -> list[Certificate]:
    ders = []
    for block in _find_blocks(data):
        text = f"-----BEGIN CERTIFICATE-----{block.decode('latin-1')}-----END CERTIFICATE-----"
        try:
            ders.append(ssl.PEM_cert_to_DER_cert(text))
        except ValueError:
            return []
    return [found for der in ders or [data] if (found := read_certificate(der)) is not None]


def _find_blocks(data: bytes) -> Iterator[bytes]:
    at = 0
    while (begin := _BEGIN.search(data, at)) is not None:
        end = data.find(_END, begin.end())
        if end < 0:
            return
        yield data[begin.end() : end]
        at = end


def _try_key(read: Read, key: str | None) -> Read:
    place = Path(key or read.path)
    try:
        load_pair(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), Path(read.path), place)
    except Locked:
        return replace(read, key=f"{place} has a password, so it was not tried")
    except FileNotFoundError:
        return replace(read, key_cause="missing", key_why=f"there is no key {place}")
    except PermissionError:
        return replace(
            read, key_cause="unreadable", key_why=f"hostmend's user may not read the key {place}"
        )
    except ssl.SSLError as error:
        if error.reason in _MISMATCH:
            why = f"the key {place} is not that of {read.path}"
            return replace(read, key_cause="mismatch", key_why=why)
        why = f"{read.path} cannot be used with the key {place}: {explain_file(error)}"
        return replace(read, key_cause="unusable", key_why=why)
    except (OSError, ValueError) as error:
        why = f"the key {place} cannot be used: {explain_file(error)}"
        return replace(read, key_cause="unusable", key_why=why)
    return replace(read, key=f"{place} is its key")


def judge(options: CertificateOptions, read: Read, *, now: float) -> Finding:
    """The finding on one file. `now`: seconds since 1970."""
    if read.cause:
        status = Status.UNKNOWN if read.cause == "unreadable" else Status.CRITICAL
        return _find(read.path, status, read.cause, read.why)
    first = min(read.chain, key=lambda certificate: certificate.ends)
    facts = {"Certificate": describe_certificate(read.chain[0])}
    if read.key:
        facts["Key"] = read.key
    finding = replace(
        _find(read.path, Status.OK, "", f"{read.path} is good"),
        facts=facts,
        measurements={"certificate_expires_seconds": first.ends - now},
    )
    if read.key_cause and read.key_cause != "unreadable":
        return replace(finding, status=Status.CRITICAL, cause=read.key_cause, summary=read.key_why)
    limits = ((Status.CRITICAL, options.critical), (Status.WARNING, options.warning))
    for status, limit in limits:
        for certificate in (first, *read.chain):
            if found := judge_time(certificate, limit.expires, now):
                own = certificate is read.chain[0]
                whose = read.path if own else f"{certificate.subject} in {read.path}"
                return replace(
                    finding, status=status, cause=found[0], summary=f"{whose} {found[1]}"
                )
    if read.key_cause:
        return replace(finding, status=Status.UNKNOWN, cause=read.key_cause, summary=read.key_why)
    return finding


def _find(path: str, status: Status, cause: str, summary: str) -> Finding:
    return Finding(
        subject=path, status=status, cause=cause, summary=summary, resource=f"certificate:{path}"
    )


async def gather(
    options: CertificateOptions, finding: Finding, machine: Machine
) -> tuple[Evidence, ...]:
    """Every certificate of the file."""
    name = f"the certificate {finding.subject}"
    try:
        read = await machine.space.patience.call(
            name, options.timeout or 5.0, partial(read_file, finding.subject, None)
        )
    except Hung as error:
        return (Evidence(title="Certificates", text=f"cannot look: {error}"),)
    text = "\n".join(map(describe_certificate, read.chain)) or read.why
    return (Evidence(title=f"Certificates in {finding.subject}", text=text),)


async def propose(machine: Machine) -> tuple[Proposal, ...]:
    """Certificates of Let's Encrypt, and those that nginx and Apache name."""
    try:
        return await machine.space.patience.call("the certificates of this host", 10.0, _propose)
    except (Hung, OSError):
        return ()


def _propose() -> tuple[Proposal, ...]:
    found = []
    sites = find_sites()
    if any(_LETSENCRYPT.glob("*/fullchain.pem")):
        options: dict[str, object] = {
            "type": "certificate",
            "paths": [f"{_LETSENCRYPT}/*/fullchain.pem"],
            "key": "privkey.pem",
        }
        why = f"certificates of Let's Encrypt lie in {_LETSENCRYPT}"
        if renewal := _find_renewal():
            options["ladder"] = [_propose_step(sites)]
            why += f", and certbot renews them ({renewal})"
        found.append(Proposal(name="letsencrypt", options=options, why=why))
    named = {
        str(path): site.server
        for site in sites
        for path in site.certificates
        if not path.is_relative_to(_LETSENCRYPT) and path.exists()
    }
    if named:
        found.append(
            Proposal(
                name="certificates",
                options={"type": "certificate", "paths": sorted(named)},
                why=f"the configuration of {' and '.join(sorted(set(named.values())))} names them",
            )
        )
    return tuple(found)


def _find_renewal() -> Path | None:
    """The first configuration of a renewal of certbot's that names a certificate that is there."""
    live = {str(path) for path in _LETSENCRYPT.glob("*/fullchain.pem")}
    for file in sorted(_LETSENCRYPT.parent.glob("renewal/*.conf")):
        with suppress(OSError):
            if live & set(_FULLCHAIN.findall(file.read_text(errors="replace"))):
                return file
    return None


def _propose_step(sites: Iterable[Site]) -> dict[str, object]:
    """The remedy, and the reload of the server that shows them, where it is one that is known."""
    step: dict[str, object] = {"remedy": "renew-certificate", "causes": ["expired", "expiring"]}
    servers = {
        site.server
        for site in sites
        if any(path.is_relative_to(_LETSENCRYPT) for path in site.certificates)
    }
    units = {_UNITS.get(server, "") for server in servers}
    if len(units) == 1 and (unit := units.pop()):
        step["options"] = {"validate": list(VALIDATIONS[unit]), "reload": unit}
    return step


CERTIFICATE = CheckType(
    name="certificate",
    summary="Certificates in files are good, belong to their keys, and do not end soon.",
    model=CertificateOptions,
    look=look,
    causes=CAUSES,
    measurements=MEASUREMENTS,
    propose=propose,
    gather=gather,
    defaults={"every": "5m"},
    identity=("paths",),
)
