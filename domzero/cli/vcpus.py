# SPDX-License-Identifier: Apache-2.0
"""`vcpu-list`, `vcpu-set`, `vcpu-pin`, `sched-credit2`: the vCPUs of a domain that runs, as xl has them."""

from __future__ import annotations

import argparse

from domzero.cli.api_client import Dom0, domain_path
from domzero.cli.text import schedule_table, vcpu_table
from domzero.cli.verb import add_domain, add_domains, add_verb, answer
from domzero.errors import ConfigError


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds all of them."""
    parser = add_verb(
        subparsers, "vcpu-list", list_vcpus, "list the vCPUs of domains", "Lists the vCPUs of domains, as xl does."
    )
    add_domains(parser, can_be_none=True)

    parser = add_verb(
        subparsers,
        "vcpu-set",
        set_vcpus,
        "set how many vCPUs a domain uses",
        "Asks the guest to use so many of its vCPUs, up to the maxvcpus that it was made with.",
    )
    add_domain(parser)
    parser.add_argument("count", metavar="COUNT", type=int)

    parser = add_verb(
        subparsers,
        "vcpu-pin",
        pin,
        "choose the processors that vCPUs run on",
        "Lets a vCPU, or all, run on some processors of the host only, until the domain starts again.",
    )
    add_domain(parser)
    parser.add_argument("vcpu", metavar="VCPU", help="its number, or all")
    parser.add_argument("cpus", metavar="CPUS", help="of the host: 0-3,^1 or all")

    parser = add_verb(
        subparsers,
        "sched-credit2",
        schedule,
        "show or set weight and cap of domains",
        "Shows or sets how much of the host's processors domains get and may use.",
    )
    parser.add_argument("-d", "--domain", metavar="DOMAIN", help="name, domid or uuid; all if none is given")
    parser.add_argument(
        "-w", "--weight", metavar="WEIGHT", type=int, help="1 to 65535; 256 is the default, and 512 gets twice as much"
    )
    parser.add_argument(
        "-c", "--cap", metavar="CAP", type=int, help="percent of one processor for all its vCPUs; 0: no bound"
    )


def schedule(args: argparse.Namespace) -> int:
    """`sched-credit2`."""
    changes = {"cap": args.cap, "cpu_weight": args.weight}
    changes = {field: value for field, value in changes.items() if value is not None}
    if changes and args.domain is None:
        raise ConfigError("which domain? Give one with -d", key="--cap" if "cap" in changes else "--weight")
    with Dom0.from_args(args) as dom0:
        if changes:
            domains = [dom0.patch(args.domain, **changes)]
        else:
            domains = [dom0.domain(args.domain)] if args.domain is not None else dom0.get("/domains")
    value = [{key: domain[key] for key in ("name", "domid", "cpu_weight", "cap")} for domain in domains]
    return answer(args, value, None if changes else schedule_table(domains))


def list_vcpus(args: argparse.Namespace) -> int:
    """`vcpu-list`."""
    with Dom0.from_args(args) as dom0:
        found = dom0.parts(args.domains or [domain["uuid"] for domain in dom0.get("/domains")], "vcpus")
        cpus = dom0.get("/host")["nr_cpus"]
    value = [{"domain": domain["name"], "vcpus": vcpus} for domain, vcpus in found]
    return answer(args, value, vcpu_table(found, cpus))


def set_vcpus(args: argparse.Namespace) -> int:
    """`vcpu-set`."""
    with Dom0.from_args(args) as dom0:
        domain = dom0.patch(args.domain, vcpus=args.count)
    return answer(args, domain)


def pin(args: argparse.Namespace) -> int:
    """`vcpu-pin`."""
    if args.vcpu != "all" and not args.vcpu.isdecimal():
        raise ConfigError(f"neither a number nor all: {args.vcpu!r}", key="VCPU")
    body = {"vcpu": None if args.vcpu == "all" else int(args.vcpu), "cpus": args.cpus}
    with Dom0.from_args(args) as dom0:
        vcpus = dom0.request("PUT", f"{domain_path(args.domain)}/vcpus/affinity", body).json()
    return answer(args, vcpus)
