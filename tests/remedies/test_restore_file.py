"""The module of restore-file: what it puts right, and what it leaves to a human."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

LIBRARY = Path(__file__).parents[2] / "playbooks" / "restore-file" / "library"
GOOD = b"<h1>whole</h1>\n"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("restore_file", LIBRARY / "restore_file.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


module = load()


class Place:
    def __init__(self, root: Path) -> None:
        self.good = root / "good" / "index.html"
        self.page = root / "site" / "index.html"
        self.kept = root / "kept"
        for path in (self.good, self.page):
            path.parent.mkdir(mode=0o755)
        self.good.write_bytes(GOOD)
        self.good.chmod(0o644)
        self.page.write_text("broken")
        self.page.chmod(0o640)

    def restore(self, *, preview: bool = False, **given: Any) -> tuple[bool, str]:
        options = {
            "path": str(self.page),
            "good_copy": str(self.good),
            "sha256": None,
            "validate": None,
            "kept_in": str(self.kept),
            **given,
        }
        changed, msg, _ = module.restore(options, preview)
        return changed, msg

    def refuse(self, match: str, **given: Any) -> None:
        """A human is asked, and nothing is changed."""
        before = self.page.read_bytes() if self.page.exists() else None
        with pytest.raises(module.NeedsHumanError, match=match):
            self.restore(**given)
        assert (self.page.read_bytes() if self.page.exists() else None) == before
        assert not [path for path in self.page.parent.iterdir() if path.name.startswith(".")]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_broken_page_is_replaced_as_a_whole_and_what_was_there_is_kept(place: Place) -> None:
    changed, msg = place.restore()
    assert changed
    assert place.page.read_bytes() == GOOD
    assert place.page.stat().st_mode & 0o7777 == 0o640
    (kept,) = place.kept.iterdir()
    assert kept.read_text() == "broken"
    assert kept.stat().st_mode & 0o7777 == 0o600
    assert place.kept.stat().st_mode & 0o7777 == 0o700
    assert str(kept) in msg


def test_run_again_it_changes_nothing(place: Place) -> None:
    place.restore()
    assert place.restore() == (False, f"{place.page} is as the good copy has it")
    assert len(list(place.kept.iterdir())) == 1


def test_the_owner_stays_and_no_right_is_added(place: Place) -> None:
    os.chown(place.page, 33, 33)
    place.page.chmod(0o4755)
    place.restore()
    told = place.page.stat()
    assert (told.st_uid, told.st_gid, told.st_mode & 0o7777) == (33, 33, 0o755)


def test_a_missing_page_comes_back_as_the_good_copy_is(place: Place) -> None:
    place.page.unlink()
    assert place.restore()[0]
    assert place.page.stat().st_mode & 0o7777 == 0o644
    assert not place.kept.exists()


def test_a_preview_changes_nothing(place: Place) -> None:
    changed, msg = place.restore(preview=True)
    assert changed
    assert "would be restored" in msg
    assert place.page.read_text() == "broken"
    assert not place.kept.exists()


def test_a_good_copy_that_others_may_write_is_none(place: Place) -> None:
    place.good.chmod(0o664)
    place.refuse("others than root may write to the good copy")
    place.good.chmod(0o644)
    place.good.parent.chmod(0o777)
    place.refuse("others than root may write to .*/good: chown root")
    place.good.parent.chmod(0o755)
    os.chown(place.good, 33, 33)
    place.refuse("others than root may write to the good copy")


def test_a_good_copy_with_another_digest_is_none(place: Place) -> None:
    place.refuse("has the digest", sha256="0" * 64)
    assert place.restore(sha256=hashlib.sha256(GOOD).hexdigest().upper())[0]


def test_what_is_no_file_is_left_alone(place: Place) -> None:
    place.page.unlink()
    place.page.symlink_to(place.good)
    place.refuse("is a link, which may be on purpose")
    place.page.unlink()
    os.mkfifo(place.page)
    with pytest.raises(module.NeedsHumanError, match="is no regular file"):
        place.restore()
    place.page.unlink()
    place.good.unlink()
    place.refuse("the good copy .* is missing")


def test_a_link_on_the_way_is_followed_only_where_it_is_roots(place: Place) -> None:
    link = place.page.parent.parent / "current"
    link.symlink_to("site")
    assert place.restore(path=str(link / "index.html"))[0]
    place.page.write_text("broken")
    os.chown(link, 33, 33, follow_symlinks=False)
    place.refuse("is a link that others than root may change", path=str(link / "index.html"))
    os.chown(link, 0, 0, follow_symlinks=False)
    # Root's own, and yet somebody else could have put it there.
    link.parent.chmod(0o777)
    place.refuse("others than root may", path=str(link / "index.html"))
    link.parent.chmod(0o755)
    link.unlink()
    link.symlink_to("current")
    place.refuse("is a link that others", path=str(link / "index.html"))


def test_where_the_validation_fails_all_is_as_it_was(place: Place) -> None:
    place.refuse("false fails with the good copy too", validate=["false"])
    assert place.page.stat().st_mode & 0o7777 == 0o640
    place.refuse("No such file", validate=["/no/such/command"])
    place.page.unlink()
    place.refuse("false fails", validate=["false"])
    assert not place.page.exists()
    assert place.restore(validate=["true"])[0]


def test_a_page_that_breaks_again_and_again_needs_eyes(place: Place) -> None:
    for number in range(module.MOST_KEPT):
        place.page.write_text(f"broken {number}")
        place.restore()
    # What was kept once is not kept twice.
    place.page.write_text("broken 0")
    place.restore()
    place.page.write_text("broken anew")
    place.refuse("something changes it again and again")
