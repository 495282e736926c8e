"""What there is on this host that should be checked, as a configuration to begin with.

Every check type proposes what it knows of (`CheckType.propose`); here proposals get names, are held
against what is configured already, and are written as a file that people can read and edit.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent.checks import CHECKS
from agent.checks.check import CheckOptions, CheckType, Proposal, propose_nothing
from agent.config import VERSION, Config, load_config_errors
from agent.documents import write_document
from agent.errors import ConfigError
from agent.host.machine import Machine
from agent.remedies.catalog import Catalog

_log = logging.getLogger(__name__)

#: Longest that one check type may look around, in seconds.
PATIENCE = 15.0

_HEAD = """\
# The configuration of hostmend, as it found this host. Change whatever you like: it is not written
# again. `hostmend config validate` checks it, `hostmend init` says what else there is by now.
#
# Everything is in shadow: hostmend records what it would have done, and does nothing.
# `hostmend arm` turns it on.
version: 1

policy:
  # auto: repair; approve: ask before each run; shadow: record; off: only report.
  mode: shadow
  # Remedies of a higher risk wait for an approval: low, medium or high.
  act_alone_up_to: low
  # Runs that hostmend starts by itself within any hour, over the whole host.
  runs_per_hour: 6

# Who is told: any Apprise URL, in the configuration (url) or in a file of its own (url_file).
routes: {}
#  ops: {url_file: /etc/hostmend/secrets/ops}

"""
_HEAD_OF_MORE = "# Found later by `hostmend init --add`; yours to change.\n\n"


@dataclass(frozen=True, kw_only=True)
class Discovery:
    """What was found on a host, held against its configuration."""

    #: Not configured yet, with names that are free.
    new: tuple[Proposal, ...]
    #: Proposals that a configured check covers, by that check's name.
    known: Mapping[str, Proposal]
    #: Configured checks of types that look around, of things that were not found.
    unfound: tuple[str, ...]
    #: What could not be looked at, and why.
    troubles: tuple[str, ...]


async def find_proposals(
    machine: Machine, types: Mapping[str, CheckType] = CHECKS
) -> tuple[tuple[Proposal, ...], tuple[str, ...]]:
    """What the check types propose, in the order of types and names, and what went wrong."""

    async def ask(kind: CheckType) -> tuple[Proposal, ...] | str:
        try:
            async with asyncio.timeout(PATIENCE):
                return await kind.propose(machine)
        except TimeoutError:
            return f"cannot look around for {kind.name}: it took longer than {PATIENCE:g} s"
        except Exception as error:
            # One type that stumbles over this host must not hide what the others found.
            _log.debug("proposals of %s broke", kind.name, exc_info=error)
            return f"cannot look around for {kind.name}: {type(error).__name__}: {error}"

    asked = [kind for kind in types.values() if kind.propose is not propose_nothing]
    answers = await asyncio.gather(*(ask(kind) for kind in asked))
    found = [
        proposal
        for answer in answers
        if not isinstance(answer, str)
        for proposal in sorted(answer, key=lambda p: p.name)
    ]
    # One server that is down must not open two incidents.
    spoken = {types[proposal.options["type"]].speaks for proposal in found} - {""}
    found = [proposal for proposal in found if proposal.options.get("protocol") not in spoken]
    return tuple(found), tuple(answer for answer in answers if isinstance(answer, str))


def compare(
    proposals: Iterable[Proposal],
    config: Config,
    catalog: Catalog,
    *,
    troubles: tuple[str, ...] = (),
    types: Mapping[str, CheckType] = CHECKS,
) -> Discovery:
    """Holds proposals against a configuration. Those that it would refuse become troubles."""
    configured = {
        name: _identify(types[check.options.type], config.raw["checks"][name])
        for name, check in config.checks.items()
        if name not in config.defaults
    }
    names, new, problems = set(configured), list[Proposal](), list(troubles)
    known: dict[str, Proposal] = {}
    seen: set[tuple[Any, ...]] = set()
    for proposal in proposals:
        identity = _identify(types[proposal.options["type"]], proposal.options)
        if identity in seen:
            continue
        seen.add(identity)
        covering = [name for name, other in configured.items() if other == identity]
        if covering:
            known |= dict.fromkeys(covering, proposal)
            continue
        named = replace(proposal, name=_find_name(proposal, names))
        if why := _find_fault(named, catalog, types):
            problems.append(f"cannot propose {named.name}: {why}")
            continue
        names.add(named.name)
        new.append(named)
    return Discovery(
        new=tuple(new),
        known=known,
        unfound=tuple(
            name
            for name in configured
            if name not in known
            and types[config.checks[name].options.type].propose is not propose_nothing
        ),
        troubles=tuple(problems),
    )


def _identify(kind: CheckType, options: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a check is about: two that agree in it look at the same thing."""
    keys = kind.identity
    if keys is None:
        keys = tuple(sorted(set(kind.model.model_fields) - _GENERAL))
    return (kind.name, *(repr(options.get(key)) for key in keys))


_GENERAL = frozenset(CheckOptions.model_fields)


def _find_name(proposal: Proposal, taken: set[str]) -> str:
    """Its own name, or with its type behind it where that is taken, or with a number."""
    name = re.sub(r"[^a-z0-9_.-]+", "-", proposal.name.lower()).strip("-._") or "check"
    wanted = (name, f"{name}-{proposal.options['type']}")
    numbered = (f"{name}-{number}" for number in itertools.count(2))
    return next(each for each in itertools.chain(wanted, numbered) if each not in taken)


def _find_fault(proposal: Proposal, catalog: Catalog, types: Mapping[str, CheckType]) -> str:
    """Why a configuration would refuse it; empty when it would not."""
    with tempfile.TemporaryDirectory(prefix="hostmend-init-") as place:
        path = Path(place) / "proposed.yml"
        path.write_text(write_checks((proposal,)), encoding="utf-8")
        errors = load_config_errors(path, catalog=catalog, types=types)
    return errors[0].message if errors else ""


def write_configuration(proposals: Iterable[Proposal]) -> str:
    """A first configuration, in shadow."""
    return _HEAD + _write_section(proposals)


def write_checks(proposals: Iterable[Proposal]) -> str:
    """A file for `conf.d` with these checks."""
    return f"{_HEAD_OF_MORE}version: {VERSION}\n\n{_write_section(proposals)}"


def _write_section(proposals: Iterable[Proposal]) -> str:
    parts = [
        f"  # {' '.join(proposal.why.split())}\n" + _indent({proposal.name: proposal.options})
        for proposal in proposals
    ]
    return "checks:\n" + "\n".join(parts) if parts else "checks: {}\n"


def _indent(value: object) -> str:
    return "".join(f"  {line}\n" for line in write_document(value).splitlines())


def write_new_file(path: Path, text: str) -> None:
    """Writes a file that only its owner may read. Raises ConfigError, also where there is one."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600, exist_ok=False)
    except FileExistsError as error:
        raise ConfigError("cannot write it: there is one already", file=str(path)) from error
    except OSError as error:
        raise ConfigError(f"cannot write it: {error.strerror}", file=str(path)) from error
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        path.unlink(missing_ok=True)
        raise ConfigError(f"cannot write it: {error.strerror}", file=str(path)) from error


def find_free_file(config: Path) -> Path:
    """Where checks that were found later go: `conf.d/init.yml`, then `conf.d/init-2.yml`."""
    place = config.parent / "conf.d"
    number = 1
    while (path := place / ("init.yml" if number == 1 else f"init-{number}.yml")).exists():
        number += 1
    return path
