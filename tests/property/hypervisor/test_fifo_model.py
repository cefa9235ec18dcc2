# SPDX-License-Identifier: Apache-2.0
"""FIFO event channels against a small model: a guest that follows the rules loses no event, whatever happens."""

import os
from typing import Any

import real_host
from fifo_guest import MASKED, FifoGuest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from ports import Ports

from domzero.abi.event_channel import EvtchnStat
from domzero.abi.xen import DOMID_SELF
from domzero.hypervisor.errors import XenError

PORTS = st.integers(1, 10)
VCPUS = st.integers(0, 1)
EXAMPLES = int(os.environ.get("DOMZERO_MODEL_EXAMPLES", "0"))


class FifoMachine(RuleBasedStateMachine):
    """The model: which ports are pending, and which are masked. The order within a queue is not modelled."""

    def __init__(self) -> None:
        super().__init__()
        self.host = real_host.make_host()
        self.host.lock.acquire()
        self.domain = real_host.make_domain(self.host, vcpus=2)
        self.ports = Ports(self.domain)
        self.guest: FifoGuest | None = None
        self.pending: set[int] = set()
        self.masked: set[int] = set()

    def teardown(self) -> None:
        assert self.host.destroy_domain(self.domain) == 0
        assert self.domain.hw.outside_refs() == []
        self.host.close()
        self.host.lock.release()

    def attempt(self, function: Any, *args: Any) -> Any:
        try:
            return function(*args)
        except XenError as error:
            return error

    # --- the two ABIs

    @precondition(lambda self: self.guest is None)
    @rule(early=st.booleans())
    def choose_fifo(self, early: bool) -> None:
        """With the array before or after another event."""
        control, page = self.domain.hw.alloc(2)
        self.ports.init_control(0, control, 0)
        if early:
            self.send_everything()
        self.ports.init_control(1, control, 2048)
        self.ports.expand_array(page)
        self.guest = FifoGuest(self.host.machine, [control * 4096, control * 4096 + 2048], [page])

    def send_everything(self) -> None:
        for channel in self.ports.channels:
            if channel.status == EvtchnStat.EVTCHNSTAT_ipi:
                self.send(channel.port)

    @precondition(lambda self: self.guest is not None)
    @rule()
    def reset(self) -> None:
        self.ports.reset()
        self.guest = None
        self.pending.clear()
        self.masked.clear()

    # --- ports

    @rule(vcpu=VCPUS)
    def bind_ipi(self, vcpu: int) -> None:
        port = self.ports.bind_ipi(vcpu)
        assert port not in self.pending

    @rule(vcpu=VCPUS)
    def bind_loop(self, vcpu: int) -> None:
        first = self.ports.alloc_unbound(DOMID_SELF)
        self.ports.bind_vcpu(first, vcpu)
        self.pending.add(self.ports.bind_interdomain(DOMID_SELF, first))

    @rule(port=PORTS, vcpu=VCPUS)
    def move(self, port: int, vcpu: int) -> None:
        self.attempt(self.ports.bind_vcpu, port, vcpu)

    @rule(port=PORTS, priority=st.integers(0, 15))
    def set_priority(self, port: int, priority: int) -> None:
        self.attempt(self.ports.set_priority, port, priority)

    @rule(port=PORTS)
    def close(self, port: int) -> None:
        if not isinstance(self.attempt(self.ports.close, port), XenError):
            self.pending.discard(port)

    @rule(port=PORTS)
    def send(self, port: int) -> None:
        channel = self.ports.channels[port]
        if isinstance(self.attempt(self.ports.send, port), XenError):
            return
        match channel.status:
            case EvtchnStat.EVTCHNSTAT_ipi:
                self.pending.add(port)
            case EvtchnStat.EVTCHNSTAT_interdomain:
                self.pending.add(channel.remote_port)

    # --- the guest

    @precondition(lambda self: self.guest is not None)
    @rule(port=PORTS)
    def mask(self, port: int) -> None:
        assert self.guest is not None
        self.guest.change(port, put=MASKED)
        self.masked.add(port)

    @precondition(lambda self: self.guest is not None)
    @rule(port=PORTS)
    def unmask(self, port: int) -> None:
        assert self.guest is not None
        if self.guest.unmask_needs_hypercall(port):
            self.ports.unmask(port)
        self.masked.discard(port)

    @precondition(lambda self: self.guest is not None)
    @rule()
    def take_everything(self) -> None:
        assert self.guest is not None
        taken = self.guest.take(0) + self.guest.take(1)
        assert len(taken) == len(set(taken))
        assert set(taken) == self.pending - self.masked
        self.pending &= self.masked

    @precondition(lambda self: self.guest is not None)
    @rule(vcpu=VCPUS)
    def take_on_one_vcpu(self, vcpu: int) -> None:
        assert self.guest is not None
        taken = set(self.guest.take(vcpu))
        assert taken <= self.pending - self.masked
        self.pending -= taken

    @invariant()
    def the_books_are_right(self) -> None:
        assert self.host.audit() == []

    @invariant()
    def what_is_pending_is_what_the_model_says(self) -> None:
        for channel in self.ports.channels:
            if channel.status != EvtchnStat.EVTCHNSTAT_closed:
                assert self.ports.is_pending(channel.port) is (channel.port in self.pending)


TestFifo = FifoMachine.TestCase
TestFifo.settings = settings(max_examples=EXAMPLES or 40, stateful_step_count=40, deadline=None)
