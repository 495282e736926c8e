"""The throw-away host is a host as people have them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import agent.errors
from agent.lab import PYTHON, Lab

GET = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "http://127.0.0.1/"]


def test_systemd_is_its_first_process_and_finds_nothing_wrong(lab: Lab) -> None:
    assert lab.read("/proc/1/comm").strip() == "systemd"
    assert lab.run(["systemctl", "is-system-running"]).stdout.strip() == "running"
    assert lab.run(["systemctl", "--failed", "--no-legend"]).stdout == ""


def test_nothing_in_run_can_be_executed_as_on_a_real_host(lab: Lab) -> None:
    lab.write("/run/script", "#!/bin/sh\nexit 0\n", 0o755)
    assert lab.run(["sh", "-c", "exec /run/script"], check=False).returncode == 126


def test_the_system_bus_answers(lab: Lab) -> None:
    manager = ["org.freedesktop.systemd1", "/org/freedesktop/systemd1"]
    asked = ["busctl", "get-property", *manager, "org.freedesktop.systemd1.Manager", "SystemState"]
    assert lab.run(asked).stdout.strip() == 's "running"'


def test_nginx_is_there_starts_only_when_told_and_answers(lab_tree: Path) -> None:
    with Lab.boot(lab_tree) as host:
        state = host.run(["systemctl", "is-enabled", "nginx"], check=False).stdout
        assert state.strip() == "disabled"
        assert host.run(["pidof", "nginx"], check=False).returncode == 1
        host.run(["systemctl", "start", "nginx"])
        assert host.run(GET).stdout == "200"


def test_a_service_killed_for_good_is_seen_as_failed(lab: Lab) -> None:
    lab.run(["systemctl", "restart", "nginx"])
    lab.run(["systemctl", "kill", "-s", "KILL", "--kill-who=all", "nginx"])
    lab.wait_for(["systemctl", "is-failed", "nginx"])
    assert lab.run(GET, check=False).returncode == 7
    lab.run(["systemctl", "reset-failed", "nginx"])


def test_the_code_of_this_checkout_is_in_it(lab: Lab) -> None:
    lab.run([PYTHON, "-P", "-c", "import agent, api, ansible_runner, apprise, dbus_fast"])
    where = lab.run([PYTHON, "-P", "-c", "import agent; print(agent.__path__[0])"]).stdout.strip()
    assert lab.read(f"{where}/errors.py") == Path(agent.errors.__file__).read_text()
    lab.run(["test", "-x", "/usr/local/bin/hostmend"])


def test_only_root_may_change_the_code_in_it(lab_tree: Path, tmp_path: Path) -> None:
    remedy = tmp_path / "playbooks/some-remedy"
    remedy.mkdir(parents=True)
    (remedy / "playbook.yml").write_text("[]")
    for path in (remedy, remedy / "playbook.yml"):
        os.chown(path, 1000, 1000)
        path.chmod(0o777)
    with Lab.boot(lab_tree, code=tmp_path) as host:
        packages = "/opt/hostmend/lib/python3.11/site-packages"
        assert host.read(f"{packages}/playbooks/some-remedy/playbook.yml") == "[]"
        exposed = ["find", packages, "!", "-user", "root", "-o", "-perm", "/022", "!", "-type", "l"]
        assert host.run(exposed).stdout == ""


def test_its_network_is_its_own_loopback(lab: Lab) -> None:
    links = lab.run(["ip", "-brief", "link"]).stdout.splitlines()
    assert [line.split()[0] for line in links] == ["lo"]
    assert "127.0.0.1" in lab.run(["getent", "ahosts", "localhost"]).stdout


def test_no_package_sources_of_this_machine_are_left_in_it(lab: Lab) -> None:
    lent = ["/etc/pip.conf", "/etc/xdg/pip", "/root/.config", "/etc/hostmend-lab-ca.crt"]
    assert [p for p in lent if lab.run(["test", "-e", p], check=False).returncode == 0] == []
    assert lab.run(["find", "/etc", "-name", "*.own"]).stdout == ""
    assert "nameserver" not in lab.read("/etc/resolv.conf")


def test_a_command_runs_in_an_environment_made_from_scratch(lab: Lab) -> None:
    names = {line.partition("=")[0] for line in lab.run(["env"], env={"EXTRA": "1"}).stdout.split()}
    assert names == {"PATH", "HOME", "USER", "LANG", "TERM", "EXTRA"}


def test_a_command_gets_its_input_and_gives_its_output(lab: Lab) -> None:
    assert lab.run(["cat"], input="žluťoučký\n").stdout == "žluťoučký\n"
    assert lab.run(["sh", "-c", "echo why >&2; exit 3"], check=False).returncode == 3
    with pytest.raises(subprocess.CalledProcessError) as caught:
        lab.run(["sh", "-c", "echo why >&2; exit 3"])
    assert caught.value.__notes__ == ["it printed:\nwhy\n"]


def test_a_command_past_its_time_ends_with_all_that_it_started(lab: Lab) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        lab.run(["sh", "-c", "sleep 98765 & sleep 98765"], timeout=0.5)
    look = ["pgrep", "-xf", "sleep 98765"]
    lab.wait_for(lambda: lab.run(look, check=False).returncode == 1)


def test_a_signal_reaches_the_command_that_was_started(lab: Lab) -> None:
    with lab.popen(["sleep", "98764"]) as process:
        lab.wait_for(["pgrep", "-xf", "sleep 98764"])
        process.terminate()
        assert process.wait(60) == -15
    assert lab.run(["pgrep", "-xf", "sleep 98764"], check=False).returncode == 1


def test_files_and_directories_are_copied_in_and_belong_to_root(lab: Lab, tmp_path: Path) -> None:
    source = tmp_path / "site"
    (source / "__pycache__").mkdir(parents=True)
    (source / "page.html").write_text("hello")
    (source / "page.html").chmod(0o640)
    lab.copy_in(source, "/srv/a/copy")
    assert lab.read("/srv/a/copy/page.html") == "hello"
    assert lab.run(["ls", "/srv/a/copy"]).stdout.split() == ["page.html"]
    facts = lab.run(["stat", "-c", "%U %G %a", "/srv/a/copy/page.html"]).stdout
    assert facts.strip() == "root root 640"


def test_what_is_written_through_a_link_stays_in_the_host(lab: Lab) -> None:
    lab.write("/var/run/hostmend-test", "inside")
    assert lab.read("/run/hostmend-test") == "inside"
    assert not Path("/run/hostmend-test").exists()


def test_waiting_in_vain_tells_what_was_seen_last(lab: Lab) -> None:
    with pytest.raises(TimeoutError, match="exit code 1: nothing here"):
        lab.wait_for(["sh", "-c", "echo nothing here; exit 1"], 0.2)


@pytest.mark.parametrize("fs", ["ext4", "tmpfs"])
def test_a_volume_can_be_filled_to_its_last_byte(lab: Lab, fs: str) -> None:
    place = f"/srv/{fs}"
    lab.volume(place, "16M", fs)  # type: ignore[arg-type]
    assert lab.run(["findmnt", "-no", "FSTYPE", place]).stdout.strip() == fs
    filled = lab.run(["dd", "if=/dev/zero", f"of={place}/fill", "bs=64k"], check=False)
    assert "No space left on device" in filled.stderr
    assert lab.run(["stat", "-f", "-c", "%a", place]).stdout.strip() == "0"


def test_a_reboot_keeps_files_and_volumes_and_nothing_else(lab_tree: Path) -> None:
    with Lab.boot(lab_tree, machine_id="0123456789abcdef0123456789abcdef") as host:
        host.volume("/srv/data", "16M")
        for place in ("/srv/data/kept", "/etc/kept", "/run/lost"):
            host.write(place, "text")
        boot = host.read("/proc/sys/kernel/random/boot_id")
        for crash in (False, True):
            host.run(["systemctl", "start", "nginx"])
            host.reboot(crash=crash)
            assert host.read("/srv/data/kept") + host.read("/etc/kept") == "texttext"
            assert host.run(["test", "-e", "/run/lost"], check=False).returncode == 1
            assert host.run(GET, check=False).returncode == 7
            assert host.read("/etc/machine-id") == "0123456789abcdef0123456789abcdef\n"
            assert host.read("/proc/sys/kernel/random/boot_id") != boot
            assert "noexec" in host.run(["findmnt", "-no", "OPTIONS", "/run"]).stdout
