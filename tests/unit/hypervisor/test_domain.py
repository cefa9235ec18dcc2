# SPDX-License-Identifier: Apache-2.0
"""Domains: time pages, crashes, our own bugs, the threads of vCPUs, and the end."""

import struct
from collections.abc import Iterator
from typing import Any

import fakes
import pytest
from ports import Ports
from waiting import unchanged, until

from domzero import _machine
from domzero.abi.sched import ShutdownReason
from domzero.errors import ConfigError, ResourceError
from domzero.hypervisor.domain import DomainSpec

WAIT_S = 20


@pytest.fixture
def threaded(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A host whose vCPUs run in threads; exits come from `hw.exits`, then guest code that never stops."""

    def run(self: Any, budget: int, deadline_ns: int = 0) -> Any:
        if self.exits:
            return self.exits.pop(0)
        kicks = self.kicked
        until(lambda: bool(self.kicked != kicks), WAIT_S)
        return _machine.ExitInterrupted()

    monkeypatch.setattr(fakes.FakeVcpu, "run", run)
    host = fakes.make_host()
    yield host
    host.close()


def start(host: Any, *exits: Any) -> Any:
    domain = host.create_domain(DomainSpec(max_pages=8))
    with host.lock:
        domain.vcpus[0].hw.exits += exits
        domain.vcpus[0].bring_up()
    domain.unpause()
    return domain


def test_wall_clock_and_system_time_make_unix_time(host: Any, domain: Any) -> None:
    version, seconds, nanoseconds, high = struct.unpack_from("<4I", domain.shared_info, 3072)
    assert version == 2
    wall_ns = (high << 32 | seconds) * 10**9 + nanoseconds + host.machine.now
    assert wall_ns == host.clock.wallclock_ns(host.machine.now)


def test_a_domains_wall_clock_may_differ_from_the_hosts(host: Any) -> None:
    for is_32bit in (False, True):
        domain = fakes.make_domain(host, is_32bit=is_32bit)
        at = 2048 + 256 if is_32bit else 3072
        before = struct.unpack_from("<2I", domain.shared_info, at)
        domain.set_time_offset(-3600)
        after = struct.unpack_from("<2I", domain.shared_info, at)
        assert after == (before[0] + 2, before[1] - 3600)
        domain.set_time_offset(1 << 32)  # beyond 32 bits of seconds
        assert struct.unpack_from("<I", domain.shared_info, at + 4)[0] == before[1]
        domain.set_time_offset(-(1 << 62) // 10**9)  # before 1970 there is nothing
        assert struct.unpack_from("<I", domain.shared_info, at + 4)[0] == 0


def test_a_32_bit_domain_has_its_own_layout(host: Any) -> None:
    domain = fakes.make_domain(host, is_32bit=True)
    assert struct.unpack_from("<I", domain.shared_info, 2048 + 256)[0] == 2
    port = Ports(domain).alloc_unbound(0)
    Ports(domain).set_pending(port)
    assert domain.shared_info[2048] == 1 << port
    assert domain.shared_info[4] == 1


def test_every_vcpu_starts_masked_with_its_time_written(domain: Any) -> None:
    for vcpu_id in (0, 1):
        info = domain.shared_info[vcpu_id * 64 :][:64]
        assert (info[0], info[1]) == (0, 1)
        assert struct.unpack_from("<I", info, 32)[0] % 2 == 0
        assert struct.unpack_from("<IbB", info, 32 + 24) == (1 << 31, 1, 1)


def test_domids_are_not_given_twice(host: Any, domain: Any) -> None:
    with pytest.raises(ResourceError):
        host.create_domain(DomainSpec(max_pages=1, domid=domain.domid))
    with pytest.raises(ResourceError):
        host.create_domain(DomainSpec(max_pages=1, domid=0x7FF0))
    assert host.create_domain(DomainSpec(max_pages=1)).domid == domain.domid + 1


@pytest.mark.parametrize("count", [0, 33])
def test_vcpu_counts_outside_the_limits_are_errors(host: Any, count: int) -> None:
    with pytest.raises(ConfigError):
        host.create_domain(DomainSpec(max_pages=1, vcpus=count))


def test_no_frames_left_is_an_error_a_person_understands() -> None:
    host = fakes.make_host(frames=17)
    with pytest.raises(ResourceError):
        host.create_domain(DomainSpec(max_pages=1))


def test_a_destroyed_domain_gives_everything_back(host: Any) -> None:
    free = host.machine.free_frames
    for _ in range(20):
        domain = fakes.make_domain(host)
        domain.hw.alloc(5)
        assert host.destroy_domain(domain) == 0
    assert host.machine.free_frames == free
    assert host.domains == {}


def test_a_fault_that_the_guest_cannot_take_crashes_it_with_a_report(threaded: Any) -> None:
    domain = start(threaded, _machine.ExitFault(14, 2, 0xDEAD000, "no handler"))
    assert domain.wait(WAIT_S) is ShutdownReason.SHUTDOWN_crash
    text = "\n".join(threaded.log_lines)
    assert "Unhandled page fault [#14, ec=0002, cr2=000000000dead000]: no handler" in text
    assert "Pagetable walk from 000000000dead000" in text
    assert "RIP:" in text
    assert "Guest stack trace" in text


def test_what_the_engine_cannot_do_crashes_the_domain_and_says_what(threaded: Any) -> None:
    domain = start(threaded, _machine.ExitUnsupported("far jumps"))
    assert domain.wait(WAIT_S) is ShutdownReason.SHUTDOWN_crash
    assert any("not supported: far jumps" in line for line in threaded.log_lines)


def test_a_difference_between_the_engines_ends_the_domain_with_its_report(threaded: Any) -> None:
    domain = threaded.create_domain(DomainSpec(max_pages=8))
    with threaded.lock:
        domain.vcpus[0].hw.difference = "the engines differ: instruction 5\n  rax 1 2"
        domain.vcpus[0].hw.exits.append(_machine.ExitUnsupported("the engines differ"))
        domain.vcpus[0].bring_up()
    domain.unpause()
    assert domain.wait(WAIT_S) is ShutdownReason.SHUTDOWN_crash
    lines = "\n".join(threaded.log_lines)
    assert "the engines differ: instruction 5" in lines
    assert "  rax 1 2" in lines


def test_a_bug_of_ours_crashes_only_that_domain_and_is_kept(threaded: Any) -> None:
    bad = threaded.create_domain(DomainSpec(max_pages=8))
    other = start(threaded)

    def broken(_vcpu: Any, _name: str, _args: Any, _rc: int) -> None:
        raise KeyError("ours")

    bad.trace = broken
    with threaded.lock:
        bad.vcpus[0].hw.exits.append(_machine.ExitHypercall(17, (0,) * 6))
        bad.vcpus[0].bring_up()
    bad.unpause()
    assert bad.wait(WAIT_S) is ShutdownReason.SHUTDOWN_crash
    assert isinstance(bad.bug, KeyError)
    assert other.shutdown_code is None


def test_a_guest_runs_hypercalls_and_privileged_instructions_until_it_shuts_down(threaded: Any) -> None:
    domain = start(
        threaded,
        _machine.ExitHypercall(17, (0,) * 6),
        _machine.ExitWbinvd(2),
        _machine.ExitBudget(),
        _machine.ExitDeadline(),
        _machine.ExitHypercall(6, (2, 1, 0, 0, 0, 0)),
    )
    assert domain.wait(WAIT_S) is ShutdownReason.SHUTDOWN_reboot
    assert domain.hypercall_counts == {"xen_version": 1, "sched_op_compat": 1}


def test_a_paused_domain_runs_no_guest_code_until_it_is_unpaused(threaded: Any) -> None:
    domain = start(threaded)
    domain.pause()
    assert not domain.vcpus[0].in_guest
    with threaded.lock:
        domain.vcpus[0].hw.exits.append(_machine.ExitHypercall(6, (2, 0, 0, 0, 0, 0)))
    assert unchanged(lambda: (domain.wait(0.001), len(domain.vcpus[0].hw.exits))) == (None, 1)
    domain.unpause()
    assert domain.wait(WAIT_S) is ShutdownReason.SHUTDOWN_poweroff


def test_a_blocked_vcpu_wakes_for_an_event_from_another_thread(threaded: Any) -> None:
    domain = start(threaded, _machine.ExitHypercall(29, (1, 0, 0, 0, 0, 0)))
    vcpu = domain.vcpus[0]
    until(lambda: bool(vcpu.is_blocked), WAIT_S)
    with threaded.lock:
        vcpu.hw.exits.append(_machine.ExitHypercall(6, (2, 0, 0, 0, 0, 0)))
        Ports(domain).set_pending(Ports(domain).alloc_unbound(0))
    assert domain.wait(WAIT_S) is ShutdownReason.SHUTDOWN_poweroff


def test_destroying_a_running_domain_ends_its_threads_and_its_waiters(threaded: Any) -> None:
    domain = start(threaded)
    threaded.destroy_domain(domain)
    assert domain.vcpus[0].thread is None
    assert domain.hw.destroyed
    assert domain.wait(WAIT_S) is None


def test_a_suspended_domain_can_be_resumed(host: Any, domain: Any) -> None:
    domain.shutdown(ShutdownReason.SHUTDOWN_suspend)
    assert not domain.vcpus[0].may_run
    domain.resume()
    assert domain.vcpus[0].may_run
