# SPDX-License-Identifier: Apache-2.0
"""XenAPI's types: what a client may send for one, and what is sent.

Between this and the wire a value is a str, int, float, bool, Time, list or dict of such.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from domzero.dom0.names import as_uuid, is_text
from domzero.dom0.xenapi.failure import Failure

PREFIX = "OpaqueRef:"
NULL = "OpaqueRef:NULL"
INT_MIN, INT_MAX = -(1 << 63), (1 << 63) - 1
_DIGITS = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)
_TIME = re.compile(r"\d{4}-?\d{2}-?\d{2}T\d{2}:?\d{2}:?\d{2}(?:\.\d+)?Z?", re.ASCII)


class Time(str):
    """A time as it goes over the wire: XML has a type of its own for it."""

    __slots__ = ()


def time_text(seconds: float) -> Time:
    """A time of Unix as XenAPI's."""
    then = datetime.datetime.fromtimestamp(max(0.0, seconds), datetime.timezone.utc)
    return Time(then.strftime("%Y%m%dT%H:%M:%SZ"))


def reference(identity: UUID | None) -> str:
    """The reference to an object, or to none."""
    return NULL if identity is None else f"{PREFIX}{identity}"


def identity_of(text: str) -> UUID | None:
    """The object that a reference, or a uuid where a reference belongs, names; None: it cannot name any."""
    return as_uuid(text.removeprefix(PREFIX))


def wrong_type(where: str) -> Failure:
    """A value of another type than the parameter or field has."""
    return Failure("FIELD_TYPE_ERROR", where)


class Type:
    """One of XenAPI's types; `name` is as its reference writes it."""

    name = "void"

    def read(self, value: Any, where: str) -> Any:
        """A client's value, checked. Failure.

        :param where: the parameter or field, for the error.
        """
        raise wrong_type(where)

    def write(self, value: Any) -> Any:
        """Our value for the wire."""
        return ""


@dataclass(frozen=True)
class _String(Type):
    name = "string"

    def read(self, value: Any, where: str) -> str:
        if not isinstance(value, str):
            raise wrong_type(where)
        if not is_text(value):
            raise Failure("INVALID_VALUE", where, "text is UTF-8 without NUL")
        return str(value)

    def write(self, value: Any) -> str:
        return str(value)


@dataclass(frozen=True)
class _Int(Type):
    name = "int"

    def read(self, value: Any, where: str) -> int:
        if isinstance(value, str) and _DIGITS.fullmatch(value.strip()):
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not INT_MIN <= value <= INT_MAX:
            raise wrong_type(where)
        return value

    def write(self, value: Any) -> int:
        return int(value)


@dataclass(frozen=True)
class _Float(Type):
    name = "float"

    def read(self, value: Any, where: str) -> float:
        if isinstance(value, int | float) and not isinstance(value, bool):
            try:
                found = float(value)
            except OverflowError:
                raise wrong_type(where) from None
            if found - found == 0.0:  # neither infinite nor no number
                return found
        raise wrong_type(where)

    def write(self, value: Any) -> float:
        return float(value)


@dataclass(frozen=True)
class _Bool(Type):
    name = "bool"

    def read(self, value: Any, where: str) -> bool:
        if not isinstance(value, bool):
            raise wrong_type(where)
        return value

    def write(self, value: Any) -> bool:
        return bool(value)


@dataclass(frozen=True)
class _Datetime(Type):
    name = "datetime"

    def read(self, value: Any, where: str) -> float:
        text = str(value) if isinstance(value, str) or hasattr(value, "timetuple") else ""
        if not _TIME.fullmatch(text):
            raise wrong_type(where)
        digits = text.replace("-", "").replace(":", "").partition(".")[0].rstrip("Z")
        try:
            then = datetime.datetime.strptime(digits, "%Y%m%dT%H%M%S")
        except ValueError:
            raise wrong_type(where) from None
        return then.replace(tzinfo=datetime.timezone.utc).timestamp()

    def write(self, value: Any) -> Time:
        return time_text(value)


STRING, INT, FLOAT, BOOL, DATETIME, VOID = _String(), _Int(), _Float(), _Bool(), _Datetime(), Type()


@dataclass(frozen=True)
class Enum(Type):
    """One of some words.

    :param words: those that there are; empty: what we send, and nobody sends us.
    """

    label: str
    words: tuple[str, ...] = ()

    @property
    def name(self) -> str:  # type: ignore[override]
        """As XAPI names it."""
        return self.label

    def read(self, value: Any, where: str) -> str:
        """One of the words."""
        text = STRING.read(value, where)
        if text not in self.words:
            raise Failure("INVALID_VALUE", where, f"{text[:100]}: one of {', '.join(self.words)}")
        return text

    def write(self, value: Any) -> str:
        """As it is."""
        return str(value)


@dataclass(frozen=True)
class Ref(Type):
    """A reference to an object of a class.

    :param nullable: none may be given as well.
    """

    kind: str
    nullable: bool = False

    @property
    def name(self) -> str:  # type: ignore[override]
        """As XAPI names it."""
        return f"{self.kind} ref"

    def read(self, value: Any, where: str) -> UUID | None:
        """The object's identity, or None for none."""
        text = STRING.read(value, where)
        if text in (NULL, ""):
            if not self.nullable:
                raise Failure("HANDLE_INVALID", self.kind, text)
            return None
        if (identity := identity_of(text)) is None:
            raise Failure("HANDLE_INVALID", self.kind, text)
        return identity

    def write(self, value: Any) -> str:
        """Of an identity, or what was written already."""
        return value if isinstance(value, str) else reference(value)


@dataclass(frozen=True)
class Set(Type):
    """Several values of one type."""

    of: Type

    @property
    def name(self) -> str:  # type: ignore[override]
        """As XAPI names it."""
        return f"{self.of.name} set"

    def read(self, value: Any, where: str) -> list[Any]:
        """Each of them."""
        if not isinstance(value, list | tuple):
            raise wrong_type(where)
        return [self.of.read(item, where) for item in value]

    def write(self, value: Any) -> list[Any]:
        """Each of them."""
        return [self.of.write(item) for item in value]


@dataclass(frozen=True)
class Map(Type):
    """Values by keys."""

    key: Type
    value: Type

    @property
    def name(self) -> str:  # type: ignore[override]
        """As XAPI names it."""
        return f"({self.key.name} -> {self.value.name}) map"

    def read(self, value: Any, where: str) -> dict[Any, Any]:
        """Both of each."""
        if not isinstance(value, Mapping):
            raise wrong_type(where)
        return {self.key.read(key, where): self.value.read(item, where) for key, item in value.items()}

    def write(self, value: Any) -> dict[str, Any]:
        """Both of each; keys are text on the wire."""
        return {str(self.key.write(key)): self.value.write(item) for key, item in value.items()}


@dataclass(frozen=True)
class Record(Type):
    """All fields of an object: checked by who knows the class."""

    kind: str

    @property
    def name(self) -> str:  # type: ignore[override]
        """As XAPI names it."""
        return f"{self.kind} record"

    def read(self, value: Any, where: str) -> dict[str, Any]:
        """A struct."""
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise wrong_type(where)
        return dict(value)

    def write(self, value: Any) -> Any:
        """Written already, field by field."""
        return value


STRINGS = Set(STRING)
STRING_MAP = Map(STRING, STRING)
