"""What follows from events, told as stories of one host."""

from core_scene import Scene

from agent.core.model import Outcome, ResolvedBy, State


def test_a_killed_service_is_restarted_proved_watched_and_told_of() -> None:
    scene = Scene()
    scene.fails()
    assert scene.state() is State.REPAIRING
    scene.ends()
    assert scene.state() is State.VERIFYING
    assert "web" in scene.last.look
    scene.passes()
    assert scene.state() is State.PROBATION
    scene.keeps_passing(60)
    incident = scene.incident()
    assert incident.state is State.RESOLVED
    assert incident.resolved_by is ResolvedBy.RUN
    assert scene.host.incidents == ()
    assert [t.new for t in scene.transitions] == [
        State.PENDING,
        State.OPEN,
        State.REPAIRING,
        State.VERIFYING,
        State.PROBATION,
        State.RESOLVED,
    ]
    assert scene.said() == ["healed"]
    (run,) = scene.host.runs
    assert run.proved
    assert run.outcome is Outcome.OK
