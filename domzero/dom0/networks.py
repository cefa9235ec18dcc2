# SPDX-License-Identifier: Apache-2.0
"""The networks of domains that this user has now: which switches run, who is connected to them, and what passes.

A switch answers at a socket of its own beside that of its ports (crates/backends/src/net/switch_control.rs).
"""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domzero.dom0.config import DomainConfig
from domzero.dom0.paths import private_directory
from domzero.dom0.vifrate import Rate
from domzero.dom0.vifspec import VifSpec, mac_text
from domzero.errors import ConfigError, DomzeroError

CONTROL_SUFFIX = ".ctl"
"""Of the socket of a switch that answers questions."""
ANSWER_S = 10.0
SNAPLEN_MAX = 65535
LABEL_MAX = 1024
_LABEL = bytes.fromhex("0180c200000e 000000000000 88b5")


@dataclass(slots=True, frozen=True)
class Port:
    """One that is connected to a network. Sent and received as its guest sees it.

    :param domain: the name that its domain had when it was connected; "" if nobody said.
    :param mac: of its interface, if somebody said.
    :param stations: the addresses that it has sent from, 16 at most.
    :param dropped: frames that it did not take in time.
    :param spoofed: frames that were not from it, of who has no back end of ours.
    """

    number: int
    domain: str
    uuid: str
    devid: int | None
    mac: str
    stations: tuple[str, ...]
    sent_frames: int
    sent_bytes: int
    received_frames: int
    received_bytes: int
    dropped: int
    spoofed: int


@dataclass(slots=True, frozen=True)
class Network:
    """A network whose switch runs."""

    name: str
    ports: tuple[Port, ...]


def control_socket(name: str) -> Path:
    """Where the switch of a network answers."""
    return private_directory("networks") / f"{name}{CONTROL_SUFFIX}"


def label(spec: VifSpec, owner: DomainConfig) -> bytes:
    """What an interface's wire says first, for the switch alone: whose it is. A card of QEMU's does for itself neither
    what our back end does, cutting large frames and dropping those of others: the switch does it."""
    about = {
        "domain": owner.name,
        "uuid": str(owner.uuid),
        "devid": spec.devid,
        "mac": mac_text(spec.mac_of(owner.uuid)),
    }
    words = []
    if owner.type.is_full:
        words.append(f"cut={spec.effective_mtu}")
        words += [f"own={about['mac']}", *(f"ip={address}" for address in spec.ip)] if spec.is_guarded else []
        words += [f"rate={spec.rate.bytes}/{spec.rate.interval_us}"] if spec.rate is not None else []
    text = " ".join([*words, json.dumps(about)]).encode()
    if len(text) > LABEL_MAX:
        raise ConfigError(f"{len(spec.ip)} addresses are too many for a network's switch", key="vif")
    frame = _LABEL + text
    return len(frame).to_bytes(4, "big") + frame


def networks() -> list[Network]:
    """Those that there are, by name."""
    names = sorted(
        path.name.removesuffix(CONTROL_SUFFIX) for path in control_socket("").parent.glob(f"*{CONTROL_SUFFIX}")
    )
    found = []
    for name in names:
        try:
            found.append(network(name))
        except DomzeroError:
            continue  # it has ended meanwhile, or was killed
    return found


def network(name: str) -> Network:
    """One network. ConfigError: there is none of this name now."""
    with _ask(name, "show") as answer:
        text = b""
        try:
            while part := answer.recv(1 << 16):
                text += part
            ports = [_port(line) for line in text.decode().splitlines()]
        except (OSError, ValueError) as error:  # ValueError: it was killed in the middle of a line
            raise DomzeroError(f"the switch of the network {name!r} does not answer: {error}") from error
    return Network(name, tuple(sorted(ports, key=lambda port: port.number)))


def capture(name: str, *, snaplen: int = SNAPLEN_MAX, frames: int = 0) -> socket.socket:
    """The frames of a network, from now on, as a pcapng file that is to be read until its end. ConfigError.

    :param snaplen: bytes of each frame.
    :param frames: how many; 0: until the socket is shut down for writing, or closed.
    """
    return _ask(name, f"capture {snaplen} {frames}")


def port_of(spec: VifSpec, owner: DomainConfig) -> Port | None:
    """An interface's port in its network. None: there is none, or no such network now."""
    try:
        found = network(spec.network)
    except DomzeroError:
        return None
    mine = (str(owner.uuid), spec.devid)
    return next((port for port in found.ports if (port.uuid, port.devid) == mine), None)


def capture_port(name: str, port: Port, *, snaplen: int, frames: int) -> socket.socket:
    """As `capture`, of one port."""
    return _ask(name, f"capture {snaplen} {frames} {port.number}")


def set_rate(name: str, port: Port, rate: Rate | None) -> None:
    """Bounds what a port may send from now on. ConfigError: it has gone."""
    bound = (0, 0) if rate is None else (rate.bytes, rate.interval_us)
    with _ask(name, f"rate {port.number} {bound[0]} {bound[1]}") as answer:
        if not answer.recv(16):
            raise ConfigError(f"the interface is not connected to the network {name!r}", key="rate")


def _ask(name: str, question: str) -> socket.socket:
    asked = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    asked.settimeout(ANSWER_S)
    try:
        asked.connect(str(control_socket(name)))
        asked.sendall(f"{question}\n".encode())
    except OSError as error:
        asked.close()
        raise ConfigError(f"there is no network {name!r} now", hint="`domzero net list` names them") from error
    return asked


def _port(line: str) -> Port:
    """What a switch says of one port; ValueError: that is not all of it."""
    number, sent_frames, sent_bytes, received_frames, received_bytes, dropped, spoofed, stations, said = line.split(
        "\t"
    )
    about = _about(said)
    devid = about.get("devid")
    return Port(
        int(number),
        str(about.get("domain", "")),
        str(about.get("uuid", "")),
        devid if isinstance(devid, int) else None,
        str(about.get("mac", "")),
        tuple(stations.split(",")) if stations else (),
        int(sent_frames),
        int(sent_bytes),
        int(received_frames),
        int(received_bytes),
        int(dropped),
        int(spoofed),
    )


def _about(said: str) -> dict[str, Any]:
    try:
        about = json.loads(said)
    except ValueError:
        return {}
    return about if isinstance(about, dict) else {}
