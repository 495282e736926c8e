"""The Debian mirror of this machine, read from apt's own sources: none is written here."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.errors import Unavailable

RELEASE = "bookworm"
SUITES = frozenset({RELEASE, f"{RELEASE}-updates", f"{RELEASE}-security"})


@dataclass(frozen=True, kw_only=True)
class Mirror:
    """Where Debian's packages come from on this machine."""

    uri: str
    #: The file for `debootstrap --keyring`, where the source names one.
    keyring: Path | None
    #: Those of the machine's sources that are our release's, as a deb822 file.
    sources: str


def find_mirror(apt: Path = Path("/etc/apt")) -> Mirror:
    """Read the mirror out of apt's sources, one-line and deb822 (sources.list(5)).

    `$HOSTMEND_LAB_MIRROR` wins over them. A source that names a key other than Debian's own is
    somebody else's and is passed over. Raises Unavailable if nothing is left.
    """
    if chosen := os.environ.get("HOSTMEND_LAB_MIRROR"):
        fields = {"types": "deb", "uris": chosen, "suites": RELEASE, "components": "main"}
        return Mirror(uri=chosen, keyring=None, sources=_as_deb822(fields))
    stanzas: list[dict[str, str]] = []
    for file in [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*.list"))]:
        if file.is_file():
            stanzas += _one_line_stanzas(file.read_text())
    for file in sorted((apt / "sources.list.d").glob("*.sources")):
        stanzas += _deb822_stanzas(file.read_text())
    ours = [fields for fields in stanzas if _is_ours(fields)]
    for fields in ours:
        if RELEASE in fields["suites"].split():
            key = Path(fields.get("signed-by", "-"))
            return Mirror(
                uri=fields["uris"].split()[0],
                keyring=key if key.is_absolute() and key.is_file() else None,
                sources="\n".join(_as_deb822(each) for each in ours),
            )
    raise Unavailable(
        f"cannot build a lab: apt's sources on this machine name no Debian mirror with {RELEASE}:"
        " set HOSTMEND_LAB_MIRROR to the address of one"
    )


def find_proxies() -> dict[str, str]:
    """Apt's proxies as the environment variables that debootstrap's downloader reads."""
    words = ["http_proxy", "Acquire::http::Proxy", "https_proxy", "Acquire::https::Proxy"]
    done = subprocess.run(
        ["apt-config", "shell", *words], capture_output=True, text=True, check=False
    )
    pairs = (word.partition("=") for word in shlex.split(done.stdout))
    return {name: value for name, _, value in pairs if value and value != "DIRECT"}


def _one_line_stanzas(text: str) -> Iterator[dict[str, str]]:
    for raw in text.splitlines():
        kind, _, rest = raw.partition("#")[0].strip().replace("\t", " ").partition(" ")
        if kind != "deb":
            continue
        rest, options = rest.strip(), ""
        if rest.startswith("["):
            options, _, rest = rest[1:].partition("]")
        uri, suite, *components = rest.split()
        fields = {"types": "deb", "uris": uri, "suites": suite, "components": " ".join(components)}
        for option in options.split():
            name, _, value = option.partition("=")
            fields[_FULL_NAMES.get(name.lower(), name.lower())] = value.replace(",", " ")
        yield fields


#: The options of one-line sources whose deb822 fields have other names (sources.list(5)).
_FULL_NAMES = {"arch": "architectures", "lang": "languages", "target": "targets"}


def _deb822_stanzas(text: str) -> Iterator[dict[str, str]]:
    fields: dict[str, str] = {}
    name = ""
    for line in [*text.splitlines(), ""]:
        if line.startswith("#"):
            continue
        if not line.strip():
            if {"types", "uris", "suites"} <= fields.keys():
                yield fields
            fields = {}
        elif line[0] in " \t":
            fields[name] += f"\n{line}"
        else:
            name, _, value = line.partition(":")
            name = name.strip().lower()
            fields[name] = value.strip()


def _is_ours(fields: Mapping[str, str]) -> bool:
    key = fields.get("signed-by", "")
    return (
        "deb" in fields["types"].split()
        and fields.get("enabled", "yes").lower() not in ("no", "false", "0")
        and fields["uris"].startswith(("http://", "https://"))
        and set(fields["suites"].split()) <= SUITES
        and "main" in fields.get("components", "").split()
        and (not key.startswith("/") or "debian-archive" in key)
    )


def _as_deb822(fields: Mapping[str, str]) -> str:
    return "".join(f"{name.title()}: {value}\n" for name, value in fields.items())
