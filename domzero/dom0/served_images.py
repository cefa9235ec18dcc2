# SPDX-License-Identifier: Apache-2.0
"""Images whose format QEMU understands and we do not: a qemu-nbd for each disk, and a connection to it (NBD).

Domain 0 starts it and agrees with it on its one export; the worker gets the connection, and speaks of nothing but
sectors over it. qemu-nbd ends when the connection is closed: with the disk, the worker, or Domain 0, whatever these end
by.
The protocol: https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md, fixed newstyle.
"""

from __future__ import annotations

import logging
import os
import resource
import secrets
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from domzero.dom0.diskspec import DiskSpec
from domzero.dom0.images import qemu
from domzero.dom0.images.tools import FEW_ARENAS, need_tools, search_path
from domzero.errors import ConfigError

logger = logging.getLogger(__name__)

START_SECONDS = 20.0
"""It has for its start, and for what it says then."""
ANSWER_SECONDS = 60
"""It has for a request; after that all the disk's requests fail."""
BUSY_SECONDS = 3.0
"""An earlier start of the domain may take to let go of the image."""
_BUSY_STEP_SECONDS = 0.1
_MEMORY = 2 << 30
_FIRST_FD = 3
_LAUNCH = (
    "exec 4<&0 </dev/null; ( (read said || kill -9 $$) <&4 & ); exec 4<&-; "  # a list behind & has no stdin of ours
    'LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"'
)
"""As long as it has not been spoken to, it does not end by its connection: what stays behind ends it with who started
it."""

_MAGIC = b"NBDMAGICIHAVEOPT"
_OPTION_MAGIC = b"IHAVEOPT"
_REPLY_MAGIC = 0x3E889045565A9
_FIXED_NEWSTYLE, _NO_ZEROES = 1, 2
_OPT_GO = 7
_REP_ACK, _REP_INFO = 1, 3
_INFO_EXPORT = 0
_REPLY_MAX = 4096
_LOCKED = ("Failed to get", "lock")


def open_served(spec: DiskSpec) -> tuple[int, int, int]:
    """Starts a qemu-nbd for a disk.

    :returns: a connection, on which requests may be sent; the disk's bytes; NBD's transmission flags.
    :raises ConfigError, ImageError: qemu-nbd or qemu-img is missing, or it cannot open the image.
    """
    path = Path(spec.target).absolute()
    with path.open("r+b" if spec.writable else "rb"):
        pass  # the host's word for what is wrong, not QEMU's
    (program,) = need_tools("qemu-nbd")
    qemu.inspect(path, spec.format.value)
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            return _start(program, path, spec)
        except _Busy:
            if time.monotonic() > deadline:
                raise ConfigError(f"{spec.target}: in use by another domain or program", key="disk") from None
            time.sleep(_BUSY_STEP_SECONDS)


class _Busy(Exception):
    """Somebody else has the image."""


def _start(program: str, path: Path, spec: DiskSpec) -> tuple[int, int, int]:
    options = f"driver={qemu.FORMATS[spec.format.value]},file.driver=file,file.filename={str(path).replace(',', ',,')}"
    command = [
        program,
        "--cache=writeback",
        f"--discard={'unmap' if spec.discard else 'ignore'}",
        "--image-opts",
        options,
    ]
    command += [] if spec.writable else ["--read-only"]
    name = f"\0domzero-{secrets.token_hex(16)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(name)
        listener.listen(1)
        # systemd's way to be given a socket: it is number 3, and the environment says so to this very process.
        process = subprocess.Popen(
            ["/bin/sh", "-c", _LAUNCH, "sh", *command],
            pass_fds=[_FIRST_FD],
            preexec_fn=_child(listener.fileno()),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={"PATH": search_path(), "LC_ALL": "C", **FEW_ARENAS},  # nothing of ours, and words that are known
            start_new_session=True,
            cwd="/",
        )
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(START_SECONDS)
        try:
            connection.connect(name)
        finally:
            listener.close()
    try:
        size, flags = negotiate(connection)
        _leave_alone(process)
    except (OSError, ValueError) as error:
        connection.close()
        _leave_alone(process)
        process.kill()
        said = process.communicate()[1].decode(errors="replace")
        if all(part in said for part in _LOCKED):
            raise _Busy from None
        reason = said.strip().splitlines()[-1] if said.strip() else str(error)
        raise ConfigError(f"{spec.target}: {reason}", key="disk") from error
    except BaseException:
        connection.close()
        _leave_alone(process)
        process.kill()
        process.communicate()
        raise
    threading.Thread(target=_reap, args=(process, spec.target), name="qemu-nbd", daemon=True).start()
    connection.settimeout(None)
    patience = struct.pack("@ll", ANSWER_SECONDS, 0)
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        connection.setsockopt(socket.SOL_SOCKET, option, patience)
    return connection.detach(), size, flags


def _leave_alone(process: subprocess.Popen[bytes]) -> None:
    """From now on it ends by its connection, or its number may become another process's."""
    pipe, process.stdin = process.stdin, None
    if pipe is not None:
        with suppress(OSError), pipe:
            pipe.write(b"\n")


def _child(listener: int) -> Callable[[], None]:
    """What is done between fork and exec: nothing that could wait for another thread."""

    def prepare() -> None:
        if listener == _FIRST_FD:
            os.set_inheritable(listener, True)
        else:
            os.dup2(listener, _FIRST_FD)
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    return prepare


def _reap(process: subprocess.Popen[bytes], target: str) -> None:
    said = process.communicate()[1].decode(errors="replace").strip()
    if process.returncode:
        logger.error("qemu-nbd for %s ended with status %d: %s", target, process.returncode, said[-500:])


def negotiate(connection: socket.socket) -> tuple[int, int]:
    """Agrees on the export without a name: its bytes, and NBD's transmission flags.

    :raises ValueError: what comes is not the protocol, or the export is refused. OSError: the connection is closed.
    """
    greeting = _receive(connection, len(_MAGIC) + 2)
    (flags,) = struct.unpack(">H", greeting[len(_MAGIC) :])
    if not greeting.startswith(_MAGIC) or not flags & _FIXED_NEWSTYLE:
        raise ValueError("it does not speak NBD")
    ours = struct.pack(">I", _FIXED_NEWSTYLE | (flags & _NO_ZEROES))
    go = struct.pack(">IH", 0, 0)  # no name, nothing else to be told
    connection.sendall(ours + _OPTION_MAGIC + struct.pack(">II", _OPT_GO, len(go)) + go)
    export = None
    while True:
        magic, option, kind, length = struct.unpack(">QIII", _receive(connection, 20))
        if magic != _REPLY_MAGIC or option != _OPT_GO or length > _REPLY_MAX:
            raise ValueError("it does not speak NBD")
        payload = _receive(connection, length)
        if kind == _REP_INFO and payload[:2] == struct.pack(">H", _INFO_EXPORT) and length == 12:
            export = struct.unpack(">QH", payload[2:])
        elif kind == _REP_ACK and export is not None:
            return export
        elif kind != _REP_INFO:
            raise ValueError(payload.decode(errors="replace") or f"it answers {kind:#x}")


def _receive(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            raise ConnectionError("it has ended")
        data += part
    return data
