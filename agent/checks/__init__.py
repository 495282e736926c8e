"""The check types: one file each, all in one visible dict."""

from __future__ import annotations

from agent.checks.check import CheckType
from agent.checks.demo import DEMO
from agent.checks.disk import DISK
from agent.checks.file import FILE
from agent.checks.http import HTTP
from agent.checks.log import LOG
from agent.checks.service import SERVICE

CHECKS: dict[str, CheckType] = {
    "demo": DEMO,
    "disk": DISK,
    "file": FILE,
    "http": HTTP,
    "log": LOG,
    "service": SERVICE,
}
