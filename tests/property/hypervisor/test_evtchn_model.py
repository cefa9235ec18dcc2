"""Event channels and grants against small models: random operations of three domains, then everything compared."""

import struct
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
import fakes
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from domzero.abi.event_channel import EvtchnStat
from domzero.abi.grant_table import Gtf
from domzero.abi.xen import DOMID_SELF
from domzero.hypervisor.errors import XenError
from domzero.hypervisor.grant import GrantError, map_backend, unmap_backend

DOMAINS = st.integers(0, 2)
PORTS = st.integers(0, 8)
PENDING_AT, MASK_AT = 2048, 2048 + 512


class EventChannelMachine(RuleBasedStateMachine):
    """The model: (domain, port) to a tuple that says what it is; and the set of pending events."""

    def __init__(self) -> None:
        super().__init__()
        self.host = fakes.make_host()
        self.host.lock.acquire()
        self.domains = [fakes.make_domain(self.host, vcpus=2) for _ in range(3)]
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
        assert self.domains[d].evtchn.alloc_unbound(self.domains[remote].domid) == port
        self.model[d, port] = ("unbound", remote)

    @rule(d=DOMAINS, remote=DOMAINS, port=PORTS)
    def bind_interdomain(self, d: int, remote: int, port: int) -> None:
        expected = self.model.get((remote, port)) == ("unbound", d)
        local = self.free_port(d)
        domid = DOMID_SELF if remote == d else self.domains[remote].domid
        result = self.attempt(self.domains[d].evtchn.bind_interdomain, domid, port)
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
        result = self.attempt(self.domains[d].evtchn.bind_virq, virq, vcpu)
        if taken or (virq == 12 and vcpu):
            assert isinstance(result, XenError)
            return
        assert result == port
        self.model[d, port] = ("virq", virq, vcpu)

    @rule(d=DOMAINS, port=PORTS)
    def bind_backend(self, d: int, port: int) -> None:
        expected = self.model.get((d, port)) == ("unbound", d)
        result = self.attempt(
            self.domains[d].evtchn.bind_backend, port, lambda: self.called.append(port), self.domains[d].domid
        )
        assert isinstance(result, XenError) is not expected
        if expected:
            self.model[d, port] = ("backend", result)

    @rule(d=DOMAINS, port=PORTS)
    def close(self, d: int, port: int) -> None:
        what = self.model.get((d, port))
        result = self.attempt(self.domains[d].evtchn.close, port)
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
        result = self.attempt(self.domains[d].evtchn.send, port)
        assert isinstance(result, XenError) is (what is None or what[0] == "virq")
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

    @invariant()
    def ports_and_bits_are_those_of_the_model(self) -> None:
        kinds = {"unbound": 1, "inter": 2, "backend": 2, "virq": 4}
        for index, domain in enumerate(self.domains):
            for channel in domain.evtchn.channels:
                what = self.model.get((index, channel.port))
                assert channel.state == (EvtchnStat.EVTCHNSTAT_closed if what is None else kinds[what[0]])
            word = struct.unpack_from("<Q", domain.shared_info, PENDING_AT)[0]
            assert word == sum(1 << p for d, p in self.pending if d == index)


class GrantMachine(RuleBasedStateMachine):
    """The model: how often each reference is mapped, and which frame it had when it was mapped first."""

    used = Bundle("used")

    def __init__(self) -> None:
        super().__init__()
        self.host = fakes.make_host()
        self.host.lock.acquire()
        self.domain = fakes.make_domain(self.host)
        self.mfns = self.domain.hw.alloc(3)
        self.entries: dict[int, tuple[int, int]] = {}
        self.active: dict[int, tuple[int, list[bool]]] = {}

    def teardown(self) -> None:
        self.host.close()
        self.host.lock.release()

    @rule(ref=st.integers(8, 10), frame=st.integers(0, 3), flags=st.sampled_from([0, 1, 5, 2, 0x101]))
    def guest_writes_entry(self, ref: int, frame: int, flags: int) -> None:
        if ref in self.active:
            return
        mfn = (*self.mfns, self.domain.shared_info_mfn)[frame]
        self.host.machine.write(self.domain.grants._entry_maddr(ref), struct.pack("<HHI", flags, 0, mfn))
        self.entries[ref] = (flags, mfn)

    @rule(target=used, ref=st.integers(8, 10), writable=st.booleans())
    def map(self, ref: int, writable: bool) -> tuple[int, bool] | None:
        flags, mfn = self.entries.get(ref, (0, 0))
        allowed = flags in (1, 5) and not (writable and flags == 5) and mfn in self.mfns
        try:
            view = map_backend(self.domain, ref, writable=writable)
        except GrantError:
            assert not allowed
            return None
        assert allowed
        assert view.readonly is not writable
        self.active.setdefault(ref, (mfn, []))[1].append(writable)
        return ref, writable

    @rule(item=consumes(used))
    def unmap(self, item: tuple[int, bool] | None) -> None:
        if item is None:
            return
        unmap_backend(self.domain, item[0], writable=item[1])
        self.active[item[0]][1].remove(item[1])
        if not self.active[item[0]][1]:
            del self.active[item[0]]

    @invariant()
    def references_and_flags_are_those_of_the_model(self) -> None:
        refs: dict[tuple[int, bool], int] = {}
        for mfn, uses in self.active.values():
            for writable in uses:
                refs[mfn, writable] = refs.get((mfn, writable), 0) + 1
        assert self.domain.hw.refs == refs
        for ref in (8, 9, 10):
            uses = self.active.get(ref, (0, []))[1]
            shown = self.domain.grants.entry(ref).flags & (Gtf.GTF_reading | Gtf.GTF_writing)
            expected = (Gtf.GTF_reading if uses else 0) | (Gtf.GTF_writing if any(uses) else 0)
            assert shown == expected


TestEventChannels = EventChannelMachine.TestCase
TestEventChannels.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestGrants = GrantMachine.TestCase
TestGrants.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
