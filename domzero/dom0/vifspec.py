# SPDX-License-Identifier: Apache-2.0
"""Network interface specifications: xl.cfg's `vif = [...]` and `--vif`, as xl-network-configuration(5) has them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from uuid import UUID

from domzero.dom0.vifrate import Rate, parse_rate
from domzero.errors import ConfigError

HELP = (
    "a network interface: '' or bridge=user to reach out as you do, bridge=NAME for a network of domains, or a bridge "
    "or tap of the host; "
    "mac=, mtu=, rate=10Mb/s, link=down, hostfwd=tcp:127.0.0.1:2222-:22"
)
EXAMPLE = "for instance 'bridge=user,hostfwd=tcp:127.0.0.1:2222-:22', or 'mac=00:16:3e:01:02:03,bridge=lan'"
USER = "user"
"""The network of an interface that reaches out as the user who runs the domain."""
XEN_OUI = bytes((0x00, 0x16, 0x3E))
MTU = 1500
MTU_MIN = 68
MTU_MAX = 65516
"""What fits in a frame of 65,535 bytes with a VLAN's header, in words of 32 bits."""
INTERFACES_MAX = 64
NAME_MAX = 32
ADDRESSES_MAX = 32
"""Of an interface on a network of domains."""
UP = "up"
DOWN = "down"
"""Of `link=`."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}", re.ASCII)
_MAC = re.compile(r"[0-9a-f]{1,2}(:[0-9a-f]{1,2}){5}", re.ASCII | re.IGNORECASE)
_FORWARD = re.compile(
    r"(tcp|udp):(\[[0-9a-fA-F:.]+\]|[0-9.]*):([0-9]{1,5})-([0-9.]*):([0-9]{1,5})", re.ASCII
)  # as QEMU writes them
_KEYS = ("mac", "bridge", "type", "ip", "mtu", "devid", "rate", "link", "antispoof", "vifname", "model")
_INSTEAD = {"script": "bridge=NAME puts an interface into a bridge of the host without one"}
_NOTHING = (("script", "vif-bridge"), ("backend", "0"), ("backend", "Domain-0"))
"""What every interface has: it is put into its bridge, by Domain 0."""
_REFUSED = ("script", "backend", "gatewaydev", "netdev", "colo_", "trusted", "vlan")


@dataclass(slots=True, frozen=True)
class Forward:
    """A port of the host that leads to one of the guest's."""

    protocol: str
    address: str
    port: int
    guest_port: int

    @property
    def text(self) -> str:
        """As it is given."""
        address = f"[{self.address}]" if ":" in self.address else self.address
        return f"{self.protocol}:{address}:{self.port}-:{self.guest_port}"


@dataclass(slots=True, frozen=True)
class VifSpec:
    """One interface.

    :param devid: its number in xenstore: 0, 1, ...
    :param mac: None: made from the domain's uuid (`mac_of`).
    :param network: `USER`, or the name of a bridge or tap of the host, or of a network of domains.
    :param vifname: of the host's interface, in a bridge of the host.
    :param ip: on the user network the addresses that the guest is given; none: the host's own. On others those that it
        may have (`is_guarded`); none: any.
    :param mtu: None: what the network has.
    :param rate: how much the guest may send; None: as much as it can.
    :param antispoof: whether a network of domains drops what does not come from the interface.
    :param is_up: whether frames pass; otherwise they are dropped in both directions.
    :param model: the card that an HVM domain sees; empty: the usual one. PV domains have none.
    """

    devid: int
    mac: bytes | None = None
    network: str = USER
    vifname: str = ""
    ip: tuple[IPv4Address | IPv6Address, ...] = ()
    mtu: int | None = None
    forwards: tuple[Forward, ...] = ()
    rate: Rate | None = None
    is_up: bool = True
    antispoof: bool = True
    model: str = ""

    def text(self) -> str:
        """A specification that means the same, wherever it stands among others."""
        words = [f"devid={self.devid}", f"bridge={self.network}"]
        words += [f"mac={mac_text(self.mac)}"] if self.mac is not None else []
        words += [f"vifname={self.vifname}"] if self.vifname else []
        words += [f"ip={' '.join(map(str, self.ip))}"] if self.ip else []
        words += [f"mtu={self.mtu}"] if self.mtu is not None else []
        words += [f"rate={self.rate.text}"] if self.rate is not None else []
        words += [] if self.is_up else [f"link={DOWN}"]
        words += [] if self.antispoof else ["antispoof=no"]
        words += [f"model={self.model}"] if self.model else []
        words += [f"hostfwd={each.text}" for each in self.forwards]
        return ",".join(words)

    @property
    def is_guarded(self) -> bool:
        """Whether the guest may send from its interface's address only, and from those of `ip` if there are any."""
        return self.antispoof and self.network != USER

    @property
    def effective_mtu(self) -> int:
        """The MTU that the guest is told."""
        return self.mtu or (MTU_MAX if self.network == USER else MTU)

    def mac_of(self, uuid: UUID) -> bytes:
        """Its address: the same whenever a domain with this uuid starts."""
        if self.mac is not None:
            return self.mac
        last = hashlib.sha256(uuid.bytes + self.devid.to_bytes(4, "little")).digest()[:3]
        return XEN_OUI + bytes((last[0] & 0x7F, last[1], last[2]))


