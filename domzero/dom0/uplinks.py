# SPDX-License-Identifier: Apache-2.0
"""The host's interfaces by which domains' networks leave it: what the kernel says of them, changed by nobody here.

Numbers are of linux/sockios.h and linux/if.h; sysfs may be of another network namespace, and is asked only for what no
ioctl tells.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from domzero.dom0.hostnet import IFF_UP, any_socket, ask, flags_of
from domzero.dom0.vifspec import USER

_SYS = Path("/sys/class/net")
_ROUTES = Path("/proc/net/route")
_SIOCGIFADDR, _SIOCGIFNETMASK = 0x8915, 0x891B
_SIOCGIFMTU, _SIOCGIFHWADDR = 0x8921, 0x8927
_IFF_RUNNING = 0x40


@dataclass(frozen=True)
class Uplink:
    """One of them.

    :param name: the host's.
    :param network: the network that leaves by it, by its name in Domain 0.
    :param mac: as text with colons.
    :param ip: IPv4, as text; empty: none.
    :param speed: in Mbit/s; 0: unknown.
    """

    name: str
    network: str
    mac: str
    mtu: int
    is_up: bool
    has_carrier: bool
    is_physical: bool
    ip: str
    netmask: str
    gateway: str
    speed: int
    is_full_duplex: bool


def uplinks(bridges: Iterable[str]) -> list[Uplink]:
    """The interface of the host's default route, which the network `user` leaves by, and the members of bridges.

    :param bridges: of the host, that domains' interfaces are in: other taps in them are domains', and are left out.
    """
    found = []
    name, gateway = _default_route()
    if name:
        found.append(_uplink(name, USER, gateway))
    for bridge in bridges:
        for member in _members(bridge):
            found.append(_uplink(member, bridge, gateway if member == name else ""))
    return [each for each in found if each is not None]


def _default_route() -> tuple[str, str]:
    """The interface of the default route with the least metric, and its gateway; empty: there is none."""
    found = []
    with suppress(OSError, ValueError):
        for line in _ROUTES.read_text().splitlines()[1:]:
            name, destination, gateway, flags, _, _, metric, mask, *_ = line.split()
            if destination == mask == "00000000" and int(flags, 16) & 1:
                address = socket.inet_ntoa(struct.pack("=I", int(gateway, 16)))
                found.append((int(metric), name, "" if address == "0.0.0.0" else address))
    return min(found)[1:] if found else ("", "")


def _members(bridge: str) -> list[str]:
    if "/" in bridge or bridge in ("", ".", ".."):
        return []
    try:
        names = sorted(each.name for each in (_SYS / bridge / "brif").iterdir())
    except (OSError, ValueError):
        return []
    return [name for name in names if not (_SYS / name / "tun_flags").exists()]


def _uplink(name: str, network: str, gateway: str) -> Uplink | None:
    with any_socket() as asking:
        try:
            flags = flags_of(asking, name)
            (mtu,) = struct.unpack_from("=i", ask(asking, _SIOCGIFMTU, name))
            mac = ask(asking, _SIOCGIFHWADDR, name)[2:8]
        except OSError:
            return None
        return Uplink(
            name=name,
            network=network,
            mac=":".join(f"{byte:02x}" for byte in mac),
            mtu=mtu,
            is_up=bool(flags & IFF_UP),
            has_carrier=bool(flags & _IFF_RUNNING),
            is_physical=(_SYS / name / "device").exists(),
            ip=_address(asking, _SIOCGIFADDR, name),
            netmask=_address(asking, _SIOCGIFNETMASK, name),
            gateway=gateway,
            speed=max(0, int(_said(name, "speed") or 0)),
            is_full_duplex=_said(name, "duplex") == "full",
        )


def _address(asking: socket.socket, number: int, name: str) -> str:
    try:
        return socket.inet_ntoa(ask(asking, number, name)[4:8])
    except OSError:
        return ""


def _said(name: str, what: str) -> str:
    """What sysfs says of an interface; empty: nothing, as it does of one that is down."""
    try:
        return (_SYS / name / what).read_text().strip()
    except (OSError, ValueError):
        return ""
