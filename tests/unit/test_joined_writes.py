# SPDX-License-Identifier: Apache-2.0
"""What is written in one turn of the loop goes in one piece, in its order, and nothing of it is lost at an end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from domzero.dom0.joined_writes import AT_ONCE, JoinedWrites


class Sent(asyncio.Transport):
    """A transport that notes what it is told to do."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[bytes | str] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.done.append(bytes(data))

    def close(self) -> None:
        self.done.append("close")

    def abort(self) -> None:
        self.done.append("abort")

    def get_write_buffer_size(self) -> int:
        return 7


def scene(act: Callable[[JoinedWrites], Awaitable[None]]) -> list[bytes | str]:
    async def main() -> list[bytes | str]:
        sent = Sent()
        await act(JoinedWrites(sent, asyncio.get_running_loop()))
        return sent.done

    return asyncio.run(main())


def test_a_turns_writes_are_one() -> None:
    async def act(transport: JoinedWrites) -> None:
        for data in (b"head", b"", b"body"):
            transport.write(data)
        assert transport.get_write_buffer_size() == 7 + 8
        await asyncio.sleep(0)
        transport.writelines([b"an", b"other"])
        await asyncio.sleep(0)
        assert transport.get_write_buffer_size() == 7

    assert scene(act) == [b"headbody", b"another"]


def test_a_close_comes_after_what_was_written_and_an_abort_in_its_place() -> None:
    async def act(transport: JoinedWrites) -> None:
        transport.write(b"words")
        transport.close()
        transport.write(b"lost")
        transport.abort()
        await asyncio.sleep(0)

    assert scene(act) == [b"words", "close", "abort"]


def test_much_does_not_wait_for_the_end_of_the_turn() -> None:
    async def act(transport: JoinedWrites) -> None:
        transport.write(b"a")
        transport.write(bytes(AT_ONCE))
        transport.write(b"b")
        await asyncio.sleep(0)

    assert scene(act) == [b"a" + bytes(AT_ONCE), b"b"]
