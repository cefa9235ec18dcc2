# SPDX-License-Identifier: Apache-2.0
"""`import domzero`: a guest as an object, with the small shell of guests/shell as its kernel."""

from __future__ import annotations

import gc
import re
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from building import build_guests
from descriptors import open_descriptors

import domzero
from domzero import _machine
from domzero.abi.errno import Errno
from domzero.abi.event_channel import evtchn_send
from domzero.abi.start_info import start_info
from domzero.errors import ConfigError
from domzero.hypervisor.host import Host

pytestmark = pytest.mark.guest
SEND = ("event_channel_op", "EVTCHNOP_send")


@pytest.fixture
def guest(shell: str) -> Iterator[domzero.Guest]:
    with domzero.boot(shell, memory_mib=16) as guest:
        yield guest


# --- life


def test_a_guest_is_paused_at_its_first_instruction_until_it_is_let_go(guest: domzero.Guest) -> None:
    assert guest.paused and guest.end is None
    assert guest.vcpus[0].instructions == 0
    assert guest.vcpus[0].in_kernel and guest.vcpus[0].state == "runnable"
    info = guest.virtual.read_struct(guest.vcpus[0].regs.rsi, start_info)
    assert info.magic == b"xen-3.0-x86_64"
    assert info.nr_pages == 16 << 8


def test_it_is_typed_to_and_tells_how_it_ended(guest: domzero.Guest) -> None:
    assert guest.run_until(console="hello")
    guest.unpause()
    guest.console.send("echo hello there\n")
    assert guest.console.expect(re.compile(r"hello (\w+)\n"))[1] == "there"
    guest.console.send("poweroff\n")
    end = guest.wait(60)
    assert (end.reason, end.detail) == ("poweroff", ())
    assert end.instructions > 0
    assert guest.end is end
    assert "hello there" in guest.console.text


def test_a_crash_tells_where(guest: domzero.Guest) -> None:
    guest.console.send("fault\n")
    end = guest.wait(60)
    assert end.reason == "crash"
    assert "page fault" in str(end) or "Unhandled" in str(end)
    assert guest.vcpus[0].regs.rip  # it may still be looked at
    assert any("RIP" in line for line in end.detail)


def test_what_was_waited_for_and_did_not_come_is_told_with_the_last_words(guest: domzero.Guest) -> None:
    guest.run_until(console="hello")
    with pytest.raises(domzero.GuestError, match="'nothing' on the console cannot come: the guest is paused"):
        guest.console.expect("nothing")
    guest.unpause()
    with pytest.raises(domzero.WaitTimeout, match=r"(?s)did not come within 0.05 s; it last printed:.*hello"):
        guest.console.expect("nothing", timeout=0.05)
    with pytest.raises(TimeoutError):
        guest.run_until(console="nothing", timeout=0.05)
    assert guest.paused
    guest.console.send("poweroff\n")
    with pytest.raises(domzero.GuestEnded, match=r"the guest ended \(poweroff\)"):
        guest.run_until(console="nothing")


def test_last_words_are_found_though_the_guest_has_ended(guest: domzero.Guest) -> None:
    guest.console.send("echo the end\npoweroff\n")
    guest.wait(60)
    assert guest.console.expect("the end")


def test_nothing_is_left_of_closed_guests(shell: str) -> None:
    def once() -> None:
        with domzero.boot(shell, memory_mib=16, vcpus=2) as guest:
            guest.run_until(console="hello")
            guest.on_hypercall()(lambda call: None)
            guest.unpause()
        assert guest.end is not None and guest.end.reason == "destroyed"
        with pytest.raises(domzero.GuestError, match="closed"):
            guest.read(0, 1)
        guest.close()

    once()
    gc.collect()
    before = threading.active_count(), open_descriptors()
    for _ in range(5):
        once()
    gc.collect()
    assert (threading.active_count(), open_descriptors()) == before


# --- registers, memory


def test_registers_are_read_and_written_by_name_while_it_is_paused(guest: domzero.Guest) -> None:
    regs = guest.vcpus[0].regs
    regs.rbx = 0x1234
    assert (regs.rbx, dict(regs)["rbx"]) == (0x1234, 0x1234)
    assert "rbx 0000000000001234" in str(regs)
    with pytest.raises(ValueError):
        regs.rcx = -1
    with pytest.raises(AttributeError):
        regs.rpi = 1  # type: ignore[attr-defined]
    guest.run_until(console="hello")
    guest.unpause()
    for look in (lambda: regs.rip, lambda: guest.read(0, 1), lambda: guest.physical.read(0, 1), lambda: guest.step()):
        with pytest.raises(domzero.GuestRunning, match="pause"):
            look()
    guest.pause()
    assert regs.rip


