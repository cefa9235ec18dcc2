# SPDX-License-Identifier: Apache-2.0
"""`domzero help`: of all or of a verb, as text or as a manual page."""

from __future__ import annotations

import argparse

from domzero.cli.main import VERBS, build_parser, check_verb, verb_parsers
from domzero.cli.man import page, write_pages
from domzero.cli.status import ExitStatus


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `help`."""
    parser = subparsers.add_parser("help", help=VERBS["help"][1], description="Shows the help of all, or of a verb.")
    parser.add_argument("about", nargs="?", metavar="VERB")
    parser.add_argument("--man", action="store_true", help="as a manual page: `domzero help --man list | man -l -`")
    parser.add_argument("--man-pages", metavar="DIR", help="write the manual pages of all verbs into DIR/man1")
    parser.set_defaults(handler=_help)


def _help(args: argparse.Namespace) -> int:
    if args.man_pages is not None:
        return write_pages(args.man_pages)
    if args.man:
        if args.about is not None:
            check_verb(args.about)
        print(page(args.about), end="")
        return ExitStatus.OK
    if args.about is None:
        build_parser(None).print_help()
        return ExitStatus.OK
    check_verb(args.about)
    verb_parsers(build_parser(args.about))[args.about].print_help()
    return ExitStatus.OK
