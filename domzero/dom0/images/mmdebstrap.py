# SPDX-License-Identifier: Apache-2.0
"""mmdebstrap: makes a root directory with the right owners in it, as root or in a user namespace, and works in it."""

from __future__ import annotations

import os
import pty
import re
import shlex
import signal
import struct
import subprocess
import tempfile
import termios
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fcntl import LOCK_EX, LOCK_NB, flock, ioctl
from pathlib import Path
from typing import IO

from domzero.dom0.images.tools import Meter, Progress, need_tools, search_path
from domzero.errors import ImageError

_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_BAR = re.compile(r"(\w[\w ]*):\s+(\d+\.\d\d)\b")
_KEPT_LINES = 400
_REASON_MAX = 300
NO_SPACE = "No space left on device"
_PREFIX = "domzero-build-"
_JUST_MADE_S = 10  # and not locked yet, perhaps
_WINDOW = struct.pack("HHHH", 24, 80, 0, 0)
_ROOT_NAMESPACES = ("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc")
_TMP = "/var/tmp"  # /tmp may be in memory, and too small


def choose_mode() -> str:
    """How a new root directory gets files of root's: "root", or "unshare" for an ordinary user.

    :raises ImageError: it cannot, and what can be done about it.
    """
    (program,) = need_tools("mmdebstrap")
    if os.geteuid() == 0:
        if subprocess.run([*_ROOT_NAMESPACES, "true"], capture_output=True, stdin=subprocess.DEVNULL).returncode:
            raise ImageError("this needs mounts, and root may not make any here (a container?)")
        return "root"
    need_tools("newuidmap")
    command = [program, "--unshare-helper", "true"]
    result = subprocess.run(command, capture_output=True, text=True, env=_environment(), stdin=subprocess.DEVNULL)
    if result.returncode == 0:
        return "unshare"
    if not _has_subordinate_ids():
        hint = "as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 and your name"
        raise ImageError("this needs user ids of your own (/etc/subuid), and you have none", hint=hint)
    raise ImageError(
        "this needs user namespaces, and the kernel gives you none",
        hint="see kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns "
        "and user.max_user_namespaces in sysctl; or build as root, and `domzero image import` the disk",
    )


def _has_subordinate_ids() -> bool:
    with suppress(OSError):
        import pwd

        names = {str(os.getuid())}
        with suppress(KeyError):
            names.add(pwd.getpwuid(os.getuid()).pw_name)
        lines = Path("/etc/subuid").read_text(errors="replace").splitlines()
        return any(line.split(":")[0] in names for line in lines)
    return False


def temporary_directory() -> str:
    """Where mmdebstrap works: TMPDIR, or a place on a disk that other user ids can reach."""
    return os.environ.get("TMPDIR") or (_TMP if os.path.isdir(_TMP) else "/tmp")


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("APT_CONFIG", "LANG", "LANGUAGE")}
    return {**kept, "LC_ALL": "C.UTF-8", "PATH": search_path(), "TERM": "dumb"}


@dataclass(slots=True)
class Failure:
    """What a run that failed has said."""

    status: int
    lines: list[str] = field(default_factory=list)

    @property
    def is_of_space(self) -> bool:
        """Whether there was no room."""
        return any(NO_SPACE in line for line in self.lines)

    def reason(self) -> str:
        """The line that says why, without the middle of a very long one: it may have a command with all packages."""
        line = NO_SPACE if self.is_of_space else self._line()
        return line if len(line) <= _REASON_MAX else f"{line[: _REASON_MAX // 2]} … {line[-_REASON_MAX // 2 :]}"

    def _line(self) -> str:
        for line in self.lines:
            if line.startswith("domzero: "):
                return line.removeprefix("domzero: ")
        for before, line in zip(["", *self.lines], self.lines, strict=False):
            if line.startswith("E: command failed:") and before and not before.startswith("I: "):
                return before  # a hook's own words
            if line.startswith("E: "):
                return line.removeprefix("E: ")
        return self.lines[-1] if self.lines else f"exit status {self.status}"


