# SPDX-License-Identifier: Apache-2.0
"""The FIFO event-channel ABI: what a guest that follows it sees, and what one that does not can do."""

from typing import Any

import pytest
from fakes import hypercall
from fifo_guest import LINKED, MASKED, PENDING, FifoGuest
from ports import Ports
from real_host import PAGE, make_domain

from domzero.abi import event_channel as abi
from domzero.abi.errno import Errno
from domzero.abi.event_channel import EvtchnOp
from domzero.abi.xen import DOMID_SELF, Hypercall, Virq
from domzero.hypervisor.domain import Limits
from domzero.hypervisor.errors import XenError
from domzero.hypervisor.hypercalls import dispatch


def op(vcpu: Any, command: EvtchnOp, arg: Any) -> int:
    return hypercall(vcpu, Hypercall.HYPERVISOR_event_channel_op, command, vcpu.hw.place(bytes(arg)))


def init(vcpu: Any, mfn: int, offset: int = 0, target: int = 0) -> int:
    return op(vcpu, EvtchnOp.EVTCHNOP_init_control, abi.evtchn_init_control(mfn, offset, target))


def expand(vcpu: Any, mfn: int) -> int:
    return op(vcpu, EvtchnOp.EVTCHNOP_expand_array, abi.evtchn_expand_array(mfn))


@pytest.fixture
def guest(host: Any, domain: Any, vcpu: Any) -> FifoGuest:
    """A domain of two vCPUs on the FIFO ABI, with words for 1024 ports, all unmasked."""
    control, page = domain.hw.alloc(2)
    assert init(vcpu, control) == 0
    assert init(vcpu, control, 2048, 1) == 0
    assert expand(vcpu, page) == 0
    return FifoGuest(host.machine, [control * PAGE, control * PAGE + 2048], [page])


def ipi(domain: Any, vcpu: int = 0, priority: int | None = None) -> int:
    port: int = Ports(domain).bind_ipi(vcpu)
    if priority is not None:
        Ports(domain).set_priority(port, priority)
    return port


def test_init_control_answers_the_number_of_link_bits(domain: Any, vcpu: Any) -> None:
    va = vcpu.hw.place(bytes(abi.evtchn_init_control(domain.hw.alloc(1)[0], 8, 1)))
    assert hypercall(vcpu, Hypercall.HYPERVISOR_event_channel_op, EvtchnOp.EVTCHNOP_init_control, va) == 0
    assert abi.evtchn_init_control.from_buffer_copy(vcpu.hw.peek(va, 24)).link_bits == 17


@pytest.mark.parametrize(
    ("offset", "target", "errno"),
    [(0, 2, Errno.ENOENT), (4, 0, Errno.EINVAL), (4096 - 64, 0, Errno.EINVAL), (1 << 31, 0, Errno.EINVAL)],
)
def test_control_blocks_are_checked(domain: Any, vcpu: Any, offset: int, target: int, errno: Errno) -> None:
    assert init(vcpu, domain.hw.alloc(1)[0], offset, target) == -errno
    assert domain.hw.outside_refs() == []
    assert expand(vcpu, 20) == -Errno.EOPNOTSUPP


def test_a_frame_that_is_not_an_ordinary_one_of_the_domain_is_refused(host: Any, domain: Any, vcpu: Any) -> None:
    (foreign,) = make_domain(host).hw.alloc(1)
    (table,) = domain.hw.alloc(1)
    vcpu.hw.pin_l1(table)
    for mfn in (foreign, table, 1 << 50):
        assert init(vcpu, mfn) == -Errno.EINVAL
        assert expand(vcpu, mfn) == -Errno.EOPNOTSUPP
    assert init(vcpu, domain.hw.alloc(1)[0]) == 0
    for mfn in (foreign, table, 1 << 50):
        assert expand(vcpu, mfn) == -Errno.EINVAL


def test_a_vcpu_has_one_control_block(guest: FifoGuest, domain: Any, vcpu: Any) -> None:
    assert init(vcpu, domain.hw.alloc(1)[0]) == -Errno.EINVAL


def test_the_event_array_ends_at_the_last_port_that_a_link_can_name(guest: FifoGuest, domain: Any, vcpu: Any) -> None:
    (page,) = domain.hw.alloc(1)
    for _ in range(127):
        Ports(domain).expand_array(page)
    assert expand(vcpu, page) == -Errno.ENOSPC


def test_events_come_in_the_order_they_were_sent(guest: FifoGuest, domain: Any, vcpu: Any) -> None:
    ports = [ipi(domain) for _ in range(5)]
    order = [ports[i] for i in (3, 0, 4, 1, 2)]
    for port in order:
        Ports(domain).send(port)
    assert domain.shared_info[0] == 1
    assert guest.take(0) == order
    assert guest.take(0) == []


