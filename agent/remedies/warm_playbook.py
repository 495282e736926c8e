"""ansible-playbook with everything imported already, for one playbook.

Started by `agent.remedies.runner` as a script with the environment that the run will have, because
Ansible's settings are read once, when it is imported. It waits at a UNIX socket for one
`warm_client`, takes over its arguments, environment and descriptors, and becomes what that client
would have become. One playbook, then it ends: nothing of one run can reach the next.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import socket
import struct
import sys
import warnings
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
#: Ansible's modules that are packed beforehand: those that repairs are made of.
_PACKED = ("ansible.builtin.command", "ansible.builtin.systemd_service")


def get_ready() -> None:
    """Do what every playbook does. What another release of Ansible has not is done later."""
    for name in _MODULES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    loader = importlib.import_module("ansible.plugins.loader")
    loader.init_plugin_loader()
    # Only now is there such a package.
    importlib.import_module("ansible_collections.ansible.builtin")
    for kind, names in _PLUGINS.items():
        for name in names:
            with contextlib.suppress(Exception):
                getattr(loader, kind).get(name, class_only=True)
    for name in _PACKED:
        with contextlib.suppress(Exception):
            _pack(loader, name)
    gc.collect()
    # The workers are forks: what is here already is not looked at again, nor copied for that.
    gc.freeze()


def _pack(loader: Any, name: str) -> None:
    """Let Ansible make the archive of a module that it keeps in its own temporary directory."""
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
    """Wait for the client. Its descriptors 0 to 2 become ours. Raises OSError, ValueError."""
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


def main() -> None:
    directory, name = os.path.split(sys.argv[1])
    folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    get_ready()
    # Only now: whoever comes earlier is better off alone.
    listener.bind(f"/proc/self/fd/{folder}/{name}")
    listener.listen(1)
    connection, work = take_work(listener)
    listener.close()
    connection.sendall(b"+")
    code = run(work)
    sys.stdout.flush()
    sys.stderr.flush()
    connection.sendall(bytes([code & 0xFF]))
    os._exit(code)


if __name__ == "__main__":
    main()
