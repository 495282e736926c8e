"""Units that hostmend never acts on, whoever asks."""

from __future__ import annotations

import pytest

from agent.checks import CHECKS
from agent.checks.service import ServiceOptions
from agent.host.protected import why_never
from agent.remedies.options import Option, check_value
from agent.remedies.units import is_unit

HOST = [
    "dbus.service", "dbus.socket", "DBUS.service", "dbus-broker.service", "messagebus.service",
    "systemd-journald.service", "systemd-logind.service", "systemd-networkd.socket",
    "systemd-resolved.service", "systemd-udevd.service", "user@1000.service",
    "dbus-org.freedesktop.login1.service", "init.scope", "NetworkManager.service",
    "NetworkManager-dispatcher.service", "network.service", "networking.service",
    "ifup@eth0.service", "dhcpcd.service", "wpa_supplicant@wlan0.service", "ssh.service",
    "sshd.service", "ssh.socket", "sshd@1.service", "dropbear.service", "hostmend.service",
    "hostmend-sender.service", "multi-user.target", "system.slice", "session-1.scope",
    "dev-sda.device", "swapfile.swap",
    # As careful as that: everything that begins with ssh-.
    "ssh-proxy-app@1.mount",
]  # fmt: skip
OTHERS = [
    "nginx.service", "networkprobe.service", "mysystemd-x.service", "dbus-exporter.service",
    "hostmender.service", "cron.service", "backup.timer", "sshguard.service",
]  # fmt: skip


@pytest.mark.parametrize("unit", HOST)
def test_a_unit_that_carries_the_host_is_never_acted_on(unit: str) -> None:
    assert is_unit(unit)
    assert why_never(unit)
    with pytest.raises(ValueError, match="hostmend never acts on"):
        check_value(Option(type="unit"), unit, None)
    options = ServiceOptions.model_construct(type="service", unit=unit)
    assert CHECKS["service"].default_ladder(options) == ()


@pytest.mark.parametrize("unit", OTHERS)
def test_another_unit_is(unit: str) -> None:
    assert why_never(unit) == ""
    check_value(Option(type="unit"), unit, None)
    assert CHECKS["service"].default_ladder(ServiceOptions(type="service", unit=unit))
