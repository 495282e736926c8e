"""The state directory of one host on another, as a copied disk has it."""

from __future__ import annotations

import time
from pathlib import Path

from lab_agent import body_of
from web_agent import install, is_served, kill_nginx, wait_for_end, wait_for_mail

from agent.lab import Lab


def ask(lab: Lab, secret: str, method: str = "GET", path: str = "/v1/status") -> int:
    """The status over TCP; the body is then in /tmp/answer."""
    curl = ["curl", "-sS", "-o", "/tmp/answer", "-w", "%{http_code}", "-X", method]
    header = ["-H", f"Authorization: Bearer {secret}"]
    return int(lab.run([*curl, *header, f"http://127.0.0.1:8642{path}"]).stdout)


def test_a_clone_pages_nobody_and_acts_on_nothing_until_confirmed(
    lab_tree: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "state.tar"
    with Lab.boot(lab_tree) as first:
        agent = install(first)
        kill_nginx(first)
        wait_for_end(agent)
        wait_for_mail(agent, "healed")
        originals = {mail["Message-ID"] for mail in agent.mails()}
        secret = first.run(["hostmend", "token", "create", "ci", "--role", "admin"]).stdout.strip()
        assert ask(first, secret) == 200
        agent.stop()
        first.run(["tar", "-cf", "/root/state.tar", "-C", "/var/lib", "hostmend"])
        kept.write_bytes((first.path / "root/state.tar").read_bytes())

    with Lab.boot(lab_tree) as other:
        other.copy_in(kept, "/root/state.tar")
        other.run(["tar", "-xf", "/root/state.tar", "-C", "/var/lib"])
        clone = install(other, group_wait="2s")
        assert "another machine" in " ".join(clone.get("status")["problems"])
        assert ask(other, secret) == 403
        assert "hostmend confirm" in other.read("/tmp/answer")
        assert ask(other, secret, "POST", "/v1/confirm") == 403
        kill_nginx(other)
        clone.wait(
            lambda: [i for i in clone.get("status")["incidents"] if i["state"] == "open"],
            "the clone to see the failure",
        )
        # Longer than the original would wait before it told of this.
        time.sleep(4)
        assert not is_served(other)
        assert len(clone.runs()) == 1, "the original's"
        (mail,) = clone.mails()
        assert mail["Subject"].startswith("[agent] ")
        assert "hostmend confirm" in body_of(mail)
        assert "confirmed" in clone.run("confirm")
        assert ask(other, secret) == 401
        (token,) = clone.json("token", "list")["items"]
        assert token["revoked"]
        clone.wait(lambda: is_served(other), "the page, once it was confirmed")
        wait_for_end(clone, 2)
        wait_for_mail(clone, "healed")
        assert originals.isdisjoint(mail["Message-ID"] for mail in clone.mails())
        assert clone.run("confirm", check=False) == ""
