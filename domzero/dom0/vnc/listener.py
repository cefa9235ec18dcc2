# SPDX-License-Identifier: Apache-2.0
"""Where viewers come to: a TCP port or a Unix socket, of a process that may open them.

A thread there gives each connection, as it is, over a socket to the domain's own process. It ends, and the address with
it, when the other end of that is closed.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from uuid import UUID

from domzero.dom0.console_relay import bind_unix
from domzero.dom0.outside import Kind, Outside
from domzero.dom0.paths import private_directory
from domzero.dom0.vfbspec import DISPLAY_MAX, PORT_BASE, VfbSpec
from domzero.errors import ConfigError

_BACKLOG = 8
_TLS = "tls "
"""Before the name of an address that is kept."""


@dataclass(slots=True)
class OpenScreen:
    """The end of it that belongs to the domain's process: connected sockets come from it.

    :param address: `127.0.0.1:5900`, `[::1]:5900` or `unix:PATH`.
    :param outside: gives the other end once more, in the process that has made it, while `sock` is open.
    """

    sock: socket.socket
    address: str
    outside: Callable[[], Outside] | None = None

    @property
    def nodes(self) -> dict[str, str | int]:
        """What xenstore has of it, with libxl's names."""
        host, _, port = self.address.rpartition(":")
        if self.address.startswith("unix:"):
            return {"address": self.address, "vnclisten": self.address}
        return {
            "address": self.address,
            "vnclisten": host.strip("[]"),
            "vnc-port": port,
            "vncdisplay": int(port) - PORT_BASE,
        }

    def close(self) -> None:
        """Closes it; the address goes with it."""
        self.sock.close()


def open_screen(spec: VfbSpec, uuid: UUID) -> OpenScreen:
    """Begins to listen. ConfigError: it cannot be.

    A port of TCP is for whoever is on the host: without a password there is a Unix socket in its place, for its owner
    alone.

    :param uuid: the domain's.
    """
    path = spec.path
    if not path and not spec.password:
        path = str(private_directory("vnc") / f"{uuid}.vnc")
    if path:
        try:
            listener, identity = bind_unix(path, _BACKLOG)
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror or error}", key="vfb") from error
        return _opened(listener, f"unix:{path}", path, identity)
    family = socket.AF_INET6 if ":" in spec.listen else socket.AF_INET
    last = DISPLAY_MAX if spec.unused else spec.display
    for display in range(spec.display, last + 1):
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((spec.listen, PORT_BASE + display))
            listener.listen(_BACKLOG)
        except OSError as error:
            listener.close()
            if error.errno == errno.EADDRINUSE and display < last:
                continue
            where = f"{spec.listen}, port {PORT_BASE + display}"
            raise ConfigError(f"{where}: {error.strerror or error}", key="vfb") from error
        host = f"[{spec.listen}]" if family == socket.AF_INET6 else spec.listen
        try:
            return _opened(listener, f"{host}:{PORT_BASE + display}", "", (0, 0), tls=spec.listen if spec.tls else "")
        except BaseException:
            listener.close()
            raise
    raise AssertionError("there is a last display")


def _opened(
    listener: socket.socket, address: str, path: str, identity: tuple[int, int], *, tls: str = ""
) -> OpenScreen:
    context = _context(tls) if tls else None
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    listener.setblocking(False)
    fds = [ours.fileno(), listener.fileno()]
    _start(ours, listener, address, path, identity, context)
    name = f"{_TLS}{address}" if tls else address
    return OpenScreen(theirs, address, partial(Outside.of, Kind.SCREEN, name, fds, path, identity))


def _context(host: str) -> ssl.SSLContext:
    from domzero.dom0.images.store import data_dir
    from domzero.dom0.tls import for_screen
    from domzero.dom0.vnc.encrypted import context_of

    kept = data_dir() / "screens"
    try:
        kept.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{kept}: {error.strerror}", key="vfb") from error
    return context_of(for_screen(kept, host))


def serve_again(kept: Outside) -> None:
    """Goes on with an address that another process has listened at; takes its descriptors."""
    inside, listener = (socket.socket(fileno=fd) for fd in kept.take())
    address = kept.name.removeprefix(_TLS)
    context = None
    if address != kept.name:
        context = _context(address.rpartition(":")[0].strip("[]"))
    _start(inside, listener, address, kept.path, (kept.device, kept.inode), context)


def _start(
    inside: socket.socket,
    listener: socket.socket,
    address: str,
    path: str,
    identity: tuple[int, int],
    context: ssl.SSLContext | None,
) -> None:
    def give(viewer: socket.socket) -> None:
        socket.send_fds(inside, [b"v"], [viewer.fileno()])

    take = give
    if context is not None:
        from domzero.dom0.vnc.encrypted import Encrypted

        take = Encrypted(context, give).take
    args = (inside, listener, path, identity, take)
    threading.Thread(target=_accept, args=args, name=f"vnc {address}", daemon=True).start()


def _accept(
    inside: socket.socket,
    listener: socket.socket,
    path: str,
    identity: tuple[int, int],
    take: Callable[[socket.socket], None],
) -> None:
    poll = select.poll()
    poll.register(inside, select.POLLIN)
    poll.register(listener, select.POLLIN)
    with inside, listener:
        while inside.fileno() not in [fd for fd, _ in poll.poll()]:  # nothing comes from there but its end
            with suppress(OSError), listener.accept()[0] as viewer:
                if viewer.family != socket.AF_UNIX:
                    viewer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                    viewer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                take(viewer)
    if path:
        with suppress(OSError):
            status = os.lstat(path)
            if (status.st_dev, status.st_ino) == identity:
                os.unlink(path)


__all__ = ["OpenScreen", "open_screen", "serve_again"]
