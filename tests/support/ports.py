# SPDX-License-Identifier: Apache-2.0
"""Event channels from outside: what a guest does by hypercalls and the machine by itself, one call each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from domzero import _machine
from domzero.abi.event_channel import EvtchnStat
from domzero.hypervisor.evtchn import BackendPort, bind_backend, told

ALL_AT_ONCE = (1 << 32) - 1


class Ports:
    """All ports of one domain. Refusals are `XenError`, as for hypercalls."""

    def __init__(self, domain: Any) -> None:
        self._domain = domain
        self._hw: _machine.EventChannels = domain.evtchn

    def alloc_unbound(self, remote_domid: int) -> int:
        with told():
            return self._hw.alloc_unbound(remote_domid)

    def bind_interdomain(self, remote_domid: int, remote_port: int) -> int:
        with told():
            return self._hw.bind_interdomain(remote_domid, remote_port)

    def bind_virq(self, virq: int, vcpu_id: int) -> int:
        with told():
            return self._hw.bind_virq(virq, vcpu_id)

    def bind_ipi(self, vcpu_id: int) -> int:
        with told():
            return self._hw.bind_ipi(vcpu_id)

    def bind_vcpu(self, port: int, vcpu_id: int) -> None:
        with told():
            self._hw.bind_vcpu(port, vcpu_id)

    def bind_backend(self, port: int, callback: Callable[[], None], domid: int = 0) -> BackendPort:
        return bind_backend(self._domain, port, callback, domid)

    def close(self, port: int) -> None:
        with told():
            self._hw.close_port(port)

    def reset(self, ports_at_once: int = ALL_AT_ONCE, *, resume: bool = False) -> bool:
        with told():
            return self._hw.reset(ports_at_once, resume)

    def init_control(self, vcpu_id: int, gfn: int, offset: int) -> None:
        with told():
            self._hw.init_control(vcpu_id, gfn, offset)

    def expand_array(self, gfn: int, *, vcpu_id: int = 0, ports_at_once: int = ALL_AT_ONCE) -> bool:
        with told():
            return self._hw.expand_array(vcpu_id, gfn, ports_at_once)

    def set_priority(self, port: int, priority: int) -> None:
        with told():
            self._hw.set_priority(port, priority)

    def send(self, port: int) -> None:
        with told():
            self._hw.send(port)
        self._domain.back_ends.collect()

    def set_pending(self, port: int) -> None:
        self._hw.set_pending(port)

    def unmask(self, port: int) -> None:
        with told():
            self._hw.unmask(port)

    def is_pending(self, port: int) -> bool:
        with told():
            return self._hw.is_pending(port)

    def channel(self, port: int) -> _machine.EventChannel:
        with told():
            return self._hw.channel(port)

    def state(self, port: int) -> EvtchnStat:
        return EvtchnStat(self.channel(port).status)

    @property
    def channels(self) -> list[_machine.EventChannel]:
        return self._hw.channels

    @property
    def virqs(self) -> dict[tuple[int, int], int]:
        return dict(self._hw.virqs)
