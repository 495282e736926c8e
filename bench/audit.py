"""An audit beside LinkChecker and linkinator, on Debian's documentation of PostgreSQL and Python.

    python bench/audit.py [--rounds 3] [--repeats 20] [--only pg|py]

Each round runs every contender once on each set of documents, in turn, so that whatever else the
machine does falls on all of them; ratios are of the medians. Beside pages a second it prints what a
page costs (processor time of everything that a contender starts), the most memory (PSS of all its
processes) and what was found. Then the audit is repeated: each time it must find the known defects
and nothing else.

It serves the documents from an nginx of its own on loopback, with the header without which
LinkChecker throttles itself whatever its configuration says, and keeps the contenders in
~/.cache/hostmend/bench. Needs the packages nginx-light, postgresql-doc-15, python3.11-doc and npm.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hostmend" / "bench"
LINKCHECKER = "LinkChecker==10.6.0"
LINKINATOR = "linkinator@7.6.1"
PACKAGES = "nginx-light postgresql-doc-15 python3.11-doc npm"
#: Seconds after which a contender counts as hung.
LIMIT = 900.0


@dataclass(frozen=True, kw_only=True)
class Documents:
    """A set of pages, and what is wrong in it."""

    name: str
    path: Path
    pages: int
    #: What an audit must find, as kind and path, and nothing else.
    defects: frozenset[tuple[str, str]]


DOCUMENTS = {
    "pg": Documents(
        name="PostgreSQL 15",
        path=Path("/usr/share/doc/postgresql-doc-15/html"),
        pages=1170,
        # A <link rel=author> whose address lacks `mailto:`, on every page.
        defects=frozenset({("missing", "/pgsql-docs@lists.postgresql.org")}),
    ),
    "py": Documents(
        name="Python 3.11",
        path=Path("/usr/share/doc/python3.11/html"),
        pages=527,
        defects=frozenset(
            {
                ("missing", "/whatsnew/changelog.html"),
                ("fragment", "/glossary.html#index-19"),
                ("fragment", "/glossary.html#index-20"),
            }
        ),
    ),
}

NGINX = """
daemon off;
worker_processes 1;
pid {home}/pid;
error_log {home}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  include /etc/nginx/mime.types;
  default_type application/octet-stream;
  keepalive_requests 1000000;
  client_body_temp_path {home}/body;
  proxy_temp_path {home}/proxy;
  fastcgi_temp_path {home}/fastcgi;
  uwsgi_temp_path {home}/uwsgi;
  scgi_temp_path {home}/scgi;
  add_header LinkChecker fast;
  {servers}
}}
"""
SERVER = "server {{ listen 127.0.0.1:{port}; root {path}; }}\n"


@dataclass(kw_only=True)
class Taken:
    """What the runs of one contender took."""

    seconds: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    found: set[str] = field(default_factory=set)


#: Contender -> its command for an address, and how many broken targets its output names.
Contender = tuple[Callable[[str], list[str]], Callable[[str], int]]


def command_audit(url: str) -> list[str]:
    return [sys.executable, "-m", "api.cli", "audit", url, "--max-rate", "0", "--json"]


def command_linkinator(url: str, *more: str) -> list[str]:
    # Without --skip it would ask the whole web.
    skip = ["--skip", f"^(?!{url})"]
    binary = str(CACHE / "node_modules/.bin/linkinator")
    return [binary, url, "--recurse", "--format", "json", *skip, *more]


def command_linkchecker(url: str) -> list[str]:
    quiet = ["--no-status", "--no-warnings", "-o", "csv"]
    binary, config = str(CACHE / "venv/bin/linkchecker"), str(CACHE / "linkcheckerrc")
    return [binary, "--config", config, "--no-robots", "-t", "10", *quiet, url]


def count_audit(out: str) -> int:
    return len(json.loads(out)["defects"])


def count_linkinator(out: str) -> int:
    links = json.loads(out[out.index("{") :])["links"]
    return len({link["url"] for link in links if link["state"] == "BROKEN"})


def count_linkchecker(out: str) -> int:
    rows = csv.reader(
        (line for line in out.splitlines() if not line.startswith("#")), delimiter=";"
    )
    return len({row[7] for row in list(rows)[1:] if len(row) > 7})


CONTENDERS: Mapping[str, Contender] = {
    "hostmend": (command_audit, count_audit),
    "linkinator, same checks": (
        lambda url: command_linkinator(url, "--check-css", "--check-fragments"),
        count_linkinator,
    ),
    "linkinator": (command_linkinator, count_linkinator),
    "LinkChecker": (command_linkchecker, count_linkchecker),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="An audit beside LinkChecker and linkinator.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--only", choices=sorted(DOCUMENTS))
    given = parser.parse_args()
    chosen = {n: d for n, d in DOCUMENTS.items() if given.only in (None, n)}
    prepare(chosen)
    with serve(chosen) as urls:
        for name, documents in chosen.items():
            compare(documents, urls[name], given.rounds)
        failed = [name for name in chosen if not repeat(chosen[name], urls[name], given.repeats)]
    sys.exit(1 if failed else 0)


def prepare(chosen: Mapping[str, Documents]) -> None:
    """Everything that takes part; what is missing and cannot be had is named."""
    missing = [str(d.path) for d in chosen.values() if not d.path.is_dir()]
    missing += [program for program in ("nginx", "npm") if shutil.which(program) is None]
    if missing:
        sys.exit(f"missing: {', '.join(missing)}; apt-get install {PACKAGES}")
    CACHE.mkdir(parents=True, exist_ok=True)
    if not (CACHE / "venv/bin/linkchecker").exists():
        subprocess.run([sys.executable, "-m", "venv", CACHE / "venv"], check=True)
        pip = [CACHE / "venv/bin/python", "-m", "pip", "install", "-qq", LINKCHECKER]
        subprocess.run(pip, check=True)
    (CACHE / "linkcheckerrc").write_text("[checking]\nmaxrequestspersecond=100000\n")
    if not (CACHE / "node_modules/.bin/linkinator").exists():
        npm = ["npm", "install", "--silent", "--no-fund", "--no-audit", LINKINATOR]
        subprocess.run(npm, cwd=CACHE, check=True)


@contextlib.contextmanager
def serve(chosen: Mapping[str, Documents]) -> Iterator[dict[str, str]]:
    """An nginx for these documents, until the block ends; gives their addresses."""
    ports = {name: find_port() for name in chosen}
    with tempfile.TemporaryDirectory(prefix="hostmend-bench-") as home:
        servers = "".join(
            SERVER.format(port=ports[name], path=documents.path)
            for name, documents in chosen.items()
        )
        # Its worker gives its rights away, and must still come here.
        Path(home).chmod(0o755)
        config = Path(home) / "nginx.conf"
        config.write_text(NGINX.format(home=home, servers=servers))
        server = subprocess.Popen(["nginx", "-c", config, "-p", home])
        try:
            for port in ports.values():
                wait_for(port, server)
            yield {name: f"http://127.0.0.1:{port}/" for name, port in ports.items()}
        finally:
            server.terminate()
            server.wait()


def find_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        if server.poll() is not None:
            sys.exit("nginx did not start")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    sys.exit("nginx does not answer")


def compare(documents: Documents, url: str, rounds: int) -> None:
    """Every contender in turn, and what they took."""
    taken = {name: Taken() for name in CONTENDERS}
    for number in range(rounds):
        for name, (command, count) in CONTENDERS.items():
            print(f"{documents.name}, round {number + 1}: {name}", file=sys.stderr)
            out = run(command(url), taken[name])
            taken[name].found.add(str(count(out)))
    print(f"\n{documents.name}: {documents.pages:,} pages, {rounds} rounds, medians\n")
    print("| | pages/s | x LinkChecker | x linkinator, same checks | CPU ms/page | MB | broken |")
    print("|---|---|---|---|---|---|---|")
    slow = statistics.median(taken["LinkChecker"].seconds)
    peer = statistics.median(taken["linkinator, same checks"].seconds)
    for name, each in taken.items():
        seconds = statistics.median(each.seconds)
        cost = 1000 * statistics.median(each.processor) / documents.pages
        print(
            f"| {name} | {documents.pages / seconds:.0f} | {slow / seconds:.1f} | "
            f"{peer / seconds:.2f} | {cost:.2f} | {max(each.memory):.0f} | "
            f"{', '.join(sorted(each.found))} |",
            flush=True,
        )


def run(command: list[str], taken: Taken) -> str:
    """Runs a command, notes what it took, and gives what it printed."""
    with tempfile.TemporaryFile("w+") as out:
        began = time.monotonic()
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.DEVNULL, cwd=ROOT, start_new_session=True
        )
        watch = Watch(process.pid)
        watch.start()
        killer = threading.Timer(LIMIT, process.kill)
        killer.start()
        # What it started and waited for is counted with it.
        _, _, used = os.wait4(process.pid, 0)
        killer.cancel()
        taken.seconds.append(time.monotonic() - began)
        watch.stop()
        process.returncode = 0
        taken.processor.append(used.ru_utime + used.ru_stime)
        taken.memory.append(watch.most)
        out.seek(0)
        return out.read()


class Watch(threading.Thread):
    """The most memory that a process and all below it have at once, in MB of PSS."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self._over = threading.Event()
        self.most = 0.0

    def run(self) -> None:
        while not self._over.wait(0.1):
            self.most = max(self.most, sum(map(read_pss, list_group(self._pid))))

    def stop(self) -> None:
        self._over.set()
        self.join()


def list_group(pid: int) -> list[int]:
    """A process and all below it."""
    found, queue = [], [pid]
    while queue:
        each = queue.pop()
        found.append(each)
        for task in Path(f"/proc/{each}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                queue += map(int, task.read_text().split())
    return found


def read_pss(pid: int) -> float:
    with contextlib.suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("Pss:")).split()[1]) / 1024
    return 0.0


def repeat(documents: Documents, url: str, times: int) -> bool:
    """Whether each of many audits finds the known defects and nothing else."""
    wrong = 0
    for number in range(times):
        print(f"{documents.name}, repeat {number + 1}", file=sys.stderr)
        found = json.loads(run(command_audit(url), Taken()))
        defects = {(d["kind"], "/" + d["target"].removeprefix(url)) for d in found["defects"]}
        complete = found["ending"] == "complete" and found["counts"]["pages"] == documents.pages
        if defects != documents.defects or not complete:
            wrong += 1
            print(f"repeat {number + 1} is wrong: {sorted(defects)}", flush=True)
    print(f"\n{documents.name}: {times} repeats, {wrong} with a false or a missing report")
    return not wrong


if __name__ == "__main__":
    main()
