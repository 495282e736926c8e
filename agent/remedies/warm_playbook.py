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

#: What a playbook imports sooner or later. Not ansible-runner's callback plugin: it opens its
#: files when it is imported.
_MODULES = (
    "ansible.cli.playbook",
    "ansible.executor.playbook_executor",
    "ansible.executor.task_queue_manager",
    "ansible.modules",
    "ansible.playbook.handler_task_include",
    "ansible.plugins.action.command",
    "ansible.plugins.action.normal",
    "ansible.plugins.become.su",
    "ansible.plugins.become.sudo",
    "ansible.plugins.cache.jsonfile",
    # It looks at every callback, connection and shell there is, whether it uses them or not.
    "ansible.plugins.callback.default",
    "ansible.plugins.callback.junit",
    "ansible.plugins.callback.minimal",
    "ansible.plugins.callback.oneline",
    "ansible.plugins.callback.tree",
    "ansible.plugins.connection.local",
    "ansible.plugins.connection.paramiko_ssh",
    "ansible.plugins.connection.psrp",
    "ansible.plugins.connection.ssh",
    "ansible.plugins.connection.winrm",
    "ansible.plugins.doc_fragments.connection_pipelining",
    "ansible.plugins.doc_fragments.default_callback",
    "ansible.plugins.doc_fragments.result_format_callback",
    "ansible.plugins.doc_fragments.shell_common",
    "ansible.plugins.doc_fragments.shell_windows",
    "ansible.plugins.doc_fragments.vars_plugin_staging",
    "ansible.plugins.inventory.yaml",
    "ansible.plugins.shell.cmd",
    "ansible.plugins.shell.powershell",
    "ansible.plugins.shell.sh",
    "ansible.plugins.strategy.linear",
    "ansible.utils.hashing",
    "multiprocessing.popen_fork",
    "multiprocessing.shared_memory",
    "multiprocessing.synchronize",
)


def get_ready() -> None:
    """Import it all. What another release of Ansible has not is imported later, or never."""
    for name in _MODULES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    importlib.import_module("ansible.plugins.loader").init_plugin_loader()
    # Only now is there such a package.
    importlib.import_module("ansible_collections.ansible.builtin")
    gc.collect()
    # The workers are forks: what is here already is not looked at again, nor copied for that.
    gc.freeze()


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
