# SPDX-License-Identifier: Apache-2.0
"""A program with its arguments and its open files, on their way to the process that becomes it.

They go over a socket for files (`file_passing`), all before it is told to look: first a file with the command line,
then those that the program is to have, under the numbers by which its arguments call them.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Sequence

from domzero.dom0 import file_passing

_REQUEST = 1


def send_program(sock: socket.socket, command: Sequence[str], fds: Sequence[int]) -> int:
    """Sends a command line, and files that the program has under the same numbers; they stay the caller's.

    :returns: how many files were sent.
    :raises ResourceError: they are too many.
    """
    with open(os.memfd_create("domzero-command", os.MFD_CLOEXEC), "wb", 0) as file:
        file.write(json.dumps({"command": list(command), "numbers": list(fds)}).encode())
        file.seek(0)  # whoever gets it reads from here
        file_passing.send_files(sock, _REQUEST, [file.fileno(), *fds])
    return 1 + len(fds)


def receive_program(sock: socket.socket, count: int) -> list[str]:
    """Takes what was sent, and gives each file its number: whatever had that before is closed. The command line.

    :raises MessageError: not all of it is there.
    """
    first, *fds = file_passing.receive_files(sock, _REQUEST, count)
    with open(first, "rb") as file:
        said = json.load(file)
    numbers = said["numbers"]
    above = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, max(numbers, default=0) + 1) for fd in fds]
    for fd in fds:
        os.close(fd)
    for fd, number in zip(above, numbers, strict=True):
        os.dup2(fd, number)
        os.close(fd)
    command: list[str] = said["command"]
    return command


__all__ = ["receive_program", "send_program"]
