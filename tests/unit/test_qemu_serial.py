# SPDX-License-Identifier: Apache-2.0
"""A serial port and a pty of one guest: what one says waits for the other in the kernel, and not in Domain 0."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

import pytest

pytest.importorskip("domzero._machine", reason="the machine is not built", exc_type=ImportError)

from domzero.dom0.qemu.serial import SerialConsole

MUCH = 64 << 20
"""Bytes, of which Domain 0 and two sockets are to take some hundred KiB."""


def test_who_types_on_a_pty_without_an_end_waits_for_a_guest_that_reads_nothing() -> None:
    async def main() -> None:
        guest, serial_end = socket.socketpair()
        typist, pty_end = socket.socketpair()
        serial = await SerialConsole.start(serial_end, lambda data: None)
        pty = await SerialConsole.start(pty_end, lambda data: serial.pass_on(data, pty))
        for sock in (guest, typist):
            sock.setblocking(False)
        sent = await typed(typist, b"y\n" * 4096)
        assert sent < MUCH, "it waits"
        received = bytearray()
        while len(received) < sent:
            received += await asyncio.wait_for(asyncio.get_running_loop().sock_recv(guest, 1 << 20), 60)
        assert received == (b"y\n" * (sent // 2 + 1))[:sent], "nothing is lost, and all comes when it is read"
        for console in (serial, pty):
            console.close()
        guest.close()
        typist.close()
        await asyncio.sleep(0)

    asyncio.run(main())


async def typed(sock: socket.socket, words: bytes) -> int:
    """Types on until nothing is taken any more in a hundred turns of the loop; how much was."""
    sent, idle = 0, 0
    while idle < 100 and sent < MUCH:
        try:
            sent += sock.send(words[sent % 2 :])
            idle = 0
        except BlockingIOError:
            idle += 1
        await asyncio.sleep(0)
    return sent


def test_one_who_holds_a_console_does_not_release_it_for_another() -> None:
    async def main() -> None:
        guest, serial_end = socket.socketpair()
        heard: list[bytes] = []
        serial = await SerialConsole.start(serial_end, heard.append)
        serial.hold(held=True)
        serial.hold(held=True, by=main)
        serial.hold(held=False)
        guest.send(b"words")
        for _ in range(50):
            await asyncio.sleep(0)
        assert not heard
        serial.hold(held=False, by=main)
        while not heard:
            await asyncio.sleep(0)
        serial.close()
        with suppress(OSError):
            guest.close()

    asyncio.run(main())
