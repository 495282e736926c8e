"""What hostmend asks of a remedy beyond that Ansible can carry it out: all rules in one table.

Each is about something that has hurt somebody: a text from a log line in a shell, a preview that
changed the host, a check of its conditions that came after the change. Rules read what is written
and evaluate nothing, so each looks only for what it can tell for certain. Where the author knows
better, `# noqa: hostmend[RULE]` on the line says so to hostmend and to ansible-lint alike.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.authors.playbook import Pages, Play, Task, is_false, texts_in
from agent.core.model import Changes, Risk
from agent.remedies.description import Remedy


@dataclass(frozen=True, kw_only=True, order=True)
class Problem:
    """One thing that is wrong with a remedy."""

    file: Path
    #: Counted from 1.
    line: int
    rule: str
    #: What is wrong, and what would be right.
    text: str


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A remedy with all of its pages."""

    remedy: Remedy
    pages: Pages

    def items(self) -> Iterator[Play | Task]:
        yield from self.pages.plays
        yield from self.tasks()

    def tasks(self) -> Iterator[Task]:
        for play in self.pages.plays:
            yield from play.tasks

    @property
    def modules(self) -> frozenset[str]:
        """The remedy's own: what they do is not told by their arguments."""
        return frozenset(file.stem for file in self.remedy.path.glob("library/*.py"))


Rule = Callable[[Draft], Iterator[Problem]]

_TEMPLATE = "{{"
_COMMANDS = frozenset({"command", "shell", "raw", "script", "expect"})
_SHELLS = frozenset({"sh", "bash", "dash", "ash", "ksh", "zsh", "busybox"})
#: Modules that change nothing.
_LOOKS = frozenset(
    {
        "add_host", "assert", "debug", "fail", "find", "gather_facts", "getent", "group_by",
        "import_tasks", "include_tasks", "include_vars", "meta", "mount_facts", "package_facts",
        "pause", "ping", "service_facts", "set_fact", "set_stats", "setup", "slurp", "stat", "uri",
        "validate_argument_spec", "wait_for", "wait_for_connection",
    }
)  # fmt: skip
_GATES = frozenset({"assert", "fail"})
#: Modules whose work is still there after the next start of the host.
_FILE_MODULES = frozenset(
    {
        "apt", "apt_key", "apt_repository", "assemble", "blockinfile", "copy", "cron",
        "deb822_repository", "debconf", "dnf", "dnf5", "dpkg_selections", "file", "get_url", "git",
        "group", "hostname", "iptables", "known_hosts", "lineinfile", "package", "pip", "replace",
        "rpm_key", "subversion", "template", "unarchive", "user", "yum", "yum_repository",
    }
)  # fmt: skip
_FILE_PROGRAMS = frozenset(
    {
        "chattr", "chgrp", "chmod", "chown", "cp", "fallocate", "install", "ln", "mkdir", "mv",
        "rename", "rm", "rmdir", "setfacl", "shred", "touch", "truncate", "unlink",
    }
)  # fmt: skip
_DATA_PROGRAMS = frozenset(
    {
        "aria_chk", "createdb", "dropdb", "mariadb", "mariadb-check", "mariadb-upgrade", "mongosh",
        "myisamchk", "mysql", "mysql_upgrade", "mysqlcheck", "pg_resetwal", "psql",
        "redis-check-aof", "redis-cli", "reindexdb", "sqlite3", "vacuumdb",
    }
)  # fmt: skip
_DATA_MODULES = re.compile(
    r"stop_for_data|copy_data|community\.(?:mysql|postgresql|mongodb|proxysql)\..+"
)
#: Orders of systemctl(1) after which the host is another.
_ORDERS = frozenset(
    {
        "daemon-reload", "disable", "edit", "enable", "isolate", "kill", "mask", "poweroff",
        "preset", "reboot", "reload", "reload-or-restart", "restart", "revert", "set-property",
        "start", "stop", "try-restart", "unmask",
    }
)  # fmt: skip
_SERVICES = frozenset({"service", "systemd", "systemd_service", "sysvinit"})
#: Conditions that ask the host when they are evaluated, not before.
_ASKS_NOW = re.compile(
    r"\b(?:lookup|query|q)\s*\(|\bis\s+(?:not\s+)?(?:file|directory|exists|link)"
)
_VOLATILE = ("/run/", "/dev/shm/")  # noqa: S108 - compared with, not written to


def _problem(task: Task | Play, rule: str, text: str, key: str = "") -> Problem:
    line = task.lines.get(key, task.line)
    return Problem(file=task.file, line=line, rule=rule, text=text)


def _is_template(value: object) -> bool:
    return any(_TEMPLATE in text for text in texts_in(value))


def _program(task: Task) -> str:
    return task.words[0].rpartition("/")[2] if task.words else ""


