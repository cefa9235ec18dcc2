# SPDX-License-Identifier: Apache-2.0
"""A domain's console, over Domain 0's websocket, on this process's stdin and stdout."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from domzero.cli.api_client import Dom0, Json
from domzero.cli.signals import POLL_S, ended_by_signals
from domzero.cli.status import ExitStatus
from domzero.cli.terminal import RawMode, is_terminal, say
from domzero.dom0.console_io import InputReader
from domzero.dom0.life import EndReason
from domzero.errors import DomzeroError

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

CLOSE_NOT_FOUND = 4404
CLOSE_DOM0_ENDS = (1001, 1012)  # ours, and uvicorn's, which may be first


def attach(dom0: Dom0, key: str, *, history: bool = True) -> int:
    """Shows the console until the domain ends, or Ctrl-] is typed on a terminal. The end of stdin ends nothing.

    :returns: 0; for a domain that crashed or whose watchdog fired, the status that `domzero run` ends with.
    """
    from websockets.exceptions import ConnectionClosed

    terminal = is_terminal()
    left = threading.Event()
    domain = dom0.domain(key)
    if terminal:
        say(f"domzero: the console of {domain['name']}; Ctrl-] leaves it")
    with ended_by_signals(), dom0.console(domain["uuid"], history=history) as websocket:

        def leave() -> None:
            left.set()
            websocket.close()

        def send(data: bytes) -> int:
            try:
                websocket.send(data)
            except ConnectionClosed:
                reader.stop()
            return len(data)

        with RawMode(enabled=terminal):
            reader = InputReader(0, send=send, wait_room=lambda _seconds: True, escape=leave if terminal else None)
            try:
                close = _show(websocket)
            finally:
                reader.stop()
    if left.is_set():
        say("")
        return ExitStatus.OK
    code, reason = close
    if code == CLOSE_NOT_FOUND:
        raise DomzeroError(reason)
    if code in CLOSE_DOM0_ENDS:
        say("domzero: Domain 0 has shut down, and the domain with it")
    elif code != 1000:
        raise DomzeroError(f"the console was cut off: {reason or code}")
    else:
        return tell_end(dom0.domain(domain["uuid"]))
    return ExitStatus.OK


def tell_end(domain: Json) -> int:
    """Says how a domain ended; the status is a crash's or a watchdog's, or 0."""
    end = domain["exit"]
    if not end:
        return ExitStatus.OK
    reason = EndReason(end["reason"])
    message = str(end["message"]).removeprefix(reason.value).removeprefix(": ")
    say(f"domzero: domain {domain['name']}: {reason.words}" + (f": {message}" if message else ""))
    return reason.exit_status if reason.is_crash else ExitStatus.OK


def _show(websocket: ClientConnection) -> tuple[int, str]:
    """Writes what comes until the other side closes; with what code and reason."""
    from websockets.exceptions import ConnectionClosed

    while True:
        try:
            message = websocket.recv(timeout=POLL_S)
        except TimeoutError:  # a signal may have come
            continue
        except ConnectionClosed as error:
            received = error.rcvd
            return (received.code, received.reason) if received is not None else (1006, "Domain 0 is gone")
        data = message.encode() if isinstance(message, str) else message
        while data:
            data = data[os.write(1, data) :]
