# SPDX-License-Identifier: Apache-2.0
"""What a lesson says: headings, paragraphs and tables, for a terminal or for a page of the guide."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

COLOURS = {
    "traps": "33",
    "#GP(0)": "33",
    "#GP(10)": "33",
    "#PF(3)": "33",
    "emulated": "36",
    "hypercall": "36",
    "SILENT": "1;31",
    "LEAKS": "35",
    "-EINVAL": "31",
    "-EBUSY": "31",
    "WRONG": "1;31",
    "ok": "32",
}
"""Words that stand out on a terminal."""
WIDTH_MIN, WIDTH_MAX = 60, 100


@dataclass(frozen=True, slots=True)
class Heading:
    """A line over what follows; level 1 is the lesson."""

    text: str
    level: int = 2


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Text that is wrapped."""

    text: str


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells; the last column is wrapped, the others are as wide as they need."""

    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines as they are."""

    lines: list[str]


Block = Heading | Paragraph | Table | Lines


@dataclass(slots=True)
class Document:
    """A lesson's blocks, in order, and the same for programs."""

    blocks: list[Block] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)

    def heading(self, text: str, level: int = 2) -> None:
        """Adds a heading."""
        self.blocks.append(Heading(text, level))

    def paragraph(self, text: str) -> None:
        """Adds a paragraph."""
        self.blocks.append(Paragraph(" ".join(text.split())))

    def table(self, header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
        """Adds a table."""
        self.blocks.append(Table(header, rows))

    def lines(self, *lines: str) -> None:
        """Adds lines as they are."""
        self.blocks.append(Lines(list(lines)))

    def text(self, width: int = 92, *, colour: bool = False) -> str:
        """For a terminal."""
        width = min(max(width, WIDTH_MIN), WIDTH_MAX)
        parts = []
        for block in self.blocks:
            match block:
                case Heading(text, level):
                    line = text.upper() if level == 1 else text
                    parts.append(f"\x1b[1m{line}\x1b[0m" if colour else line)
                case Paragraph(text):
                    parts.append(textwrap.fill(text, width))
                case Table():
                    parts.append("\n".join(table_lines(block, width, colour=colour)))
                case Lines(lines):
                    parts.append("\n".join(lines))
        return "\n\n".join(parts) + "\n"

    def markdown(self, width: int = 96) -> str:
        """For a page: tables as they look on a terminal."""
        parts = []
        for block in self.blocks:
            match block:
                case Heading(text, level):
                    parts.append(f"{'#' * (level + 1)} {text}")
                case Paragraph(text):
                    parts.append(textwrap.fill(text, 120))
                case Table():
                    parts.append("\n".join(["```text", *table_lines(block, width), "```"]))
                case Lines(lines):
                    parts.append("\n".join(["```text", *lines, "```"]))
        return "\n\n".join(parts) + "\n"


def table_lines(table: Table, width: int, *, colour: bool = False) -> list[str]:
    """The lines of a table."""
    count = len(table.header)
    cells = [table.header, *table.rows]
    widths = [max(len(row[n]) for row in cells) for n in range(count)]
    left = width - sum(widths[:-1]) - 2 * (count - 1)
    widths[-1] = min(widths[-1], max(left, 16))
    lines = []
    for number, row in enumerate(cells):
        last = textwrap.wrap(row[-1], widths[-1]) or [""]
        for part, text in enumerate(last):
            head = row[:-1] if part == 0 else ("",) * (count - 1)
            padded = [cell.ljust(widths[n]) for n, cell in enumerate(head)]
            if colour and number:
                padded = [_coloured(cell) for cell in padded]
                text = _coloured(text)
            lines.append("  ".join([*padded, text]).rstrip())
        if number == 0:
            lines.append("  ".join("-" * w for w in widths))
    return lines


def _coloured(cell: str) -> str:
    word = cell.split(" ", 1)[0]
    code = COLOURS.get(word)
    return cell if code is None else f"\x1b[{code}m{word}\x1b[0m{cell[len(word) :]}"
