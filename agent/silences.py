"""Silences and maintenance windows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from agent.agent import Page
from agent.clock import Clock
from agent.config import Config
from agent.core.holds import find_windows
from agent.core.model import Ordered, Silence, Verb
from agent.engine import Engine
from agent.errors import Conflict, Invalid, NotFound
from agent.paging import check_id, cut_page, sort_page


class Silences:
    """Those that were ordered, and recurring windows as the configuration opens them."""

    def __init__(
        self,
        *,
        engine: Engine,
        config: Callable[[], Config],
        clock: Clock,
        tell: Callable[[str], None],
    ) -> None:
        """`tell` tells whoever watches."""
        self._engine = engine
        self._config = config
        self._clock = clock
        self._tell = tell

    def windows(self) -> tuple[Silence, ...]:
        """Recurring windows: each as it is open, or as it opens next."""
        return find_windows(self._engine.host, self._engine.policy, self._clock.now())

    async def list(self, *, limit: int = 50, before: str | None = None) -> Page[Silence]:
        """Those that were ordered, newest first, then recurring windows by their names."""
        windows = self.windows()
        names = [window.id for window in windows]
        if before in names:
            return cut_page(windows[names.index(before) + 1 :][: limit + 1], limit)
        ordered = sort_page(self._engine.host.silences, "s", limit + 1, before).items
        return cut_page((*ordered, *windows)[: limit + 1], limit)

    async def find(self, silence_id: str) -> Silence:
        for window in self.windows():
            if window.id == silence_id:
                return window
        number = check_id(silence_id, "s")
        for silence in self._engine.host.silences:
            if silence.id == number:
                return silence
        raise NotFound(f"cannot find silence {silence_id}: `hostmend silence list` shows them")

    async def begin(
        self,
        *,
        by: str,
        seconds: float,
        checks: Collection[str] = (),
        subjects: Collection[str] = (),
        labels: Mapping[str, str] | None = None,
        comment: str = "",
        runs: bool = False,
    ) -> Silence:
        labels = dict(labels or {})
        self._refuse_what_matches_nothing(checks, subjects, labels)
        now = self._clock.now()
        silence = Silence(
            id="",
            starts=now,
            ends=now + seconds,
            by=by,
            comment=comment,
            checks=tuple(checks),
            subjects=tuple(subjects),
            labels=labels,
            runs=runs,
        )
        decision = await self._engine.take(Ordered(verb=Verb.SILENCE, by=by, silence=silence))
        made = next(s for s in decision.host.silences if s.id == decision.made)
        kind = "a maintenance window" if runs else "a silence"
        self._tell(f"{by} began {kind} ({made.id})")
        return made

    def _refuse_what_matches_nothing(
        self, checks: Collection[str], subjects: Collection[str], labels: Mapping[str, str]
    ) -> None:
        """A silence with a mistyped name is believed to be quiet, and is not."""
        known = self._config().checks
        unknown = [name for name in checks if name != "*" and name not in known]
        if unknown:
            raise Invalid(
                f"cannot silence {', '.join(unknown)}: configured are {', '.join(known) or 'none'}"
            )
        if subjects and not checks:
            raise Invalid("cannot silence subjects alone: name the checks that they are of")
        if labels and not any(
            all(check.policy.labels.get(k) == v for k, v in labels.items())
            for check in known.values()
        ):
            said = ", ".join(f"{name}={value}" for name, value in labels.items())
            raise Invalid(f"cannot silence {said}: no check carries these labels")

    async def end(self, silence_id: str, *, by: str) -> Silence:
        silence = await self.find(silence_id)
        if silence.recurring:
            raise Conflict(
                f"cannot end maintenance window {silence.id}: the configuration opens it; change "
                "that, and then: hostmend reload"
            )
        await self._engine.take(Ordered(verb=Verb.END_SILENCE, by=by, target=silence.id))
        kind = "the maintenance window" if silence.runs else "the silence"
        self._tell(f"{by} ended {kind} {silence.id}")
        return silence
