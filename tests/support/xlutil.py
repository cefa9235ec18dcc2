# SPDX-License-Identifier: Apache-2.0
"""Xen's own parser of xl.cfg files, libxlutil, through ctypes: the oracle of our parser."""

from __future__ import annotations

import ctypes
import errno
import tempfile
from ctypes import POINTER, byref, c_char_p, c_int, c_long, c_void_p
from pathlib import Path
from typing import Any

Value = Any
"""A string, or a list of values."""


def library() -> ctypes.CDLL | None:
    """libxlutil (Debian's libxenmisc, which libxen-dev depends on), or None."""
    for path in sorted(Path("/usr/lib").glob("*-linux-gnu/libxlutil.so.*"), reverse=True):
        try:
            lib = ctypes.CDLL(str(path))
        except OSError:
            continue
        lib.xlu_cfg_init.restype = c_void_p
        lib.xlu_cfg_init.argtypes = [c_void_p, c_char_p]
        lib.xlu_cfg_readdata.argtypes = [c_void_p, c_char_p, c_int]
        lib.xlu_cfg_get_string.argtypes = [c_void_p, c_char_p, POINTER(c_char_p), c_int]
        lib.xlu_cfg_get_long.argtypes = [c_void_p, c_char_p, POINTER(c_long), c_int]
        lib.xlu_cfg_get_list.argtypes = [c_void_p, c_char_p, POINTER(c_void_p), POINTER(c_int), c_int]
        lib.xlu_cfg_get_listitem2.argtypes = [c_void_p, c_int]
        lib.xlu_cfg_get_listitem2.restype = c_void_p
        lib.xlu_cfg_value_type.argtypes = [c_void_p]
        lib.xlu_cfg_value_get_string.argtypes = [c_void_p, c_void_p, POINTER(c_char_p), c_int]
        lib.xlu_cfg_value_get_list.argtypes = [c_void_p, c_void_p, POINTER(c_void_p), c_int]
        lib.xlu_cfg_destroy.argtypes = [c_void_p]
        return lib
    return None


class XlUtil:
    """One libxlutil; its complaints go to a file that is thrown away."""

    def __init__(self, lib: ctypes.CDLL) -> None:
        self._lib = lib
        libc = ctypes.CDLL(None)
        libc.fdopen.restype = c_void_p
        self._sink = tempfile.TemporaryFile()  # noqa: SIM115 - as long as this object
        self._file = libc.fdopen(self._sink.fileno(), b"w")

    def read(self, text: str, keys: list[str]) -> dict[str, tuple[Value, int | None]] | None:
        """Each key's value, and the number that it is as `xlu_cfg_get_long` reads it; None for a syntax error."""
        data = text.encode()
        config = self._lib.xlu_cfg_init(self._file, b"oracle")
        try:
            if self._lib.xlu_cfg_readdata(config, data, len(data)) != 0:
                return None
            return {key: found for key in keys if (found := self._get(config, key.encode())) is not None}
        finally:
            self._lib.xlu_cfg_destroy(config)

    def _get(self, config: int, key: bytes) -> tuple[Value, int | None] | None:
        string, number, items, count = c_char_p(), c_long(), c_void_p(), c_int()
        status = self._lib.xlu_cfg_get_string(config, key, byref(string), 1)
        if status == errno.ESRCH:
            return None
        if status == 0:
            is_number = self._lib.xlu_cfg_get_long(config, key, byref(number), 1) == 0
            return (string.value or b"").decode(), number.value if is_number else None
        assert self._lib.xlu_cfg_get_list(config, key, byref(items), byref(count), 1) == 0
        return self._items(config, items), None

    def _items(self, config: int, items: c_void_p) -> list[Value]:
        found: list[Value] = []
        while item := self._lib.xlu_cfg_get_listitem2(items, len(found)):
            if self._lib.xlu_cfg_value_type(item) == 0:
                string = c_char_p()
                self._lib.xlu_cfg_value_get_string(config, item, byref(string), 1)
                found.append((string.value or b"").decode())
            else:
                inner = c_void_p()
                self._lib.xlu_cfg_value_get_list(config, item, byref(inner), 1)
                found.append(self._items(config, inner))
        return found