def test_a_higher_priority_comes_first(guest: FifoGuest, domain: Any) -> None:
    low, normal, high = ipi(domain, 0, 15), ipi(domain), ipi(domain, 0, 0)
    for port in (low, normal, high):
        Ports(domain).send(port)
    assert guest.take(0) == [high, normal, low]


def test_each_vcpu_has_its_own_queues(guest: FifoGuest, domain: Any) -> None:
    first, second = ipi(domain, 0), ipi(domain, 1)
    Ports(domain).send(second)
    Ports(domain).send(first)
    assert (guest.take(0), guest.take(1)) == ([first], [second])


def test_a_masked_event_waits_for_unmask(guest: FifoGuest, domain: Any, vcpu: Any) -> None:
    port = ipi(domain)
    guest.change(port, put=MASKED)
    Ports(domain).send(port)
    assert (guest.word(port), guest.ready(0), domain.shared_info[0]) == (PENDING | MASKED, 0, 0)
    assert guest.unmask_needs_hypercall(port)
    assert op(vcpu, EvtchnOp.EVTCHNOP_unmask, abi.evtchn_unmask(port)) == 0
    assert guest.take(0) == [port]


def test_an_event_that_comes_again_while_it_is_handled_is_linked_again(guest: FifoGuest, domain: Any) -> None:
    first, second = ipi(domain), ipi(domain)
    for _ in range(3):
        Ports(domain).send(first)
        Ports(domain).send(second)
        assert guest.take(0) == [first, second]


def test_a_queue_is_continued_behind_a_tail_that_the_guest_has_not_seen_yet(guest: FifoGuest, domain: Any) -> None:
    ports = [ipi(domain) for _ in range(3)]
    Ports(domain).send(ports[0])
    Ports(domain).send(ports[1])
    assert guest.word(ports[0]) & 0x1FFFF == ports[1]
    assert guest._next(0, 7) == ports[0]
    Ports(domain).send(ports[2])
    Ports(domain).send(ports[0])
    assert guest.take(0) == [ports[1], ports[2], ports[0]]


def test_a_port_that_changes_its_queue_while_it_is_the_tail_breaks_neither(guest: FifoGuest, domain: Any) -> None:
    wanderer, other = ipi(domain), ipi(domain)
    Ports(domain).send(wanderer)
    Ports(domain).set_priority(wanderer, 3)
    assert guest.take(0) == [wanderer]
    Ports(domain).send(wanderer)
    Ports(domain).send(other)
    assert guest.take(0) == [wanderer, other]


def test_events_from_before_the_array_are_raised_when_its_page_comes(host: Any, domain: Any, vcpu: Any) -> None:
    early = ipi(domain)
    Ports(domain).send(early)
    control, page = domain.hw.alloc(2)
    assert init(vcpu, control) == 0
    later = ipi(domain)
    Ports(domain).send(later)
    assert expand(vcpu, page) == 0
    assert FifoGuest(host.machine, [control * PAGE], [page]).take(0) == [early, later]


def test_an_event_for_a_vcpu_without_control_block_is_lost(host: Any, domain: Any, vcpu: Any) -> None:
    control, page = domain.hw.alloc(2)
    assert init(vcpu, control) == 0
    assert expand(vcpu, page) == 0
    port = ipi(domain, 1)
    Ports(domain).send(port)
    assert FifoGuest(host.machine, [control * PAGE], [page]).word(port) == 0


def test_a_closed_port_is_not_used_again_while_it_is_linked(guest: FifoGuest, domain: Any) -> None:
    port = ipi(domain)
    Ports(domain).send(port)
    Ports(domain).close(port)
    assert guest.word(port) == LINKED
    assert ipi(domain) == port + 1
    assert guest.take(0) == []
    assert ipi(domain) == port


def test_priorities_have_xens_errors(guest: FifoGuest, domain: Any, vcpu: Any) -> None:
    port = ipi(domain)
    assert op(vcpu, EvtchnOp.EVTCHNOP_set_priority, abi.evtchn_set_priority(port, 16)) == -Errno.EINVAL
    assert op(vcpu, EvtchnOp.EVTCHNOP_set_priority, abi.evtchn_set_priority(port, 15)) == 0
    assert op(vcpu, EvtchnOp.EVTCHNOP_set_priority, abi.evtchn_set_priority(port + 1, 3)) == -Errno.EACCES
    assert op(vcpu, EvtchnOp.EVTCHNOP_set_priority, abi.evtchn_set_priority(9999, 3)) == -Errno.EINVAL


def test_a_port_that_is_used_again_has_the_default_priority(guest: FifoGuest, domain: Any) -> None:
    port = ipi(domain, 0, 2)
    Ports(domain).close(port)
    assert ipi(domain) == port
    assert Ports(domain).channel(port).priority == 7


