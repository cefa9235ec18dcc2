# SPDX-License-Identifier: Apache-2.0
"""The sockets that Domain 0 listens on, and the lock that keeps a second Domain 0 away from them."""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import os
import socket
import struct
from pathlib import Path

from domzero.errors import ConfigError, DomzeroError

BACKLOG = 1024
"""Connections that the kernel keeps until they are accepted; it may keep fewer (net.core.somaxconn)."""
LOCK_SUFFIX = ".lock"
_UCRED = struct.Struct("iII")  # struct ucred of <sys/socket.h>: pid, uid, gid


def parse_listen(text: str, *, encrypted: bool = False) -> tuple[str, int]:
    """HOST:PORT of `--listen`; ConfigError unless it is a loopback address, or what passes is encrypted."""
    host, colon, port_text = text.rpartition(":")
    host = host.strip("[]")
    if not colon or not port_text.isascii() or not port_text.isdecimal() or int(port_text) > 65535:
        raise ConfigError(f"expected ADDRESS:PORT, found {text!r}", key="listen", hint="such as 127.0.0.1:8080")
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        raise ConfigError(f"not an IP address: {host!r}", key="listen", hint="such as 127.0.0.1:8080") from None
    if not address.is_loopback and not encrypted:
        raise ConfigError(
            f"{host} is not a loopback address: anybody on the way could read the token, as nothing is encrypted",
            key="listen",
            hint="listen on 127.0.0.1 and reach it through ssh -L, or encrypt with --tls",
        )
    return str(address), int(port_text)


class SocketLock:
    """The right to serve on a Unix socket: an exclusive flock(2) on a file beside it, held for the life of the process.

    The socket's own file says nothing: it stays after a crash, and may be deleted while its server runs.

    :param option: what chooses another path, without its dashes.
    :raises DomzeroError: another process has it, or the file cannot be made.
    """

    def __init__(self, path: Path, option: str = "socket") -> None:
        self._option = option
        self.path = path.with_name(path.name + LOCK_SUFFIX)
        while True:
            try:
                self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            except OSError as error:
                raise DomzeroError(f"{self.path}: {os.strerror(error.errno or 0)}", key=option) from error
            try:
                self._take(path)
                if self._is_current():
                    break
            except BaseException:
                os.close(self._fd)
                raise
            os.close(self._fd)  # its last holder has removed it in between
        os.ftruncate(self._fd, 0)
        os.write(self._fd, b"%d\n" % os.getpid())

    def _take(self, path: Path) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            pid = os.pread(self._fd, 20, 0).decode("ascii", "replace").strip()
            raise _running_already(path, self._option, pid) from error
        except OSError as error:
            raise DomzeroError(f"{self.path}: {os.strerror(error.errno or 0)}", key=self._option) from error

    def _is_current(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._fd), os.lstat(self.path))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Removes the file and lets go of it."""
        if self._is_current():
            self.path.unlink(missing_ok=True)
        os.close(self._fd)


def _running_already(path: Path, option: str, pid: str = "") -> DomzeroError:
    which = f" as process {pid}" if pid.isdecimal() else ""
    gone = "" if path.exists() else ", although its socket was deleted"
    who = "Domain 0" if option == "socket" else "a xenstore"
    return DomzeroError(
        f"{who} is running already{which}, at {path}{gone}", hint=f"another one needs a --{option} of its own"
    )


def open_unix(path: Path, option: str = "socket") -> socket.socket:
    """A listening Unix socket that only this user can open; takes the place of one whose server is gone.

    The caller has the `SocketLock` of this path.
    """
    if path.is_socket():
        _remove_if_dead(path, option)
    elif path.exists():
        raise ConfigError(f"{path} exists and is not a socket", key=option)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old_mask = os.umask(0o177)
    try:
        sock.bind(os.fspath(path))
    except OSError as error:
        sock.close()
        raise DomzeroError(f"{path}: {os.strerror(error.errno or 0)}", key=option) from error
    finally:
        os.umask(old_mask)
    sock.listen(BACKLOG)
    return sock


def _remove_if_dead(path: Path, option: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2)
        try:
            probe.connect(os.fspath(path))
        except OSError as error:
            if error.errno == errno.ECONNREFUSED:
                path.unlink(missing_ok=True)
                return
            if error.errno == errno.ENOENT:
                return
        raise _running_already(path, option)


def peer_is_owner(sock: socket.socket) -> bool:
    """Whether who connected to a Unix socket is this process's user or root, whatever the mode of its file."""
    _pid, uid, _gid = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return uid in (os.geteuid(), 0)


def open_tcp(host: str, port: int) -> socket.socket:
    """A listening TCP socket, whose connections send at once what is written (TCP_NODELAY).

    asyncio sets that option only on sockets that say their protocol, and accepted ones take it from this one.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise DomzeroError(f"{host}:{port}: {os.strerror(error.errno or 0)}", key="listen") from error
    sock.listen(BACKLOG)
    return sock


def describe(sock: socket.socket, scheme: str = "http") -> str:
    """Where a socket listens: a path, or an http:// address."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return str(name)
    host = f"[{name[0]}]" if ":" in name[0] else name[0]
    return f"{scheme}://{host}:{name[1]}"
