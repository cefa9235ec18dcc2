# SPDX-License-Identifier: Apache-2.0
"""`block-attach`, `block-list`, `block-detach`: the disks of a domain that runs, as xl has them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

from domzero.cli.api_client import Dom0, domain_path
from domzero.cli.status import ExitStatus
from domzero.cli.verb import add_domain, add_domains, add_verb, answer
from domzero.dom0.diskspec import HELP, is_named, parse_disk

Json = dict[str, Any]


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds all of them."""
    parser = add_verb(
        subparsers,
        "block-attach",
        attach,
        "plug a disk into a domain",
        "Plugs a disk into a domain that runs; it has the disk at its next starts, too.",
    )
    add_domain(parser)
    parser.add_argument("spec", metavar="SPEC", nargs="+", help=HELP.partition(";")[0])

    parser = add_verb(
        subparsers, "block-list", list_disks, "list disks of domains", "Lists the disks of domains, as xl does."
    )
    add_domains(parser, can_be_none=False)

    parser = add_verb(
        subparsers,
        "block-detach",
        detach,
        "take a disk away from a domain",
        "Asks the guest to let go of a disk, and takes it away when it has.",
    )
    add_domain(parser)
    parser.add_argument("vdev", metavar="DEV", help="xvdb, or its number")
    parser.add_argument("-f", "--force", action="store_true", help="take it away at once, even if the guest uses it")


def attach(args: argparse.Namespace) -> int:
    """`block-attach`."""
    with Dom0.from_args(args) as dom0:
        path = f"{domain_path(args.domain)}/disks"
        text = ",".join(args.spec)  # xl takes its parts as words, too
        spec = parse_disk(text)
        asked = spec.text(str(Path(spec.target).absolute()), named=is_named(text))
        disk = dom0.request("POST", path, {"spec": asked}).json()
    return answer(args, disk)


def list_disks(args: argparse.Namespace) -> int:
    """`block-list`."""
    with Dom0.from_args(args) as dom0:
        found = dom0.parts(args.domains, "disks")
    if args.json:
        print(json.dumps([disk for _, disks in found for disk in disks], indent=2))
        return ExitStatus.OK
    print(f"{'Vdev':<6}{'BE':>4} {'handle':>6} {'state':>5} {'access':>6} {'reads':>9} {'writes':>9}  {'image'}")
    for domain, disks in found:
        for disk in disks:
            access = "rw" if disk["writable"] else "ro"
            print(
                f"{disk['devid']:<6}{0:>4} {domain['domid']:>6} {disk['state']:>5} {access:>6} "
                f"{disk['reads']:>9} {disk['writes']:>9}  {disk['vdev']}: {disk['target']} ({disk['format']})"
            )
    return ExitStatus.OK


def detach(args: argparse.Namespace) -> int:
    """`block-detach`."""
    with Dom0.from_args(args) as dom0:
        path = f"{domain_path(args.domain)}/disks"
        vdev = args.vdev
        if vdev.isdigit():
            vdev = next((disk["vdev"] for disk in dom0.get(path) if disk["devid"] == int(vdev)), vdev)
        dom0.request("DELETE", f"{path}/{quote(vdev, safe='')}", force=args.force)
    return ExitStatus.OK
