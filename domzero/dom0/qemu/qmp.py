# SPDX-License-Identifier: Apache-2.0
"""QMP, the protocol by which a QEMU is managed: JSON objects, a line each, over a connected Unix socket.

What we ask is checked against the schema that this very QEMU gives of itself (`query-qmp-schema`), and what it answers
against what we expect: a QEMU may have been taken over by its guest. Descriptors go with commands (`SCM_RIGHTS`).
"""

from __future__ import annotations

import asyncio
import itertools
import json
import secrets
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from domzero.dom0.bucket import Bucket
from domzero.dom0.json_values import MessageError
from domzero.errors import DomzeroError, ResourceError

LINE_MAX = 1 << 20
"""Bytes of one answer: the schema has 200 KiB. What is made of JSON may take forty times its size."""
CHUNK = 64 << 10
BURST = 1 << 20
"""Bytes that are read as fast as they come; then PER_SECOND."""
PER_SECOND = 256 << 10
UNANSWERED_MAX = 64
"""Commands that a QEMU may be behind with, also those that nobody waits for any more: they fit into its socket."""
OPEN = ("device_add",)
"""Commands that take what a device's model has besides: the schema does not say it."""
_RESET = b"\xff\n"
"""What is in no JSON: QEMU's parser forgets what it has half of, and says an error without a number."""
_ID_BITS = 48
Json: TypeAlias = "dict[str, Any]"


class QmpError(DomzeroError):
    """QEMU refuses a command; the message is its own."""


class QmpGone(ResourceError):
    """QEMU has ended, or closed its socket."""


class QmpBehind(ResourceError):
    """QEMU does not answer."""


