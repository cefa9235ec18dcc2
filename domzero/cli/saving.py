# SPDX-License-Identifier: Apache-2.0
"""`suspend` and `resume`, `save` and `restore`."""

from __future__ import annotations

import argparse
import os
from functools import partial

from domzero.cli.api_client import Dom0, Json, domain_path
from domzero.cli.verb import add_domain, add_domains, add_verb, answer, each_of
from domzero.dom0.names import shown


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds all of them."""
    add = partial(add_verb, subparsers)

    parser = add(
        "suspend",
        suspend,
        "suspend defined domains: Domain 0 keeps their state",
        "Suspend defined domains. Domain 0 keeps their state, also over its own restart, until they are resumed.",
    )
    add_domains(parser, can_be_none=False)

    parser = add("resume", resume, "go on with suspended domains")
    add_domains(parser, can_be_none=False)
    parser.add_argument("-p", "--paused", action="store_true", help="leave them paused")

    parser = add(
        "save",
        save,
        "save a domain to a file; it ends",
        "Save a domain's state to a file. It ends then, unless -c or -p is given.",
    )
    parser.add_argument("-c", "--leave-running", action="store_true", help="it goes on afterwards: a checkpoint")
    parser.add_argument("-p", "--leave-paused", action="store_true", help="it is there afterwards, paused")
    add_domain(parser)
    parser.add_argument("file", metavar="FILE", help="what is there is replaced when the state is whole")

    parser = add("restore", restore, "make a domain of a file that one was saved to; it goes on from there")
    parser.add_argument("-p", "--paused", action="store_true", help="leave it paused")
    parser.add_argument("-c", "--console", action="store_true", help="attach to its console")
    parser.add_argument("--name", metavar="NAME", help="other than the saved one's; it gets a uuid of its own")
    parser.add_argument("--define", action="store_true", help="define it, too")
    parser.add_argument("file", metavar="FILE")


def wait_for(dom0: Dom0, key: str, action: str, *, what: str | None = None, **query: bool) -> Json:
    """A POST about a domain that may become a task, which is waited for: the domain afterwards."""
    done, found = dom0.long(f"{domain_path(key)}/{action}", {}, what, **query)
    return found if done else dom0.domain(key)


def suspend(args: argparse.Namespace) -> int:
    """`suspend`."""
    with Dom0.from_args(args) as dom0:
        domains = [dom0.domain(key) for key in args.domains]
        return answer(args, each_of(domains, lambda key: wait_for(dom0, key, "suspend")), None)


def resume(args: argparse.Namespace) -> int:
    """`resume`."""
    with Dom0.from_args(args) as dom0:
        domains = [dom0.domain(key) for key in args.domains]
        done = each_of(domains, lambda key: wait_for(dom0, key, "resume", paused=args.paused))
        return answer(args, done, None)


def save_domain(dom0: Dom0, key: str, path: str, **options: object) -> Json:
    """Saves a domain, and waits: path and size of the file."""
    path = os.path.abspath(path)
    done, found = dom0.long(f"{domain_path(key)}/save", {"path": path, **options}, None)
    return found if done else {"path": path}


def restore_domain(dom0: Dom0, path: str, **options: object) -> Json:
    """Makes a domain of a file, and waits: the domain."""
    done, found = dom0.long("/restore", {"path": os.path.abspath(path), **options}, None)
    return found if done else dom0.domain(str(found["domain"]))


def save(args: argparse.Namespace) -> int:
    """`save`."""
    with Dom0.from_args(args) as dom0:
        found = save_domain(
            dom0, args.domain, args.file, leave_running=args.leave_running, leave_paused=args.leave_paused
        )
    return answer(args, found, None)


def restore(args: argparse.Namespace) -> int:
    """`restore`."""
    options = {} if args.name is None else {"name": args.name}
    with Dom0.from_args(args) as dom0:
        domain = restore_domain(dom0, args.file, paused=args.paused, persistent=args.define, **options)
        if args.console:
            from domzero.cli.attach import attach

            return attach(dom0, domain["uuid"])
    return answer(args, domain, f"domain {domain['domid']}: {shown(domain['name'])}")
