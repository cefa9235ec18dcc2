# SPDX-License-Identifier: Apache-2.0
"""The verbs for a domain's screen."""

from __future__ import annotations

import argparse
import os
import sys

from domzero.cli.api_client import Dom0, domain_path
from domzero.cli.status import ExitStatus
from domzero.cli.verb import add_domain, add_verb, answer


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds them."""
    parser = add_verb(subparsers, "screenshot", screenshot, "write what a domain's screen shows to a PNG file")
    add_domain(parser)
    parser.add_argument("-o", "--output", metavar="FILE", default="-", help="(default: the standard output)")


def screenshot(args: argparse.Namespace) -> int:
    """`screenshot`."""
    with Dom0.from_args(args) as dom0:
        data = dom0.request("GET", f"{domain_path(args.domain)}/screenshot").content
    if args.output == "-":
        sys.stdout.buffer.write(data)
        return ExitStatus.OK
    with open(args.output, "wb") as file:
        file.write(data)
    return answer(args, {"file": os.path.abspath(args.output), "bytes": len(data)}, None)
