"""Finding remedies, and refusing what is broken or could have been written by others."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from agent.checks import CHECKS
from agent.core.model import Changes, Risk
from agent.errors import NotFound
from agent.remedies.catalog import SHIPPED, Catalog

GOOD = """
summary: Mend it
handles: {disk: [full, inodes]}
risk: medium
changes: files
timeout: 2m
lock: "fs:{path}"
options:
  path: {type: path, required: true, from: finding.subject, description: Where.}
  keep: {type: duration, default: 1h, choices: [1h, 2h]}
  free: {type: float, from: finding.measurements.free_percent}
"""


def write(root: Path, name: str, description: str = GOOD) -> Path:
    path = root / name
    path.mkdir(parents=True)
    (path / "remedy.yml").write_text(description)
    (path / "playbook.yml").write_text("- hosts: localhost\n")
    for entry in (root, path, *path.iterdir()):
        entry.chmod(0o755 if entry.is_dir() else 0o644)
    return path


def problem(root: Path, **more: object) -> str:
    catalog = Catalog.load([root], **more)
    assert catalog.remedies == {}
    [error] = catalog.problems
    return str(error)


def test_a_remedy_is_read_in_every_part(tmp_path):
    path = write(tmp_path, "mend-it")
    remedy = Catalog.load([tmp_path]).get("mend-it")
    assert remedy.path == path
    assert remedy.playbook == path / "playbook.yml"
    assert (remedy.risk, remedy.changes, remedy.timeout) == (Risk.MEDIUM, Changes.FILES, 120.0)
    assert remedy.handles == {"disk": ("full", "inodes")}
    assert remedy.fills == {"path": "subject", "free": "measurements.free_percent"}
    assert remedy.options["keep"].default == 3600
    assert remedy.options["keep"].choices == (3600, 7200)
    assert remedy.lock_for({"path": "/var"}) == "fs:/var"
    assert remedy.replaces is None


def test_every_shipped_remedy_is_valid():
    catalog = Catalog.load([SHIPPED])
    assert catalog.problems == ()
    restart = catalog.get("restart-service")
    assert restart.handles == {"service": ("failed", "stopped")}
    assert restart.fills == {"unit": "subject"}
    # A reload instead of a restart is all that may be chosen freely.
    free = [name for name, option in restart.options.items() if not option.configured_only]
    assert free == ["reload"]
    for remedy in catalog.remedies.values():
        tests = {path.name for path in remedy.path.glob("test/*")}
        assert {"break.yml", "options.yml", "verify.yml"} <= tests, remedy.name


def test_every_shipped_remedy_is_documented_with_its_risk():
    page = (SHIPPED.parent / "docs" / "remedies.md").read_text()
    table = page.partition("## What comes with it")[2].partition("\n\n`hostmend remedy show")[0]
    documented = {
        name: cells[2].strip()
        for line in table.splitlines()
        if (cells := line.split("|"))[1:] and cells[1].strip().startswith("`")
        for name in re.findall(r"`([a-z-]+)`", cells[1])
    }
    shipped = Catalog.load([SHIPPED]).remedies.values()
    assert documented == {remedy.name: remedy.risk.value for remedy in shipped}


@pytest.mark.parametrize("name", Catalog.load([SHIPPED]).remedies)
def test_what_a_shipped_remedy_handles_can_happen(name):
    for kind, causes in Catalog.load([SHIPPED]).get(name).handles.items():
        assert set(causes) <= set(CHECKS[kind].causes)


def test_a_write_ahead_log_that_is_damaged_has_no_remedy():
    """What starts such a server loses rows that were committed (docs/databases.md)."""
    for remedy in Catalog.load([SHIPPED]).remedies.values():
        assert not {"checkpoint", "wal-tail"} & set(remedy.handles.get("postgres", ()))


def test_the_digest_covers_every_name_and_byte(tmp_path):
    path = write(tmp_path, "mend")
    seen = set()
    for change in (
        lambda: None,
        lambda: (path / "files").mkdir(mode=0o755),
        lambda: (path / "files" / "a").write_text("bc"),
        lambda: (path / "files" / "a").write_text("bd"),
        lambda: (path / "files" / "a").rename(path / "files" / "ab"),
        lambda: (path / "files" / "ab").write_text("c"),
    ):
        change()
        for entry in path.rglob("*"):
            entry.chmod(0o755 if entry.is_dir() else 0o644)
        seen.add(Catalog.load([tmp_path]).get("mend").digest)
    assert len(seen) == 5  # an empty directory is nothing


def test_an_operators_remedy_replaces_a_shipped_one_and_shows_both_digests(tmp_path):
    write(tmp_path / "shipped", "mend")
    write(tmp_path / "own", "mend", GOOD.replace("Mend it", "Mend it my way"))
    shipped = Catalog.load([tmp_path / "shipped"]).get("mend")
    both = Catalog.load([tmp_path / "shipped", tmp_path / "own"])
    assert both.get("mend").summary == "Mend it my way"
    assert both.get("mend").replaces == shipped.digest
    assert both.get("mend").digest != shipped.digest


def test_a_broken_replacement_does_not_bring_the_shipped_one_back(tmp_path):
    write(tmp_path / "shipped", "mend")
    write(tmp_path / "own", "mend", "nonsense: true")
    catalog = Catalog.load([tmp_path / "shipped", tmp_path / "own"])
    assert "mend" not in catalog.remedies
    with pytest.raises(NotFound, match=r"own/mend/remedy\.yml"):
        catalog.get("mend")


def test_one_broken_remedy_does_not_hide_the_others(tmp_path):
    write(tmp_path, "good")
    write(tmp_path, "bad", "risk: huge")
    write(tmp_path, "faults")
    (tmp_path / "README.md").write_text("not a remedy")
    catalog = Catalog.load([tmp_path, tmp_path / "nowhere"])
    assert list(catalog.remedies) == ["good"]
    assert catalog.broken == {"bad"}
    assert len(catalog.problems) == 1
    with pytest.raises(NotFound, match="'other': there are good"):
        catalog.get("other")


@pytest.mark.parametrize(
    ("old", "new", "key", "why"),
    [
        ("risk: medium", "risk: huge", "risk", "low"),
        ("timeout: 2m", "timeout: 120", "timeout", "unit"),
        ("timeout: 2m", "timeout: 9w", "timeout", "less than"),
        ("changes: files", "changes: all", "changes", "service"),
        ("summary: Mend it\n", "", "summary", "required"),
        ("risk: medium", "risk: medium\nrisk: low", "", "duplicate key"),
        ("risk: medium", "risk: medium\nrisks: low", "risks", "Extra"),
        ("risk: medium", "risk: [", "", "expected"),
        ("fs:{path}", "fs:{place}", "lock", "'place' is none of the options"),
        ("fs:{path}", "fs:{path.parent}", "lock", "none of the options"),
        ("fs:{path}", "fs:{", "lock", "encountered"),
        ("type: float", "type: text", "options.free.type", "Input should be"),
        ("finding.subject", "finding.summary", "options.path.from", "pattern"),
        ("finding.subject", "finding.facts.x", "options.path.from", "pattern"),
        ("default: 1h", "default: 3h", "options.keep", "none of"),
        ("default: 1h", "default: soon", "options.keep", "not a duration"),
        ("choices: [1h, 2h]", "elements: int", "options.keep", "only a list"),
        ("required: true", "required: true, default: /x", "options.path", "required option"),
        ("  free:", "  ansible_free:", "options.ansible_free", "belongs to Ansible"),
        ("  free:", "  __ansible:", "options.__ansible", "lower case"),
        ("  free:", "  hostvars:", "options.hostvars", "belongs to Ansible"),
        ("  free:", "  'a\": 1':", 'options.a": 1', "lower case"),
        ("risk: medium", "risk: medium\ninterpreter: python3", "interpreter", "pattern"),
        ("risk: medium", "risk: medium\ncollections: ['{{ x }}']", "collections.0", "pattern"),
        ("risk: medium", "risk: medium\nvault_password_file: pw", "vault_password_file", "pattern"),
    ],
)
def test_a_wrong_description_names_remedy_file_and_key(tmp_path, old, new, key, why):
    assert old in GOOD
    write(tmp_path, "mend", GOOD.replace(old, new, 1))
    text = problem(tmp_path)
    assert text.startswith(f"cannot use remedy mend: {tmp_path}/mend/remedy.yml: {key}")
    assert why in text


def test_missing_files_are_named(tmp_path):
    path = write(tmp_path, "mend")
    (path / "playbook.yml").unlink()
    assert f"{path}/playbook.yml: there is no such file" in problem(tmp_path)
    (path / "remedy.yml").unlink()
    assert f"{path}/remedy.yml: No such file" in problem(tmp_path)


@pytest.mark.parametrize("place", [".", "mend", "mend/playbook.yml", "mend/files", "mend/files/x"])
@pytest.mark.parametrize("mode", [0o020, 0o002])
def test_what_others_may_write_to_is_refused(tmp_path, place, mode):
    root = tmp_path / "playbooks"
    path = write(root, "mend")
    (path / "files").mkdir(mode=0o755)
    (path / "files" / "x").touch(mode=0o644)
    target = root / place
    target.chmod(target.stat().st_mode & 0o777 | mode)
    assert f"{target} may be written to by others" in problem(root)


@pytest.mark.parametrize("place", [".", "mend", "mend/remedy.yml"])
def test_what_belongs_to_somebody_else_is_refused(tmp_path, place):
    root = tmp_path / "playbooks"
    write(root, "mend")
    target = root / place
    if os.geteuid() == 0:
        os.chown(target, 12345, -1)
        assert f"{target} belongs to user 12345" in problem(root)
    else:
        assert "belongs to user" in problem(root, owners=(0,))


def test_links_that_lead_outside_are_refused(tmp_path):
    root = tmp_path / "playbooks"
    path = write(root, "mend")
    (tmp_path / "secret").write_text("x")
    (path / "link").symlink_to(tmp_path / "secret")
    assert f"{path}/link leads outside" in problem(root)
    (path / "link").unlink()
    (path / "link").symlink_to("playbook.yml")
    assert Catalog.load([root]).problems == ()
    (path / "files").mkdir(mode=0o755)
    (path / "dir").symlink_to("files")
    assert "link to no file" in problem(root)


def test_what_remedies_share_belongs_to_each_that_has_a_link_to_it(tmp_path):
    path = write(tmp_path, "mend")
    shared = tmp_path / "_shared" / "code"
    shared.mkdir(parents=True)
    file = shared / "tool.py"
    file.write_text("one")
    (path / "library").mkdir()
    (path / "library" / "tool.py").symlink_to("../../_shared/code/tool.py")
    for entry in (tmp_path / "_shared", shared, file, path / "library"):
        entry.chmod(0o755)
    one = Catalog.load([tmp_path]).get("mend").digest
    file.write_text("two")
    assert Catalog.load([tmp_path]).get("mend").digest != one
    assert Catalog.load([tmp_path]).remedies.keys() == {"mend"}
    for entry in (tmp_path / "_shared", shared, file):
        entry.chmod(0o775)
        assert f"{entry} may be written to by others" in problem(tmp_path)
        entry.chmod(0o755)
    file.unlink()
    file.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").write_text("three")
    assert "leads outside" in problem(tmp_path)


def test_a_remedy_that_is_itself_a_link_outside_is_refused(tmp_path):
    write(tmp_path / "elsewhere", "mend")
    root = tmp_path / "playbooks"
    root.mkdir(mode=0o755)
    (root / "mend").symlink_to(tmp_path / "elsewhere" / "mend")
    assert "leads outside" in problem(root)


def test_special_files_are_refused(tmp_path):
    path = write(tmp_path, "mend")
    os.mkfifo(path / "pipe", 0o600)
    assert "neither file nor directory" in problem(tmp_path)
