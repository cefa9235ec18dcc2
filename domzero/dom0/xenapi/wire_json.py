# SPDX-License-Identifier: Apache-2.0
"""JSON-RPC 1.0 and 2.0 as XAPI speaks them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from domzero.dom0.xenapi.failure import Failure

MEDIA_TYPE = "application/json"
"""Exactly: with a charset one client speaks XML instead."""
PARSE_ERROR, INVALID_REQUEST, XENAPI_ERROR = -32700, -32600, 1
ID_MAX = 1000


class Malformed(Exception):
    """No request.

    :param code: of JSON-RPC 2.0.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Request:
    """One call.

    :param is_2: it is one of JSON-RPC 2.0.
    """

    method: str
    parameters: list[Any]
    id: Any
    is_2: bool


def read_call(body: bytes) -> Request:
    """A call. Malformed: it is none."""
    try:
        found = json.loads(body.decode())
    except (ValueError, RecursionError) as error:
        raise Malformed(PARSE_ERROR, f"no JSON: {type(error).__name__}") from error
    if not isinstance(found, dict):
        raise Malformed(INVALID_REQUEST, "a request is an object; batches are not taken")
    method, parameters, identity = found.get("method"), found.get("params", []), found.get("id")
    is_2 = found.get("jsonrpc") == "2.0"
    if not isinstance(method, str) or not isinstance(parameters, list):
        raise Malformed(INVALID_REQUEST, "a request has a method, a text, and params, a list")
    if not isinstance(identity, str | int | float | None) or (isinstance(identity, str) and len(identity) > ID_MAX):
        raise Malformed(INVALID_REQUEST, "an id is a text, a number or null")
    return Request(method, parameters, identity, is_2)


def write_success(request: Request, value: Any) -> bytes:
    """The answer to a message that was carried out."""
    if request.is_2:
        return _dump({"jsonrpc": "2.0", "result": value, "id": request.id})
    return _dump({"result": value, "error": None, "id": request.id})


def write_failure(request: Request, failure: Failure) -> bytes:
    """The answer to one that was not."""
    if request.is_2:
        code, *parameters = failure.description
        error = {"code": XENAPI_ERROR, "message": code, "data": parameters}
        return _dump({"jsonrpc": "2.0", "error": error, "id": request.id})
    return _dump({"result": None, "error": failure.description, "id": request.id})


def write_malformed(error: Malformed) -> bytes:
    """The answer to what is no request."""
    return _dump({"jsonrpc": "2.0", "error": {"code": error.code, "message": str(error)}, "id": None})


def _dump(answer: dict[str, Any]) -> bytes:
    return json.dumps(answer, separators=(",", ":")).encode()