class QmpClient:
    """One connection. Used in the event loop.

    :param sock: connected; it is the client's from here on.
    :param on_event: gets each event's name and data.
    :param on_lost: called once, with what was wrong with it or "": there will be no more.
    :param resumes: another Domain 0 has talked to it over this connection, and is gone.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        on_event: Callable[[str, Json], None],
        on_lost: Callable[[str], None],
        resumes: bool = False,
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._on_event = on_event
        self._on_lost = on_lost
        self._ids = itertools.count(secrets.randbits(_ID_BITS) if resumes else 1)  # others than those of who is gone
        self._is_resuming = resumes
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._sending = asyncio.Lock()
        self._bucket = Bucket(PER_SECOND, BURST, time.monotonic())
        self._greeting: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        self._commands: Mapping[str, frozenset[str]] | None = None
        self._reader = asyncio.get_running_loop().create_task(self._read())

    async def begin(self) -> None:
        """Waits for the greeting and goes on to commands. QmpGone."""
        await asyncio.shield(self._greeting)
        await self.ask("qmp_capabilities")

    async def resume(self) -> None:
        """Goes on where another client was killed: half a command of its is dropped, and what is on the way to it is
        passed over, but for the events. QmpGone."""
        await self._send(_RESET, ())
        await self.ask("query-status")
        self._is_resuming = False

    async def learn(self) -> Mapping[str, frozenset[str]]:
        """Which commands there are, and the names of their arguments; commands are checked from now on."""
        self._commands = commands_of(await self.ask("query-qmp-schema"))
        return self._commands

    def use(self, commands: Mapping[str, frozenset[str]]) -> None:
        """As `learn`, with what the same program has said before."""
        self._commands = commands

    async def ask(self, command: str, arguments: Mapping[str, Any] | None = None, fds: Sequence[int] = ()) -> Any:
        """Carries a command out; what it returns. QmpError, QmpGone, QmpBehind; MessageError: this QEMU has no such
        thing.

        :param fds: that go with it; they stay the caller's.
        """
        given = dict(arguments or {})
        self._check(command, given)
        if self._sock.fileno() < 0 or self._reader.done():
            raise QmpGone("QEMU has ended")
        if len(self._waiting) >= UNANSWERED_MAX:
            raise QmpBehind(f"QEMU has left {UNANSWERED_MAX} commands without an answer")
        number = next(self._ids)
        # It stays there until it is answered, even if nobody waits any more.
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        line = json.dumps({"execute": command, "arguments": given, "id": number}).encode() + b"\n"
        await self._send(line, fds)
        return await future

    def close(self) -> None:
        """Ends the connection."""
        self._reader.cancel()
        self._fail()
        if self._sock.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._sock)
            self._sock.close()

    def _check(self, command: str, arguments: Mapping[str, Any]) -> None:
        if self._commands is None:
            return
        known = self._commands.get(command)
        if known is None:
            raise MessageError(f"this QEMU has no command {command}")
        if command not in OPEN and (unknown := arguments.keys() - known):
            raise MessageError(f"this QEMU's {command} has no {', '.join(sorted(unknown))}")

    async def _send(self, line: bytes, fds: Sequence[int]) -> None:
        loop = asyncio.get_running_loop()
        async with self._sending:
            try:
                while fds:
                    try:
                        sent = socket.send_fds(self._sock, [line], list(fds))
                    except BlockingIOError:
                        await asyncio.sleep(0.01)
                        continue
                    line, fds = line[sent:], ()
                if line:
                    await loop.sock_sendall(self._sock, line)
            except OSError as error:
                raise QmpGone("QEMU has ended") from error

    async def _read(self) -> None:
        buffer = bytearray()
        fault = ""
        try:
            while data := await self._peek():
                # What is there already comes without a turn of the loop: others would never have theirs.
                self._bucket.fill(time.monotonic())
                self._bucket.left -= len(data)
                await asyncio.sleep(self._bucket.until(0.0))
                taken = data.rfind(b"\n") + 1 or len(data)
                buffer += data[:taken]
                while (end := buffer.find(b"\n")) >= 0:
                    line = bytes(buffer[:end])
                    del buffer[: end + 1]
                    if line.strip():
                        self._message(line)
                self._take(taken)
                if len(buffer) > LINE_MAX:
                    raise MessageError(f"an answer of more than {LINE_MAX} bytes")
        except OSError:
            pass
        except MessageError as error:
            fault = error.message
        self._fail()
        self._on_lost(fault)

    async def _peek(self) -> bytes:
        """What there is to be read, which stays there: it is taken when it has been heard (`_take`), so that who goes
        on after a kill hears of each event. Lines that are longer than what the socket has are taken in parts."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                return self._sock.recv(CHUNK, socket.MSG_PEEK)
            except BlockingIOError:
                readable = loop.create_future()
                loop.add_reader(self._sock, _done, readable)
                try:
                    await readable
                finally:
                    if self._sock.fileno() >= 0:
                        loop.remove_reader(self._sock)

    def _take(self, count: int) -> None:
        while count and self._sock.fileno() >= 0:
            count -= len(self._sock.recv(count))

    def _message(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except (ValueError, RecursionError) as error:
            if self._is_resuming:
                return  # the rest of one that somebody else has begun to read
            raise MessageError("no JSON") from error
        if not isinstance(message, dict):
            raise MessageError("no object")
        if isinstance(name := message.get("event"), str):
            data = message.get("data", {})
            self._on_event(name, data if isinstance(data, dict) else {})
        elif "QMP" in message:
            if not self._greeting.done():
                self._greeting.set_result(message)
        else:
            number = message.get("id")
            future = self._waiting.pop(number, None) if type(number) is int else None
            if future is None or future.done():
                return  # nobody waits any more
            if "error" in message:
                fault = message["error"]
                text = fault.get("desc") if isinstance(fault, dict) else None
                future.set_exception(QmpError(str(text or "refused")[:500]))
            else:
                future.set_result(message.get("return"))

    def _fail(self) -> None:
        if not self._greeting.done():
            self._greeting.set_exception(QmpGone("QEMU has ended"))
            self._greeting.exception()  # perhaps nobody waits
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(QmpGone("QEMU has ended"))
                future.exception()  # perhaps nobody waits
        self._waiting.clear()


def _done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def commands_of(schema: Any) -> dict[str, frozenset[str]]:
    """What `query-qmp-schema` says: the commands, and the names of the arguments of each. MessageError."""
    entries = {each["name"]: each for each in objects(schema, "the schema") if isinstance(each.get("name"), str)}
    found = {}
    for name, entry in entries.items():
        if entry.get("meta-type") == "command":
            found[name] = _members(entries, entry.get("arg-type"))
    return found


def _members(entries: Mapping[str, Json], name: Any, seen: frozenset[str] = frozenset()) -> frozenset[str]:
    """Names of an object's members, and of those that its variants have besides."""
    if not isinstance(name, str) or name not in entries or name in seen:
        return frozenset()
    entry = entries[name]
    members = objects(entry.get("members", []), "the schema")
    names = {each["name"] for each in members if isinstance(each.get("name"), str)}
    for variant in objects(entry.get("variants", []), "the schema"):
        names |= _members(entries, variant.get("type"), seen | {name})
    return frozenset(names)


def objects(value: Any, what: str) -> list[Json]:
    """A list of objects. MessageError."""
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise MessageError(f"QEMU: {what}: no list of objects")
    return value


def number(value: Any, *keys: str) -> int:
    """A number that is no less than 0, at the end of these keys; 0 if there is none. MessageError: it is none."""
    for key in keys:
        value = value.get(key, 0) if isinstance(value, dict) else 0
    if type(value) is not int or value < 0:
        raise MessageError(f"QEMU's {'.'.join(keys)} is no number")
    return value


__all__ = ["QmpBehind", "QmpClient", "QmpError", "QmpGone", "commands_of", "number", "objects"]