def test_memory_is_the_same_by_its_three_addresses(guest: domzero.Guest) -> None:
    va = guest.vcpus[0].regs.rsi  # start_info
    walk = guest.page_walk(va)
    assert [entry.level for entry in walk.entries] == [4, 3, 2, 1]
    assert walk.maddr is not None and walk.paddr is not None
    assert guest.virtual.to_machine(va) == guest.physical.to_machine(walk.paddr) == walk.maddr
    assert guest.machine.to_physical(walk.maddr) == walk.paddr
    assert str(walk).count("\n") == 4 and f"machine {walk.maddr:#x}" in str(walk)
    assert {"P", "RW", "US"} <= set(walk.entries[-1].flags)
    guest.write(va, b"written")
    guest.physical.write(walk.paddr + 4090, b"over the edge")
    assert guest.machine.read(walk.maddr, 7) == guest.read(va, 7) == b"written"
    assert guest.physical.read(walk.paddr + 4090, 13) == guest.read(va + 4090, 13) == b"over the edge"
    assert guest.virtual.read_text(va, 4) == "writ"
    guest.virtual.write_u32(va, 0xDEADBEEF)
    assert (guest.machine.read_u64(walk.maddr) & 0xFFFFFFFF, guest.virtual.read_u16(va)) == (0xDEADBEEF, 0xBEEF)


def test_what_is_not_mapped_or_not_the_guests_to_write_is_refused(guest: domzero.Guest) -> None:
    walk = guest.page_walk(guest.vcpus[0].regs.rip)
    table = walk.entries[-1].table_mfn << 12
    for refused in (
        lambda: guest.read(0x1000, 4),
        lambda: guest.read(-1, 4),
        lambda: guest.read(1 << 70, 4),
        lambda: guest.write(0x1000, b"x"),
        lambda: guest.physical.read(16 << 20, 1),
        lambda: guest.physical.read(1 << 70, 1),
        lambda: guest.machine.read(1 << 60, 1),
        lambda: guest.machine.read(-1, 1),
        lambda: guest.machine.write(table, bytes(8)),
        lambda: guest.machine.write(0, b"x"),
        lambda: guest.virtual.to_machine(0x1000),
    ):
        with pytest.raises(domzero.NotMapped):
            refused()
    assert guest.machine.read(table, 8)
    assert guest.page_walk(0x1000).maddr is None


# --- stepping and stopping


def test_steps_are_exact(guest: domzero.Guest) -> None:
    assert guest.step() == 1
    assert guest.step(1000) == 1000
    assert guest.vcpus[0].instructions == 1001
    with pytest.raises(ValueError):
        guest.step(-1)


def test_a_step_of_one_that_sleeps_times_out(guest: domzero.Guest) -> None:
    guest.run_until(console="hello")
    with pytest.raises(domzero.WaitTimeout, match="is blocked"):
        guest.step(100_000_000, timeout=0.2)
    guest.console.send("echo more\n")
    assert guest.run_until(console="more\n")


def test_it_stops_before_a_hypercall_and_does_it_when_it_goes_on(guest: domzero.Guest) -> None:
    call = guest.run_until(hypercall=SEND)
    assert isinstance(call, domzero.Call)
    assert (call.name, call.command, call.result) == (*SEND, None)
    rip = guest.vcpus[0].regs.rip
    assert guest.read(rip, 2) == b"\x0f\x05"
    assert guest.vcpus[0].regs.rax == 32
    assert guest.console.text == ""
    assert guest.step() == 1
    assert guest.vcpus[0].regs.rip == rip + 2 and guest.vcpus[0].regs.rax == 0
    assert guest.run_until(hypercall=SEND) is not None
    assert guest.run_until(console="hello")


def test_a_run_with_virtual_time_is_the_same_each_time(shell: str) -> None:
    seen = []
    for _ in range(2):
        with domzero.boot(shell, memory_mib=16, virtual_time=True, seed=5) as guest:
            guest.run_until(console="hello")
            guest.console.send("echo again\n")
            guest.run_until(console="again\n")
            guest.step(100)
            seen.append((guest.vcpus[0].instructions, guest.vcpus[0].regs.as_dict(), guest.console.text))
    assert seen[0] == seen[1]


# --- hooks


