"""The configured checks as they stand, and looks that somebody asks for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence

from agent.agent import CheckStatus
from agent.checks.push import PushOptions, read_alert, wants
from agent.config import Config, LoadedCheck
from agent.core.holds import mode_of
from agent.core.model import Looked, Policy, Status
from agent.engine import Engine
from agent.errors import Conflict, Invalid, NotFound
from agent.told import Alert, Report, Taken
from agent.watcher import Watcher

_WORST = (Status.OK, Status.UNKNOWN, Status.WARNING, Status.CRITICAL)


class Lookout:
    """Says what each check saw last, has it look, and takes what others tell of it."""

    def __init__(
        self,
        *,
        engine: Engine,
        watcher: Watcher,
        config: Callable[[], Config],
        remember: Callable[[str, PushOptions, Sequence[Report], str], Awaitable[None]],
    ) -> None:
        """`remember` keeps reports on a check, durably, by somebody. It raises Invalid."""
        self._engine = engine
        self._watcher = watcher
        self._config = config
        self._remember = remember

    def checks(self) -> tuple[CheckStatus, ...]:
        return tuple(self.check(name) for name in self._config().checks)

    def check(self, name: str) -> CheckStatus:
        loaded = self._config().checks.get(name)
        if loaded is None:
            known = ", ".join(self._config().checks) or "none"
            raise NotFound(f"cannot find a check {name!r}: there are {known}")
        return describe_check(
            loaded,
            self._watcher.last(name),
            self._engine.policy,
            tuple(i.id for i in self._engine.host.incidents if i.check == name),
        )

    async def look(self, name: str) -> CheckStatus:
        self.check(name)
        await self._watcher.look_now(name)
        return self.check(name)

    async def tell(self, name: str, report: Report, *, by: str) -> CheckStatus:
        self.check(name)
        loaded = self._config().checks[name]
        if not isinstance(loaded.options, PushOptions):
            raise Conflict(
                f"cannot take a report for {name}: it looks by itself; only a check of type push "
                "is reported on"
            )
        await self._remember(name, loaded.options, (report,), by)
        return await self.look(name)

    async def tell_alerts(self, alerts: Sequence[Alert], *, by: str) -> Taken:
        wanted: dict[str, list[Alert]] = {}
        ignored = 0
        checks = self._config().checks.items()
        pushed = {n: c.options for n, c in checks if isinstance(c.options, PushOptions)}
        for alert in alerts:
            names = [name for name, options in pushed.items() if wants(options, alert)]
            ignored += not names
            for name in names:
                wanted.setdefault(name, []).append(alert)
        for name, found in wanted.items():
            options = pushed[name]
            reports = [read_alert(options, alert) for alert in found]
            await self._remember(name, options, reports, by)
        await asyncio.gather(*(self._watcher.look_now(name) for name in wanted))
        return Taken(checks={name: len(found) for name, found in wanted.items()}, ignored=ignored)

    async def start_audit(self, check: str, *, by: str) -> CheckStatus:
        del by  # the trail has it
        status = self.check(check)
        if status.type != "site":
            raise Invalid(f"cannot audit {check}: it is of type {status.type}, and not site")
        self._watcher.request((check,))
        return status


def describe_check(
    check: LoadedCheck, last: Looked | None, overall: Policy, incidents: tuple[str, ...] = ()
) -> CheckStatus:
    """A configured check and its last look, if there was one."""
    policy = check.policy
    findings = last.findings if last else ()
    statuses = [finding.status for finding in findings]
    if last is None or last.broken:
        statuses.append(Status.UNKNOWN)
    modes = {mode_of(step, policy, overall) for step in policy.ladder}
    return CheckStatus(
        name=policy.name,
        type=check.type.name,
        every=policy.every,
        depends_on=policy.depends_on,
        ladder=tuple(step.remedy for step in policy.ladder),
        mode=", ".join(sorted(modes)) or (policy.mode or overall.mode),
        labels=policy.labels,
        looked=last.began if last else None,
        took=last.ended - last.began if last else None,
        findings=findings,
        broken=last.broken if last else "",
        status=find_worst(statuses),
        incidents=incidents,
    )


def find_worst(statuses: Iterable[Status]) -> Status:
    """The worst of these; ok where there is none."""
    return max(statuses, key=_WORST.index, default=Status.OK)
