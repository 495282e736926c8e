"""ansible-playbook with everything imported already, for one playbook.

A fork of `agent.remedies.runner` with the environment that the run will have, because Ansible's
settings are read once, when it is imported. It waits at a UNIX socket for one `warm_client`, takes
over its arguments, environment and descriptors, and becomes what that client would have become.
One playbook, then it ends: nothing of one run can reach the next.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import shutil
import signal
import socket
import struct
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: What a playbook imports sooner or later.
_MODULES = (
    "ansible.cli.playbook",
    "ansible.executor.playbook_executor",
    "ansible.executor.task_queue_manager",
    "ansible.modules",
    "ansible.playbook.handler_task_include",
    "ansible.template",
    "ansible.utils.hashing",
    "multiprocessing.popen_fork",
    "multiprocessing.shared_memory",
    "multiprocessing.synchronize",
)
#: Plugins that it loads, with the documentation that holds their settings: to find one that is
#: wanted, Ansible looks at all callbacks, connections and shells. Not ansible-runner's callback:
#: it opens its files when it is loaded. And no plugin is made here, only found.
_PLUGINS = {
    "action_loader": ("command", "normal"),
    "become_loader": ("su", "sudo"),
    "cache_loader": ("jsonfile",),
    "callback_loader": ("default", "junit", "minimal", "oneline", "tree"),
    "connection_loader": ("local", "paramiko_ssh", "psrp", "ssh", "winrm"),
    "inventory_loader": ("yaml",),
    "shell_loader": ("cmd", "powershell", "sh"),
    "strategy_loader": ("linear",),
}
#: Ansible's modules that are packed beforehand: those that repairs are made of. Ansible does that
#: once for each ansible-playbook, which takes it longer than anything else a repair needs.
_PACKED = (
    "ansible.builtin.command",
    "ansible.builtin.copy",
    "ansible.builtin.systemd_service",
    "ansible.builtin.wait_for",
)


def get_ready(shelf: Path) -> Iterator[None]:
    """Do what every playbook does, in steps that may be left out: then it is done later.

    What another release of Ansible has not is left out as well.
    """
    for name in _MODULES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
        yield
    loader = importlib.import_module("ansible.plugins.loader")
    loader.init_plugin_loader()
    # Only now is there such a package.
    importlib.import_module("ansible_collections.ansible.builtin")
    yield
    for kind, names in _PLUGINS.items():
        for name in names:
            with contextlib.suppress(Exception):
                getattr(loader, kind).get(name, class_only=True)
            yield
    if not _on_shelf(shelf).exists():
        yield from _fill(shelf)


def _on_shelf(shelf: Path) -> Path:
    return shelf / str(importlib.import_module("ansible.release").__version__)


def _cache() -> Path:
    """Where this process's Ansible keeps what it has packed, and looks for it."""
    return Path(importlib.import_module("ansible.constants").DEFAULT_LOCAL_TMP, "ansiballz_cache")


def _fill(shelf: Path) -> Iterator[None]:
    """Pack, and put it on the shelf for later processes. In a fork: it takes much memory."""
    packer = os.fork()
    if not packer:
        with contextlib.suppress(Exception):
            Path("/proc/self/comm").write_text("hostmend-pack")
            for name in _PACKED:
                _pack(name)
            draft = _cache().with_name("packed")
            shutil.copytree(_cache(), draft, ignore=shutil.ignore_patterns("*.lock"))
            draft.rename(_on_shelf(shelf))
        os._exit(0)
    try:
        while os.waitid(os.P_PID, packer, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            yield
            time.sleep(0.01)
    finally:
        os.kill(packer, signal.SIGKILL)
        os.waitpid(packer, 0)


def _take_from(shelf: Path) -> None:
    with contextlib.suppress(OSError):
        shutil.copytree(_on_shelf(shelf), _cache(), dirs_exist_ok=True)


def _pack(name: str) -> None:
    loader = importlib.import_module("ansible.plugins.loader")
    reader = importlib.import_module("ansible.parsing.dataloader").DataLoader()
    importlib.import_module("ansible.executor.module_common").modify_module(
        module_name=name,
        module_path=loader.module_loader.find_plugin(name, ".py"),
        module_args={},
        templar=importlib.import_module("ansible.template").Templar(loader=reader),
        task_vars={"ansible_python_interpreter": sys.executable},
        module_compression="ZIP_DEFLATED",
    )


def take_work(listener: socket.socket) -> tuple[socket.socket, dict[str, Any]]:
    """Take the client's work. Its descriptors 0 to 2 become ours. Raises OSError, ValueError."""
    connection, _ = listener.accept()
    peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    if struct.unpack("3i", peer)[1] != os.geteuid():
        raise OSError("the client belongs to another user")
    head, descriptors, _, _ = socket.recv_fds(connection, 4, 3)
    size, body = int.from_bytes(head, "big"), b""
    while len(body) < size:
        part = connection.recv(size - len(body))
        if not part:
            raise OSError("the client went away")
        body += part
    work = json.loads(body)
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    return connection, work


def run(work: dict[str, Any]) -> int:
    os.environ.clear()
    os.environ.update(work["environment"])
    arguments = ["ansible-playbook", *work["arguments"]]
    sys.argv = arguments
    # It was done above, on purpose.
    warnings.filterwarnings("ignore", message="AnsibleCollectionFinder has already been")
    try:
        sys.modules["ansible.cli.playbook"].PlaybookCLI.cli_executor(arguments)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1 if end.code else 0
    return 0


def serve(
    listener: socket.socket, environment: dict[str, str], directory: Path, shelf: Path
) -> int:
    """Carry out one playbook, and return the exit code.

    Descriptor 0 is the runner's line: its end means that there is nobody left to wait for.
    `shelf`: where packed modules are, or shall be put.
    """
    Path("/proc/self/comm").write_text("hostmend-play")
    # The runner's own line to the job must not stay open here.
    os.dup2(2, 1)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(directory)
    for _ in get_ready(shelf):
        if select.select([listener], [], [], 0)[0]:
            # It is needed now: whatever is not ready is done when the playbook wants it.
            break
    _take_from(shelf)
    # The workers are forks: what is here already is not looked at again, nor copied for that.
    gc.freeze()
    gc.enable()
    waiting = select.poll()
    waiting.register(listener, select.POLLIN)
    waiting.register(0, 0)
    if all(descriptor == 0 for descriptor, _ in waiting.poll()):
        return 1
    connection, work = take_work(listener)
    listener.close()
    # By this the client sees our end, whatever it is.
    own = os.pidfd_open(os.getpid())
    socket.send_fds(connection, [b"+"], [own])
    os.close(own)
    code = run(work)
    sys.stdout.flush()
    sys.stderr.flush()
    connection.sendall(bytes([code & 0xFF]))
    return code
