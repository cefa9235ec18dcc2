# SPDX-License-Identifier: Apache-2.0
"""Reads the text of Linux's console from pixels: the shapes of letters are learned from what the guest is told to
print."""

from __future__ import annotations

from collections.abc import Callable

from guest_shell import GuestShell
from waiting import until

CELL_WIDTH, CELL_HEIGHT = 8, 16
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.:,[]()/-_=#%+'"
Picture = Callable[[], tuple[int, int, bytes]]


class Screen:
    """A guest's console, in cells of 8 by 16 pixels."""

    def __init__(self, picture: Picture) -> None:
        self._picture = picture
        self.letters: dict[bytes, str] = {bytes(CELL_WIDTH * CELL_HEIGHT): " "}

    def _cells(self) -> list[list[bytes]]:
        width, height, pixels = self._picture()
        lit = bytes(any(pixels[at : at + 3]) for at in range(0, len(pixels), 4))
        return [
            [
                b"".join(lit[y * width + x :][:CELL_WIDTH] for y in range(top, top + CELL_HEIGHT))
                for x in range(0, width - CELL_WIDTH + 1, CELL_WIDTH)
            ]
            for top in range(0, height - CELL_HEIGHT + 1, CELL_HEIGHT)
        ]

    def learn(self, guest: GuestShell) -> None:
        """Lets the guest print all letters into the first row, and looks at them; clears the screen."""
        guest.do(f"printf '\\033[2J\\033[H%s' \"{LETTERS}\" > /dev/tty1")
        row: list[bytes] = []

        def is_there() -> bool:
            nonlocal row
            row = self._cells()[0][: len(LETTERS)]
            return len(set(row)) == len(LETTERS)

        until(is_there, 60, "all letters")
        self.letters.update(zip(row, LETTERS, strict=True))
        guest.do("printf '\\033[2J\\033[H' > /dev/tty1")

    def text(self) -> str:
        """What is on it, a line for each row without what is empty; `?` for what was not learned."""
        rows = ("".join(self.letters.get(cell, "?") for cell in row).rstrip() for row in self._cells())
        return "\n".join(rows).rstrip("\n")
