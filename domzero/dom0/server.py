# SPDX-License-Identifier: Apache-2.0
"""`domzero serve`: sockets, signals, and the HTTP server around the application."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from errno import EMFILE, ENFILE, ENOBUFS, ENOMEM
from pathlib import Path
from typing import Any

import uvicorn

from domzero.dom0.api.app import create_app
from domzero.dom0.autostart import autostart
from domzero.dom0.connections import HEAD_MAX, KEEP_ALIVE_SECONDS, Connection, Connections, Websocket
from domzero.dom0.database import MEMORY, Database
from domzero.dom0.descriptors import raise_limit
from domzero.dom0.keep.adoption import take_over
from domzero.dom0.keep.link import end_workers, find_keeper
from domzero.dom0.linelimit import Seldom
from domzero.dom0.listeners import BACKLOG, SocketLock, describe, open_tcp, open_unix
from domzero.dom0.manager import Manager
from domzero.dom0.paths import keeper_socket, storage_for
from domzero.dom0.tls import Certificate
from domzero.dom0.token import TokenFile, token_path
from domzero.dom0.xenstore.unix_socket import ToolServer
from domzero.errors import DomzeroError

logger = logging.getLogger(__name__)


TICK_SECONDS = 1.0
"""Between two looks at connections that are to be ended."""
ERRORS_APART_SECONDS = 60.0


class _Uvicorn(uvicorn.Server):
    """uvicorn with bounds on connections, and without its signal handling: Domain 0's also ends the domains."""

    def __init__(self, config: uvicorn.Config, connections: Connections) -> None:
        super().__init__(config)
        self.server_state = connections
        self._connections = connections
        self._leave = asyncio.Event()

    def leave(self) -> None:
        """Ends `serve`."""
        self.should_exit = True
        self._leave.set()

    async def main_loop(self) -> None:
        """uvicorn: what it does between start and end; its own wakes up ten times a second."""
        while not await self.on_tick(0):
            self._connections.check(asyncio.get_running_loop().time())
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._leave.wait(), TICK_SECONDS)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(
    path: Path,
    listen: tuple[str, int] | None,
    xenstore: list[Path],
    announce: Callable[[str, str], None],
    *,
    confined: bool = True,
    database: Path = MEMORY,
    certificate: Certificate | None = None,
    keep: bool = False,
    end_kept: bool = False,
) -> int:
    """Serves until SIGINT, SIGTERM or SIGHUP; all domains have ended then, unless they are kept.

    :returns: how many are.

    :param listen: an address to serve as well, to who shows credentials.
    :param xenstore: places for xenstore's socket, best first; with none there is no such socket.
    :param announce: told where, once the sockets listen, and the address of the page with the token; "" without TCP.
    :param confined: workers are.
    :param database: where definitions and the like are kept.
    :param certificate: TLS is spoken over TCP.
    :param keep: domains go on without Domain 0, until there is one again.
    :param end_kept: those that have gone on until now are ended.
    """
    nofile = raise_limit()
    with contextlib.ExitStack() as cleanup:
        unix = _open(path, "socket", cleanup)
        tool_socket = _open_first(xenstore, cleanup)
        where, token, page, url, tcp = describe(unix), None, "", None, []
        if listen is not None:
            tcp = [open_tcp(*listen)]
            host, port = tcp[0].getsockname()[:2]
            file = TokenFile(token_path(path.parent, host, port))
            cleanup.callback(file.remove)
            token = file.token
            url = describe(tcp[0], "http" if certificate is None else "https")
            where += f" and {url} (token: {file.path})"
            if certificate is not None and certificate.is_own:
                where += f" (certificate: {certificate.certificate}, SHA-256 {certificate.fingerprint()})"
            page = f"{url}/#token={token}"
        opened = Database(database)
        cleanup.callback(opened.close)
        place = keeper_socket(database, path)
        if end_kept:
            end_workers(place)
        keeper = find_keeper(place, confined=confined, keep=keep)
        manager = Manager(confined=confined, database=opened, keeper=keeper)
        if tool_socket is not None:
            tools = ToolServer(manager.store, nofile)
            await tools.start(tool_socket)
            cleanup.callback(tools.close)
            where += f"; xenstore on {describe(tool_socket)}"
        anywhere = certificate is not None
        app = create_app(manager, token, storage=storage_for(database), anywhere=anywhere, url=url)
        connections = Connections(nofile)

        def make_server(**options: Any) -> _Uvicorn:
            config = uvicorn.Config(
                app,
                http=Connection,
                ws=Websocket,
                log_config=None,  # into our own log
                log_level="warning",
                access_log=False,
                proxy_headers=False,
                **options,
                backlog=min(BACKLOG, nofile // 16),  # also how many asyncio accepts at once
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=1,
                h11_max_incomplete_event_size=HEAD_MAX,
                ws_max_size=1 << 20,
                ws_per_message_deflate=False,  # between processes of one host
            )
            return _Uvicorn(config, connections)

        plain = make_server(lifespan="on")
        servers = [(plain, [unix, *(tcp if certificate is None else [])])]
        if certificate is not None:
            files = {"ssl_certfile": certificate.certificate, "ssl_keyfile": certificate.key}
            servers.append((make_server(lifespan="off", **files), tcp))
        closers: list[asyncio.Task[None]] = []

        def stop() -> None:
            for server, _ in servers:
                server.leave()
            if not closers:
                closers.append(loop.create_task(manager.close()))

        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_SeldomErrors())
        logging.getLogger("uvicorn.error").addFilter(Seldom(ERRORS_APART_SECONDS))
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(signum) == signal.SIG_IGN:
                continue  # as nohup asks for
            loop.add_signal_handler(signum, stop)
        manager.prepare()
        if manager.keeping is not None:
            await take_over(manager, manager.keeping)
        gc.collect()
        gc.freeze()  # what was imported stays: a full collection would look at all of it, for 20 ms of everybody's time
        announce(where, page)
        autostart(manager)
        await asyncio.gather(*(server.serve(sockets) for server, sockets in servers))
        await asyncio.gather(*closers)
        return len(manager.roster.live)


def _open(path: Path, option: str, cleanup: contextlib.ExitStack) -> socket.socket:
    """A listening Unix socket with its lock; both go with `cleanup`."""
    with contextlib.ExitStack() as undo:
        undo.callback(SocketLock(path, option).release)
        sock = open_unix(path, option)
        undo.callback(_remove_own, path, path.stat().st_ino)
        cleanup.push(undo.pop_all())
    return sock


def _open_first(places: list[Path], cleanup: contextlib.ExitStack) -> socket.socket | None:
    """xenstore's socket at the first of these places that can be had."""
    for place in places:
        try:
            return _open(place, "xenstore-socket", cleanup)
        except DomzeroError as error:
            if place == places[-1]:
                raise
            logger.info("xenstore is served elsewhere: %s", error)
    return None


class _SeldomErrors:
    """An event loop's exception handler that does not repeat that descriptors or memory are short at each accept."""

    def __init__(self) -> None:
        self._next = 0.0

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in (EMFILE, ENFILE, ENOBUFS, ENOMEM):
            loop.default_exception_handler(context)
        elif loop.time() >= self._next:
            self._next = loop.time() + ERRORS_APART_SECONDS
            logger.warning("a connection could not be accepted: %s", error.strerror)


def _remove_own(path: Path, identity: int) -> None:
    with contextlib.suppress(OSError):
        if path.stat().st_ino == identity:
            path.unlink()
