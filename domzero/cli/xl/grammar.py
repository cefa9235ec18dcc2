# SPDX-License-Identifier: Apache-2.0
"""How xl reads a command line: GNU getopt, whose refusals and help are xl's own (xl(1) of Xen 4.17)."""

from __future__ import annotations

import argparse
import getopt
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from domzero.cli.api_client import Dom0


class XlStatus(IntEnum):
    """What xl ends with."""

    OK = 0
    FAILED = 1
    USAGE = 2
    """An option that is none, or too few words."""
    NOT_MADE = 3
    """`create`: no configuration could be read, or no domain be made of it (-ERROR_FAIL)."""
    NO_FILE = 6
    """`create`: no configuration was given (-ERROR_INVAL)."""


class XlError(Exception):
    """What xl says on stderr, and ends with.

    :param help_of: a verb whose help follows on stdout.
    """

    def __init__(self, message: str, status: XlStatus = XlStatus.FAILED, help_of: Verb | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.help_of = help_of


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a verb.

    :param letter: its short form; empty if it has none.
    :param long: its long form; empty if it has none.
    :param value: name of its value; empty if it has none.
    """

    letter: str
    long: str
    text: str
    value: str = ""

    @property
    def key(self) -> str:
        """What it is known by: its letter, or its long form without one."""
        return self.letter or self.long

    @property
    def flags(self) -> tuple[str, ...]:
        """As they are written."""
        return tuple(flag for flag in (self.letter and f"-{self.letter}", self.long and f"--{self.long}") if flag != "")

    @property
    def line(self) -> str:
        """Its line of the verb's help."""
        forms = []
        if self.letter:
            forms.append(f"-{self.letter}" + (f" {self.value}" if self.value else ""))
        if self.long:
            forms.append(f"--{self.long}" + (f"={self.value}" if self.value else ""))
        return f"{', '.join(forms):<23} {self.text}"


@dataclass(slots=True)
class Given:
    """What a command line says to a verb.

    :param options: value of each option, in order, by `Option.key`; "" for one without.
    """

    verb: Verb
    words: list[str]
    options: dict[str, list[str]] = field(default_factory=dict)
    dry: bool = False

    def has(self, key: str) -> bool:
        """Whether the option is there."""
        return key in self.options

    def count(self, key: str) -> int:
        """How often it is."""
        return len(self.options.get(key, ()))

    def last(self, key: str) -> str | None:
        """Its last value."""
        return self.options[key][-1] if key in self.options else None

    def wrong(self, message: str, status: XlStatus = XlStatus.FAILED) -> XlError:
        """The error that xl shows with the verb's help."""
        return XlError(f"{message}\n", status, self.verb)


@dataclass(frozen=True, slots=True)
class Verb:
    """A verb of xl's.

    :param words: what follows it, as its usage shows it.
    :param text: what it does.
    :param handler: does it; None for one that has no meaning here.
    :param least: words that it needs.
    :param dry: it knows -N.
    :param changes: it changes something, and knows -f.
    :param refused: why it is not there.
    """

    name: str
    words: str
    text: str
    handler: Callable[[Dom0, Given], int] | None = None
    least: int = 0
    options: tuple[Option, ...] = ()
    dry: bool = False
    changes: bool = False
    refused: str = ""

    @property
    def help(self) -> str:
        """What `xl help VERB` shows."""
        flags = f"-vtT{'f' if self.changes else ''}{'N' if self.dry else ''}"
        usage = f"Usage: xl [{flags}] {self.name} {self.words}".rstrip() + f"\n\n{self.text}.\n"
        if self.refused:
            usage += f"\nIt is refused here: {self.refused}.\n"
        if self.options:
            usage += "\nOptions:\n\n" + "".join(f"{option.line}\n" for option in self.options)
        return usage

    def add_to(self, subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
        """Describes it to argparse, for completion and the manual page."""
        parser = subparsers.add_parser(self.name, help=self.text, description=f"{self.text}.")
        for option in self.options:
            kind = {"metavar": option.value} if option.value else {"action": "store_true"}
            parser.add_argument(*option.flags, dest=f"option_{option.key}", help=option.text, **kind)  # type: ignore[arg-type]
        if "Domain" in self.words:
            parser.add_argument("domains", metavar=self.words, nargs="*")
        elif self.words:
            parser.add_argument("words", metavar=self.words, nargs="*")

    def parse(self, words: Sequence[str], *, dry: bool = False) -> Given | None:
        """Reads what follows the verb; None when help is asked for. XlError."""
        letters = "h" + "".join(f"{each.letter}{':' if each.value else ''}" for each in self.options if each.letter)
        longs = ["help"] + [f"{each.long}{'=' if each.value else ''}" for each in self.options if each.long]
        try:
            found, rest = getopt.gnu_getopt(list(words), letters, longs)
        except getopt.GetoptError as error:
            raise XlError(f"option `{error.opt}' not supported.", XlStatus.USAGE) from None
        known = {flag: each.key for each in self.options for flag in each.flags}
        given = Given(self, rest, dry=dry)
        for flag, value in found:
            if flag in ("-h", "--help"):
                return None
            given.options.setdefault(known[flag], []).append(value)
        if len(rest) < self.least:
            plural = "s" if self.least > 1 else ""
            raise given.wrong(f"'xl {self.name}' requires at least {self.least} argument{plural}.", XlStatus.USAGE)
        return given
