"""What a finding's own evidence names as the reason: a full disk behind a dead service."""

from __future__ import annotations

from core_scene import Scene, check, step

from agent.core.model import Hold

FULL = {"subject": "/srv", "cause": "full", "resource": "filesystem:/srv"}
CLEAN = step("clean-disk", causes=("full",))


def make_scene() -> Scene:
    """A disk and a service that does not depend on it by configuration; the disk is well."""
    scene = Scene(check("disk", CLEAN), check("web"), slots=2)
    scene.passes("disk", **FULL)
    return scene


def test_what_the_evidence_names_is_looked_at_before_acting() -> None:
    scene = make_scene()
    scene.fails(implicates=("filesystem:/srv",))
    hold = scene.hold()
    assert hold is not None
    assert hold.hold is Hold.LOOKING_UPSTREAM
    assert "disk" in scene.last.look
    assert scene.runs == []
    scene.fails("disk", **FULL)
    assert scene.remedies() == ["clean-disk"]
    hold = scene.hold()
    assert hold is not None
    assert hold.hold is Hold.INHIBITED


def test_just_after_the_start_every_check_without_a_look_may_be_what_the_evidence_names() -> None:
    scene = Scene(check("disk", CLEAN), check("web"), slots=2)
    scene.fails(implicates=("filesystem:/srv",))
    hold = scene.hold()
    assert hold is not None
    assert hold.hold is Hold.LOOKING_UPSTREAM
    assert "disk" in scene.last.look
    scene.fails("disk", **FULL)
    assert scene.remedies() == ["clean-disk"]


def test_a_check_that_never_answers_holds_back_for_a_few_seconds_only() -> None:
    scene = Scene(check("disk", CLEAN), check("web"))
    scene.fails(implicates=("filesystem:/srv",))
    scene.wait(6)
    assert scene.remedies() == ["restart-service"]


def test_what_the_evidence_names_and_is_well_holds_nothing_back() -> None:
    scene = make_scene()
    scene.fails(implicates=("filesystem:/srv",))
    scene.passes("disk", **FULL)
    assert scene.remedies() == ["restart-service"]


def test_what_nobody_checks_holds_nothing_back() -> None:
    scene = make_scene()
    scene.fails(implicates=("filesystem:/other",))
    assert scene.remedies() == ["restart-service"]


def test_a_full_disk_without_evidence_holds_nothing_back() -> None:
    scene = make_scene()
    scene.fails("disk", **FULL)
    scene.fails()
    assert scene.remedies() == ["clean-disk", "restart-service"]
