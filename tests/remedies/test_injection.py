"""Text from outside is never evaluated: each of these would create a file if it were."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from agent.core.model import Outcome
from agent.errors import RemedyError
from agent.host.processes import end_tree, find_marked
from agent.remedies.catalog import Catalog
from agent.remedies.options import Option, check_options
from agent.remedies.protocol import MARK
from agent.remedies.surroundings import make_job_environment, make_scratch

#: Every way in which a playbook may sensibly use an option. ALL stands for all options, NAMES for
#: their names: what fails alone in the first task would keep the others from being evaluated.
#: Failures are ignored so that the control, too, gets through all of them.
USES = """
- ignore_errors: true
  vars: {all: [ALL], by_name: "{{ all }}"}
  block:
    - {name: One by one, loop: [NAMES], ansible.builtin.debug: {msg: "{{ lookup('vars', item) }}"}}
    - {name: As an argument, loop: [ALL], ansible.builtin.command: {argv: [echo, "{{ item }}"]}}
    - {name: Shown, loop: [ALL], ansible.builtin.debug: {msg: "it is {{ item }}"}}
    - {name: In a file, ansible.builtin.copy: {content: "{{ all }}", dest: "{{ folder }}/out"}}
    - {name: By a variable, ansible.builtin.debug: {msg: "{{ by_name }}"}}
    - {name: As a fact, ansible.builtin.set_fact: {kept: "{{ all }}"}}
    - {name: The fact, ansible.builtin.debug: {msg: "{{ kept }}"}}
    - {name: A condition, when: all | string | length > 0, ansible.builtin.debug: {var: all}}
    - {name: Through JSON, ansible.builtin.debug: {msg: "{{ all | to_json | from_json }}"}}
    - {name: In parts, loop: "{{ all | flatten }}", ansible.builtin.debug: {msg: "{{ item }}"}}
    - {name: For a human, ansible.builtin.set_stats: {data: {said: "{{ all }}"}}}
