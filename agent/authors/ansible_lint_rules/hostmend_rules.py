"""hostmend's rules for ansible-lint: `ansible-lint -R -r .../agent/authors/ansible_lint_rules`.

The only module that imports ansiblelint. A remedy is linted as a whole when its playbook.yml is.
"""

from __future__ import annotations

from ansiblelint.errors import MatchError
from ansiblelint.file_utils import Lintable
from ansiblelint.rules import AnsibleLintRule

from agent.authors.lint import lint_remedy


class HostmendRule(AnsibleLintRule):
    """What hostmend asks of a remedy."""

    id = "hostmend"
    description = "What hostmend asks of a remedy; docs/writing-remedies.md has each rule."
    severity = "HIGH"
    tags = ["hostmend"]  # noqa: RUF012 - as ansible-lint's own rules write it
    version_changed = "0.1.0"
    has_dynamic_tags = True

    def matchyaml(self, file: Lintable) -> list[MatchError]:
        """All that is wrong with the remedy that this is the playbook of."""
        remedy = file.path.absolute().parent
        if file.path.name != "playbook.yml" or not (remedy / "remedy.yml").is_file():
            return []
        return [
            self.create_matcherror(
                message=problem.text,
                lineno=problem.line,
                filename=Lintable(problem.file),
                tag=f"hostmend[{problem.rule}]",
            )
            for problem in lint_remedy(remedy)
            # Who may write to a checkout is not what will be on a host.
            if problem.rule != "permissions"
        ]
