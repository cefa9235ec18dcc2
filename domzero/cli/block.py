# SPDX-License-Identifier: Apache-2.0
"""Disks of domains that run: `block-attach`, `block-list`, `block-detach`, `cd-insert`, `cd-eject` as xl has them;
`block-set` and `block-resize`, which it has not."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

from domzero.cli.api_client import Dom0, domain_path
from domzero.cli.status import ExitStatus
from domzero.cli.verb import add_domain, add_domains, add_verb, answer
from domzero.dom0.diskspec import HELP, LIMITS, is_named, parse_disk, parse_limit
from domzero.dom0.images.options import parse_size
from domzero.errors import ConfigError

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
        "block-set",
        set_limits,
        "bound what a domain does with a disk",
        "Bounds how much a domain reads and writes of a disk in a second, now and at its next starts.",
    )
    add_domain(parser)
    _add_vdev(parser)
    what = "bps=20M (bytes a second, with K, M, G), iops=500 (requests), bps_max=, iops_max= (at once); 0: no bound"
    parser.add_argument("limits", metavar="NAME=VALUE", nargs="+", help=what)

    parser = add_verb(
        subparsers,
        "block-resize",
        resize,
        "make a disk of a domain larger",
        "Makes a disk larger while a domain runs, and tells the guest. A disk cannot become smaller.",
    )
    add_domain(parser)
    _add_vdev(parser)
    what = "such as 20G or 2048M; without it, as large as its file or device has become"
    parser.add_argument("size", metavar="SIZE", nargs="?", help=what)

    parser = add_verb(
        subparsers,
        "cd-insert",
        insert,
        "put a CD into a domain's drive",
        "Puts an image into a CD drive of a domain that runs, in the place of what is in it.",
    )
    add_domain(parser)
    _add_vdev(parser)
    parser.add_argument(
        "file", metavar="FILE", help="the image; one whose name ends in .qcow2 is such a one, others are raw"
    )

    parser = add_verb(
        subparsers,
        "cd-eject",
        eject,
        "take the CD out of a domain's drive",
        "Takes out what is in a CD drive of a domain that runs, which stays without.",
    )
    add_domain(parser)
    _add_vdev(parser)

    parser = add_verb(
        subparsers,
        "block-detach",
        detach,
        "take a disk away from a domain",
        "Asks the guest to let go of a disk, and takes it away when it has.",
    )
    add_domain(parser)
    _add_vdev(parser)
    parser.add_argument("-f", "--force", action="store_true", help="take it away at once, even if the guest uses it")


def _add_vdev(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("vdev", metavar="DEV", help="xvdb, or its number")


def _disk_path(dom0: Dom0, args: argparse.Namespace) -> str:
    """Where the API has the disk; a number is looked up."""
    path, vdev = f"{domain_path(args.domain)}/disks", args.vdev
    if vdev.isdigit():
        vdev = next((disk["vdev"] for disk in dom0.get(path) if disk["devid"] == int(vdev)), vdev)
    return f"{path}/{quote(vdev, safe='')}"


def attach(args: argparse.Namespace) -> int:
    """`block-attach`."""
    with Dom0.from_args(args) as dom0:
        path = f"{domain_path(args.domain)}/disks"
        text = ",".join(args.spec)  # xl takes its parts as words, too
        spec = parse_disk(text)
        asked = spec.text(spec.absolute(), named=is_named(text))
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
                f"{disk['reads']:>9} {disk['writes']:>9}  {disk['vdev']}: {_what(disk)}"
            )
    return ExitStatus.OK


def _what(disk: Json) -> str:
    return f"{disk['target']} ({disk['format']})" if disk["target"] else "(empty)"


def set_limits(args: argparse.Namespace) -> int:
    """`block-set`."""
    changes = {}
    for text in args.limits:
        name, _, value = text.partition("=")
        if name not in LIMITS:
            raise ConfigError(f"no such limit: {text[:40]!r}", key="limits", hint="bps=, iops=, bps_max=, iops_max=")
        changes[name] = parse_limit(name, value)
    with Dom0.from_args(args) as dom0:
        disk = dom0.request("PATCH", _disk_path(dom0, args), changes).json()
    return answer(args, disk)


def resize(args: argparse.Namespace) -> int:
    """`block-resize`."""
    body = {} if args.size is None else {"bytes": parse_size(args.size)}
    with Dom0.from_args(args) as dom0:
        disk = dom0.request("POST", f"{_disk_path(dom0, args)}/size", body).json()
    return answer(args, disk)


def insert(args: argparse.Namespace) -> int:
    """`cd-insert`."""
    with Dom0.from_args(args) as dom0:
        body = {"target": str(Path(args.file).absolute())}
        disk = dom0.request("PUT", f"{_disk_path(dom0, args)}/medium", body).json()
    return answer(args, disk)


def eject(args: argparse.Namespace) -> int:
    """`cd-eject`."""
    with Dom0.from_args(args) as dom0:
        disk = dom0.request("DELETE", f"{_disk_path(dom0, args)}/medium").json()
    return answer(args, disk)


def detach(args: argparse.Namespace) -> int:
    """`block-detach`."""
    with Dom0.from_args(args) as dom0:
        dom0.request("DELETE", _disk_path(dom0, args), force=args.force)
    return ExitStatus.OK