def run(
    mode: str,
    arguments: Sequence[str],
    *,
    progress: Progress,
    meter: Meter | None,
    pass_fds: Sequence[int] = (),
    output: Callable[[IO[bytes]], None] | None = None,
    lifeline: int | None = None,
) -> Failure | None:
    """Runs mmdebstrap to its end; returns what it said if it failed.

    What is mounted for it is in a namespace of its own. Nothing is left of it or its files at the end, also when that
    is an exception (a signal, for one). It ends with this process: at once as root, otherwise after its current step.

    :param mode: how it works, from `choose_mode`.
    :param progress: takes what it does, line by line.
    :param meter: takes how much of a step is done.
    :param pass_fds: for hooks.
    :param output: takes all of its standard output, in this thread.
    :param lifeline: the writing end of the pipe of `guarded` hooks; closed here.
    """
    (program,) = need_tools("mmdebstrap")
    _sweep(mode, program)
    work = tempfile.mkdtemp(prefix=_PREFIX, dir=temporary_directory())
    lock = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flock(lock, LOCK_EX)
        # Root in a user namespace is another user id here; what is in it stays its owner's.
        os.chmod(work, 0o700 if mode == "root" else 0o1777)
        command = [*(_ROOT_NAMESPACES if mode == "root" else ()), program, f"--mode={mode}", *arguments]
        process, master = _start(command, work, pass_fds, subprocess.DEVNULL if output is None else subprocess.PIPE)
        said: deque[str] = deque(maxlen=_KEPT_LINES)
        take = (master, said, progress, meter)
        reader = threading.Thread(target=_read_progress, args=take, name="mmdebstrap", daemon=True)
        reader.start()
        try:
            if output is not None and process.stdout is not None:
                output(process.stdout)
            status = process.wait()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
            reader.join(1.0)
    finally:
        if lifeline is not None:
            os.close(lifeline)
        _delete(work, mode, program)
        os.close(lock)
    return Failure(status, list(said)) if status else None


def _start(
    command: Sequence[str], work: str, pass_fds: Sequence[int], stdout: int
) -> tuple[subprocess.Popen[bytes], int]:
    """Starts it with a terminal of its own; returns it and the terminal's other end.

    It has progress bars on its controlling terminal only; and when this process is killed, the terminal hangs up.
    """
    master, slave = pty.openpty()
    try:
        ioctl(slave, termios.TIOCSWINSZ, _WINDOW)
        process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=stdout,
            stderr=slave,
            env={**_environment(), "TMPDIR": work},
            pass_fds=pass_fds,
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
    except OSError as error:
        os.close(master)
        raise ImageError(f"mmdebstrap: {error.strerror}") from error
    finally:
        os.close(slave)
    return process, master


def _sweep(mode: str, program: str) -> None:
    """Deletes what runs have left that were killed."""
    for path in Path(temporary_directory()).glob(f"{_PREFIX}*"):
        with suppress(OSError):
            status = path.lstat()
            if status.st_uid != os.geteuid() or time.time() - status.st_mtime < _JUST_MADE_S:
                continue
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                flock(lock, LOCK_EX | LOCK_NB)
                _delete(str(path), mode, program)
            finally:
                os.close(lock)


def _delete(work: str, mode: str, program: str) -> None:
    """Deletes what is left in its directory: files of user ids that only a user namespace has, for an ordinary user."""
    remove = ["rm", "-rf", "--one-file-system", "--"]
    if mode != "root" and os.listdir(work):
        inside = [program, "--unshare-helper", *remove, *(os.path.join(work, name) for name in os.listdir(work))]
        subprocess.run(inside, env=_environment(), stdin=subprocess.DEVNULL, capture_output=True)
    subprocess.run([*remove, work], stdin=subprocess.DEVNULL, capture_output=True)


def guarded(command: str, life_fd: int) -> str:
    """A hook (for bash) that ends when a pipe does, whose other end this process has: also when this one is killed.

    By itself a hook would go on to its end: mmdebstrap lets it ignore signals, and waits for it before it tidies up.
    """
    return "bash -c " + shlex.quote(
        f"env --default-signal=HUP,INT,TERM setsid {command} & job=$!\n"
        f"{{ read -r -u {life_fd}; kill -TERM -- -$job; sleep 3; kill -KILL -- -$job; }} 2>/dev/null & guard=$!\n"
        "wait $job; status=$?; kill -KILL $guard; exit $status"
    )


def _take_terminal() -> None:
    """In the new process: makes its standard input the controlling terminal of its session."""
    ioctl(0, termios.TIOCSCTTY, 0)


def _read_progress(master: int, said: deque[str], progress: Progress, meter: Meter | None) -> None:
    rest = b""
    with os.fdopen(master, "rb", buffering=0) as file:
        while True:
            try:
                data = file.read(1 << 16)
            except OSError:  # EIO: the last process that had the terminal is gone
                return
            if not data:
                return
            *lines, rest = re.split(rb"[\r\n]+", rest + data)
            for line in lines:
                _take_line(_ANSI.sub("", line.decode("utf-8", "replace")).strip(), said, progress, meter)


def _take_line(line: str, said: deque[str], progress: Progress, meter: Meter | None) -> None:
    if not line or line == "done":
        return
    if match := _BAR.match(line):
        if meter is not None:
            meter(match[1], float(match[2]) / 100)
        return
    said.append(line)
    if line.startswith("I: ") and not line.startswith(("I: running ", "I: skipping ", "I: automatically")):
        progress(line.removeprefix("I: ").removesuffix("..."))
