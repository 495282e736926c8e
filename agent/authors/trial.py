"""A remedy tried on a throw-away host: broken, detected, repaired, verified, and run once more.

Its `test/` says how: `hostmend.yml` is the configuration of the host, whose check finds the failure
and calls the remedy; `prepare.yml` makes the host whole, `break.yml` breaks it, `verify.yml` fails
unless it is whole, `options.yml` has the options of the second run. Where there is no
`hostmend.yml`, nothing detects, and the first run is ordered by hand as the second is. Where there
is no `prepare.yml`, the agent comes to a host that is broken already.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from agent.core.model import Changes, Seconds
from agent.errors import HostmendError, RemedyError
from agent.lab import BIN, Lab
from agent.remedies.catalog import Catalog
from agent.remedies.description import Remedy

#: Where an operator's remedies are.
_HOME = "/etc/hostmend/playbooks"
_CONFIG = "/etc/hostmend/hostmend.yml"
_SOCKET = "/run/hostmend/hostmend.sock"
#: Seconds that one of the test's own playbooks, or the agent's start, may take.
_PATIENCE = 300.0
_POLL = 0.3
#: Modules by which a service is restarted, which a remedy that `changes: service` is for.
_RESTARTS = frozenset({"service", "systemd", "systemd_service", "sysvinit"})
_ENDED = frozenset({"resolved", "gone"})

Say = Callable[[str], None]


def try_remedy(lab: Lab, path: Path, *, say: Say, within: Seconds = 300.0) -> None:
    """Try the remedy in that directory on a booted host; say each step.

    `within`: how long it may take from the break to the end of its incident, in seconds. Raises
    RemedyError, which says what went wrong and what the agent knows of it. The host is left with
    what the remedy did, and without an agent.
    """
    remedy = _read_remedy(path)
    trial = _Trial(lab, remedy, say, within)
    trial.install()
    try:
        trial.run()
    finally:
        trial.leave()


def _read_remedy(path: Path) -> Remedy:
    """Raises RemedyError or NotFound."""
    path = path.absolute()
    remedy = Catalog.load([path.parent], only=path.name).get(path.name)
    for name in ("break.yml", "verify.yml", "options.yml"):
        if not (path / "test" / name).is_file():
            raise RemedyError(f"cannot try {path.name}: there is no {path / 'test' / name}")
    return remedy


class _Trial:
    """One remedy on one host."""

    def __init__(self, lab: Lab, remedy: Remedy, say: Say, within: Seconds) -> None:
        self._lab = lab
        self._remedy = remedy
        self._say = say
        self._within = within
        self._test = remedy.path / "test"
        self._options = _read_options(self._test / "options.yml")
        self._watched = (self._test / "hostmend.yml").is_file()
        self._prepared = (self._test / "prepare.yml").is_file()
        self._broken_at = 0.0

    def install(self) -> None:
        """The remedy, what it shares with others, and the configuration."""
        shared = self._remedy.path.parent / "_shared"
        for source in (self._remedy.path, shared):
            if source.is_dir():
                self._lab.copy_in(source, f"{_HOME}/{source.name}")
        self._lab.write(_CONFIG, self._make_configuration(), 0o600)

    def leave(self) -> None:
        self._lab.run(["systemctl", "stop", "hostmend"], check=False, timeout=_PATIENCE)
        self._lab.run(["systemctl", "reset-failed", "hostmend"], check=False)
        self._lab.run(["rm", "-rf", "/var/lib/hostmend", "/run/hostmend", "/etc/hostmend"])

    def run(self) -> None:
        if self._prepared:
            self._play("prepare")
            self._play("verify")
            self._say("prepared: verify.yml passes")
        self._break()
        if self._play("verify", fails=True):
            raise self._failure("verify.yml passes on the broken host, so it proves nothing")
        self._say("broken: verify.yml fails")
        if self._watched and self._prepared:
            self._play("prepare")
            self._start_agent()
            self._wait(self._all_well, "every check to pass on the prepared host")
            self._break()
            self._say("broken again, with the agent watching")
        else:
            self._start_agent()
        if self._watched:
            self._await_healing()
        else:
            self._say("detection is not tried: there is no test/hostmend.yml")
            self._order("by hand")
        self._play("verify")
        self._say("verify.yml passes")
        self._order("a second time", unchanged=True)
        self._play("verify")

    def _make_configuration(self) -> str:
        if self._watched:
            return (self._test / "hostmend.yml").read_text()
        # It never fails. That it names the remedy's options is what `allow: configured` asks for.
        step = {"remedy": self._remedy.name, "causes": ["missing"], "options": self._options}
        check = {"type": "file", "path": "/etc/machine-id", "ladder": [step]}
        return json.dumps({"version": 1, "checks": {"trial": check}})

    def _break(self) -> None:
        self._broken_at = time.monotonic()
        self._play("break")

    def _play(self, name: str, *, fails: bool = False) -> bool:
        """Play one of the test's playbooks: whether it went well. With `fails` it need not."""
        page = f"{_HOME}/{self._remedy.name}/test/{name}.yml"
        argv = [f"{BIN}/ansible-playbook", "-i", "localhost,", page]
        try:
            done = self._lab.run(argv, check=False, timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            raise self._failure(f"{name}.yml took longer than {_PATIENCE:g} s") from None
        if done.returncode != 0 and not fails:
            raise self._failure(f"{name}.yml fails:\n{_last_lines(done.stdout + done.stderr)}")
        return done.returncode == 0

    def _start_agent(self) -> None:
        # As deploy/hostmend.service has it, as far as it matters here.
        unit = ["systemd-run", "--quiet", "--unit=hostmend", "--property=KillMode=process"]
        unit += ["--property=Delegate=pids", "--property=UMask=0027"]
        self._lab.run([*unit, f"{BIN}/hostmend", "run"])
        self._wait(self._answers, "the agent to answer")
        self._say("the agent watches")

    def _answers(self) -> bool:
        state = self._lab.run(["systemctl", "is-active", "hostmend"], check=False).stdout.strip()
        if state not in ("active", "activating"):
            raise self._failure("the agent does not start")
        return self._ask("status") is not None

    def _ask(self, path: str) -> Any:
        """What the API has there; None while it does not answer."""
        url = f"http://agent/v1/{path}"
        done = self._lab.run(["curl", "-fsS", "--unix-socket", _SOCKET, url], check=False)
        return json.loads(done.stdout) if done.returncode == 0 else None

    def _all_well(self) -> bool:
        found = (self._ask("checks") or {}).get("items", [])
        return bool(found) and all(check["status"] == "ok" for check in found)

    def _await_healing(self) -> None:
        told: set[str] = set()

        def tell(words: str) -> None:
            if words not in told:
                told.add(words)
                self._say(f"{words} after {time.monotonic() - self._broken_at:.1f} s")

        def healed() -> bool:
            runs = (self._ask("runs?limit=100") or {}).get("items", [])
            mine = {run["id"] for run in runs if run["remedy"] == self._remedy.name}
            for run in runs:
                if run["id"] in mine and run["outcome"] not in (None, "ok"):
                    raise self._failure(f"its run is {run['outcome']}: {run['detail']}")
            for incident in (self._ask("incidents?limit=100") or {}).get("items", []):
                tell(f"detected ({incident['before']['summary']})")
                if incident["state"] == "escalated":
                    raise self._failure("hostmend gave up and called for a human")
                if incident["healed_by"] in mine:
                    tell("repaired, and proved by a look")
                if incident["state"] in _ENDED:
                    if incident["healed_by"] in mine:
                        tell("resolved")
                        return True
                    raise self._failure("it ended, but not by this remedy")
            return False

        self._wait(healed, "the failure to be detected, repaired and verified", self._within)

    def _order(self, how: str, *, unchanged: bool = False) -> None:
        """Run it as an operator would. With `unchanged` it must change nothing."""
        argv = [f"{BIN}/hostmend", "remedy", "run", self._remedy.name, "--json"]
        for name, value in self._options.items():
            argv += ["-o", f"{name}={json.dumps(value)}"]
        done = self._lab.run(argv, check=False, timeout=self._remedy.timeout + _PATIENCE)
        try:
            said = json.loads(done.stdout)
        except ValueError:
            raise self._failure(f"it cannot be run {how}: {done.stderr.strip()}") from None
        run = said["run"]
        if run["outcome"] != "ok":
            raise self._failure(f"its run {how} is {run['outcome']}: {run['detail']}")
        self._say(f"run {how}: {run['detail'] or 'ok'}")
        if not unchanged:
            return
        changed = [event for event in said["events"] if event.get("status") == "changed"]
        wrong = [event["task"] for event in changed if not self._is_meant(event)]
        if wrong:
            raise self._failure(f"the second run changed something: {', '.join(map(repr, wrong))}")
        self._say(
            "the second run restarted its service, as it is meant to, and changed nothing else"
            if changed
            else "the second run changed nothing"
        )

    def _is_meant(self, event: Mapping[str, Any]) -> bool:
        """Whether it restarts a service, and nothing but that is what the remedy is for."""
        module = str(event.get("action", "")).rpartition(".")[2]
        return self._remedy.changes is Changes.SERVICE and module in _RESTARTS

    def _wait(self, what: Callable[[], bool], words: str, seconds: float = _PATIENCE) -> None:
        until = time.monotonic() + seconds
        while not what():
            if time.monotonic() > until:
                raise self._failure(f"waited {seconds:g} s for {words}")
            time.sleep(_POLL)

    def _failure(self, why: str) -> HostmendError:
        """With what the agent knows, if there is one."""
        parts = [f"{self._remedy.name} fails its test: {why}"]
        if self._lab.run(["systemctl", "cat", "hostmend"], check=False).returncode == 0:
            for argv in (
                ["hostmend", "status"],
                ["hostmend", "incidents"],
                ["journalctl", "-u", "hostmend", "-n", "20", "-o", "cat", "--no-pager"],
            ):
                done = self._lab.run(argv, check=False)
                parts.append(f"$ {' '.join(argv)}\n{(done.stdout + done.stderr).strip()}")
        return RemedyError("\n".join(parts))


def _read_options(file: Path) -> Mapping[str, Any]:
    try:
        found = YAML(typ="safe", pure=True).load(file.read_bytes())
    except (OSError, YAMLError) as error:
        raise RemedyError(f"cannot read {file}: {' '.join(str(error).split())}") from None
    if not isinstance(found or {}, dict):
        raise RemedyError(f"cannot read {file}: it must be a mapping of options")
    return found or {}


def _last_lines(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-20:])
