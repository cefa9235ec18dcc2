# SPDX-License-Identifier: Apache-2.0
"""Linux' numbers of keys (linux/input-event-codes.h), from what viewers send: positions, or X's symbols.

Positions are the numbers of the XT keyboard, as QEMU's extension of RFB has them. A symbol is taken for the key
that has it on a keyboard of the United States.
"""

from __future__ import annotations

BTN_LEFT, BTN_RIGHT, BTN_MIDDLE = 0x110, 0x111, 0x112

_EXTENDED = {
    0x1C: 96, 0x1D: 97, 0x20: 113, 0x21: 140, 0x22: 164, 0x24: 166, 0x2E: 114, 0x30: 115, 0x32: 172, 0x35: 98,
    0x37: 99, 0x38: 100, 0x46: 119, 0x47: 102, 0x48: 103, 0x49: 104, 0x4B: 105, 0x4D: 106, 0x4F: 107, 0x50: 108,
    0x51: 109, 0x52: 110, 0x53: 111, 0x5B: 125, 0x5C: 126, 0x5D: 127, 0x5E: 116, 0x5F: 142,
}  # fmt: skip
"""Behind 0xE0."""
_PLAIN = {
    **{code: code for code in range(1, 0x54)}, 0x54: 99, 0x56: 86, 0x57: 87, 0x58: 88, 0x59: 117,
    0x70: 93, 0x73: 89, 0x79: 92, 0x7B: 94, 0x7D: 124, 0x7E: 121,
}  # fmt: skip

_ROWS = (
    (2, "1234567890-=", "!@#$%^&*()_+"),
    (16, "qwertyuiop[]", "QWERTYUIOP{}"),
    (30, "asdfghjkl;'`", 'ASDFGHJKL:"~'),
    (43, "\\zxcvbnm,./", "|ZXCVBNM<>?"),
    (57, " ", " "),
)
"""The first key's number, and what a row has without and with Shift."""
_SYMBOLS = {ord(letter): first + place for first, *rows in _ROWS for row in rows for place, letter in enumerate(row)}
_SYMBOLS |= {
    0xFF08: 14, 0xFF09: 15, 0xFE20: 15, 0xFF0D: 28, 0xFF1B: 1, 0xFFFF: 111, 0xFF13: 119, 0xFF14: 70, 0xFF15: 99,
    0xFF61: 99, 0xFF6B: 119, 0xFF50: 102, 0xFF51: 105, 0xFF52: 103, 0xFF53: 106, 0xFF54: 108, 0xFF55: 104,
    0xFF56: 109, 0xFF57: 107, 0xFF63: 110, 0xFF67: 127, 0xFF7F: 69,
    0xFFE1: 42, 0xFFE2: 54, 0xFFE3: 29, 0xFFE4: 97, 0xFFE5: 58, 0xFFE7: 125, 0xFFE8: 126, 0xFFE9: 56, 0xFFEA: 100,
    0xFFEB: 125, 0xFFEC: 126, 0xFE03: 100,
    0xFF8D: 96, 0xFFAA: 55, 0xFFAB: 78, 0xFFAC: 121, 0xFFAD: 74, 0xFFAE: 83, 0xFFAF: 98, 0xFFBD: 117,
    0xFF95: 71, 0xFF96: 75, 0xFF97: 72, 0xFF98: 77, 0xFF99: 80, 0xFF9A: 73, 0xFF9B: 81, 0xFF9C: 79, 0xFF9D: 76,
    0xFF9E: 82, 0xFF9F: 83,
    **{0xFFB0 + digit: code for digit, code in enumerate((82, 79, 80, 81, 75, 76, 77, 71, 72, 73))},
    **{0xFFBE + number: 59 + number for number in range(10)}, 0xFFC8: 87, 0xFFC9: 88,
}  # fmt: skip


def of_position(code: int) -> int | None:
    """The key with a number of the XT keyboard; 0x80 stands for the 0xE0 before it."""
    if code & ~0xFF:
        return None
    return _EXTENDED.get(code & 0x7F) if code & 0x80 else _PLAIN.get(code)


def of_symbol(symbol: int) -> int | None:
    """The key that has one of X's symbols."""
    return _SYMBOLS.get(symbol)
