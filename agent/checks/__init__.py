"""The check types: one file each, all in one visible dict."""

from __future__ import annotations

from agent.checks.certificate import CERTIFICATE
from agent.checks.check import CheckType
from agent.checks.clock import CLOCK
from agent.checks.container import CONTAINER
from agent.checks.cpu import CPU
from agent.checks.demo import DEMO
from agent.checks.disk import DISK
from agent.checks.dns import DNS
from agent.checks.file import FILE
from agent.checks.http import HTTP
from agent.checks.journal import JOURNAL
from agent.checks.log import LOG
from agent.checks.mariadb import MARIADB
from agent.checks.memory import MEMORY
from agent.checks.ping import PING
from agent.checks.plugin import PLUGIN
from agent.checks.postgres import POSTGRES
from agent.checks.process import PROCESS
from agent.checks.push import PUSH
from agent.checks.redis import REDIS
from agent.checks.self import SELF
from agent.checks.service import SERVICE
from agent.checks.site import SITE
from agent.checks.tcp import TCP
from agent.checks.tls import TLS
from agent.checks.unix import UNIX
from agent.checks.updates import UPDATES

CHECKS: dict[str, CheckType] = {
    "certificate": CERTIFICATE,
    "clock": CLOCK,
    "container": CONTAINER,
    "cpu": CPU,
    "demo": DEMO,
    "disk": DISK,
    "dns": DNS,
    "file": FILE,
    "http": HTTP,
    "journal": JOURNAL,
    "log": LOG,
    "mariadb": MARIADB,
    "memory": MEMORY,
    "ping": PING,
    "plugin": PLUGIN,
    "postgres": POSTGRES,
    "process": PROCESS,
    "push": PUSH,
    "redis": REDIS,
    "self": SELF,
    "service": SERVICE,
    "site": SITE,
    "tcp": TCP,
    "tls": TLS,
    "unix": UNIX,
    "updates": UPDATES,
}
