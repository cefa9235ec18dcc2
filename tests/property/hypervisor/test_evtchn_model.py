# SPDX-License-Identifier: Apache-2.0
"""2-level event channels against a small model: random operations of three domains, then everything compared."""

import os
import struct
from typing import Any

import real_host
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from ports import Ports

from domzero.abi.event_channel import EvtchnStat
from domzero.abi.xen import DOMID_SELF
from domzero.hypervisor.errors import XenError

DOMAINS = st.integers(0, 2)
PORTS = st.integers(0, 8)
PENDING_AT, MASK_AT = 2048, 2048 + 512
EXAMPLES = int(os.environ.get("DOMZERO_MODEL_EXAMPLES", "0"))


class EventChannelMachine(RuleBasedStateMachine):
    """The model: (domain, port) to a tuple that says what it is; and the set of pending events."""

    def __init__(self) -> None:
        super().__init__()
        self.host = real_host.make_host()
        self.host.lock.acquire()
        self.domains = [real_host.make_domain(self.host, vcpus=2) for _ in range(3)]
        self.model: dict[tuple[int, int], tuple[Any, ...]] = {}
        self.pending: set[tuple[int, int]] = set()
        self.called: list[int] = []

    def teardown(self) -> None:
        self.host.close()
        self.host.lock.release()

    def free_port(self, d: int) -> int:
        return next(p for p in range(1, 1024) if (d, p) not in self.model)

    def attempt(self, function: Any, *args: Any) -> Any:
        try:
            return function(*args)
        except XenError as error:
            return error

    @rule(d=DOMAINS, remote=DOMAINS)
    def alloc_unbound(self, d: int, remote: int) -> None:
        port = self.free_port(d)
        assert Ports(self.domains[d]).alloc_unbound(self.domains[remote].domid) == port
        self.model[d, port] = ("unbound", remote)

    @rule(d=DOMAINS, remote=DOMAINS, port=PORTS)
    def bind_interdomain(self, d: int, remote: int, port: int) -> None:
        expected = self.model.get((remote, port)) == ("unbound", d)
        local = self.free_port(d)
        domid = DOMID_SELF if remote == d else self.domains[remote].domid
        result = self.attempt(Ports(self.domains[d]).bind_interdomain, domid, port)
        if not expected:
            assert isinstance(result, XenError)
            return
        assert result == local
        self.model[d, local] = ("inter", remote, port)
        self.model[remote, port] = ("inter", d, local)
        self.pending.add((d, local))

    @rule(d=DOMAINS, virq=st.sampled_from([0, 1, 12]), vcpu=st.integers(0, 1))
    def bind_virq(self, d: int, virq: int, vcpu: int) -> None:
        taken = any(k[0] == d and v[:3] == ("virq", virq, vcpu) for k, v in self.model.items())
        port = self.free_port(d)
        result = self.attempt(Ports(self.domains[d]).bind_virq, virq, vcpu)
        if taken or (virq == 12 and vcpu):
            assert isinstance(result, XenError)
            return
        assert result == port
        self.model[d, port] = ("virq", virq, vcpu)

    @rule(d=DOMAINS, port=PORTS)
    def bind_backend(self, d: int, port: int) -> None:
        expected = self.model.get((d, port)) == ("unbound", d)
        result = self.attempt(
            Ports(self.domains[d]).bind_backend, port, lambda: self.called.append(port), self.domains[d].domid
        )
        assert isinstance(result, XenError) is not expected
        if expected:
            self.model[d, port] = ("backend", result)

    @rule(d=DOMAINS, port=PORTS)
    def close(self, d: int, port: int) -> None:
        what = self.model.get((d, port))
        result = self.attempt(Ports(self.domains[d]).close, port)
        assert isinstance(result, XenError) is (what is None)
        if what is None:
            return
        if what[0] == "inter":
            self.model[what[1], what[2]] = ("unbound", d)
        if what[0] == "backend":
            assert not what[1].is_open
        self.model.pop((d, port), None)
        self.pending.discard((d, port))

    @rule(d=DOMAINS, port=PORTS)
    def send(self, d: int, port: int) -> None:
        what = self.model.get((d, port))
        self.called.clear()
        result = self.attempt(Ports(self.domains[d]).send, port)
        assert isinstance(result, XenError) is (what is None or what[0] == "virq")
        assert self.called == []
        self.domains[d].back_ends.settle()
        assert self.called == ([port] if what and what[0] == "backend" else [])
        if what and what[0] == "inter":
            self.pending.add((what[1], what[2]))

    @rule(d=DOMAINS, virq=st.sampled_from([0, 1, 12]), vcpu=st.integers(0, 1))
    def raise_virq(self, d: int, virq: int, vcpu: int) -> None:
        self.domains[d].evtchn.send_virq(vcpu, virq)
        wanted = ("virq", virq, 0 if virq == 12 else vcpu)
        self.pending |= {k for k, v in self.model.items() if k[0] == d and v == wanted}

    @rule(d=DOMAINS, port=PORTS)
    def guest_takes(self, d: int, port: int) -> None:
        self.host.machine.test_and_clear_bit(self.domains[d].shared_info_maddr + PENDING_AT, port)
        self.pending.discard((d, port))

    @rule(d=DOMAINS)
    def reset(self, d: int) -> None:
        Ports(self.domains[d]).reset()
        self.forget(d)

    @rule(d=DOMAINS)
    def destroy_and_make_another(self, d: int) -> None:
        assert self.host.destroy_domain(self.domains[d]) == 0
        self.forget(d)
        # Whoever waits for the old domain waits for a domain of that number, whichever it is.
        self.domains[d] = real_host.make_domain(self.host, vcpus=2, domid=self.domains[d].domid)

    def forget(self, d: int) -> None:
        for key in [key for key in self.model if key[0] == d]:
            what = self.model.pop(key)
            if what[0] == "inter" and (what[1], what[2]) in self.model:
                self.model[what[1], what[2]] = ("unbound", d)
        self.pending = {key for key in self.pending if key[0] != d}

    @invariant()
    def the_books_are_right(self) -> None:
        assert self.host.audit() == []

    @invariant()
    def ports_and_bits_are_those_of_the_model(self) -> None:
        kinds = {"unbound": 1, "inter": 2, "backend": 2, "virq": 4}
        for index, domain in enumerate(self.domains):
            for channel in Ports(domain).channels:
                what = self.model.get((index, channel.port))
                assert channel.status == (EvtchnStat.EVTCHNSTAT_closed if what is None else kinds[what[0]])
            word = struct.unpack_from("<Q", domain.shared_info, PENDING_AT)[0]
            assert word == sum(1 << p for d, p in self.pending if d == index)


TestEventChannels = EventChannelMachine.TestCase
TestEventChannels.settings = settings(max_examples=EXAMPLES or 60, stateful_step_count=40, deadline=None)
