# SPDX-License-Identifier: Apache-2.0
"""The network back end (io/netif.h): a guest's interface at one end of a wire."""

from __future__ import annotations

from collections.abc import Mapping

from domzero import _machine
from domzero.dom0.backends.rings import RingsDevice
from domzero.dom0.backends.xenbus import Front, FrontendError, Nodes
from domzero.dom0.vifspec import VifSpec, mac_text
from domzero.dom0.wire import Wire
from domzero.hypervisor.domain import Domain

MAX_QUEUES = 4


class NetDevice(RingsDevice):
    """One interface of one domain.

    :param wire: is the device's from here on.
    """

    kind = "vif"

    def __init__(self, domain: Domain, spec: VifSpec, mac: bytes, wire: Wire) -> None:
        super().__init__(domain, spec.devid)
        self.spec = spec
        self.mac = mac
        tap_mtu = spec.effective_mtu if wire.is_tap else None
        self.link = _machine.NetLink(wire.detach(), tap_mtu)
        self.set(spec)

    def set(self, spec: VifSpec) -> Mapping[str, str | int | None]:
        """Changes what can be changed while the interface is in use: its rate and its link. The nodes that say so."""
        rate = spec.rate
        self.link.set_rate(rate.bytes if rate else 0, rate.interval_us if rate else 0)
        self.link.set_up(spec.is_up)
        self.spec = spec
        if isinstance(rings := self._rings, _machine.NetRings):
            rings.wake()
        return {"rate": rate.node if rate else None, "carrier": int(spec.is_up)}

    def front_nodes(self) -> Nodes:
        """Written by the toolstack for the front end."""
        return {"handle": self.devid, "mac": mac_text(self.mac), "mtu": self.spec.effective_mtu}

    def back_nodes(self) -> Nodes:
        """Written by the toolstack and the back end."""
        set_by_user = {name: value for name, value in self.set(self.spec).items() if value is not None}
        return {
            **set_by_user,
            "handle": self.devid,
            "mac": mac_text(self.mac),
            "bridge": self.spec.network,
            "type": "vif",
            "hotplug-status": "connected",
            "feature-sg": 1,
            "feature-gso-tcpv4": 1,
            "feature-gso-tcpv6": 1,
            "feature-ipv6-csum-offload": 1,
            "feature-rx-copy": 1,
            "feature-rx-flip": 0,
            "feature-split-event-channels": 1,
            "feature-multicast-control": 1,
            "multi-queue-max-queues": MAX_QUEUES,
        }

    def take_rings(self, front: Front) -> _machine.NetRings:
        """Connects its queues."""

        def has(name: str) -> bool:
            return front.number(name, 0) != 0

        if not has("request-rx-copy"):
            raise FrontendError("the front end does not ask for request-rx-copy")
        queues = front.number("multi-queue-num-queues", 1)
        if not 1 <= queues <= MAX_QUEUES:
            raise FrontendError(f"{queues} queues: 1 to {MAX_QUEUES} are possible")
        agreed = _machine.NetAgreed(
            mac=self.mac,
            keeps_mac=self.spec.is_guarded,
            addresses=list(self.spec.ip) if self.spec.is_guarded else [],
            mtu=self.spec.effective_mtu,
            scatter=has("feature-sg"),
            gso_v4=has("feature-gso-tcpv4"),
            gso_v6=has("feature-gso-tcpv6"),
            checksum_v4=not has("feature-no-csum-offload"),
            checksum_v6=has("feature-ipv6-csum-offload"),
            rx_notify=has("feature-rx-notify"),
            multicast_control=has("request-multicast-control"),
        )
        refs: list[tuple[int, int]] = []
        transmitted: list[_machine.EventPort] = []
        received: list[_machine.EventPort] = []
        for queue in range(queues):
            at = f"queue-{queue}/" if queues > 1 else ""
            refs.append((front.number(f"{at}tx-ring-ref"), front.number(f"{at}rx-ring-ref")))
            if front.text(f"{at}event-channel-tx") is not None:
                ports = [self.bind(front.number(f"{at}event-channel-{way}")) for way in ("tx", "rx")]
            else:
                ports = [self.bind(front.number(f"{at}event-channel"))]
            transmitted.append(ports[0])
            received.append(ports[-1])
        return _machine.NetRings(
            self._domain.grants.hw,
            self.link,
            refs,
            agreed,
            transmitted=transmitted,
            received=received,
            broken=self.broken,
            lost=self._lost,
            thread=f"vif{self.devid}",
        )

    def _lost(self) -> None:
        self._domain.log(f"vif {self.devid}: the network {self.spec.network!r} has gone")

    def close(self) -> None:
        """Lets go of the wire."""
        self.link.close()
