# SPDX-License-Identifier: Apache-2.0
"""`domzero start`, `reset`, `undefine`, `set`: domains that are defined, whether they run or not."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from typing import Any

from domzero.cli.api_client import Dom0, domain_path
from domzero.cli.verb import add_domain, add_domains, add_verb, answer, each_of
from domzero.errors import ConfigError

DESCRIPTION = """\
A domain that `create --persistent` or `create --define` makes is defined: it is halted after its end, is started again
by `start`, and is there after a restart of Domain 0. `list --all` shows halted domains, too.
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verbs."""
    add = partial(add_verb, subparsers)
    parser = add("start", start, "start halted domains", DESCRIPTION)
    add_domains(parser, can_be_none=False)
    parser.add_argument("-p", "--paused", action="store_true", help="leave them paused")
    add_domains(add("reset", reset, "end a defined domain at once and start it again"), can_be_none=False)
    add_domains(
        add("undefine", undefine, "forget the definitions of domains; those that run go on until their end"),
        can_be_none=False,
    )
    parser = add("set", change, "change what Domain 0 keeps of a defined domain")
    add_domain(parser)
    parser.add_argument("--description", metavar="TEXT", help="for people")
    parser.add_argument(
        "--label",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="for programs: sets one label; KEY= without a value removes it",
    )
    parser.add_argument("--autostart", choices=("on", "off"), help="start it with Domain 0")
    parser.add_argument("--template", choices=("on", "off"), help="it is there to be cloned, and is not started")


def _each(args: argparse.Namespace, method: str, what: str, **query: bool) -> int:
    with Dom0.from_args(args) as dom0:
        domains = [dom0.domain(key) for key in args.domains]  # all must exist
        known = {domain["uuid"]: domain for domain in domains}

        def do(key: str) -> Any:
            path = f"{domain_path(key)}/{what}"
            if method != "POST":
                dom0.request(method, path)
                return known[key]
            dom0.long(path, {}, f"{args.verb} {known[key]['name']}…", **query)
            domain = dom0.domain(key)
            if not args.json:
                print(f"domain {domain['name']} is domain {domain['domid']}", file=sys.stderr)
            return domain

        return answer(args, each_of(domains, do))


def start(args: argparse.Namespace) -> int:
    """`start`."""
    return _each(args, "POST", "start", paused=args.paused)


def reset(args: argparse.Namespace) -> int:
    """`reset`."""
    return _each(args, "POST", "reset")


def undefine(args: argparse.Namespace) -> int:
    """`undefine`."""
    return _each(args, "DELETE", "definition")


def change(args: argparse.Namespace) -> int:
    """`set`."""
    with Dom0.from_args(args) as dom0:
        changes: dict[str, Any] = {}
        if args.description is not None:
            changes["description"] = args.description
        for key in ("autostart", "template"):
            if (value := getattr(args, key)) is not None:
                changes[key] = value == "on"
        if args.label:
            labels = dict(dom0.domain(args.domain)["labels"])
            for word in args.label:
                key, equals, value = word.partition("=")
                if not key or not equals:
                    raise ConfigError(f"expected KEY=VALUE, found {word!r}", key="label")
                labels.pop(key, None)
                if value:
                    labels[key] = value
            changes["labels"] = labels
        if not changes:
            raise ConfigError("nothing to change: give --description, --label, --autostart or --template", key="set")
        return answer(args, dom0.patch(args.domain, **changes))
