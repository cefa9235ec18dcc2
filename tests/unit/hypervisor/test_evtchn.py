# SPDX-License-Identifier: Apache-2.0
"""Event channels: event_channel_op as a guest sees it, and host code at the other end."""

import struct
from typing import Any

import pytest
from fakes import hypercall
from ports import Ports
from real_host import make_domain

from domzero.abi import event_channel as abi
from domzero.abi.errno import Errno
from domzero.abi.event_channel import EvtchnOp, EvtchnStat
from domzero.abi.xen import DOMID_SELF, Hypercall, Virq
from domzero.hypervisor.errors import XenError
from domzero.hypervisor.evtchn import alloc_unbound, bind_backend
from domzero.hypervisor.hypercalls import dispatch
from domzero.hypervisor.hypercalls.event_channel import EvtchnOpInternal
from domzero.hypervisor.limits import MAX_PORT

SI_PENDING = 2048
SI_MASK = 2048 + 512
PENDING_SEL = 8


def op(vcpu: Any, command: int, arg: Any) -> int:
    """Makes the hypercall; `arg` receives what the hypervisor wrote."""
    va = vcpu.hw.place(bytes(arg))
    rc = hypercall(vcpu, Hypercall.HYPERVISOR_event_channel_op, command, va)
    if rc == 0:
        type(arg).from_buffer_copy(vcpu.hw.peek(va, len(bytes(arg))))
        for name, _ in type(arg)._fields_:
            setattr(arg, name, getattr(type(arg).from_buffer_copy(vcpu.hw.peek(va, len(bytes(arg)))), name))
    return rc


def bind_virq(vcpu: Any, virq: int, vcpu_id: int = 0) -> tuple[int, int]:
    arg = abi.evtchn_bind_virq(virq, vcpu_id)
    return op(vcpu, EvtchnOp.EVTCHNOP_bind_virq, arg), arg.port


def told(domain: Any, vcpu_id: int = 0) -> bool:
    """Whether a vCPU has an upcall pending, which is taken away."""
    at = vcpu_id * 64
    pending = bool(domain.shared_info[at])
    domain.shared_info[at] = 0
    return pending


