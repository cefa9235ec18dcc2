# SPDX-License-Identifier: Apache-2.0
"""Dataclasses as JSON, and back, checked against their annotations."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
import uuid
from enum import Enum
from typing import Any, TypeAlias, TypeVar

from domzero.errors import DomzeroError

Json: TypeAlias = "dict[str, Any]"
T = TypeVar("T")


class MessageError(DomzeroError):
    """The other end says what is no message."""


def to_json(instance: Any) -> Json:
    """A dataclass as a JSON object: enums by value, UUIDs as text, tuples as lists."""
    return {field.name: _plain(getattr(instance, field.name)) for field in dataclasses.fields(instance)}


def from_json(kind: type[T], data: object, where: str) -> T:
    """The dataclass that `to_json` described; fields with defaults may be missing. MessageError says which is wrong."""
    if not isinstance(data, dict):
        raise MessageError(f"{where}: not an object")
    hints = _hints(typing.cast("Any", kind))
    values = {}
    for name, value in data.items():
        if name not in hints:
            raise MessageError(f"{where}: no such field: {name!r}")
        values[name] = value_of(hints[name], value, f"{where}.{name}")
    try:
        return kind(**values)
    except TypeError as error:
        raise MessageError(f"{where}: a field is missing") from error


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _plain(value: object) -> object:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return to_json(value) if dataclasses.is_dataclass(value) else value


def value_of(kind: Any, value: object, where: str) -> Any:
    """A value of this type. MessageError."""
    origin = typing.get_origin(kind)
    if origin is types.UnionType or origin is typing.Union:  # "X | None" is all there is
        return None if value is None else value_of(typing.get_args(kind)[0], value, where)
    if origin in (tuple, list):
        if not isinstance(value, list):
            raise MessageError(f"{where}: not a list")
        return origin(value_of(typing.get_args(kind)[0], item, where) for item in value)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return from_json(kind, value, where)
    if kind is float and type(value) in (int, float):
        return value
    if kind in (str, int, bool):
        if type(value) is kind:
            return value
    elif isinstance(value, str):
        try:
            return kind(value)  # an enum of text, or a UUID
        except ValueError:
            pass
    raise MessageError(f"{where}: not a {kind.__name__}: {value!r:.100}")