def mac_text(mac: bytes) -> str:
    """As Xen's nodes have it: 00:16:3e:01:02:03."""
    return mac.hex(":")


def parse_vif(text: str, index: int = 0) -> VifSpec:
    """Understands `key=value` parts between commas.

    :param index: how many interfaces there are before it.
    :raises ConfigError: with the reason.
    """
    words: dict[str, str] = {}
    forwards: list[Forward] = []
    for part in (each.strip(" ") for each in text.split(",")):
        if not part:
            continue
        key, equals, value = part.partition("=")
        if key == "hostfwd" and equals:
            forwards.append(_forward(text, value))
        elif (key, value.rpartition("/")[2]) in _NOTHING:
            continue
        elif key in _REFUSED or key.startswith("colo_"):
            raise _refused(text, f"{key} is not supported", _INSTEAD.get(key, EXAMPLE))
        elif key not in _KEYS or not equals:
            raise _refused(text, f"what is {part!r}?")
        elif words.setdefault(key, value) != value:
            raise _refused(text, f"{key} is given twice")
    if words.get("type", "vif") not in ("vif", "ioemu"):
        raise _refused(text, f"no such type: {words['type']!r} (vif)")
    network = words.get("bridge", "") or USER
    if not _NAME.fullmatch(network):
        raise _refused(
            text, f"no name of a network: {network!r}", f"up to {NAME_MAX} letters, digits, '_', '-' and '.'"
        )
    if network != USER and forwards:
        raise _refused(text, f"hostfwd is only for bridge={USER}: nobody else gives addresses")
    if network == USER and "antispoof" in words:
        raise _refused(text, f"antispoof is for networks of domains: on bridge={USER} there is nobody else")
    if words.get("antispoof", "yes") not in ("yes", "no"):
        raise _refused(text, f"antispoof is yes or no, not {words['antispoof']!r}")
    return VifSpec(
        devid=_devid(text, words["devid"]) if words.get("devid") else index,
        mac=_mac(text, words["mac"]) if words.get("mac") else None,
        network=network,
        vifname=words.get("vifname", ""),
        ip=tuple(_addresses(text, words.get("ip", ""), is_user=network == USER)),
        mtu=_mtu(text, words["mtu"]) if words.get("mtu") else None,
        forwards=tuple(forwards),
        rate=_rate(text, words["rate"]) if words.get("rate") else None,
        is_up=_link(text, words.get("link", UP)),
        antispoof=words.get("antispoof", "yes") == "yes",
        model=words.get("model", ""),
    )


def changed(spec: VifSpec, *, link: str | None = None, rate: str | None = None) -> VifSpec:
    """The same interface with other settings. ConfigError.

    :param link: `up` or `down`; None: as it is.
    :param rate: as in a specification, "" for no bound; None: as it is.
    """
    if link is not None:
        spec = replace(spec, is_up=_link(f"link={link}", link))
    if rate is not None:
        spec = replace(spec, rate=_rate(f"rate={rate}", rate) if rate else None)
    return spec


