# SPDX-License-Identifier: Apache-2.0
"""One QEMU process: in a session of its own, waited for without a thread, its last words kept."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from domzero.dom0.confinement import is_wanted, small_environment
from domzero.dom0.qemu import launch
from domzero.dom0.worker_spawner import Child

STDERR_KEPT = 8192
_STAT_UTIME, _STAT_STIME = 11, 12
"""Where /proc/PID/stat has them (proc(5): 14 and 15), counted from behind the command's name."""


class QemuProcess(ABC):
    """A QEMU that runs, whoever has started it: its last words, what it uses, its end. Used in the event loop.

    :param stderr: what it writes there is read from this descriptor, which is this one's from here on; -1: none.
    :param on_end: called once, with its exit status; a negative one is the signal that ended it.
    :param words: what it wrote before.
    """

    def __init__(self, pid: int, stderr: int, on_end: Callable[[int], None], words: str = "") -> None:
        self.pid = pid
        """Its process id, and that of its group."""
        self._stderr = stderr
        self._words = bytearray(words.encode())
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[int] = self._loop.create_future()
        if stderr >= 0:
            os.set_blocking(stderr, False)
            self._loop.add_reader(stderr, self._hear)

    @property
    def words(self) -> str:
        """The last that it wrote to stdout and stderr."""
        return self._words.decode("utf-8", "replace")

    @abstractmethod
    def kill(self) -> None:
        """Ends it, and whatever it may have started, at once; one that is stopped, too."""

    def leave(self) -> None:
        """Hears no more of it: another Domain 0 will."""
        self._on_end = lambda status: None
        self._close_stderr()

    def cpu_ns(self) -> int:
        """Processor time of all its threads."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0
        ticks = int(fields[_STAT_UTIME]) + int(fields[_STAT_STIME])
        return ticks * 10**9 // os.sysconf("SC_CLK_TCK")

    def has_thread(self, thread_id: int) -> bool:
        """Whether a thread is one of its own."""
        return thread_id > 0 and os.path.exists(f"/proc/{self.pid}/task/{thread_id}")

    def _hear(self) -> None:
        try:
            data = os.read(self._stderr, 4096)
        except BlockingIOError:
            return
        self._words += data
        del self._words[:-STDERR_KEPT]
        if not data:
            self._close_stderr()

    def _close_stderr(self) -> None:
        if self._stderr >= 0:
            self._loop.remove_reader(self._stderr)
            os.close(self._stderr)
            self._stderr = -1

    def _finish(self, status: int) -> None:
        while self._stderr >= 0:  # what it said last is in the pipe
            before = len(self._words)
            self._hear()
            if len(self._words) == before:
                self._close_stderr()
        if not self.ended.done():
            self.ended.set_result(status)
            self._on_end(status)


class OwnQemu(QemuProcess):
    """A child of this process, which ends with it.

    :param program: QEMU's path.
    :param arguments: what follows it.
    :param fds: descriptors that it has under the same numbers; they stay the caller's.
    :param again: those of them that it opens once more, by /proc/self/fd.
    :raises OSError: it could not be started.
    """

    def __init__(
        self,
        program: str,
        arguments: Sequence[str],
        fds: Sequence[int],
        *,
        again: Sequence[int] = (),
        on_end: Callable[[int], None],
    ) -> None:
        stderr_read, stderr_write = os.pipe()
        launcher = [sys.executable, "-I", "-S", launch.__file__, str(os.getpid()), files_again(again)]
        try:
            self._process = subprocess.Popen(
                [*launcher, program, *arguments],
                env=small_environment(),
                pass_fds=fds,
                stdin=subprocess.DEVNULL,
                stdout=stderr_write,
                stderr=stderr_write,
                start_new_session=True,
            )
        except BaseException:
            os.close(stderr_read)
            raise
        finally:
            os.close(stderr_write)
        super().__init__(self._process.pid, stderr_read, on_end)
        self._pidfd = os.pidfd_open(self._process.pid)
        self._loop.add_reader(self._pidfd, self._reap)

    def kill(self) -> None:
        """As `QemuProcess.kill`."""
        if not self.ended.done():
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.kill()  # it may not have its group yet

    def _reap(self) -> None:
        status = self._process.poll()
        if status is None:
            return
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._finish(status)


def files_again(numbers: Sequence[int]) -> str:
    """The word of `launch` that says which files are opened once more, or that it stays unconfined."""
    return ",".join(map(str, numbers)) if is_wanted() else launch.UNCONFINED


class KeptQemu(QemuProcess):
    """A child of the fork server, which can outlive this process.

    :param child: it; it may have ended.
    """

    def __init__(self, child: Child, stderr: int, *, on_end: Callable[[int], None], words: str = "") -> None:
        super().__init__(child.pid, stderr, on_end, words)
        self._child = child
        child.ended.add_done_callback(lambda ended: self._finish(ended.result()))

    def kill(self) -> None:
        """As `QemuProcess.kill`."""
        self._child.kill()


__all__ = ["KeptQemu", "OwnQemu", "QemuProcess", "files_again"]
