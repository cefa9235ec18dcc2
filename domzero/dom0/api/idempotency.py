# SPDX-License-Identifier: Apache-2.0
"""Idempotency-Key: a POST that a client repeats, because it has not heard an answer, is done once."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from dataclasses import dataclass, field

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from domzero.dom0.api.problems import problem, respond

KEEP_SECONDS = 24 * 3600.0
KEPT = 1000
KEY_MAX = 200
ANSWER_MAX = 1 << 20
REPLAYED = b"idempotency-replayed"


@dataclass(slots=True, eq=False)
class _Answer:
    """What a request was answered with, once it is.

    :param digest: of the request's body.
    """

    digest: bytes
    at: float = field(default_factory=time.monotonic)
    messages: list[Message] = field(default_factory=list)
    done: asyncio.Event = field(default_factory=asyncio.Event)
    usable: bool = False


class Idempotency:
    """Answers a repeated request with what the first one was answered with, which it waits for.

    A key belongs to who shows it and to the path. An answer of 5xx, or one that never came, is not kept.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._answers: OrderedDict[tuple[str, str, str], _Answer] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        key = None
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"].startswith("/v1/"):
            key = Headers(scope=scope).get("idempotency-key")
        actor = scope.get("state", {}).get("actor")
        if key is None or actor is None:
            await self._app(scope, receive, send)
            return
        if not key or len(key) > KEY_MAX:
            refused = problem(400, "BAD_REQUEST", f"an Idempotency-Key has 1 to {KEY_MAX} characters")
            await respond(refused)(scope, receive, send)
            return
        await self._once((actor.name, scope["path"], key), scope, receive, send)

    async def _once(self, name: tuple[str, str, str], scope: Scope, receive: Receive, send: Send) -> None:
        read = await _read(receive)
        digest = hashlib.sha256(b"".join(message.get("body", b"") for message in read)).digest()
        self._forget()
        while (known := self._answers.get(name)) is not None:
            if known.digest != digest:
                what = "this Idempotency-Key was used with another body"
                await respond(problem(422, "IDEMPOTENCY_KEY_REUSED", what))(scope, receive, send)
                return
            await known.done.wait()
            if known.usable:
                for message in known.messages:
                    await send(_marked(message))
                return
        answer = self._answers[name] = _Answer(digest)
        try:
            await self._app(scope, _again(read, receive), _recorded(answer, send))
        finally:
            answer.done.set()
            if not answer.usable and self._answers.get(name) is answer:
                del self._answers[name]

    def _forget(self) -> None:
        while self._answers:
            oldest = next(iter(self._answers.values()))
            if len(self._answers) < KEPT and time.monotonic() - oldest.at < KEEP_SECONDS:
                break
            self._answers.popitem(last=False)


async def _read(receive: Receive) -> list[Message]:
    """The body, up to what any request may have: `BodyLimit` says so to a longer one."""
    messages, length = [await receive()], 0
    while messages[-1].get("more_body") and length < ANSWER_MAX:
        length += len(messages[-1].get("body", b""))
        messages.append(await receive())
    return messages


def _again(read: list[Message], receive: Receive) -> Receive:
    waiting = iter(read)

    async def next_message() -> Message:
        message = next(waiting, None)
        return await receive() if message is None else message

    return next_message


def _recorded(answer: _Answer, send: Send) -> Send:
    length = 0

    async def record(message: Message) -> None:
        nonlocal length
        length += len(message.get("body", b""))
        if length <= ANSWER_MAX:
            answer.messages.append(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            status = answer.messages[0].get("status", 500)
            answer.usable = status < 500 and length <= ANSWER_MAX
            answer.done.set()
        await send(message)

    return record


def _marked(message: Message) -> Message:
    if message["type"] != "http.response.start":
        return message
    return {**message, "headers": [*message["headers"], (REPLAYED, b"true")]}
