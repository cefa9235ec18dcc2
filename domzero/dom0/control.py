"""What the Domain 0 process and a worker say to each other, over the worker's control socket.

Frames (see `framing`): JSON messages, and console bytes as they are. Requests have an `id`, and get
`{"id", "result"}` or `{"id", "error": {"message", "key", "hint", "kind"}}`; events have an `event`.

| request | arguments | result |
| --- | --- | --- |
| start | domid, config | once the domain is built, and runs unless it is to be paused |
| pause, unpause | | |
| stats | | state, cpu_ns, memory_mib, instructions |
| audit | | problems: where the hypervisor's books are wrong, a line each |
| stop | | the worker ends without asking the guest |

| event | fields |
| --- | --- |
| log | line: what the hypervisor says |
| exit | reason, message, cpu_ns: the guest ended |
| input | bytes: so much of the console's input is in the guest's queue, and more may come |
"""

from __future__ import annotations

import dataclasses
import json
import uuid
from enum import IntEnum
from typing import Any

from domzero.dom0.config import Action, DomainConfig
from domzero.errors import ConfigError, DomzeroError, ImageError, ResourceError

Json = dict[str, Any]


class Kind(IntEnum):
    """What a frame carries."""

    JSON = 0
    CONSOLE = 1


_ERRORS: dict[str, type[DomzeroError]] = {
    kind.__name__: kind for kind in (ConfigError, ImageError, ResourceError, DomzeroError)
}


def encode_json(message: Json) -> bytes:
    """A message as a frame's payload."""
    return json.dumps(message, separators=(",", ":")).encode()


def decode_json(payload: bytes) -> Json:
    """The message in a frame's payload; DomzeroError if it is not one."""
    try:
        message = json.loads(payload)
    except ValueError as error:
        raise DomzeroError(f"not JSON: {error}") from error
    if not isinstance(message, dict):
        raise DomzeroError("not a JSON object")
    return message


def error_to_json(error: DomzeroError) -> Json:
    """An error, so that the other process can raise it again."""
    kind = next((cls.__name__ for cls in type(error).__mro__ if cls.__name__ in _ERRORS), "DomzeroError")
    return {"kind": kind, "message": error.message, "key": error.key, "hint": error.hint}


def error_from_json(data: Json) -> DomzeroError:
    """The error that `error_to_json` described."""
    kind = _ERRORS.get(str(data.get("kind")), DomzeroError)
    return kind(str(data.get("message", "unknown error")), key=data.get("key"), hint=data.get("hint"))


def config_to_json(config: DomainConfig) -> Json:
    """A configuration as JSON."""
    data = dataclasses.asdict(config)
    data["uuid"] = str(config.uuid)
    for field in ("on_poweroff", "on_reboot", "on_crash", "on_watchdog"):
        data[field] = getattr(config, field).value
    return data


def config_from_json(data: Json) -> DomainConfig:
    """The configuration that `config_to_json` described."""
    data = dict(data)
    data["uuid"] = uuid.UUID(data["uuid"])
    for field in ("on_poweroff", "on_reboot", "on_crash", "on_watchdog"):
        data[field] = Action(data[field])
    return DomainConfig(**data)
