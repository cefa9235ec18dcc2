# SPDX-License-Identifier: Apache-2.0
"""`domzero serve`: sockets, signals, and the HTTP server around the application."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import uvicorn

from domzero.dom0.api.app import create_app
from domzero.dom0.connections import Connection
from domzero.dom0.listeners import BACKLOG, SocketLock, describe, open_tcp, open_unix
from domzero.dom0.manager import Manager
from domzero.dom0.token import TokenFile, token_path

logger = logging.getLogger(__name__)


class _Uvicorn(uvicorn.Server):
    """uvicorn without its signal handling: Domain 0 has its own, which also ends the domains."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(path: Path, listen: tuple[str, int] | None, announce: Callable[[str], None]) -> None:
    """Serves until SIGINT, SIGTERM or SIGHUP; all domains have ended then.

    :param listen: a loopback address to serve as well, to who has the token.
    :param announce: told where, once the sockets listen.
    """
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(SocketLock(path).release)
        sockets = [open_unix(path)]
        cleanup.callback(_remove_own, path, path.stat().st_ino)
        where, token = describe(sockets[0]), None
        if listen is not None:
            sockets.append(open_tcp(*listen))
            host, port = sockets[1].getsockname()[:2]
            file = TokenFile(token_path(path.parent, host, port))
            cleanup.callback(file.remove)
            token = file.token
            where += f" and {describe(sockets[1])} (token: {file.path})"
        manager = Manager()
        server = _Uvicorn(
            uvicorn.Config(
                create_app(manager, token),
                http=Connection,
                log_level="warning",
                access_log=False,
                proxy_headers=False,
                lifespan="on",
                backlog=BACKLOG,
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
        announce(where)
        await server.serve(sockets)
        await asyncio.gather(*closers)


def _remove_own(path: Path, identity: int) -> None:
    with contextlib.suppress(OSError):
        if path.stat().st_ino == identity:
            path.unlink()
