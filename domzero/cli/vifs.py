# SPDX-License-Identifier: Apache-2.0
"""`network-attach`, `-list`, `-set`, `-detach`: the network interfaces of a domain that runs, as xl has them."""

from __future__ import annotations

import argparse
import json
from typing import Any

from domzero.cli.api_client import Dom0, domain_path
from domzero.cli.status import ExitStatus
from domzero.cli.verb import add_domain, add_domains, add_verb, answer
from domzero.dom0.vifspec import HELP, VifSpec, changed, parse_vif
from domzero.errors import ConfigError

Json = dict[str, Any]


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds all of them."""
    parser = add_verb(
        subparsers,
        "network-attach",
        attach,
        "plug a network interface into a domain",
        "Plugs a network interface into a domain that runs; it has it at its next starts, too.",
    )
    add_domain(parser)
    parser.add_argument("spec", metavar="SPEC", nargs="*", help=HELP)

    parser = add_verb(
        subparsers,
        "network-list",
        list_vifs,
        "list network interfaces of domains",
        "Lists the network interfaces of domains, as xl does.",
    )
    add_domains(parser, can_be_none=False)

    parser = add_verb(
        subparsers,
        "network-set",
        set_vif,
        "change a network interface of a domain",
        "Changes a network interface while its domain runs; it stays so at its next starts.",
    )
    add_domain(parser)
    parser.add_argument("vif", metavar="DEVID|MAC", help="its number, or its address")
    parser.add_argument(
        "settings",
        metavar="KEY=VALUE",
        nargs="+",
        help="link=up, link=down; rate=10Mb/s, rate=250KB/s@20ms, or rate= for no bound",
    )

    parser = add_verb(
        subparsers,
        "network-detach",
        detach,
        "take a network interface away from a domain",
        "Asks the guest to let go of a network interface, and takes it away when it has.",
    )
    add_domain(parser)
    parser.add_argument("vif", metavar="DEVID|MAC", help="its number, or its address")
    parser.add_argument("-f", "--force", action="store_true", help="take it away at once, even if the guest uses it")


def attach(args: argparse.Namespace) -> int:
    """`network-attach`."""
    text = ",".join(args.spec)  # xl takes its parts as words, too
    parse_vif(text)
    with Dom0.from_args(args) as dom0:
        vif = dom0.request("POST", f"{domain_path(args.domain)}/vifs", {"spec": text}).json()
    return answer(args, vif)


def list_vifs(args: argparse.Namespace) -> int:
    """`network-list`."""
    with Dom0.from_args(args) as dom0:
        found = dom0.parts(args.domains, "vifs")
    if args.json:
        print(json.dumps([vif for _, vifs in found for vif in vifs], indent=2))
        return ExitStatus.OK
    print(
        f"{'Idx':<3} {'BE':>2} {'Mac Addr.':<17} {'handle':>6} {'state':>5} {'sent':>12} {'received':>12}  "
        f"{'network':<12} BE-path"
    )
    for domain, vifs in found:
        for vif in vifs:
            path = f"/local/domain/0/backend/vif/{domain['domid']}/{vif['devid']}"
            print(
                f"{vif['devid']:<3} {0:>2} {vif['mac']:<17} {vif['devid']:>6} {vif['state']:>5} "
                f"{vif['sent_bytes']:>12} {vif['received_bytes']:>12}  {vif['network']:<12} {path}"
            )
    return ExitStatus.OK


def set_vif(args: argparse.Namespace) -> int:
    """`network-set`."""
    settings: dict[str, str] = {}
    for part in (part.strip() for word in args.settings for part in word.split(",") if part.strip()):
        key, equals, value = part.partition("=")
        if key not in ("link", "rate") or not equals or key in settings:
            raise ConfigError(f"what is {part!r}?", key="KEY=VALUE", hint="link=up, link=down, rate=10Mb/s, rate=")
        settings[key] = value
    changed(VifSpec(0), **settings)  # what is wrong with them is said here
    with Dom0.from_args(args) as dom0:
        path = f"{domain_path(args.domain)}/vifs"
        vif = dom0.request("PATCH", f"{path}/{_devid(dom0, path, args.vif)}", dict(settings)).json()
    return answer(args, vif)


def detach(args: argparse.Namespace) -> int:
    """`network-detach`."""
    with Dom0.from_args(args) as dom0:
        path = f"{domain_path(args.domain)}/vifs"
        dom0.request("DELETE", f"{path}/{_devid(dom0, path, args.vif)}", force=args.force)
    return ExitStatus.OK


def _devid(dom0: Dom0, path: str, vif: str) -> str:
    """The number of the interface that was named by it, or by its address. ConfigError."""
    if vif.isascii() and vif.isdigit():
        return vif
    found = next((each["devid"] for each in dom0.get(path) if each["mac"] == vif.lower()), None)
    if found is None:
        raise ConfigError(f"there is no interface {vif}", key="vif")
    return str(found)
