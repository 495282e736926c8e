"""The check types: one file each, all in one visible dict."""

from __future__ import annotations

from agent.checks.check import CheckType
from agent.checks.demo import DEMO
from agent.checks.disk import DISK
from agent.checks.http import HTTP
from agent.checks.plugin import PLUGIN
from agent.checks.service import SERVICE
from agent.checks.tcp import TCP
from agent.checks.tls import TLS
from agent.checks.unix import UNIX

CHECKS: dict[str, CheckType] = {
    "demo": DEMO,
    "disk": DISK,
    "http": HTTP,
    "plugin": PLUGIN,
    "service": SERVICE,
    "tcp": TCP,
    "tls": TLS,
    "unix": UNIX,
}