def test_a_hook_sees_hypercalls_and_changes_or_answers_them(guest: domzero.Guest) -> None:
    ports, results = [], Counter[int]()

    @guest.on_hypercall(*SEND)
    def before(call: domzero.Call) -> domzero.Verdict:
        assert isinstance(call.struct, evtchn_send)
        ports.append(call.struct.port)
        assert guest.read(call.args[1], 4) == bytes(call.struct)
        assert call.vcpu.regs.rax == 32
        return call.answer(-Errno.EPERM) if len(ports) == 1 else call.proceed()

    @guest.after_hypercall("event_channel_op")
    def after(call: domzero.Call) -> None:
        assert call.result is not None
        results[call.result] += 1

    guest.console.send("echo one\n")
    guest.run_until(console="one\n")
    assert results[-Errno.EPERM] == 1 and results[0] >= 1
    assert len(ports) >= 2
    guest.remove_hook(before)
    guest.remove_hook(after)
    assert guest.domain.intercept is None
    count = len(ports)
    guest.console.send("echo two\n")
    guest.run_until(console="two\n")
    assert len(ports) == count


def test_a_hook_changes_arguments(guest: domzero.Guest) -> None:
    @guest.on_hypercall("sched_op", "SCHEDOP_shutdown")
    def reboot_instead(call: domzero.Call) -> None:
        guest.write(call.args[1], (1).to_bytes(4, "little"))
        call.args[0] = 2

    guest.console.send("poweroff\n")
    assert guest.wait(60).reason == "reboot"


def test_what_a_hook_raises_is_raised_in_the_program_and_the_guest_pauses_before_the_hypercall(
    guest: domzero.Guest,
) -> None:
    @guest.on_hypercall(*SEND)
    def broken(call: domzero.Call) -> None:
        raise KeyError(str(call))

    for _ in range(2):  # it is made again
        with pytest.raises(KeyError, match="EVTCHNOP_send"):
            guest.run_until(console="hello")
        assert guest.paused
        assert guest.read(guest.vcpus[0].regs.rip, 2) == b"\x0f\x05"
    with pytest.raises(KeyError):
        guest.step(1)
    guest.remove_hook(broken)
    guest.run_until(console="hello")


def test_an_error_of_a_hook_is_not_lost_when_the_block_ends(shell: str) -> None:
    raised = threading.Event()

    def broken(_call: domzero.Call) -> None:
        raised.set()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), domzero.boot(shell, memory_mib=16) as guest:
        guest.on_hypercall(*SEND)(broken)
        guest.unpause()
        assert raised.wait(60)


def test_a_hook_pauses_the_guest(guest: domzero.Guest) -> None:
    @guest.after_hypercall(*SEND)
    def enough(_call: domzero.Call) -> None:
        guest.pause()

    assert guest.run_until(console="never printed") is None
    assert guest.paused


def test_hooks_on_page_table_hypercalls_see_those_that_the_machine_would_answer(guest: domzero.Guest) -> None:
    seen = Counter[str]()

    @guest.on_hypercall("update_va_mapping")
    def mapped(call: domzero.Call) -> None:
        seen[call.name] += 1

    guest.run_until(console="hello")
    assert seen["update_va_mapping"] >= 1


@pytest.mark.parametrize("width", ["64", "32"])
def test_a_hook_sees_exceptions_and_the_guest_does_not_notice(tmp_path: Path, width: str) -> None:
    kernel = tmp_path / width / "exceptions"
    build_guests(tmp_path, str(kernel))
    seen, faults = Counter[str](), list[domzero.Trap]()
    with domzero.boot(kernel, memory_mib=16) as guest:

        @guest.on_trap()
        def every(trap: domzero.Trap) -> None:
            seen[trap.name] += 1
            assert trap.vcpu.regs.rip != trap.rip  # at its handler, which has run nothing

        guest.on_trap("#PF")(faults.append)
        end = guest.wait(60)
        assert end.reason == "poweroff" and "PASS exceptions" in guest.console.text
    assert {"#DE", "#DB", "#BP", "#UD", "#GP", "#PF", "#AC"} <= seen.keys()
    assert seen["#PF"] == len(faults)
    assert {trap.in_kernel for trap in faults} == {True, False}
    assert 8 in {trap.cr2 for trap in faults}