def test_reset_gives_the_frames_back_and_the_two_level_abi(guest: FifoGuest, domain: Any, vcpu: Any) -> None:
    port = ipi(domain)
    assert op(vcpu, EvtchnOp.EVTCHNOP_reset, abi.evtchn_reset(DOMID_SELF)) == 0
    assert domain.hw.outside_refs() == []
    port = ipi(domain)
    Ports(domain).send(port)
    assert domain.shared_info[2048] == 1 << port
    assert init(vcpu, domain.hw.alloc(1)[0]) == 0


def test_a_destroyed_domain_gives_its_frames_back(guest: FifoGuest, host: Any, domain: Any) -> None:
    ipi(domain)
    assert host.destroy_domain(domain) == 0
    assert domain.hw.outside_refs() == []


def test_a_polling_vcpu_wakes_for_its_port(guest: FifoGuest, domain: Any, vcpu: Any) -> None:
    port = ipi(domain)
    guest.change(port, put=MASKED)
    vcpu.poll(frozenset({port}), None)
    Ports(domain).send(port)
    assert not vcpu.is_blocked


def test_many_ports_need_a_domain_that_may_have_them(host: Any) -> None:
    domain = make_domain(host, vcpus=1, limits=Limits(event_channels=131071))
    control, page = domain.hw.alloc(2)
    Ports(domain).init_control(0, control, 0)
    for _ in range(128):
        Ports(domain).expand_array(page)
    for _ in range(131071):
        port = Ports(domain).bind_ipi(0)
    assert port == 131071
    with pytest.raises(XenError) as error:
        Ports(domain).bind_ipi(0)
    assert error.value.errno is Errno.ENOSPC


@pytest.mark.parametrize("is_32bit", [False, True])
def test_the_two_level_abi_has_as_many_ports_as_the_guests_word_squared(host: Any, is_32bit: bool) -> None:
    domain = make_domain(host, is_32bit=is_32bit, limits=Limits(event_channels=131071))
    for _ in range(1023 if is_32bit else 4095):
        Ports(domain).bind_ipi(0)
    with pytest.raises(XenError) as error:
        Ports(domain).bind_ipi(0)
    assert error.value.errno is Errno.ENOSPC


def test_rubbish_in_words_and_heads_is_the_guests_own_problem(guest: FifoGuest, host: Any, domain: Any) -> None:
    ports = [ipi(domain, i % 2, i) for i in range(16)]
    for rubbish in (0xFFFFFFFF, 0x2FFFFFFF, 0x20000000, 0, 0x9001FFFF, 0x3001FFFF):
        for port in ports:
            host.machine.write(guest.word_at(port), rubbish.to_bytes(4, "little"))
        host.machine.write(guest.blocks[0], rubbish.to_bytes(4, "little") * 18)
        for port in ports:
            Ports(domain).send(port)
            Ports(domain).unmask(port)
            Ports(domain).set_priority(port, rubbish % 16)
            Ports(domain).send(port)
        assert domain.evtchn.audit() == []
    assert Ports(domain).virqs == {}
    assert Ports(domain).bind_virq(Virq.VIRQ_TIMER, 0) > 0


def test_what_was_pending_in_the_two_level_tables_does_not_come_back(host: Any, domain: Any) -> None:
    """Found by the model: a bit from before the FIFO ABI was seen again after the way back."""
    port = ipi(domain)
    Ports(domain).send(port)
    for _ in range(2):
        Ports(domain).init_control(0, domain.hw.alloc(1)[0], 0)
        Ports(domain).reset()
        assert domain.shared_info[2048:2056] == bytes(8)
        assert not Ports(domain).is_pending(ipi(domain))


def test_many_latched_events_are_raised_in_turns_of_one_hypercall(host: Any, domain: Any, vcpu: Any) -> None:
    control, page = domain.hw.alloc(2)
    ports = [ipi(domain) for _ in range(1000)]
    assert init(vcpu, control) == 0
    for port in ports:
        Ports(domain).send(port)
    va = vcpu.hw.place(bytes(abi.evtchn_expand_array(page)))
    turns = 0
    vcpu.hw.restarted = True
    while vcpu.hw.restarted:
        vcpu.hw.restarted = False
        dispatch(vcpu, Hypercall.HYPERVISOR_event_channel_op, (EvtchnOp.EVTCHNOP_expand_array, va, 0, 0, 0, 0))
        turns += 1
        assert host.audit() == []
    assert vcpu.hw.result == 0
    assert turns == 8
    assert domain.evtchn.frames == [page, control]
    guest = FifoGuest(host.machine, [control * PAGE], [page])
    assert guest.take(0) == ports
    assert expand(vcpu, page) == 0  # another page: the first is done with
    assert domain.evtchn.frames == [page, page, control]
