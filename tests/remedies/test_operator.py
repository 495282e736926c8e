"""What an operator's own remedy may use: installed collections, and a vault with its password."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible.parsing.vault import VaultLib, VaultSecret

from agent.core.model import Outcome

MODULE = """\
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.shop.tools.plugins.module_utils.words import WORD

AnsibleModule(argument_spec={}).exit_json(changed=False, msg=WORD)
"""


def install_collection(place: Path) -> None:
    """As `ansible-galaxy collection install -p PLACE` leaves one."""
    root = place / "ansible_collections" / "shop" / "tools"
    for name, text in (
        ("plugins/modules/say.py", MODULE),
        ("plugins/module_utils/words.py", "WORD = 'from the collection'\n"),
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    manifest = {"collection_info": {"namespace": "shop", "name": "tools", "version": "1.0.0"}}
    (root / "MANIFEST.json").write_text(json.dumps(manifest))


async def test_a_remedy_may_use_installed_collections(bench, tmp_path):
    install_collection(tmp_path / "installed")
    bench.write(
        "- {name: Say, shop.tools.say: {}}", more=f"collections: [{tmp_path / 'installed'}]\n"
    )
    result = await bench.run(bench.request())
    assert result.outcome is Outcome.OK, result.detail
    assert bench.tasks[0]["msg"] == "from the collection"


async def test_a_collection_that_is_not_installed_fails_its_own_remedy_alone(bench):
    bench.write("- {name: Say, shop.tools.say: {}}")
    bench.write("- {name: Go on, ansible.builtin.command: {argv: ['true']}}", name="other")
    result = await bench.run(bench.request())
    assert result.outcome is Outcome.FAILED
    assert "shop.tools" in result.detail
    assert (await bench.run(bench.request("other"))).outcome is Outcome.OK


@pytest.fixture
def vault(tmp_path: Path) -> Path:
    """A password that only this user may read."""
    file = tmp_path / "vault"
    file.write_text("sesame\n")
    file.chmod(0o600)
    return file


def write_secret(bench, vault: Path, text: str) -> Path:
    """A remedy with a variable that is encrypted; it compares it, and shows nothing."""
    bench.write(
        """
        - ansible.builtin.include_vars: {file: secrets.yml}
          no_log: true
        - name: Compare
          ansible.builtin.assert: {that: word == 'tell nobody', quiet: true}
          no_log: true
        """,
        more=f"vault_password_file: {vault}\n",
    )
    file = bench.playbooks / "mend" / "secrets.yml"
    file.write_bytes(VaultLib([("default", VaultSecret(b"sesame"))]).encrypt(f"word: {text}\n"))
    file.chmod(0o644)
    return file


async def test_a_remedy_may_have_a_vault_whose_password_is_in_a_file(bench, vault):
    write_secret(bench, vault, "tell nobody")
    result = await bench.run(bench.request())
    assert result.outcome is Outcome.OK, result.detail
    assert "tell nobody" not in json.dumps(bench.events)
    assert "sesame" not in json.dumps(bench.events)


async def test_a_wrong_password_fails_the_run(bench, vault):
    write_secret(bench, vault, "tell nobody")
    vault.write_text("wrong\n")
    result = await bench.run(bench.request())
    assert result.outcome is Outcome.FAILED


@pytest.mark.parametrize(
    ("mode", "why"), [(0o644, "run chmod 0600"), (None, "create it with mode 0600")]
)
async def test_a_password_that_others_may_read_or_that_is_not_there_is_refused(
    bench, vault, mode, why
):
    write_secret(bench, vault, "tell nobody")
    if mode is None:
        vault.unlink()
    else:
        vault.chmod(mode)
    result = await bench.run(bench.request())
    assert result.outcome is Outcome.FAILED
    assert f"vault_password_file {vault}" in result.detail
    assert why in result.detail
    assert bench.tasks == []
