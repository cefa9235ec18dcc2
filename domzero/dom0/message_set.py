# SPDX-License-Identifier: Apache-2.0
"""Messages between processes: dataclasses as JSON, each with its name, a request's identifier and a number of files."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from domzero.dom0.json_values import MessageError, from_json, to_json, value_of
from domzero.errors import ConfigError, DomzeroError, ImageError, ResourceError

M = TypeVar("M")


@dataclass(slots=True, frozen=True)
class Refused:
    """It could not be done: the error that the request raises."""

    kind: str
    message: str
    key: str | None = None
    hint: str | None = None

    @classmethod
    def of(cls, error: DomzeroError) -> Refused:
        """From an error, of which the other process knows the nearest kind."""
        kind = next(base.__name__ for base in type(error).__mro__ if base.__name__ in _ERRORS)
        return cls(kind, error.message, error.key, error.hint)

    def error(self) -> DomzeroError:
        """The error to raise."""
        return _ERRORS.get(self.kind, DomzeroError)(self.message, key=self.key, hint=self.hint)


_ERRORS: dict[str, type[DomzeroError]] = {
    kind.__name__: kind for kind in (ConfigError, ImageError, ResourceError, DomzeroError)
}


class MessageSet(Generic[M]):
    """The messages that two processes know."""

    def __init__(self, kinds: Iterable[type[M]]) -> None:
        self._kinds = {kind.__name__: kind for kind in kinds}

    def encode(self, message: M, request_id: int = 0, files: int = 0) -> bytes:
        """A message as the payload of a frame; `request_id` in a request and in its answer.

        :param files: how many belong to it.
        """
        body = {"type": type(message).__name__, "id": request_id, "body": to_json(message)}
        if files:
            body["files"] = files
        return json.dumps(body, separators=(",", ":")).encode()

    def decode(self, payload: bytes) -> tuple[M, int]:
        """The message in a frame's payload, to which no files belong, and its request's identifier. MessageError."""
        message, request_id, files = self.decode_request(payload)
        if files:
            raise MessageError(f"{type(message).__name__}: no files belong to it")
        return message, request_id

    def decode_request(self, payload: bytes) -> tuple[M, int, int]:
        """As `decode`, and how many files belong to it."""
        try:
            outer = json.loads(payload)
        except ValueError as error:  # also bytes that are no UTF-8
            raise MessageError(f"not JSON: {error}") from error
        if not isinstance(outer, dict) or outer.keys() - {"files"} != {"type", "id", "body"}:
            raise MessageError("not an object of type, id and body")
        name, request_id = outer["type"], outer["id"]
        kind = self._kinds.get(name) if isinstance(name, str) else None
        if kind is None:
            raise MessageError(f"no such message: {name!r}")
        message = from_json(kind, outer["body"], name)
        files = value_of(int, outer.get("files", 0), "files")
        if files < 0:
            raise MessageError(f"files: {files}")
        return message, value_of(int, request_id, "id"), files