"""

#: A runner alone, without a job.
RUNNER = """
import sys
from pathlib import Path
from agent.remedies.runner import main
sys.exit(main(Path(sys.argv[1])))
"""

PIPE = "lookup('pipe', 'touch {mark}')"
DOUBLE = 'lookup("pipe", "touch {mark}")'

#: type, the value with {mark} for the file that must not come to be.
ROWS = {
    "text": ("str", "{{{{ " + PIPE + " }}}}"),
    "text within text": ("str", "GET /{{{{ " + DOUBLE + " }}}} HTTP/1.1"),
    "a raw block broken out of": ("str", "{{% endraw %}}{{{{ " + PIPE + " }}}}{{% raw %}}"),
    "a raw block": ("str", "{{% raw %}}{{% endraw %}}{{{{ " + PIPE + " }}}}"),
    "a statement": ("str", "{{% set x = " + PIPE + " %}}"),
    "query": ("str", "{{{{ q('ansible.builtin.pipe', 'touch {mark}') }}}}"),
    "the name of a variable": ("str", "{{{{ folder }}}}{{{{ " + PIPE + " }}}}"),
    "other delimiters": (
        "str", "#jinja2: variable_start_string: '[%', variable_end_string: '%]' [% " + PIPE + " %]"
    ),
    "a bare expression": ("str", PIPE),
    "key=value": ("str", "a=b x={{{{ " + PIPE + " }}}}"),
    "YAML with a tag": ("str", "!unsafe {{{{ " + PIPE + " }}}}"),
    "JSON in text": ("str", '["{{{{ ' + PIPE + ' }}}}"]'),
    "a quote that would end the JSON": ("str", '"}}{{"x": "{{{{ ' + PIPE + " }}}}"),
    "a path": ("path", "/{{{{ " + PIPE.replace("touch ", "touch ") + " }}}}"),
    "a list": ("list", ["{{{{ " + PIPE + " }}}}", "b"]),
    "a dict": ("dict", {"a": "{{{{ " + PIPE + " }}}}"}),
    "deep in a dict": ("dict", {"a": [{"b": ["{{{{ " + PIPE + " }}}}"]}]}),
    "a dict in JSON": ("dict", '{{"a": {{"b": "{{{{ ' + PIPE + ' }}}}"}}}}'),
    "an argument": ("argv", ["echo", "{{{{ " + PIPE + " }}}}"]),
}  # fmt: skip


def fill(value, mark):
    if isinstance(value, str):
        return value.format(mark=mark)
    if isinstance(value, list):
        return [fill(item, mark) for item in value]
    return {key: fill(item, mark) for key, item in value.items()}


def carry_out(bench, variables, token) -> str:
    """Run the playbook with exactly these variables, without any check before. What it said."""
    path = bench.playbooks / "mend"
    scratch = bench.runtime / "scratch" / token
    make_scratch(scratch)
    work = {
        "run_id": "raw", "playbook": str(path / "playbook.yml"), "variables": variables,
        "preview": False, "interpreter": sys.executable, "collections": [], "vault": "",
        "fresh": True, "changes": "service", "result": str(bench.runtime / "result.json"),
        "unchecked": [], "secrets": [],
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", RUNNER, str(scratch)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=make_job_environment(MARK, token, scratch),
    )
    try:
        process.stdin.write(json.dumps(work).encode() + b"\n")
        process.stdin.flush()
        said = ""
        for line in process.stdout:
            said += line.decode()
            if json.loads(line)["event"] == "ended":
                break
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait()
        end_tree(find_marked(MARK, token), mark=(MARK, token))
        subprocess.run(["rm", "-rf", str(scratch)], check=True)
    return said


def write_uses(bench, folder):
    """The remedy, the options of a run of it, and the file of each row."""
    names = {row: f"it{number}" for number, row in enumerate(ROWS)}
    marks = {row: folder / f"mark-{name}" for row, name in names.items()}
    every = ", ".join(f'"{{{{ {name} }}}}"' for name in names.values())
    described = "".join(f"{name}: {{type: {ROWS[row][0]}}}, " for row, name in names.items())
    uses = USES.replace("ALL", every).replace("NAMES", ", ".join(names.values()))
    bench.write(uses, options=f"{{{described} folder: {{type: path}}}}")
    given = {name: fill(ROWS[row][1], marks[row]) for row, name in names.items()}
    return {**given, "folder": str(folder)}, marks


async def test_text_that_is_not_made_inert_is_executed(bench, tmp_path):
    """The control: without the protection, the next test would fail."""
    options, marks = write_uses(bench, tmp_path)
    remedy = Catalog.load([bench.playbooks]).get("mend")
    checked = check_options("mend", remedy.options, options)
    carry_out(bench, checked, "control")
    executed = {row for row, mark in marks.items() if mark.exists()}
    # The others are no templates, or not right ones, unless somebody wraps them unwisely.
    assert set(ROWS) - executed <= {
        "a raw block broken out of", "other delimiters", "a bare expression",
        "a quote that would end the JSON",
    }  # fmt: skip


async def test_no_option_is_ever_evaluated(bench, tmp_path):
    options, marks = write_uses(bench, tmp_path)
    result = await bench.run(bench.request(options=options))
    assert {row for row, mark in marks.items() if mark.exists()} == set()
    assert result.outcome is Outcome.OK, result.detail
    assert result.stats["ignored"] == 0
    assert "touch" in json.dumps(bench.tasks)


@pytest.mark.parametrize(
    "key",
    ['a": 1, "x', "{{ lookup('pipe', 'id') }}", "__ansible_unsafe", "__ansible_vault",
     "ansible_connection", "Ansible_host", "a b"],
)  # fmt: skip
def test_a_key_is_never_taken_as_it_is(key):
    with pytest.raises(RemedyError):
        check_options("mend", {"it": Option(type="dict")}, {"it": {"fine": {key: "x"}}})
    with pytest.raises(RemedyError):
        check_options("mend", {"it": Option()}, {key: "x"})


@pytest.mark.parametrize("name", ["limit", "playbook", "inventory", "cmdline", "tags", "extravars"])
async def test_what_steers_ansible_is_never_the_clients_to_set(bench, name):
    bench.write("- ansible.builtin.command: {argv: ['true']}")
    result = await bench.run(bench.request(options={name: "all"}))
    assert result.outcome is Outcome.FAILED
    assert f"no option {name}" in result.detail


def test_a_units_name_carries_no_template(tmp_path: Path):
    for name in ("{{ x }}.service", "$(id).service", "a;id.service", "`id`.service"):
        with pytest.raises(RemedyError, match="must be a systemd unit"):
            check_options("mend", {"it": Option(type="unit")}, {"it": name})
