"""Hands a playbook over to a warm process (see `warm_playbook`), or carries it out itself.

ansible-runner starts it in place of ansible-playbook: `warm_client.py SOCKET ARGUMENT...`. It knows
nothing but the standard library and starts without site-packages, so it is ready in a moment.
Whatever is wrong before the work is accepted, the real ansible-playbook takes over.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys


def hand_over(path: str, arguments: list[str]) -> int | None:
    """The exit code, or None: nobody took the work."""
    request = json.dumps({"arguments": arguments, "environment": dict(os.environ)}).encode()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            # By descriptor: a path of its own may be longer than the 107 bytes of unix(7).
            folder, name = os.path.split(path)
            directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            connection.connect(f"/proc/self/fd/{directory}/{name}")
            socket.send_fds(connection, [len(request).to_bytes(4, "big")], [0, 1, 2])
            connection.sendall(request)
            answer, descriptors, _, _ = socket.recv_fds(connection, 1, 1)
            if answer != b"+":
                return None
        except OSError:
            return None
        # From here on the work is the other's: it is never done twice. Its workers hold the
        # connection open as well, so its own end must be looked for: it has sent a pidfd of itself.
        try:
            select.select([connection.fileno(), *descriptors], [], [])
            code = connection.recv(1, socket.MSG_DONTWAIT)
        except OSError:
            code = b""
        return code[0] if code else 254


if __name__ == "__main__":
    given = hand_over(sys.argv[1], sys.argv[2:])
    if given is not None:
        os._exit(given)
    cold = [sys.executable, "-P", "-m", "ansible.cli.playbook", *sys.argv[2:]]
    os.execv(sys.executable, cold)  # noqa: S606 - the arguments are ansible-runner's own
