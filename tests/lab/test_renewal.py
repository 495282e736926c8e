"""Certificates that certbot and dehydrated renew at a real authority, and what is left to a human.

The remedy's own test, with a command that renews: test_remedies.py. Its decisions one by one:
tests/remedies/test_renew_certificate.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from acme_authority import DIRECTORY, UNIT, have_days, start_authority
from lab_agent import LabAgent
from lab_check import check_in
from lab_runs import PLAYBOOK, RUNTIME, find_playbooks, mend

from agent.lab import Lab, build

pytestmark = [pytest.mark.lab, pytest.mark.long]

NAME = "shop.example"
LIVE = f"/etc/letsencrypt/live/{NAME}"
PATH = f"{LIVE}/fullchain.pem"
RENEWAL = f"/etc/letsencrypt/renewal/{NAME}.conf"
WEB = "/var/www/shop"
SERVED: dict[str, Any] = {"validate": ["nginx", "-t"], "reload": "nginx.service"}
_CLEAR = f"""
server {{
    listen 80;
    server_name {NAME} www.{NAME};
    root {WEB};
    location /.well-known/acme-challenge/ {{ try_files $uri /dehydrated/$uri =404; }}
}}
"""
_TLS = f"""
server {{
    listen 443 ssl;
    ssl_certificate {PATH};
    ssl_certificate_key {LIVE}/privkey.pem;
}}
"""
CONFIGURATION = """\
version: 1
checks:
  letsencrypt:
    type: certificate
    paths: [/etc/letsencrypt/live/*/fullchain.pem]
    key: privkey.pem
    every: 2s
    stable_for: 3s
    ladder:
      - remedy: renew-certificate
        causes: [expired, expiring]
        options: {validate: [nginx, -t], reload: nginx.service}
"""


@pytest.fixture(scope="module")
def town() -> Iterator[Lab]:
    """A host with an authority and a site of that name."""
    with Lab.boot(build(packages=["certbot", "dehydrated"])) as lab:
        start_authority(lab)
        lab.run(["sh", "-c", f"echo 127.0.0.1 {NAME} www.{NAME} >>/etc/hosts"])
        lab.write(f"{WEB}/index.html", "shop\n")
        lab.write("/etc/nginx/conf.d/clear.conf", _CLEAR)
        lab.run(["systemctl", "start", "nginx"])
        yield lab


@pytest.fixture
def host(town: Lab) -> Iterator[Lab]:
    """certbot's certificate ends in two days; the next will be good for ninety."""
    have_days(town, 2)
    town.run(["systemctl", "start", UNIT])
    town.wait_for(["curl", "-sf", DIRECTORY])
    argv = ["certbot", "certonly", "--non-interactive", "--agree-tos", "--force-renewal"]
    argv += ["--register-unsafely-without-email", "--server", DIRECTORY, "--webroot", "-w", WEB]
    town.run([*argv, "--cert-name", NAME, "-d", f"{NAME},www.{NAME}"], timeout=300)
    town.write("/etc/nginx/conf.d/tls.conf", _TLS)
    town.run(["systemctl", "reload", "nginx"])
    have_days(town, 90)
    yield town
    town.run(["rm", "-rf", RUNTIME])


def digest(lab: Lab, path: str = PATH) -> str:
    return lab.run(["openssl", "x509", "-noout", "-fingerprint", "-in", path]).stdout


def serves(lab: Lab, path: str = PATH) -> bool:
    """Whether nginx shows what the file has."""
    shown = lab.run(["openssl", "s_client", "-connect", "127.0.0.1:443"], input="").stdout
    argv = ["openssl", "x509", "-noout", "-fingerprint"]
    return lab.run(argv, input=shown).stdout == digest(lab, path)


def renew(lab: Lab, path: str = PATH, **given: Any) -> tuple[str, str, str]:
    """Outcome, detail and what was done by a run for what the check finds now."""
    with check_in(lab, "certificate", paths=[path], key="privkey.pem") as check:
        seen = check.look()
    seconds = seen["measurements"]["certificate_expires_seconds"]
    options = {"path": path, "seen_seconds": seconds, **SERVED, **given}
    outcome, detail, events = mend(lab, "renew-certificate", **options)
    return outcome, detail, json.dumps(events)


def asked_certbot(lab: Lab) -> str:
    """Changes with each start of certbot."""
    return lab.run(["stat", "--format=%Y %s", "/var/log/letsencrypt/letsencrypt.log"]).stdout


# certbot


def test_a_certificate_that_is_about_to_end_is_found_renewed_and_served(host: Lab) -> None:
    agent = LabAgent(host)
    before = digest(host)
    assert serves(host)
    agent.install(CONFIGURATION)
    try:
        agent.start()

        def resolved() -> dict[str, Any] | None:
            found = agent.incidents()
            return found[0] if found and found[0]["state"] == "resolved" else None

        incident = agent.wait(resolved, "the certificate to be renewed")
        assert incident["resolved_by"] == "run"
        (run,) = agent.runs()
        assert (run["remedy"], run["outcome"]) == ("renew-certificate", "ok")
        (finding,) = agent.check("letsencrypt")["findings"]
        assert finding["status"] == "ok"
        assert finding["measurements"]["certificate_expires_seconds"] > 80 * 86400
    finally:
        agent.forget()
    assert digest(host) != before
    assert serves(host)


def test_a_playbook_by_hand_renews_it_and_changes_nothing_the_second_time(host: Lab) -> None:
    playbook = f"{find_playbooks(host)}/renew-certificate/playbook.yml"
    argv = [PLAYBOOK, "-i", "localhost,", playbook, "-e", f"path={PATH}"]
    argv += ["-e", "reload=nginx.service"]
    assert "changed=2" in host.run(argv, timeout=300).stdout
    assert serves(host)
    after = digest(host)
    assert "changed=0" in host.run(argv, timeout=300).stdout
    assert digest(host) == after


def test_a_preview_starts_no_client_and_reloads_nothing(host: Lab) -> None:
    before, asked = digest(host), asked_certbot(host)
    host.run(["systemctl", "stop", UNIT])
    outcome, detail, events = mend(host, "renew-certificate", preview=True, path=PATH, **SERVED)
    assert outcome == "ok", detail
    assert f"certbot renew --cert-name {NAME} --non-interactive" in json.dumps(events)
    assert (digest(host), asked_certbot(host)) == (before, asked)


def test_an_authority_that_is_away_is_for_a_human_who_is_told_what_certbot_said(
    host: Lab,
) -> None:
    before = digest(host)
    host.run(["systemctl", "stop", UNIT])
    outcome, detail, _ = renew(host)
    assert outcome == "needs_human", detail
    assert "certbot ended with exit code 1" in detail
    assert f"certbot renew --cert-name {NAME}" in detail
    assert "letsencrypt.log" in detail
    assert digest(host) == before
    assert serves(host)


def test_what_certbot_finds_not_due_is_never_forced(host: Lab) -> None:
    before = digest(host)
    host.run(["sed", "-i", "1i renew_before_expiry = 1 hour", RENEWAL])
    try:
        outcome, detail, _ = renew(host)
    finally:
        host.run(["sed", "-i", "1d", RENEWAL])
    assert outcome == "needs_human", detail
    assert "never forced" in detail
    assert "No renewals were attempted" in detail
    assert digest(host) == before


def test_what_nobody_renews_is_for_a_human(host: Lab) -> None:
    host.run(["mv", RENEWAL, f"{RENEWAL}.away"])
    try:
        asked = asked_certbot(host)
        outcome, detail, _ = renew(host)
        assert outcome == "needs_human", detail
        assert f"nothing on this host says that it renews {PATH}" in detail
        assert asked_certbot(host) == asked
    finally:
        host.run(["mv", f"{RENEWAL}.away", RENEWAL])


def test_while_certbot_is_at_work_no_second_one_is_started(host: Lab) -> None:
    argv = ["certbot", "renew", "--non-interactive", "--no-random-sleep-on-renew"]
    hook = "touch /run/hooked; while [ -e /run/hooked ]; do sleep 1; done"
    with host.popen([*argv, "--pre-hook", hook]) as certbot:
        try:
            host.wait_for(["test", "-e", "/run/hooked"], 120)
            outcome, detail, _ = mend(host, "renew-certificate", preview=True, path=PATH, **SERVED)
            assert outcome == "needs_human", detail
            assert "another run of certbot is at work: process" in detail
        finally:
            certbot.kill()
            host.run(["rm", "-f", "/run/hooked"])
    # What the killed one left of its lock is held by nobody.
    outcome, detail, _ = renew(host)
    assert outcome == "ok", detail


def test_without_room_for_its_log_certbot_is_not_started(host: Lab) -> None:
    logs = "/var/log/letsencrypt"
    host.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", logs])
    try:
        outcome, detail, _ = renew(host)
        assert outcome == "needs_human", detail
        assert f"no room on the filesystem of {logs}" in detail
    finally:
        host.run(["umount", logs])


def test_a_configuration_with_an_error_is_not_reloaded_and_a_human_is_told(host: Lab) -> None:
    before = digest(host)
    host.write("/etc/nginx/conf.d/broken.conf", "nonsense;\n")
    try:
        outcome, detail, _ = renew(host)
    finally:
        host.run(["rm", "/etc/nginx/conf.d/broken.conf"])
    assert outcome == "needs_human", detail
    assert "certbot renewed" in detail
    assert "nginx -t fails" in detail
    assert digest(host) != before
    assert not serves(host)


def test_a_server_that_was_not_told_of_a_new_file_is_reloaded_and_no_client_is_started(
    host: Lab,
) -> None:
    with check_in(host, "tls", host=NAME, connect="127.0.0.1:443", tls="no-verify") as check:
        seen = check.look()["measurements"]["certificate_expires_seconds"]
        host.run(["certbot", "renew", "--non-interactive", "--no-random-sleep-on-renew"])
        assert not serves(host)
        asked = asked_certbot(host)
        options = {"path": PATH, "seen_seconds": seen, **SERVED}
        outcome, detail, events = mend(host, "renew-certificate", **options)
        assert outcome == "ok", detail
        assert "was renewed already" in json.dumps(events)
        assert asked_certbot(host) == asked
        assert serves(host)
        assert check.look()["measurements"]["certificate_expires_seconds"] > 80 * 86400


def test_init_proposes_the_remedy_with_the_server_that_shows_the_certificate(host: Lab) -> None:
    with check_in(host, "certificate", paths=[PATH]) as check:
        (proposal,) = check.order("propose")
    (step,) = proposal["options"]["ladder"]
    assert (step["remedy"], step["options"]) == ("renew-certificate", SERVED)
    assert RENEWAL in proposal["why"]


# dehydrated


@pytest.fixture
def dehydrated(host: Lab) -> Lab:
    challenges = f"{WEB}/dehydrated/.well-known/acme-challenge"
    host.run(["mkdir", "-p", challenges])
    host.write(
        "/etc/dehydrated/conf.d/lab.sh",
        f"CA={DIRECTORY}\nWELLKNOWN={challenges}\nKEY_ALGO=prime256v1\n",
    )
    host.write("/etc/dehydrated/domains.txt", f"{NAME} www.{NAME}\n")
    host.run(["dehydrated", "--register", "--accept-terms"], timeout=120)
    have_days(host, 2)
    host.run(["dehydrated", "--cron", "--force"], timeout=120)
    have_days(host, 90)
    return host


def test_dehydrated_renews_what_is_its_own_with_all_its_names(dehydrated: Lab) -> None:
    path = f"/var/lib/dehydrated/certs/{NAME}/fullchain.pem"
    before = digest(dehydrated, path)
    outcome, detail, done = renew(dehydrated, path)
    assert outcome == "ok", detail
    assert f"dehydrated renewed {path}" in done
    after = digest(dehydrated, path)
    assert after != before
    argv = ["openssl", "x509", "-noout", "-ext", "subjectAltName", "-in", path]
    assert f"www.{NAME}" in dehydrated.run(argv).stdout
    outcome, detail, events = mend(dehydrated, "renew-certificate", path=path, **SERVED)
    assert outcome == "ok", detail
    assert "is not due" in json.dumps(events)
    assert digest(dehydrated, path) == after


def test_dehydrated_that_cannot_reach_its_authority_is_for_a_human(dehydrated: Lab) -> None:
    dehydrated.run(["systemctl", "stop", UNIT])
    path = f"/var/lib/dehydrated/certs/{NAME}/fullchain.pem"
    before = digest(dehydrated, path)
    outcome, detail, _ = renew(dehydrated, path)
    assert outcome == "needs_human", detail
    assert "dehydrated ended with exit code" in detail
    assert digest(dehydrated, path) == before
