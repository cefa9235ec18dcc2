# SPDX-License-Identifier: Apache-2.0
"""`domzero serve`: sockets, signals, and the HTTP server around the application."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import ipaddress
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import uvicorn

from domzero.dom0.api.app import create_app
from domzero.dom0.manager import Manager
from domzero.errors import ConfigError, DomzeroError

logger = logging.getLogger(__name__)

BACKLOG = 128


def parse_listen(text: str) -> tuple[str, int]:
    """HOST:PORT of `--listen`; ConfigError unless it is a loopback address."""
    host, colon, port_text = text.rpartition(":")
    host = host.strip("[]")
    if not colon or not port_text.isascii() or not port_text.isdecimal() or int(port_text) > 65535:
        raise ConfigError(f"expected ADDRESS:PORT, found {text!r}", key="listen", hint="such as 127.0.0.1:8080")
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        raise ConfigError(f"not an IP address: {host!r}", key="listen", hint="such as 127.0.0.1:8080") from None
    if not address.is_loopback:
        raise ConfigError(
            f"{host} is not a loopback address, and there are no credentials yet: anybody could end your domains",
            key="listen",
            hint="listen on 127.0.0.1 and reach it through ssh -L",
        )
    return str(address), int(port_text)


def open_unix(path: Path) -> socket.socket:
    """A listening Unix socket that only this user can open; takes the place of one whose server is gone."""
    if path.is_socket():
        _remove_if_dead(path)
    elif path.exists():
        raise ConfigError(f"{path} exists and is not a socket", key="socket")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old_mask = os.umask(0o177)
    try:
        sock.bind(os.fspath(path))
    except OSError as error:
        sock.close()
        raise DomzeroError(f"{path}: {os.strerror(error.errno or 0)}", key="socket") from error
    finally:
        os.umask(old_mask)
    sock.listen(BACKLOG)
    return sock


def _remove_if_dead(path: Path) -> None:
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
        raise DomzeroError(f"Domain 0 is running already, at {path}", hint="another one needs a --socket of its own")


def open_tcp(host: str, port: int) -> socket.socket:
    """A listening TCP socket."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise DomzeroError(f"{host}:{port}: {os.strerror(error.errno or 0)}", key="listen") from error
    sock.listen(BACKLOG)
    return sock


class _Uvicorn(uvicorn.Server):
    """uvicorn without its signal handling: Domain 0 has its own, which also ends the domains."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(path: Path | None, listen: tuple[str, int] | None, announce: Callable[[str], None]) -> None:
    """Serves until SIGINT, SIGTERM or SIGHUP; all domains have ended then.

    :param announce: told where, once the sockets listen.
    """
    sockets: list[socket.socket] = []
    identity = None
    try:
        if path is not None:
            sockets.append(open_unix(path))
            identity = path.stat().st_ino
        if listen is not None:
            sockets.append(open_tcp(*listen))
        manager = Manager()
        server = _Uvicorn(
            uvicorn.Config(
                create_app(manager),
                log_level="warning",
                access_log=False,
                lifespan="on",
                timeout_graceful_shutdown=1,
                ws_max_size=1 << 20,
            )
        )
        closers: list[asyncio.Task[None]] = []

        def stop() -> None:
            server.should_exit = True
            if not closers:
                closers.append(loop.create_task(manager.close()))

        loop = asyncio.get_running_loop()
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(signum) == signal.SIG_IGN:
                continue  # as nohup asks for
            loop.add_signal_handler(signum, stop)
        manager.prepare()
        gc.collect()
        gc.freeze()  # what was imported stays: a full collection would look at all of it, for 20 ms of everybody's time
        announce(" and ".join(_describe(sock) for sock in sockets))
        await server.serve(sockets)
        await asyncio.gather(*closers)
    finally:
        for sock in sockets:
            sock.close()
        with contextlib.suppress(OSError):
            if path is not None and identity is not None and path.stat().st_ino == identity:
                path.unlink()


def _describe(sock: socket.socket) -> str:
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return str(name)
    host = f"[{name[0]}]" if ":" in name[0] else name[0]
    return f"http://{host}:{name[1]}"
