# SPDX-License-Identifier: Apache-2.0
"""How the structures of Xen's headers are declared: once, for 64-bit and 32-bit guests.

A structure is a class whose annotations are its fields::

    @wire
    class sched_poll(Wire):
        ports: ulong
        nr_ports: u32
        timeout: u64

``sched_poll`` has the layout a 64-bit guest uses, ``sched_poll.compat`` the one of a 32-bit guest (``unsigned long``,
``xen_pfn_t`` and guest handles are 4 bytes, and nothing is aligned to more than 4). ``layout_for`` picks one.
"""

from collections.abc import Callable
from ctypes import (
    Structure,
    Union,
    c_char,
    c_int8,
    c_int16,
    c_int32,
    c_int64,
    c_uint8,
    c_uint16,
    c_uint32,
    c_uint64,
    sizeof,
)
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, TypeVar, get_args, get_origin, get_type_hints, overload


class _ULong:
    """Marker for `unsigned long` and everything as wide: 8 bytes, or 4 in the 32-bit layout."""


@dataclass(frozen=True)
class array:
    """Marker for a C array of `count` elements of a scalar alias or a Wire class."""

    element: Any
    count: int


u8 = Annotated[int, c_uint8]
u16 = Annotated[int, c_uint16]
u32 = Annotated[int, c_uint32]
u64 = Annotated[int, c_uint64]
s8 = Annotated[int, c_int8]
s16 = Annotated[int, c_int16]
s32 = Annotated[int, c_int32]
s64 = Annotated[int, c_int64]
ulong = Annotated[int, _ULong]
xen_pfn_t = Annotated[int, _ULong]
handle = Annotated[int, _ULong]
"""XEN_GUEST_HANDLE: a guest virtual address."""
domid_t = Annotated[int, c_uint16]


@dataclass(frozen=True)
class chars:
    """Marker for `char name[count]`, read and written as bytes."""

    count: int


class Wire(Structure):
    """A structure of the ABI. Copy one in with `from_buffer_copy`, out with `bytes(...)`."""

    compat: ClassVar[Any]


class WireUnion(Union):
    """A union of the ABI."""

    compat: ClassVar[Any]


T = TypeVar("T", bound="Wire | WireUnion")


def _resolve(hint: Any, wide: bool) -> Any:
    if get_origin(hint) is Annotated:
        marker = get_args(hint)[1]
        if marker is _ULong:
            return c_uint64 if wide else c_uint32
        if isinstance(marker, array):
            return _resolve(marker.element, wide) * marker.count
        if isinstance(marker, chars):
            return c_char * marker.count
        return marker
    if isinstance(hint, type) and issubclass(hint, Wire | WireUnion):
        return hint if wide else hint.compat
    raise TypeError(f"not a wire type: {hint!r}")


def _own_hints(cls: type) -> dict[str, Any]:
    hints = get_type_hints(cls, include_extras=True)
    return {name: hint for name, hint in hints.items() if get_origin(hint) is not ClassVar}


@overload
def wire(cls: type[T], /) -> type[T]: ...
@overload
def wire(*, compat: Any) -> Callable[[type[T]], type[T]]: ...
def wire(cls: type[T] | None = None, /, *, compat: Any = None) -> Any:
    """Lays out a Wire class from its annotations, and its 32-bit twin.

    :param compat: the class with the 32-bit fields, where these are not the same fields with narrower types.
    """

    def apply(target: type[T]) -> type[T]:
        base: Any = WireUnion if issubclass(target, WireUnion) else Wire
        target._fields_ = [(name, _resolve(hint, True)) for name, hint in _own_hints(target).items()]
        source = compat or target
        twin = type(base)(f"{target.__name__}_compat", (base,), {"_pack_": 4})
        twin._fields_ = [(name, _resolve(hint, False)) for name, hint in _own_hints(source).items()]
        target.compat = twin
        return target

    return apply if cls is None else apply(cls)


def layout_for(cls: type[T], is_32bit: bool) -> type[T]:
    """The layout of `cls` that a guest of this width uses. Field names are the same where the headers' are."""
    narrow: type[T] = cls.compat
    return narrow if is_32bit else cls


def offset_of(cls: type[Wire] | type[WireUnion], *path: str) -> int:
    """`offsetof(cls, a.b)` of a laid-out class."""
    offset = 0
    at: Any = cls
    for name in path:
        offset += getattr(at, name).offset
        at = dict((field[0], field[1]) for field in at._fields_)[name]
    return offset


__all__ = [
    "Annotated",
    "Wire",
    "WireUnion",
    "array",
    "chars",
    "domid_t",
    "handle",
    "layout_for",
    "offset_of",
    "s8",
    "s16",
    "s32",
    "s64",
    "sizeof",
    "u8",
    "u16",
    "u32",
    "u64",
    "ulong",
    "wire",
    "xen_pfn_t",
]
