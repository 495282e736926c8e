"""Sites that nginx and Apache serve here, read from their configuration files; nothing is run.

Of nginx's syntax (https://nginx.org/en/docs/beginners_guide.html#conf_structure) directives, blocks
and `include` are understood; of Apache's (https://httpd.apache.org/docs/2.4/configuring.html)
`<VirtualHost>` sections and `Include`. What needs more to be understood is left out, not guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

#: Files read of one server's configuration, and bytes of each.
_FILES = 500
_BYTES = 1_000_000
#: Includes within includes.
_DEPTH = 8

_PART = re.compile(
    r"""#[^\n]*|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[{};]|(?:\\.|[^\s{};"'#\\]|\$\{\w+\})+"""
)
_NAME = re.compile(r"(?!-)[a-z0-9-]+(?:\.[a-z0-9-]+)+")
_LISTEN = re.compile(r"(?:(?P<host>\[[0-9a-fA-F:]+\]|[^:\s]+):)?(?P<port>\d{1,5})")


@dataclass(frozen=True, kw_only=True)
class Site:
    """One virtual host."""

    #: `nginx` or `apache`.
    server: str
    #: Names that it answers to; without patterns and without `_`.
    names: tuple[str, ...]
    #: Its address as it is reached on this host, and the port.
    address: str
    port: int
    tls: bool
    #: Certificate files that it names.
    certificates: tuple[Path, ...] = ()


def find_sites(root: Path = Path("/")) -> tuple[Site, ...]:
    """The sites of every web server that is configured below `root`, each name and port once."""
    found: dict[tuple[tuple[str, ...], str, int], Site] = {}
    for site in (*_find_nginx(root), *_find_apache(root)):
        found.setdefault((site.names, site.address, site.port), site)
    return tuple(found.values())


# nginx


@dataclass(kw_only=True)
class _Block:
    words: list[str]
    lines: list[list[str]] = field(default_factory=list)
    blocks: list[_Block] = field(default_factory=list)

    def values(self, name: str) -> Iterator[list[str]]:
        return (line[1:] for line in self.lines if line[0] == name)


def _find_nginx(root: Path) -> Iterator[Site]:
    place = root / "etc/nginx"
    budget = [_FILES]
    main = _read_nginx(place / "nginx.conf", place, budget, 0)
    for http in (block for block in main.blocks if block.words == ["http"]):
        for server in (block for block in http.blocks if block.words == ["server"]):
            names = tuple(
                name for words in server.values("server_name") for name in words if _is_name(name)
            )
            listens = list(server.values("listen")) or [["80"]]
            certificates = tuple(
                root / words[0].lstrip("/")
                for words in server.values("ssl_certificate")
                if words and words[0].startswith("/") and "$" not in words[0]
            )
            for words in listens:
                if (at := _read_listen(words[0] if words else "")) is not None:
                    yield Site(
                        server="nginx",
                        names=names,
                        address=at[0],
                        port=at[1],
                        tls="ssl" in words[1:],
                        certificates=certificates if "ssl" in words[1:] else (),
                    )


def _read_nginx(path: Path, place: Path, budget: list[int], depth: int) -> _Block:
    """The block that a file is, with its includes read in."""
    top = _Block(words=[])
    stack, words = [top], list[str]()
    for part in _PART.findall(_read(path, budget)):
        if part.startswith("#"):
            continue
        if part == "{":
            block = _Block(words=words)
            stack[-1].blocks.append(block)
            stack.append(block)
            words = []
        elif part == "}":
            words = []
            if len(stack) > 1:
                stack.pop()
        elif part == ";":
            if words[:1] == ["include"] and len(words) == 2 and depth < _DEPTH:
                for file in _find_included(place, words[1]):
                    inner = _read_nginx(file, place, budget, depth + 1)
                    stack[-1].lines += inner.lines
                    stack[-1].blocks += inner.blocks
            elif words:
                stack[-1].lines.append(words)
            words = []
        else:
            words.append(part[1:-1] if part[0] in "\"'" else part)
    return top


def _find_included(place: Path, pattern: str) -> list[Path]:
    base = place if not pattern.startswith("/") else _root_of(place)
    try:
        return sorted(base.glob(pattern.lstrip("/")))
    except (OSError, ValueError, NotImplementedError):
        return []


def _root_of(place: Path) -> Path:
    """The root that `etc/...` lies below."""
    parts = place.parts
    return Path(*parts[: len(parts) - 1 - parts[::-1].index("etc")])


def _read_listen(text: str) -> tuple[str, int] | None:
    """Where it is reached on this host; None for a UNIX socket and for what is no address."""
    if text.startswith("unix:"):
        return None
    found = _LISTEN.fullmatch(text)
    host, port = (found["host"] or "*", int(found["port"])) if found else (text, 80)
    if not 1 <= port <= 65535:
        return None
    if host in ("*", "0.0.0.0", "localhost", "_default_"):  # noqa: S104 - read, not bound
        return "127.0.0.1", port
    if host == "[::]":
        return "::1", port
    if re.fullmatch(r"[0-9.]+|\[[0-9a-fA-F:]+\]", host):
        return host.strip("[]"), port
    return None


# Apache


def _find_apache(root: Path) -> Iterator[Site]:
    budget = [_FILES]
    for main in ("etc/apache2/apache2.conf", "etc/httpd/conf/httpd.conf"):
        path = root / main
        place = path.parent if "apache2" in main else path.parent.parent
        inside: list[list[str]] | None = None
        for words in _read_apache(path, place, budget, 0):
            key = words[0].lower()
            if key == "<virtualhost":
                inside = [words]
            elif key == "</virtualhost>":
                if inside is not None:
                    yield from _read_virtual_host(inside, root)
                inside = None
            elif inside is not None:
                inside.append(words)


def _read_virtual_host(lines: list[list[str]], root: Path) -> Iterator[Site]:
    def values(name: str) -> list[str]:
        return [word for words in lines[1:] if words[0].lower() == name for word in words[1:]]

    names = tuple(
        name.rpartition("://")[2].partition(":")[0]
        for name in (*values("servername"), *values("serveralias"))
    )
    tls = [word.lower() for word in values("sslengine")] == ["on"]
    for address in lines[0][1:]:
        if (at := _read_listen(address.rstrip(">"))) is not None:
            yield Site(
                server="apache",
                names=tuple(name for name in names if _is_name(name)),
                address=at[0],
                port=at[1],
                tls=tls,
                certificates=tuple(
                    root / file.lstrip("/")
                    for file in values("sslcertificatefile")
                    if tls and file.startswith("/")
                ),
            )


def _read_apache(path: Path, place: Path, budget: list[int], depth: int) -> Iterator[list[str]]:
    text = _read(path, budget).replace("\\\n", " ")
    for line in text.splitlines():
        words = re.findall(r'"(?:\\.|[^"\\])*"|\S+', line.strip())
        words = [word[1:-1] if word.startswith('"') else word for word in words]
        if not words or words[0].startswith("#"):
            continue
        if words[0].lower() in ("include", "includeoptional") and len(words) == 2:
            if depth < _DEPTH:
                for file in _find_included(place, words[1]):
                    yield from _read_apache(file, place, budget, depth + 1)
        else:
            yield words


def _is_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None and not name.endswith(".localdomain")


def _read(path: Path, budget: list[int]) -> str:
    """A file's text; empty for what cannot be read."""
    budget[0] -= 1
    if budget[0] < 0:
        return ""
    try:
        with path.open("rb") as file:
            return file.read(_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