def test_several_vcpus_run_with_all_hooks_set_and_are_paused_at_any_moment(tmp_path: Path) -> None:
    kernel = tmp_path / "64" / "vcpu_ops"
    build_guests(tmp_path, str(kernel))
    makers = set[str]()
    with domzero.boot(kernel, memory_mib=16, vcpus=4) as guest:
        guest.on_hypercall()(lambda call: makers.add(repr(call.vcpu)))
        guest.on_trap()(lambda trap: None)
        for _ in range(20):
            guest.unpause()
            guest.pause()
            assert all(vcpu.regs.rip for vcpu in guest.vcpus if vcpu.state != "offline")
        assert guest.wait(120).reason == "poweroff", guest.console.tail
        assert "PASS vcpu_ops" in guest.console.text
        host = guest.domain.host
        assert isinstance(host, Host) and host.audit() == []
    assert len(makers) == 4


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (("event_chanel_op",), "no such hypercall: event_chanel_op .*event_channel_op"),
        (("event_channel_op", "EVTCHNOP_sned"), "no such command of event_channel_op: EVTCHNOP_sned .*EVTCHNOP_send"),
        (("set_trap_table", "anything"), "set_trap_table has no commands"),
        (("iret",), "iret"),
    ],
)
def test_names_that_do_not_exist_are_refused_with_a_suggestion(
    guest: domzero.Guest, names: tuple[str, ...], says: str
) -> None:
    for register in (guest.on_hypercall, guest.after_hypercall):
        with pytest.raises(domzero.ConfigError, match=says):
            register(*names)
    with pytest.raises(domzero.ConfigError, match=says):
        guest.run_until(hypercall=(names[0], names[1]) if len(names) == 2 else names[0])
    with pytest.raises(domzero.ConfigError, match=r"did you mean #PF"):
        guest.on_trap("#PG")


# --- where it comes from


def test_a_guest_comes_from_an_xl_configuration(shell: str, tmp_path: Path) -> None:
    (tmp_path / "kernel").symlink_to(shell)
    (tmp_path / "guest.cfg").write_text('name="one"\nkernel="kernel"\nmemory=16\nvcpus=2\n')
    with domzero.boot(config=tmp_path / "guest.cfg", memory_mib=20) as guest:
        assert guest.domain.name == "one"
        assert len(guest.vcpus) == 2
        assert guest.vcpus[1].state == "offline"
        with pytest.raises(domzero.GuestError, match="offline"):
            guest.step(vcpu=1)
        assert guest.virtual.read_struct(guest.vcpus[0].regs.rsi, start_info).nr_pages == 20 << 8
        guest.run_until(console="hello")


def test_what_cannot_be_booted_is_one_error(shell: str, tmp_path: Path) -> None:
    with pytest.raises(domzero.ConfigError, match="one of kernel, image and config"):
        domzero.boot()
    with pytest.raises(domzero.ConfigError, match="no such image"):
        domzero.boot(image="no such")
    with pytest.raises(domzero.ConfigError, match="No such file"):
        domzero.boot(config=tmp_path / "none.cfg")
    with pytest.raises(domzero.ConfigError, match="memory"):
        domzero.boot(shell, memory_mib=1)
    with pytest.raises(domzero.ImageError):
        domzero.boot(__file__)


def test_a_vcpu_whose_timer_came_due_before_it_slept_looks_again_at_once(guest: domzero.Guest) -> None:
    vcpu = guest._domain.vcpus[0]
    with guest._domain.host.lock:
        vcpu.sleep(-1e-6)  # the time between two looks at the clock


# --- engines


@pytest.mark.parametrize("engine", ["interpreter", "translator"])
def test_steps_hooks_and_traces_are_the_same_on_each_engine(shell: str, engine: str) -> None:
    if engine == "translator" and (reason := _machine.translator_unavailable()) is not None:
        pytest.skip(reason)
    with domzero.boot(shell, memory_mib=16, engine=engine, seed=1, virtual_time=True) as guest:
        assert guest.domain.engine.engine.value == engine
        assert guest.run_until(console="hello")
        before = guest.vcpus[0].instructions
        for count in (1, 2, 1000):
            guest.step(count)
            before += count
            assert guest.vcpus[0].instructions == before
        calls: list[str] = []
        guest.domain.set_trace(lambda vcpu, name, arguments, result: calls.append(name))
        guest.console.send("echo traced\n")
        guest.unpause()
        guest.console.expect("traced")
        assert "event_channel_op" in calls
        guest.console.send("poweroff\n")
        assert guest.wait(60).reason == "poweroff"


def test_an_engine_that_cannot_run_here_is_refused_by_name(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_machine, "translator_unavailable", lambda: "the translator needs a processor with BMI2")
    with pytest.raises(ConfigError, match="a processor with BMI2"):
        domzero.boot(shell, memory_mib=16, engine="translator")
