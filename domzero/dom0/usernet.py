# SPDX-License-Identifier: Apache-2.0
"""The network of one interface out of the host's ordinary sockets, for hosts without passt.

`python -m domzero.dom0.usernet` takes passt's options, is ready when it has gone to the background, as passt is, and
ends with its wire. Before it is ready it says what it could not be confined by. What moves the data is crates/usernet;
here are the addresses.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from pathlib import Path

from domzero import _machine
from domzero.dom0 import confinement

RESOLV_CONF = Path("/etc/resolv.conf")
GUEST = IPv4Address("10.0.2.15")
"""As QEMU's user network has it; the router is 10.0.2.2, the name server 10.0.2.3."""
PREFIX_LENGTH = 24
IPV6_PREFIX = IPv6Address("fd64:6f6d:7a65::")
"""Of the addresses that a guest makes itself: a private one (RFC 4193)."""
IPV6_MTU_MIN = 1280
_IPV6_PREFIX_LENGTH = 64
_GLOBAL = "00"
"""The scope of an address, in /proc/net/if_inet6, that is for others than this host and its links."""
_BACKLOG = 64
_READY = "ready\n"


@dataclass(slots=True, frozen=True)
class Addresses:
    """What the guest is told.

    :param gateway: also the server of DHCP.
    :param ipv6_prefix: None: there is no IPv6.
    """

    guest: IPv4Address
    gateway: IPv4Address
    dns: IPv4Address
    ipv6_prefix: IPv6Address | None


def addresses(given: list[IPv4Address | IPv6Address], *, ipv6: bool) -> Addresses:
    """The network's addresses around those that the guest is given.

    :param ipv6: the host has some.
    """
    guest = next((each for each in given if isinstance(each, IPv4Address)), GUEST)
    hosts = IPv4Network((guest, PREFIX_LENGTH), strict=False).network_address
    gateway, dns = [hosts + number for number in (2, 3, 4) if hosts + number != guest][:2]
    ours = next((each for each in given if isinstance(each, IPv6Address)), IPV6_PREFIX)
    prefix = IPv6Network((ours, _IPV6_PREFIX_LENGTH), strict=False).network_address
    return Addresses(guest, gateway, dns, prefix if ipv6 else None)


def name_servers(path: Path) -> Iterator[IPv4Address | IPv6Address]:
    """Those that a resolv.conf(5) names."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return
    for words in map(str.split, lines):
        if len(words) >= 2 and words[0] == "nameserver":
            try:
                yield ip_address(words[1].partition("%")[0])
            except ValueError:
                continue


def host_has_ipv6() -> bool:
    """Whether the host has an address of IPv6 that leads elsewhere."""
    try:
        lines = Path("/proc/net/if_inet6").read_text().splitlines()
    except OSError:
        return False
    return any(len(words) >= 5 and words[3] == _GLOBAL and words[5:] != ["lo"] for words in map(str.split, lines))


def _listener(text: str, kind: socket.SocketKind) -> tuple[int, int]:
    """A socket at the host's address and port of ADDRESS/PORT:GUEST_PORT, and the guest's port."""
    address, _, ports = text.partition("/")
    port, _, guest_port = ports.partition(":")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, kind) as bound:
        try:
            if kind is socket.SOCK_STREAM:
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((address, int(port)))
            if kind is socket.SOCK_STREAM:
                bound.listen(_BACKLOG)
        except OSError as error:
            raise SystemExit(f"{address} port {port}: {error.strerror or error}") from error
        return bound.detach(), int(guest_port)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="domzero.dom0.usernet", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--fd", type=int, required=True, help="the wire: a connected Unix socket, as QEMU has it")
    parser.add_argument("--mtu", type=int, required=True)
    parser.add_argument("--address", type=ip_address, action="append", default=[], help="that the guest is given")
    parser.add_argument("--hostname", default="", help="that the guest is told")
    for protocol in ("tcp", "udp"):
        parser.add_argument(f"--{protocol}-ports", action="append", default=[], help="ADDRESS/PORT:GUEST_PORT, or none")
    return parser


def main(arguments: list[str]) -> None:
    """Goes to the background, as the network of an interface."""
    options = _parser().parse_args(arguments)
    tcp = [_listener(each, socket.SOCK_STREAM) for each in options.tcp_ports if each != "none"]
    udp = [_listener(each, socket.SOCK_DGRAM) for each in options.udp_ports if each != "none"]
    told = addresses(options.address, ipv6=options.mtu >= IPV6_MTU_MIN and host_has_ipv6())
    servers = list(name_servers(RESOLV_CONF)) or [IPv4Address("127.0.0.1")]  # as resolv.conf(5) says
    said, say = os.pipe()
    if os.fork() != 0:
        os.close(say)
        with open(said) as lines:
            text = lines.read()
        if not text.endswith(_READY):
            raise SystemExit("it has ended before it was ready")
        print(text.removesuffix(_READY), end="")
        return
    os.close(said)
    os.setsid()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nowhere, fd)
    confinement.step_down()
    missing = _machine.confine_network() if confinement.is_wanted() else []
    os.write(say, ("".join(f"is not confined by {what}\n" for what in missing) + _READY).encode())
    os.close(say)
    _machine.run_usernet(
        options.fd,
        mtu=options.mtu,
        guest=told.guest,
        prefix_length=PREFIX_LENGTH,
        gateway=told.gateway,
        dns=told.dns,
        name_servers=servers,
        host_name=options.hostname,
        ipv6_prefix=told.ipv6_prefix,
        tcp=tcp,
        udp=udp,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
