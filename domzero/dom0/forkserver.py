# SPDX-License-Identifier: Apache-2.0
"""The fork server: the process that workers are forked from, so that they share its interpreter and its modules.

`python -m domzero.dom0.forkserver FD PARENT_PID`, started by `worker_spawner.WorkerSpawner`. It does what its socket
says (`forking`: Spawn, Launch, Kill), tells what became of its children, and ends with that socket; its children end
with it. It has one thread and holds nothing of any domain, so nothing of one gets into the worker of another.

Python's own (`multiprocessing.forkserver`) is not it: that one makes files in /tmp, keeps a second process, and has
every child import the command that serves HTTP.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress

from domzero.dom0 import program_passing, worker
from domzero.dom0.forking import ChildEnded, Forking, Kill, Launch, Spawn, Spawned, SpawnFailed, decode, encode
from domzero.dom0.json_values import MessageError
from domzero.dom0.parent import die_with
from domzero.dom0.qemu import launch
from domzero.dom0.sharespec import SHARES_MAX

MESSAGE_MAX = 4096
FDS = 5
"""A worker's control, guest, toolstack and files sockets, and its stderr; directories that it serves come behind."""
LAUNCH_FDS = 2
"""The socket with a program, and its stderr."""


def main(arguments: list[str]) -> int:
    """Entry point."""
    fd, parent = (int(argument) for argument in arguments)
    die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sock = socket.socket(fileno=fd)
    sock.set_inheritable(False)
    # SIGCHLD is only taken while recv waits, and wakes it up.
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    gc.collect()
    gc.freeze()  # no collection writes to what the children share
    _Server(sock, (wake_read, wake_write)).run()
    return 0


class _Server:
    def __init__(self, sock: socket.socket, wake: tuple[int, int]) -> None:
        self._sock = sock
        self._wake = wake
        self._children: set[int] = set()

    def run(self) -> None:
        poll = select.poll()
        for fd in (self._sock.fileno(), self._wake[0]):
            poll.register(fd, select.POLLIN)
        while True:
            ready = [fd for fd, _ in poll.poll()]
            if self._wake[0] in ready:
                os.read(self._wake[0], 4096)
                self._reap()
            if self._sock.fileno() in ready:
                try:
                    data, fds, _, _ = socket.recv_fds(self._sock, MESSAGE_MAX, FDS + SHARES_MAX)
                except ConnectionError:  # Domain 0 has gone, and left something unread
                    return
                if not data:
                    return
                self._carry_out(*decode(data), fds)

    def _reap(self) -> None:
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            self._children.discard(pid)
            self._tell(ChildEnded(pid, os.waitstatus_to_exitcode(status)))

    def _tell(self, message: Forking, request_id: int = 0) -> None:
        with suppress(ConnectionError):  # Domain 0 has gone: `run` sees it next, and the children end with this process
            self._sock.sendall(encode(message, request_id))

    def _carry_out(self, message: Forking, request_id: int, fds: list[int]) -> None:
        if isinstance(message, Kill):
            if message.pid in self._children:  # it has not been waited for: the number is still its own
                os.kill(message.pid, signal.SIGKILL)
        elif isinstance(message, Spawn) and len(fds) == FDS + len(message.shares):
            self._fork(request_id, lambda parent: self._become_worker(parent, fds, message))
        elif isinstance(message, Launch) and len(fds) == LAUNCH_FDS:
            self._fork(request_id, lambda parent: self._become_program(parent, fds, message))
        else:
            raise MessageError(f"{type(message).__name__} with {len(fds)} files is nothing for the fork server")
        for fd in fds:
            os.close(fd)

    def _fork(self, request_id: int, become: Callable[[int], None]) -> None:
        """:param become: what the child does, which does not return; it is given this process's id."""
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            self._tell(SpawnFailed(error.errno or 0), request_id)
            return
        if pid == 0:
            become(parent)
        self._children.add(pid)
        self._tell(Spawned(pid), request_id)

    def _become_worker(self, parent: int, fds: list[int], spawn: Spawn) -> None:
        """In the child: does not return."""
        status = 1
        try:
            self._leave()
            *ends, stderr = fds[:FDS]
            os.dup2(stderr, 2)
            os.close(stderr)
            gc.enable()
            shares = list(zip(fds[FDS:], spawn.shares, strict=True))
            sockets = [socket.socket(fileno=fd) for fd in ends]
            status = worker.run(
                parent,
                sockets,
                shares,
                confined=spawn.confined,
                makes_code=spawn.makes_code,
                keeps=spawn.keeps,
            )
        except BaseException as error:  # noqa: BLE001 - there is nobody to raise it to
            sys.excepthook(type(error), error, error.__traceback__)
        finally:
            sys.stderr.flush()
            # Threads of vCPUs and relays need not be waited for: all that they hold goes with the process.
            os._exit(status)

    def _become_program(self, parent: int, fds: list[int], message: Launch) -> None:
        """In the child: does not return."""
        try:
            self._leave()
            sock, stderr = fds
            for number in (1, 2):
                os.dup2(stderr, number)
            os.close(stderr)
            command = program_passing.receive_program(socket.socket(fileno=sock), message.files)
            for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):  # a program inherits what is ignored
                signal.signal(number, signal.SIG_DFL)
            launch.main([str(parent), *command])
        except BaseException as error:  # noqa: BLE001 - there is nobody to raise it to
            sys.excepthook(type(error), error, error.__traceback__)
        finally:
            sys.stderr.flush()
            os._exit(1)

    def _leave(self) -> None:
        """In a child: nothing of the fork server is left in it."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._sock.close()
        for fd in self._wake:
            os.close(fd)
        os.setsid()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