def _looks_only(task: Task) -> bool:
    """Whether it certainly changes nothing."""
    if not task.module or str(task.keys.get("check_mode", "")).lower() in ("true", "yes"):
        return True
    if task.module in _COMMANDS:
        given = task.keys.get("changed_when")
        return given is not None and is_false(given)
    return task.module in _LOOKS


def check_hosts(draft: Draft) -> Iterator[Problem]:
    for play in draft.pages.plays:
        if play.keys.get("hosts") != "localhost":
            yield _problem(
                play, "hosts", "a remedy mends the host it is on: `hosts: localhost`", "hosts"
            )
        elif play.keys.get("connection") != "local":
            yield _problem(
                play,
                "hosts",
                "with an inventory of its owner's it would go to localhost by ssh when it is run "
                "by hand: `connection: local`",
                "hosts",
            )


def check_waiting(draft: Draft) -> Iterator[Problem]:
    for play in draft.pages.plays:
        if "vars_prompt" in play.keys:
            yield _problem(
                play, "waiting", "`vars_prompt` waits for somebody who is not there: take an option"
            )
    for task in draft.tasks():
        given = task.arguments if isinstance(task.arguments, Mapping) else {}
        if task.module == "pause" and not {"seconds", "minutes"} & set(given):
            yield _problem(
                task, "waiting", "`pause` waits for somebody who is not there: say `seconds`"
            )
        if "async" in task.keys and str(task.keys.get("poll")) == "0":
            yield _problem(
                task,
                "waiting",
                "what a run leaves behind is killed at its end: wait for it, or have systemd "
                "start it",
                "poll",
            )


def check_names(draft: Draft) -> Iterator[Problem]:
    for item in draft.items():
        if _is_template(item.keys.get("name")):
            yield _problem(
                item,
                "name-template",
                "a name with a template in it lets a text from outside into the run's output as "
                "if it were Ansible's: name what it does, and put the value into a message",
                "name",
            )


def check_shell(draft: Draft) -> Iterator[Problem]:
    for task in draft.tasks():
        words = task.words
        in_shell = task.module in ("shell", "raw") and _is_template(task.arguments)
        if not in_shell and task.module == "command" and _program(task) in _SHELLS:
            flag = next((n for n, word in enumerate(words) if re.fullmatch(r"-\w*c", word)), None)
            in_shell = flag is not None and any(_TEMPLATE in w for w in words[flag + 1 :][:1])
        piped = any(
            re.search(r"(?:lookup|query)\s*\(\s*['\"](?:ansible\.builtin\.)?pipe['\"]", text)
            for text in texts_in(task.keys)
        )
        if in_shell or piped:
            yield _problem(
                task,
                "shell",
                "a value that becomes part of a shell's text is carried out by it: use `command` "
                'with `argv`, or hand it over in `environment` and write "$NAME"',
            )
        if task.module == "command" and _is_free_form(task):
            yield _problem(
                task,
                "argv",
                "a value with a blank in it becomes several words, and so options of the "
                "program: give the words as `argv`",
            )


def _is_free_form(task: Task) -> bool:
    given = task.arguments
    if isinstance(given, Mapping):
        given = given.get("cmd", given.get("_raw_params"))
    return isinstance(given, str) and _TEMPLATE in given


def check_script(draft: Draft) -> Iterator[Problem]:
    for task in draft.tasks():
        if task.module == "script":
            yield _problem(
                task,
                "script",
                "temporary files lie on a filesystem that may be mounted noexec: use `command` "
                "with the interpreter and `{{ playbook_dir }}/files/...` in `argv`",
            )


def check_preview(draft: Draft) -> Iterator[Problem]:
    for task in draft.items():
        # What is a template may come to it, as a preview takes it too.
        if str(task.keys.get("check_mode", True)).lower() in ("true", "yes", "on"):
            continue
        line = task.lines.get("check_mode", task.line)
        text = draft.pages.texts[task.file]
        above = text[line - 2].lstrip() if line >= 2 else ""
        if not above.startswith("#") and " #" not in text[line - 1]:
            yield _problem(
                task,
                "check-mode",
                "this runs in a preview, which people believe to change nothing: say in a comment "
                "on the line or above why it may",
                "check_mode",
            )


def check_changed_when(draft: Draft) -> Iterator[Problem]:
    for task in draft.tasks():
        if task.module not in _COMMANDS:
            continue
        given = task.arguments if isinstance(task.arguments, Mapping) else {}
        if "changed_when" not in task.keys and not {"creates", "removes"} & set(given):
            yield _problem(
                task,
                "changed-when",
                "nobody can tell whether it changed anything: say `changed_when`, or `creates` or "
                "`removes`, so that a second run changes nothing and says so",
            )
        elif "changed_when" in task.keys and is_false(task.keys["changed_when"]):
            words = task.words
            ordered = _program(task) == "systemctl" and bool(_ORDERS & set(words))
            if ordered or _program(task) in _FILE_PROGRAMS:
                yield _problem(
                    task,
                    "changed-when",
                    f"`{' '.join(words[:2])}` changes the host: `changed_when: false` is not true",
                    "changed_when",
                )


