# SPDX-License-Identifier: Apache-2.0
"""`domzero completion`: verbs, options and names of domains at the Tab key, by argcomplete."""

from __future__ import annotations

import argparse
import sys

from domzero.cli.status import ExitStatus
from domzero.errors import DomzeroError

SHELLS = ("bash", "zsh", "fish")
_MISSING = "argcomplete is not here"
_HINT = "pip install 'domzero[completion]'"


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb."""
    parser = subparsers.add_parser(
        "completion",
        help="print the completion script of a shell",
        description="Prints what makes a shell complete domzero's words. For bash, in ~/.bashrc: "
        'eval "$(domzero completion bash)"',
    )
    parser.add_argument("shell", choices=SHELLS)
    parser.add_argument(
        "--xl", action="store_true", help="also for the script that `domzero xl --install-alias` writes"
    )
    parser.set_defaults(handler=handle)


def handle(args: argparse.Namespace) -> int:
    """Prints the script."""
    try:
        from argcomplete.shell_integration import shellcode  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        raise DomzeroError(_MISSING, hint=_HINT) from None
    print(shellcode(["domzero", "xl"] if args.xl else ["domzero"], shell=args.shell))
    return ExitStatus.OK


def answer(parser: argparse.ArgumentParser) -> None:
    """Answers the shell, and ends."""
    try:
        import argcomplete  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        sys.exit(ExitStatus.FAILED)
    for each in _all_parsers(parser):
        for action in each._actions:
            if action.dest in ("domain", "domains"):
                setattr(action, "completer", _names)  # noqa: B010 - argcomplete's own protocol
    argcomplete.autocomplete(parser)


def _all_parsers(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    found = [parser]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                found += _all_parsers(inner)
    return found


def _names(*, parser: argparse.ArgumentParser, **_about: object) -> list[str]:
    """Names of domains: for domzero's own verbs also of those that are halted, which xl does not know."""
    from domzero.cli.api_client import Dom0

    is_xl = "xl" in parser.prog.split()
    try:
        with Dom0() as dom0:
            return [str(domain["name"]) for domain in dom0.get("/domains", halted=not is_xl)]
    except DomzeroError:
        return []
