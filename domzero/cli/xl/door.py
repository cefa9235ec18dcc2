# SPDX-License-Identifier: Apache-2.0
"""`domzero xl …`: from a command line to a verb, and from an error to xl's text and exit status."""

from __future__ import annotations

import argparse
import getopt
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from domzero.cli.api_client import Dom0
from domzero.cli.xl.grammar import Verb, XlError, XlStatus
from domzero.cli.xl.verbs import VERBS
from domzero.dom0.names import shown
from domzero.errors import ConfigErrors, DomzeroError

DESCRIPTION = """xl's verbs, options, texts and exit statuses, for people and scripts that have them already.
Domain 0 is found as by domzero's other verbs: DOMZERO_SOCKET, DOMZERO_URL."""
HELP = f"""usage: domzero xl [-vftTN] [--socket PATH | --url URL] [--token-file PATH] VERB …
       domzero xl --install-alias DIR

{DESCRIPTION} -N only shows what would be done, where xl has it; -v, -f, -t and
-T are taken, and do nothing. `domzero xl help` lists the verbs, `domzero xl help VERB` shows one's options.

--install-alias DIR writes DIR/xl, a script that is this command: `xl list` then is `domzero xl list`. DIR should be
in PATH before a real xl.
"""
_MARK = "# made by `domzero xl --install-alias`"


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb, for help and completion; `run` reads its words."""
    _describe(subparsers.add_parser("xl", help="xl's own grammar and texts", description=DESCRIPTION))


def xl_parser() -> argparse.ArgumentParser:
    """xl's grammar as argparse knows it, for completion and the manual page."""
    parser = argparse.ArgumentParser("xl", description=DESCRIPTION)
    _describe(parser)
    return parser


def _describe(parser: argparse.ArgumentParser) -> None:
    parser.print_help = lambda file=None: print(HELP, end="", file=file)  # type: ignore[method-assign]
    for letter, text in (("v", "nothing"), ("f", "nothing"), ("t", "nothing"), ("T", "nothing")):
        parser.add_argument(f"-{letter}", action="store_true", help=f"{text}: for scripts that have it")
    parser.add_argument("-N", action="store_true", help="only show what would be done, where xl has it")
    parser.add_argument("--install-alias", metavar="DIR", help="write DIR/xl, a script that is `domzero xl`")
    for name, value in (("--socket", "PATH"), ("--url", "URL"), ("--token-file", "PATH")):
        parser.add_argument(name, metavar=value, help="as of domzero's other verbs")
    subparsers = parser.add_subparsers(dest="xl_verb", metavar="VERB")
    for verb in VERBS.values():
        if not verb.refused:
            verb.add_to(subparsers)


def run(arguments: Sequence[str]) -> int:
    """All of `domzero xl`; returns the exit status."""
    try:
        return _run(arguments)
    except XlError as error:
        if error.message:
            print(shown_lines(error.message), file=sys.stderr)
        if error.help_of is not None:
            sys.stderr.flush()
            print(error.help_of.help)
        return error.status
    except DomzeroError as error:
        for one in error.errors if isinstance(error, ConfigErrors) else (error,):
            print(f"xl: error: {shown(str(one))}", file=sys.stderr)
        return XlStatus.FAILED


def shown_lines(message: str) -> str:
    """A message for a terminal, line by line."""
    return "\n".join(map(shown, message.split("\n")))


def _run(arguments: Sequence[str]) -> int:
    try:
        options, rest = getopt.getopt(
            list(arguments), "vftTN", ["help", "install-alias=", "socket=", "url=", "token-file="]
        )
    except getopt.GetoptError:
        raise XlError("unknown global option") from None
    given = dict(options)
    if "--help" in given:
        print(HELP, end="")
        return XlStatus.OK
    if "--install-alias" in given:
        return install_alias(Path(given["--install-alias"]))
    if not rest:
        print(verb_list())
        return XlStatus.FAILED
    word, *words = rest
    if word == "help":
        return _help(words)
    verb = find_verb(word)
    dry = "-N" in given
    if dry and not verb.dry and not verb.refused:
        raise XlError("command does not implement -N (dryrun) option")
    parsed = verb.parse(words, dry=dry) if not verb.refused else None
    if verb.refused and not {"-h", "--help"} & set(words):
        raise XlError(f"xl: {verb.name} is refused: {verb.refused}")
    if parsed is None:
        print(verb.help)
        return XlStatus.OK
    assert verb.handler is not None
    with Dom0(path=given.get("--socket"), url=given.get("--url"), token_file=given.get("--token-file")) as dom0:
        return verb.handler(dom0, parsed)


def find_verb(word: str) -> Verb:
    """The verb of this name, or the one whose name begins so. XlError."""
    if word in VERBS:
        return VERBS[word]
    found = [verb for name, verb in VERBS.items() if word and name.startswith(word)]
    if len(found) != 1:
        raise XlError("command not implemented")
    return found[0]


def verb_list() -> str:
    """What `xl help` shows."""
    lines = ["Usage xl [-vfNtT] <subcommand> [args]", "", "xl full list of subcommands:", ""]
    lines += [f" {verb.name:<19} {verb.text}" for verb in VERBS.values() if not verb.refused]
    lines += ["", "Refused by name, with the reason:", ""]
    lines += [f" {verb.name:<19} {verb.refused}" for verb in VERBS.values() if verb.refused]
    return "\n".join(lines)


def _help(words: Sequence[str]) -> int:
    words = [word for word in words if not word.startswith("-")]
    print(find_verb(words[0]).help if words else verb_list())
    return XlStatus.OK


def install_alias(directory: Path) -> int:
    """Writes the script `xl`. What is there already is replaced if it is such a script. XlError."""
    path = directory / "xl"
    if path.exists() and _MARK not in path.read_text(errors="replace"):
        raise XlError(f"xl: error: {path} is there, and not ours")
    if not directory.is_dir():
        raise XlError(f"xl: error: {directory}: no such directory")
    new = path.with_name(f".xl-{os.getpid()}")
    new.write_text(f'#!/bin/sh\n{_MARK}\nexec {shlex.quote(sys.executable)} -m domzero xl "$@"\n')
    new.chmod(0o755)
    new.replace(path)
    print(f"{path} is `domzero xl`")
    return XlStatus.OK
