# SPDX-License-Identifier: Apache-2.0
"""What the verbs that ask Domain 0 something have in common: how they are declared, and how they answer."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

from domzero.cli.api_client import add_connection_options
from domzero.cli.status import ExitStatus
from domzero.errors import DomzeroError

Subparsers = argparse._SubParsersAction


def add_verb(
    subparsers: Subparsers[argparse.ArgumentParser],
    verb: str,
    handler: Callable[[argparse.Namespace], int],
    text: str,
    description: str | None = None,
) -> argparse.ArgumentParser:
    """Declares a verb.

    :param text: what it does, in a few words for the list of all verbs.
    :param description: the same in a sentence or two, if there is more to say.
    """
    parser = subparsers.add_parser(verb, help=text, description=description or text[0].upper() + text[1:] + ".")
    add_connection_options(parser)
    parser.set_defaults(handler=handler)
    return parser


def each_of(domains: list[dict[str, Any]], do: Callable[[str], object]) -> list[Any]:
    """Does something to each domain, by uuid. What fails for one is told after the others."""
    done, failed = [], []
    for domain in domains:
        try:
            done.append(do(domain["uuid"]))
        except DomzeroError as error:
            failed.append(error)
    for other in failed[:-1]:
        print(f"domzero: {other}", file=sys.stderr)
    if failed:
        raise failed[-1]
    return done


def add_domain(parser: argparse.ArgumentParser) -> None:
    """Its argument is one domain."""
    parser.add_argument("domain", metavar="DOMAIN", help="name, domid or uuid")


def add_domains(parser: argparse.ArgumentParser, *, can_be_none: bool) -> None:
    """Its arguments are domains, all if none is given and that is possible."""
    what = "name, domid or uuid" + ("; all if none is given" if can_be_none else "")
    parser.add_argument("domains", metavar="DOMAIN", nargs="*" if can_be_none else "+", help=what)


def answer(args: argparse.Namespace, value: object, text: str | None = None) -> int:
    """Prints the value, if JSON was asked for, or the text."""
    if args.json:
        print(json.dumps(value, indent=2))
    elif text is not None:
        print(text)
    return ExitStatus.OK