def check_changes(draft: Draft) -> Iterator[Problem]:
    said = draft.remedy.changes
    if said is Changes.DATA:
        return
    for task in draft.tasks():
        if _looks_only(task):
            continue
        touched = _what_it_changes(task)
        if touched is Changes.DATA or (touched is Changes.FILES and said is Changes.SERVICE):
            why = "whose run may be ended half-way" if touched is Changes.DATA else "which last"
            yield _problem(
                task,
                "changes",
                f"remedy.yml says `changes: {said.value}`, but `{_program(task) or task.module}` "
                f"changes {touched.value}, {why}: say `changes: {touched.value}`",
            )


def _what_it_changes(task: Task) -> Changes:
    program = _program(task) if task.module in _COMMANDS else ""
    if program in _DATA_PROGRAMS or _DATA_MODULES.fullmatch(task.module):
        return Changes.DATA
    given = task.arguments if isinstance(task.arguments, Mapping) else {}
    place = str(given.get("dest") or given.get("path") or "")
    lasting = task.module in _FILE_MODULES and not place.startswith(_VOLATILE)
    if lasting or program in _FILE_PROGRAMS or (program == "find" and "-delete" in task.words):
        return Changes.FILES
    return Changes.SERVICE


def check_gates(draft: Draft) -> Iterator[Problem]:
    for play in draft.pages.plays:
        way = [task for task in play.tasks if not task.aside]
        first = next((n for n, task in enumerate(way) if not _looks_only(task)), None)
        if first is None:
            continue
        if play.file.name == "playbook.yml" and not _is_guarded(draft, way[: first + 1]):
            yield _problem(
                way[first],
                "gate",
                f"a remedy of risk `{draft.remedy.risk.value}` changes something here before it "
                "has asked whether it may: look first, and stop with `assert`, `fail` or `when`",
            )
        later = _names_from(play, way[first:])
        for task in way[first + 1 :]:
            asked = _asks(task)
            if asked and not _ASKS_NOW.search(asked) and not later & set(_words_of(asked)):
                yield _problem(
                    task,
                    "gate",
                    "this could have been asked before anything was changed: move it to the "
                    "front, so that a refusal leaves the host as it was",
                )


def _is_guarded(draft: Draft, way: list[Task]) -> bool:
    """Whether something may stop it before the last of these tasks, which changes something."""
    remedy = draft.remedy
    if remedy.risk is Risk.LOW and remedy.changes is not Changes.DATA:
        return True
    last = way[-1]
    if last.conditions or last.module in draft.modules:
        return True
    return any(
        task.module in _GATES or _asks(task) or (
            task.module in _COMMANDS and not is_false(task.keys.get("failed_when", True))
        )
        for task in way[:-1]
    )  # fmt: skip


def _asks(task: Task) -> str:
    """The conditions under which this task stops the run or hands it over; empty if it does not."""
    given = task.arguments if isinstance(task.arguments, Mapping) else {}
    if task.module == "assert":
        return " ; ".join((*texts_in(given.get("that")), *task.conditions))
    ends = task.module == "meta" and str(task.arguments).startswith("end_")
    data = given.get("data")
    hands_over = task.module == "set_stats" and isinstance(data, Mapping)
    hands_over = hands_over and "hostmend_needs_human" in data  # type: ignore[operator]
    return " ; ".join(task.conditions) if task.module == "fail" or ends or hands_over else ""


def _names_from(play: Play, tasks: list[Task]) -> frozenset[str]:
    """Names whose values these tasks make, and the play's variables that are made of such."""
    names = {"ansible_check_mode", "ansible_failed_result", "ansible_failed_task", "ansible_facts"}
    for task in tasks:
        names.add(str(task.keys.get("register", "")))
        if task.module == "set_fact" and isinstance(task.arguments, Mapping):
            names.update(str(name) for name in task.arguments)
    variables = [play.keys.get("vars"), *(task.keys.get("vars") for task in play.tasks)]
    while True:
        more = {
            str(name)
            for given in variables
            if isinstance(given, Mapping)
            for name, value in given.items()
            if name not in names
            and any(
                names & set(_words_of(text)) or _ASKS_NOW.search(text) for text in texts_in(value)
            )
        }
        if not more:
            return frozenset(names)
        names |= more


def _words_of(text: str) -> list[str]:
    return re.findall(r"[A-Za-z_]\w*", text)


#: What a rule is about -> the function that looks.
RULES: Mapping[str, Rule] = {
    "hosts": check_hosts,
    "waiting": check_waiting,
    "name-template": check_names,
    "shell": check_shell,
    "script": check_script,
    "check-mode": check_preview,
    "changed-when": check_changed_when,
    "changes": check_changes,
    "gate": check_gates,
}
