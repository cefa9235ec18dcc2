# SPDX-License-Identifier: Apache-2.0
"""`vcpu-list`, `vcpu-set`, `vcpu-pin`, `sched-credit2`: the vCPUs of a domain that runs, as xl has them."""

from __future__ import annotations

import argparse
import json
from typing import Any

from domzero.cli.api_client import Dom0, add_connection_options, domain_path, is_domain_0
from domzero.cli.status import ExitStatus
from domzero.cli.text import cap_table, vcpu_table
from domzero.errors import ConfigError

Json = dict[str, Any]


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds all of them."""
    parser = subparsers.add_parser(
        "vcpu-list", help="list the vCPUs of domains", description="Lists the vCPUs of domains, as xl does."
    )
    parser.add_argument("domains", metavar="DOMAIN", nargs="*", help="name, domid or uuid; all if none is given")
    add_connection_options(parser)
    parser.set_defaults(handler=list_vcpus)

    parser = subparsers.add_parser(
        "vcpu-set",
        help="set how many vCPUs a domain uses",
        description="Asks the guest to use so many of its vCPUs, up to the maxvcpus that it was made with.",
    )
    parser.add_argument("domain", metavar="DOMAIN", help="name, domid or uuid")
    parser.add_argument("count", metavar="COUNT", type=int)
    add_connection_options(parser)
    parser.set_defaults(handler=set_vcpus)

    parser = subparsers.add_parser(
        "vcpu-pin",
        help="choose the processors that vCPUs run on",
        description="Lets a vCPU, or all, run on some processors of the host only, until the domain starts again.",
    )
    parser.add_argument("domain", metavar="DOMAIN", help="name, domid or uuid")
    parser.add_argument("vcpu", metavar="VCPU", help="its number, or all")
    parser.add_argument("cpus", metavar="CPUS", help="of the host: 0-3,^1 or all")
    add_connection_options(parser)
    parser.set_defaults(handler=pin)

    parser = subparsers.add_parser(
        "sched-credit2",
        help="bound the processor time of a domain",
        description="Shows or sets how much of the host's processors domains may use. All have the same weight.",
    )
    parser.add_argument("-d", "--domain", metavar="DOMAIN", help="name, domid or uuid; all if none is given")
    parser.add_argument(
        "-c", "--cap", metavar="CAP", type=int, help="percent of one processor for all its vCPUs; 0: no bound"
    )
    add_connection_options(parser)
    parser.set_defaults(handler=schedule)


def schedule(args: argparse.Namespace) -> int:
    """`sched-credit2`."""
    if args.cap is not None and args.domain is None:
        raise ConfigError("which domain? Give one with -d", key="--cap")
    with Dom0.from_args(args) as dom0:
        if args.cap is not None:
            domains = [dom0.patch(args.domain, cap=args.cap)]
        else:
            domains = [dom0.domain(args.domain)] if args.domain is not None else dom0.get("/domains")
    if args.json:
        print(json.dumps([{key: domain[key] for key in ("name", "domid", "cap")} for domain in domains], indent=2))
    elif args.cap is None:
        print(cap_table(domains))
    return ExitStatus.OK


def list_vcpus(args: argparse.Namespace) -> int:
    """`vcpu-list`."""
    with Dom0.from_args(args) as dom0:
        keys = [key for key in args.domains if not is_domain_0(key)]  # a process of the host, which has none
        domains: list[Json] = [dom0.domain(key) for key in keys] if args.domains else dom0.get("/domains")
        found = [(domain, dom0.get(f"{domain_path(domain['uuid'])}/vcpus")) for domain in domains]
        cpus = dom0.get("/host")["nr_cpus"]
    if args.json:
        print(json.dumps([{"domain": domain["name"], "vcpus": vcpus} for domain, vcpus in found], indent=2))
    else:
        print(vcpu_table(found, cpus))
    return ExitStatus.OK


def set_vcpus(args: argparse.Namespace) -> int:
    """`vcpu-set`."""
    with Dom0.from_args(args) as dom0:
        domain = dom0.patch(args.domain, vcpus=args.count)
    if args.json:
        print(json.dumps(domain, indent=2))
    return ExitStatus.OK


def pin(args: argparse.Namespace) -> int:
    """`vcpu-pin`."""
    if args.vcpu != "all" and not args.vcpu.isdecimal():
        raise ConfigError(f"neither a number nor all: {args.vcpu!r}", key="VCPU")
    body = {"vcpu": None if args.vcpu == "all" else int(args.vcpu), "cpus": args.cpus}
    with Dom0.from_args(args) as dom0:
        vcpus = dom0.request("PUT", f"{domain_path(args.domain)}/vcpus/affinity", body).json()
    if args.json:
        print(json.dumps(vcpus, indent=2))
    return ExitStatus.OK
