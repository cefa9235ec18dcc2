# SPDX-License-Identifier: Apache-2.0
"""`domzero net`: the networks of domains that this user has, who is connected to them, and what passes."""

from __future__ import annotations

import argparse
import json
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

from domzero.cli.api_client import Dom0, add_connection_options, domain_path
from domzero.cli.pcapng import Counter
from domzero.cli.progress import ProgressLines
from domzero.cli.status import ExitStatus
from domzero.dom0.names import shown
from domzero.dom0.networks import SNAPLEN_MAX, Network, Port, capture, network, networks
from domzero.errors import ConfigError

_DESCRIPTION = """\
Networks of domains (bridge=NAME in a vif) are there while domains are connected to them: those of Domain 0 and of
`domzero run` alike. list and show need no Domain 0; nor does capture, but for one interface of a domain of its own.
"""
_CAPTURE = """\
Writes what passes through a network, or through one interface of a domain, to a pcapng file that tcpdump and Wireshark
read: domzero net capture lan -w - | tcpdump -n -r -. The network does not wait for it: frames that come too fast are
left out, and counted. Ctrl-C ends it.
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb."""
    parser = subparsers.add_parser(
        "net",
        help="networks of domains: who is on them, what passes",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    listing = actions.add_parser("list", help="list networks", aliases=["ls"])
    listing.add_argument("--json", action="store_true", help="print them as JSON")
    listing.set_defaults(handler=_list)

    show = actions.add_parser("show", help="show who is connected to a network, and has sent how much")
    show.add_argument("name", metavar="NAME", help="the network")
    show.add_argument("--json", action="store_true", help="print it as JSON")
    show.set_defaults(handler=_show)

    take = actions.add_parser(
        "capture",
        help="write what passes to a file",
        description=_CAPTURE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    take.add_argument("what", metavar="NAME|DOMAIN/DEVID", help="a network, or an interface of a domain (also on user)")
    take.add_argument("-w", "--write", metavar="FILE", required=True, help="the file; - is stdout")
    take.add_argument("-c", "--count", metavar="COUNT", type=_count, default=0, help="end after so many frames")
    take.add_argument(
        "-s",
        "--snaplen",
        metavar="BYTES",
        type=_snaplen,
        default=SNAPLEN_MAX,
        help="of each frame (default: %(default)s)",
    )
    add_connection_options(take)
    take.set_defaults(handler=_capture)


def _number(text: str, most: int) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:20]) <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to {most}")
    return int(text)


def _count(text: str) -> int:
    return _number(text, (1 << 63) - 1)


def _snaplen(text: str) -> int:
    return _number(text, SNAPLEN_MAX)


def _list(args: argparse.Namespace) -> int:
    found = networks()
    if args.json:
        print(json.dumps([asdict(each) for each in found], indent=2))
        return ExitStatus.OK
    print(f"{'Name':<32} {'ports':>5} {'frames':>12} {'bytes':>15}  domains")
    for each in found:
        frames, sent = sum(port.sent_frames for port in each.ports), sum(port.sent_bytes for port in each.ports)
        who = ", ".join(map(_who, each.ports))
        print(f"{each.name:<32} {len(each.ports):>5} {frames:>12} {sent:>15}  {who}")
    return ExitStatus.OK


def _show(args: argparse.Namespace) -> int:
    found: Network = network(args.name)
    if args.json:
        print(json.dumps(asdict(found), indent=2))
        return ExitStatus.OK
    print(f"{'Domain/devid':<24} {'Mac Addr.':<17} {'sent':>12} {'received':>12} {'dropped':>8}  sends as")
    for port in found.ports:
        print(
            f"{_who(port):<24} {port.mac:<17} {port.sent_bytes:>12} {port.received_bytes:>12} {port.dropped:>8}  "
            f"{', '.join(port.stations)}"
        )
    return ExitStatus.OK


def _who(port: Port) -> str:
    return f"{shown(port.domain)}/{port.devid}" if port.domain else "?"


def _capture(args: argparse.Namespace) -> int:
    domain, slash, devid = args.what.rpartition("/")
    lines = ProgressLines()
    counter = Counter()
    with _parts(args, domain, devid) if slash else _network_parts(args) as parts, _output(args.write) as file:
        lines.line(f"capturing {args.what}" + ("" if args.count else "; Ctrl-C ends it"))
        try:
            for part in parts:
                counter.feed(part)
                file.write(part)
                file.flush()
        except KeyboardInterrupt:
            pass
    if args.json:
        said = {"frames": counter.frames, "dropped": counter.dropped}
        print(json.dumps(said), file=sys.stderr if args.write == "-" else sys.stdout)
    else:
        lines.line(f"{counter.frames} frames captured, {counter.dropped} left out")
    return ExitStatus.OK


@contextmanager
def _network_parts(args: argparse.Namespace) -> Iterator[Iterator[bytes]]:
    with capture(args.what, snaplen=args.snaplen, frames=args.count) as source:
        source.settimeout(None)

        def parts() -> Iterator[bytes]:
            asked_to_end = False
            while True:
                try:
                    part = source.recv(1 << 16)
                except KeyboardInterrupt:
                    if asked_to_end:
                        raise
                    asked_to_end = True
                    source.shutdown(socket.SHUT_WR)  # what there is comes, and what was left out
                    continue
                if not part:
                    return
                yield part

        yield parts()


@contextmanager
def _parts(args: argparse.Namespace, domain: str, devid: str) -> Iterator[Iterator[bytes]]:
    if not devid.isascii() or not devid.isdigit():
        raise ConfigError(f"no number of an interface: {devid!r}", key="DOMAIN/DEVID", hint="web/0")
    path = f"{domain_path(domain)}/vifs/{devid}/capture"
    with Dom0.from_args(args) as dom0, dom0.stream(path, snaplen=args.snaplen, frames=args.count) as parts:
        yield parts


@contextmanager
def _output(name: str) -> Iterator[BinaryIO]:
    if name == "-":
        if sys.stdout.isatty():
            raise ConfigError("a capture is no text for a terminal", key="--write", hint="-w - | tcpdump -r -")
        yield sys.stdout.buffer
        return
    with Path(name).open("wb") as file:
        yield file