def parse_vifs(texts: list[str]) -> Iterator[VifSpec | ConfigError]:
    """Each specification, or what is wrong with it; two interfaces with one address are wrong."""
    seen: dict[bytes, str] = {}
    numbers: dict[int, str] = {}
    if len(texts) > INTERFACES_MAX:
        yield ConfigError(f"{len(texts)} interfaces: {INTERFACES_MAX} are possible", key="vif")
        return
    for index, text in enumerate(texts):
        try:
            spec = parse_vif(text, index)
            if spec.devid in numbers:
                raise _refused(text, f"number {spec.devid} is taken by {numbers[spec.devid]!r}")
            if spec.mac is not None and spec.mac in seen:
                raise _refused(text, f"{mac_text(spec.mac)} is taken by {seen[spec.mac]!r}")
        except ConfigError as error:
            yield error
            continue
        numbers[spec.devid] = text
        if spec.mac is not None:
            seen[spec.mac] = text
        yield spec


def _mac(text: str, value: str) -> bytes:
    if not _MAC.fullmatch(value):
        raise _refused(text, f"no MAC address: {value!r}")
    mac = bytes(int(byte, 16) for byte in value.split(":"))
    if mac[0] & 1 or not any(mac):
        raise _refused(text, f"{value} is no address of one station", "its first byte is even, and not all are 0")
    return mac


def _mtu(text: str, value: str) -> int:
    if not value.isascii() or not value.isdigit() or not MTU_MIN <= int(value[:9]) <= MTU_MAX:
        raise _refused(text, f"no MTU: {value!r} ({MTU_MIN} to {MTU_MAX})")
    return int(value)


def _rate(text: str, value: str) -> Rate:
    try:
        return parse_rate(value)
    except ValueError as error:
        raise _refused(
            text, str(error), "bits (b) or bytes (B) a second, and the interval: 10Mb/s, 250KB/s@20ms"
        ) from None


def _link(text: str, value: str) -> bool:
    if value not in (UP, DOWN):
        raise _refused(text, f"no state of a link: {value!r} ({UP} or {DOWN})")
    return value == UP


def _devid(text: str, value: str) -> int:
    if not value.isascii() or not value.isdigit() or int(value[:9]) >= INTERFACES_MAX:
        raise _refused(text, f"no number of an interface: {value!r} (0 to {INTERFACES_MAX - 1})")
    return int(value)


def _addresses(text: str, value: str, *, is_user: bool) -> Iterator[IPv4Address | IPv6Address]:
    try:
        found = [ip_address(word) for word in value.split()]
    except ValueError as error:
        raise _refused(text, f"no IP address: {value!r}") from error
    if is_user and len({each.version for each in found}) != len(found):
        raise _refused(text, f"one address of IPv4 and one of IPv6 are possible on bridge={USER}")
    if len(found) > ADDRESSES_MAX:
        raise _refused(text, f"{len(found)} addresses: {ADDRESSES_MAX} are possible")
    yield from found


def _forward(text: str, value: str) -> Forward:
    match = _FORWARD.fullmatch(value)
    if match is None:
        raise _refused(
            text, f"no forward: {value!r}", "tcp:127.0.0.1:2222-:22: the host's address and port, the guest's"
        )
    protocol, address, port, guest, guest_port = match.groups()
    address = address.strip("[]") or "127.0.0.1"
    try:
        ip_address(address)
    except ValueError as error:
        raise _refused(text, f"no IP address: {address!r}") from error
    if guest:
        raise _refused(text, f"{guest}: the guest's address is not given in a forward")
    for each in (port, guest_port):
        if not 1 <= int(each) <= 65535:
            raise _refused(text, f"no port: {each}")
    return Forward(protocol, address, int(port), int(guest_port))


def _refused(text: str, what: str, hint: str = EXAMPLE) -> ConfigError:
    return ConfigError(f"{text[:200]!r}: {what}", key="vif", hint=hint)
