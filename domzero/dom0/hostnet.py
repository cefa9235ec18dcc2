# SPDX-License-Identifier: Apache-2.0
"""Bridges and taps of the host: how an interface of a domain becomes one of the host's network.

Making a tap, and putting it into a bridge, takes CAP_NET_ADMIN; to use a tap that root has made for a user takes none.
Numbers are of linux/if_tun.h, linux/if.h, linux/sockios.h and linux/ethtool.h.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import re
import socket
import struct

from domzero.dom0.vifspec import VifSpec
from domzero.errors import ConfigError

TUN = "/dev/net/tun"
NAME_MAX = 15
"""IFNAMSIZ with its terminator is 16 bytes."""
MAC = bytes.fromhex("feffffffffff")
"""Of the host's end, as Xen's scripts give it: the highest, which a bridge takes for its own last."""

_TUNSETIFF = 0x400454CA
_TUNSETOFFLOAD = 0x400454D0
_TUN_F_CSUM, _TUN_F_TSO4, _TUN_F_TSO6 = 1, 2, 4
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
IFF_UP = 1
_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914
_SIOCSIFMTU = 0x8922
_SIOCSIFHWADDR = 0x8924
_SIOCBRADDIF = 0x89A2
_SIOCETHTOOL, _ETHTOOL_GDRVINFO = 0x8946, 3
_ARPHRD_ETHER = 1
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}", re.ASCII)


def exists(name: str) -> bool:
    """Whether the host has an interface of this name."""
    try:
        return socket.if_nametoindex(name) > 0
    except OSError:
        return False


def connect(spec: VifSpec, domid: int) -> int:
    """Makes a tap in a bridge, or takes one that there is: a file to read and write its frames. ConfigError.

    :param spec: its network is the bridge or the tap.
    """
    name = spec.network
    driver = _driver(name)
    if driver[0] == "bridge":
        return _in_bridge(spec, domid)
    if driver == ("tun", "tap"):
        return _open(name, f"the tap {name}", f"root can give it to you: ip tuntap add {name} mode tap user $USER")
    raise ConfigError(
        f"{name} is an interface of the host, and neither a bridge nor a tap",
        key="vif",
        hint="ip link add xenbr0 type bridge; ip link set NAME master xenbr0; then bridge=xenbr0",
    )


def _in_bridge(spec: VifSpec, domid: int) -> int:
    bridge, name = spec.network, spec.vifname or f"vif{domid}.{spec.devid}"
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"no name of an interface: {name!r} (up to {NAME_MAX} letters, digits, '_', '-', '.')", key="vif"
        )
    what = f"an interface in the bridge {bridge}"
    hint = (
        "run as root, or let root make one for you: "
        f"ip tuntap add tap0 mode tap user $USER; ip link set tap0 master {bridge} up; then bridge=tap0"
    )
    if exists(name):
        raise ConfigError(f"{what}: there is {name} already", key="vif", hint="vifname= chooses another name")
    tap = _open(name, what, hint)
    try:
        with any_socket() as asking:
            address = struct.pack("=H6s", _ARPHRD_ETHER, MAC)
            fcntl.ioctl(asking, _SIOCSIFHWADDR, request(name, address))
            fcntl.ioctl(asking, _SIOCSIFMTU, request(name, struct.pack("=i", spec.effective_mtu)))
            index = socket.if_nametoindex(name)
            fcntl.ioctl(asking, _SIOCBRADDIF, request(bridge, struct.pack("=i", index)))
            fcntl.ioctl(asking, _SIOCSIFFLAGS, request(name, struct.pack("=H", flags_of(asking, name) | IFF_UP)))
    except OSError as error:
        os.close(tap)
        raise _refused(what, hint, error) from error
    return tap


def _open(name: str, what: str, hint: str) -> int:
    """Opens a tap: makes it, where there is none of this name."""
    try:
        tap = os.open(TUN, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        raise ConfigError(f"{what}: there is no {TUN}", key="vif", hint="modprobe tun") from None
    except OSError as error:
        raise _refused(what, hint, error) from error
    try:
        flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR
        fcntl.ioctl(tap, _TUNSETIFF, request(name, struct.pack("=H", flags)))
        fcntl.ioctl(tap, _TUNSETOFFLOAD, _TUN_F_CSUM | _TUN_F_TSO4 | _TUN_F_TSO6)
    except OSError as error:
        os.close(tap)
        if error.errno == errno.EBUSY:
            raise ConfigError(f"{what} is in use already", key="vif") from error
        raise _refused(what, hint, error) from error
    return tap


def _refused(what: str, hint: str, error: OSError) -> ConfigError:
    if error.errno in (errno.EPERM, errno.EACCES):
        return ConfigError(f"{what} needs CAP_NET_ADMIN", key="vif", hint=hint)
    return ConfigError(f"{what} cannot be: {error.strerror}", key="vif")


def any_socket() -> socket.socket:
    """One to ask the kernel for interfaces by."""
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


def request(name: str, value: bytes = b"") -> bytes:
    """`struct ifreq`."""
    return struct.pack("=16s24s", name.encode(), value)


def ask(asking: socket.socket, number: int, name: str) -> bytes:
    """What the kernel writes into `struct ifreq` behind the name. OSError."""
    return fcntl.ioctl(asking, number, request(name))[16:]


def flags_of(asking: socket.socket, name: str) -> int:
    """Of an interface (IFF_...). OSError."""
    (flags,) = struct.unpack_from("=H", ask(asking, _SIOCGIFFLAGS, name))
    return int(flags)


def _driver(name: str) -> tuple[str, str]:
    """What an interface is: ("bridge", ...), ("tun", "tap"), or other. Sysfs may be of another network namespace."""
    info = array.array("B", struct.pack("=I192x", _ETHTOOL_GDRVINFO))
    address, _ = info.buffer_info()
    try:
        with any_socket() as asking:
            fcntl.ioctl(asking, _SIOCETHTOOL, request(name, struct.pack("@P", address)))
    except OSError:
        return "", ""
    texts = (info[at : at + 32].tobytes().partition(b"\0")[0].decode(errors="replace") for at in (4, 100))
    driver, bus = texts
    return driver, bus