def bit(domain: Any, offset: int, port: int) -> bool:
    return bool(domain.shared_info[offset + port // 8] >> port % 8 & 1)


def test_port_zero_is_never_given_out(vcpu: Any) -> None:
    arg = abi.evtchn_alloc_unbound(DOMID_SELF, 0)
    assert op(vcpu, EvtchnOp.EVTCHNOP_alloc_unbound, arg) == 0
    assert arg.port == 1


def test_a_send_sets_pending_selector_and_upcall_and_tells_the_vcpu(host: Any, domain: Any, vcpu: Any) -> None:
    other = make_domain(host)
    port = Ports(other).alloc_unbound(domain.domid)
    arg = abi.evtchn_bind_interdomain(other.domid, port)
    assert op(vcpu, EvtchnOp.EVTCHNOP_bind_interdomain, arg) == 0
    assert op(vcpu, EvtchnOp.EVTCHNOP_send, abi.evtchn_send(arg.local_port)) == 0
    assert bit(other, SI_PENDING, port)
    assert other.shared_info[PENDING_SEL] == 1
    assert told(other)


def test_binding_interdomain_makes_the_local_port_pending(host: Any, domain: Any, vcpu: Any) -> None:
    port = Ports(make_domain(host)).alloc_unbound(domain.domid)
    arg = abi.evtchn_bind_interdomain(2, port)
    assert op(vcpu, EvtchnOp.EVTCHNOP_bind_interdomain, arg) == 0
    assert bit(domain, SI_PENDING, arg.local_port)


def test_a_port_that_waits_for_somebody_else_cannot_be_bound(host: Any, vcpu: Any) -> None:
    other = make_domain(host)
    port = Ports(other).alloc_unbound(77)
    assert op(vcpu, EvtchnOp.EVTCHNOP_bind_interdomain, abi.evtchn_bind_interdomain(other.domid, port)) == -Errno.EINVAL
    assert op(vcpu, EvtchnOp.EVTCHNOP_bind_interdomain, abi.evtchn_bind_interdomain(99, port)) == -Errno.ESRCH


def test_a_domain_can_bind_to_itself(vcpu: Any) -> None:
    arg = abi.evtchn_alloc_unbound(DOMID_SELF, DOMID_SELF)
    assert op(vcpu, EvtchnOp.EVTCHNOP_alloc_unbound, arg) == 0
    back = abi.evtchn_bind_interdomain(DOMID_SELF, arg.port)
    assert op(vcpu, EvtchnOp.EVTCHNOP_bind_interdomain, back) == 0
    assert back.local_port == 2


def test_a_masked_event_is_pending_but_not_selected(domain: Any, vcpu: Any) -> None:
    _, port = bind_virq(vcpu, Virq.VIRQ_TIMER)
    domain.shared_info[SI_MASK] = 1 << port
    domain.evtchn.send_virq(0, Virq.VIRQ_TIMER)
    assert bit(domain, SI_PENDING, port)
    assert domain.shared_info[PENDING_SEL] == 0
    assert not told(domain)
    assert op(vcpu, EvtchnOp.EVTCHNOP_unmask, abi.evtchn_unmask(port)) == 0
    assert not bit(domain, SI_MASK, port)
    assert domain.shared_info[PENDING_SEL] == 1
    assert told(domain)


def test_an_event_that_is_pending_already_does_nothing_more(domain: Any, vcpu: Any) -> None:
    _, _port = bind_virq(vcpu, Virq.VIRQ_TIMER)
    domain.evtchn.send_virq(0, Virq.VIRQ_TIMER)
    assert told(domain)
    domain.evtchn.send_virq(0, Virq.VIRQ_TIMER)
    assert not told(domain)


def test_virqs_are_checked_as_in_xen(vcpu: Any) -> None:
    assert bind_virq(vcpu, 24)[0] == -Errno.EINVAL
    assert bind_virq(vcpu, 0xFFFFFFFF)[0] == -Errno.EINVAL
    assert bind_virq(vcpu, Virq.VIRQ_CONSOLE, 1)[0] == -Errno.EINVAL
    assert bind_virq(vcpu, Virq.VIRQ_TIMER, 2)[0] == -Errno.ENOENT
    assert bind_virq(vcpu, Virq.VIRQ_TIMER, 1)[0] == 0
    assert bind_virq(vcpu, Virq.VIRQ_TIMER, 1)[0] == -Errno.EEXIST
    assert bind_virq(vcpu, Virq.VIRQ_TIMER, 0)[0] == 0


def test_a_closed_virq_can_be_bound_again(vcpu: Any) -> None:
    _, port = bind_virq(vcpu, Virq.VIRQ_DEBUG)
    assert op(vcpu, EvtchnOp.EVTCHNOP_close, abi.evtchn_close(port)) == 0
    assert bind_virq(vcpu, Virq.VIRQ_DEBUG) == (0, port)


def test_ipis_reach_the_vcpu_they_were_bound_to(domain: Any, vcpu: Any) -> None:
    arg = abi.evtchn_bind_ipi(1)
    assert op(vcpu, EvtchnOp.EVTCHNOP_bind_ipi, arg) == 0
    assert op(vcpu, EvtchnOp.EVTCHNOP_send, abi.evtchn_send(arg.port)) == 0
    assert told(domain, 1)
    assert not told(domain, 0)
    assert op(vcpu, EvtchnOp.EVTCHNOP_bind_ipi, abi.evtchn_bind_ipi(9)) == -Errno.ENOENT


def test_only_some_channels_can_change_their_vcpu(domain: Any, vcpu: Any) -> None:
    _, timer = bind_virq(vcpu, Virq.VIRQ_TIMER)
    _, glob = bind_virq(vcpu, Virq.VIRQ_ENOMEM)
    unbound = Ports(domain).alloc_unbound(0)

    def rebind(port: int, to: int) -> int:
        return op(vcpu, EvtchnOp.EVTCHNOP_bind_vcpu, abi.evtchn_bind_vcpu(port, to))

    assert rebind(timer, 1) == -Errno.EINVAL
    assert rebind(glob, 1) == 0
    assert rebind(unbound, 1) == 0
    assert rebind(unbound, 5) == -Errno.ENOENT
    assert rebind(40, 1) == -Errno.EINVAL


def test_port_zero_exists_and_is_of_no_use(vcpu: Any) -> None:
    assert op(vcpu, EvtchnOp.EVTCHNOP_close, abi.evtchn_close(0)) == -Errno.EINVAL
    assert op(vcpu, EvtchnOp.EVTCHNOP_send, abi.evtchn_send(0)) == -Errno.EINVAL
    assert op(vcpu, EvtchnOp.EVTCHNOP_bind_vcpu, abi.evtchn_bind_vcpu(0, 0)) == -Errno.EINVAL
    assert op(vcpu, EvtchnOp.EVTCHNOP_unmask, abi.evtchn_unmask(0)) == 0
    status = abi.evtchn_status(DOMID_SELF, 0, 7)
    assert op(vcpu, EvtchnOp.EVTCHNOP_status, status) == 0
    assert status.status == EvtchnStat.EVTCHNSTAT_closed


@pytest.mark.parametrize("port", [64, 5000, 0xFFFFFFFF])
def test_ports_that_do_not_exist_are_invalid_everywhere(vcpu: Any, port: int) -> None:
    assert op(vcpu, EvtchnOp.EVTCHNOP_close, abi.evtchn_close(port)) == -Errno.EINVAL
    assert op(vcpu, EvtchnOp.EVTCHNOP_send, abi.evtchn_send(port)) == -Errno.EINVAL
    assert op(vcpu, EvtchnOp.EVTCHNOP_unmask, abi.evtchn_unmask(port)) == -Errno.EINVAL
    assert op(vcpu, EvtchnOp.EVTCHNOP_status, abi.evtchn_status(DOMID_SELF, port)) == -Errno.EINVAL
    assert op(vcpu, EvtchnOp.EVTCHNOP_bind_vcpu, abi.evtchn_bind_vcpu(port, 0)) == -Errno.EINVAL
    assert op(vcpu, EvtchnOp.EVTCHNOP_set_priority, abi.evtchn_set_priority(port, 0)) == -Errno.EINVAL


def test_sending_on_free_and_virq_ports_is_invalid_and_on_unbound_ones_lost(domain: Any, vcpu: Any) -> None:
    _, timer = bind_virq(vcpu, Virq.VIRQ_TIMER)
    unbound = Ports(domain).alloc_unbound(0)
    assert op(vcpu, EvtchnOp.EVTCHNOP_send, abi.evtchn_send(timer)) == -Errno.EINVAL
    assert op(vcpu, EvtchnOp.EVTCHNOP_send, abi.evtchn_send(unbound)) == 0
    assert op(vcpu, EvtchnOp.EVTCHNOP_send, abi.evtchn_send(50)) == -Errno.EINVAL


def test_status_says_what_a_port_is_bound_to(host: Any, domain: Any, vcpu: Any) -> None:
    _, timer = bind_virq(vcpu, Virq.VIRQ_TIMER, 1)
    arg = abi.evtchn_status(DOMID_SELF, timer)
    assert op(vcpu, EvtchnOp.EVTCHNOP_status, arg) == 0
    assert (arg.status, arg.vcpu, arg.u.virq) == (EvtchnStat.EVTCHNSTAT_virq, 1, Virq.VIRQ_TIMER)
    other = make_domain(host)
    port = Ports(other).alloc_unbound(domain.domid)
    local = Ports(domain).bind_interdomain(other.domid, port)
    arg = abi.evtchn_status(DOMID_SELF, local)
    assert op(vcpu, EvtchnOp.EVTCHNOP_status, arg) == 0
    assert (arg.status, arg.u.interdomain.dom, arg.u.interdomain.port) == (2, other.domid, port)
    arg = abi.evtchn_status(DOMID_SELF, 60)
    assert op(vcpu, EvtchnOp.EVTCHNOP_status, arg) == 0
    assert arg.status == EvtchnStat.EVTCHNSTAT_closed


def test_another_domains_channels_are_not_for_looking_at(host: Any, vcpu: Any) -> None:
    other = make_domain(host)
    assert op(vcpu, EvtchnOp.EVTCHNOP_status, abi.evtchn_status(other.domid, 1)) == -Errno.EPERM
    assert op(vcpu, EvtchnOp.EVTCHNOP_status, abi.evtchn_status(other.domid, 5000)) == -Errno.EINVAL
    assert op(vcpu, EvtchnOp.EVTCHNOP_status, abi.evtchn_status(500, 5000)) == -Errno.ESRCH
    assert op(vcpu, EvtchnOp.EVTCHNOP_alloc_unbound, abi.evtchn_alloc_unbound(other.domid, 0)) == -Errno.EPERM
    assert op(vcpu, EvtchnOp.EVTCHNOP_alloc_unbound, abi.evtchn_alloc_unbound(500, 0)) == -Errno.ESRCH
    assert op(vcpu, EvtchnOp.EVTCHNOP_reset, abi.evtchn_reset(other.domid)) == -Errno.EPERM


def test_closing_one_end_leaves_the_other_waiting(host: Any, domain: Any, vcpu: Any) -> None:
    other = make_domain(host)
    port = Ports(other).alloc_unbound(domain.domid)
    local = Ports(domain).bind_interdomain(other.domid, port)
    assert op(vcpu, EvtchnOp.EVTCHNOP_close, abi.evtchn_close(local)) == 0
    assert Ports(other).state(port) is EvtchnStat.EVTCHNSTAT_unbound
    assert Ports(domain).bind_interdomain(other.domid, port) == local


def test_a_reused_port_is_not_pending(domain: Any, vcpu: Any) -> None:
    _, port = bind_virq(vcpu, Virq.VIRQ_TIMER)
    domain.evtchn.send_virq(0, Virq.VIRQ_TIMER)
    assert op(vcpu, EvtchnOp.EVTCHNOP_close, abi.evtchn_close(port)) == 0
    assert not bit(domain, SI_PENDING, port)


def test_ports_run_out_with_enospc(domain: Any) -> None:
    for _ in range(MAX_PORT):
        Ports(domain).alloc_unbound(0)
    with pytest.raises(XenError) as error:
        Ports(domain).alloc_unbound(0)
    assert error.value.errno is Errno.ENOSPC


def test_reset_closes_everything(host: Any, domain: Any, vcpu: Any) -> None:
    backend = bind_backend(domain, alloc_unbound(domain), lambda: None)
    bind_virq(vcpu, Virq.VIRQ_TIMER)
    assert op(vcpu, EvtchnOp.EVTCHNOP_reset, abi.evtchn_reset(DOMID_SELF)) == 0
    assert all(c.status == EvtchnStat.EVTCHNSTAT_closed for c in Ports(domain).channels)
    assert not backend.is_open
    assert Ports(domain).virqs == {}


def test_physical_interrupts_and_without_control_block_fifo_are_refused(vcpu: Any) -> None:
    _, port = bind_virq(vcpu, Virq.VIRQ_TIMER)
    assert op(vcpu, EvtchnOp.EVTCHNOP_set_priority, abi.evtchn_set_priority(port, 3)) == -Errno.ENOSYS
    assert op(vcpu, EvtchnOp.EVTCHNOP_expand_array, abi.evtchn_expand_array(1)) == -Errno.EOPNOTSUPP
    assert op(vcpu, EvtchnOp.EVTCHNOP_bind_pirq, abi.evtchn_bind_pirq(5)) == -Errno.EPERM
    assert op(vcpu, EvtchnOp.EVTCHNOP_bind_pirq, abi.evtchn_bind_pirq(5000)) == -Errno.EINVAL
    assert hypercall(vcpu, Hypercall.HYPERVISOR_event_channel_op, 99, 0) == -Errno.ENOSYS


def test_an_argument_that_is_not_mapped_is_efault(vcpu: Any) -> None:
    for command in EvtchnOp:
        assert hypercall(vcpu, Hypercall.HYPERVISOR_event_channel_op, command, 0x1000) == -Errno.EFAULT


def test_the_old_interface_takes_command_and_argument_together(domain: Any, vcpu: Any) -> None:
    _, port = bind_virq(vcpu, Virq.VIRQ_TIMER)
    reset = vcpu.hw.place(int(EvtchnOp.EVTCHNOP_reset).to_bytes(4, "little"))
    assert hypercall(vcpu, Hypercall.HYPERVISOR_event_channel_op_compat, reset) == -Errno.ENOSYS
    command = int(EvtchnOp.EVTCHNOP_close).to_bytes(4, "little")
    va = vcpu.hw.place(command + bytes(abi.evtchn_close(port)))
    assert hypercall(vcpu, Hypercall.HYPERVISOR_event_channel_op_compat, va) == 0
    assert Ports(domain).state(port) is EvtchnStat.EVTCHNSTAT_closed


def test_a_long_reset_lets_others_have_their_turn_and_ends_all_the_same(domain: Any, vcpu: Any) -> None:
    for _ in range(300):
        Ports(domain).alloc_unbound(0)
    assert not Ports(domain).reset(100)
    with pytest.raises(XenError) as error:
        Ports(domain).reset(100)
    assert error.value.errno is Errno.EBUSY
    assert op(vcpu, EvtchnOpInternal.EVTCHNOP_reset_cont, abi.evtchn_reset(DOMID_SELF)) == 0
    assert all(c.status == EvtchnStat.EVTCHNSTAT_closed for c in Ports(domain).channels)
    assert Ports(domain).alloc_unbound(0) == 1
    assert op(vcpu, EvtchnOpInternal.EVTCHNOP_reset_cont, abi.evtchn_reset(DOMID_SELF)) == -Errno.EBUSY


def test_polling_a_port_that_is_not_in_use_is_invalid(domain: Any) -> None:
    for port in (0, 7, 4000):
        with pytest.raises(XenError):
            Ports(domain).is_pending(port)


def test_giving_ports_out_and_back_keeps_the_books_small(domain: Any) -> None:
    for _ in range(500):
        Ports(domain).close(Ports(domain).alloc_unbound(0))
    assert domain.evtchn.audit() == []


def test_a_guests_send_calls_the_backend_and_its_notify_makes_the_port_pending(domain: Any, vcpu: Any) -> None:
    seen: list[int] = []
    port = alloc_unbound(domain)
    backend = bind_backend(domain, port, lambda: seen.append(1))
    for _ in range(2):
        assert op(vcpu, EvtchnOp.EVTCHNOP_send, abi.evtchn_send(port)) == 0
    assert seen == [], "never in the hypercall"
    domain.back_ends.settle()
    assert seen == [1], "one answer for both"
    backend.notify()
    assert bit(domain, SI_PENDING, port)


def test_a_closed_backend_hears_nothing_and_its_port_can_be_bound_again(domain: Any, vcpu: Any) -> None:
    seen: list[int] = []
    port = alloc_unbound(domain)
    backend = bind_backend(domain, port, lambda: seen.append(1))
    backend.close()
    backend.close()
    backend.notify()
    assert op(vcpu, EvtchnOp.EVTCHNOP_send, abi.evtchn_send(port)) == 0
    domain.back_ends.settle()
    assert seen == []
    assert not bit(domain, SI_PENDING, port)
    assert bind_backend(domain, port, lambda: None).is_open


def test_a_backend_cannot_take_a_port_that_waits_for_another_domain(domain: Any) -> None:
    port = Ports(domain).alloc_unbound(5)
    with pytest.raises(XenError):
        bind_backend(domain, port, lambda: None)
    assert bind_backend(domain, port, lambda: None, domid=5).port == port


def test_events_of_destroyed_domains_go_nowhere(host: Any, domain: Any, vcpu: Any) -> None:
    other = make_domain(host)
    port = Ports(other).alloc_unbound(domain.domid)
    local = Ports(domain).bind_interdomain(other.domid, port)
    host.destroy_domain(other)
    assert Ports(domain).state(local) is EvtchnStat.EVTCHNSTAT_unbound
    assert op(vcpu, EvtchnOp.EVTCHNOP_send, abi.evtchn_send(local)) == 0


def test_events_are_delivered_between_two_calls_of_a_multicall(domain: Any, vcpu: Any) -> None:
    domain.shared_info[1] = 0
    send = vcpu.hw.place(struct.pack("<I", Ports(domain).bind_ipi(0)))
    entries = [(Hypercall.HYPERVISOR_event_channel_op, EvtchnOp.EVTCHNOP_send, send), (17, 0, 0)]
    va = vcpu.hw.place(b"".join(struct.pack("<8Q", nr, 0xDEAD, a, b, 0, 0, 0, 0) for nr, a, b in entries))
    dispatch(vcpu, Hypercall.HYPERVISOR_multicall, (va, 2, 0, 0, 0, 0))
    assert vcpu.hw.restarted
    assert (vcpu.hw.get_reg("rdi"), vcpu.hw.get_reg("rsi")) == (va + 64, 1)
    assert [struct.unpack_from("<Q", vcpu.hw.peek(va + at + 8, 8))[0] for at in (0, 64)] == [0, 0xDEAD]
