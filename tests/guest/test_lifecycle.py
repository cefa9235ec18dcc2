# SPDX-License-Identifier: Apache-2.0
"""A domain's session: states, requests, restarts, and that its end gives everything back."""

from __future__ import annotations

import gc
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import kernels
import pytest
from descriptors import open_descriptors
from waiting import unchanged, until

from domzero.abi.sched import ShutdownReason
from domzero.dom0.config import Action, DomainConfig
from domzero.dom0.life import DomainState, End, EndReason
from domzero.dom0.lifecycle import DomainSession
from domzero.dom0.xenstore import Store
from domzero.errors import DomzeroError
from domzero.hypervisor.clock import VirtualClock

pytestmark = pytest.mark.guest
Make = Callable[..., DomainSession]
WALL_CLOCK = 3072
"""Where a 64-bit guest's shared page has `wc_version`, and `wc_sec` behind it."""


@pytest.fixture
def make(shell: str) -> Iterator[Make]:
    """Starts sessions, and ends those that are left."""
    made: list[DomainSession] = []

    def start(**changes: object) -> DomainSession:
        config = DomainConfig(kernel=shell, memory_mib=16, **changes)  # type: ignore[arg-type]
        session = DomainSession(config, store=Store())
        made.append(session)
        session.start()
        return session

    yield start
    for session in made:
        session.destroy()


def greeted(session: DomainSession, times: int = 1) -> None:
    until(lambda: session.console.history.count(b"hello") >= times)


def test_an_idle_domain_is_blocked_and_a_busy_one_runs(make: Make) -> None:
    session = make()
    greeted(session)
    until(lambda: session.state is DomainState.BLOCKED)
    session.console.send(b"spin\n")
    until(lambda: session.state is DomainState.RUNNING)


def test_a_paused_domain_does_nothing_until_it_is_unpaused(make: Make) -> None:
    session = make(paused=True)
    assert session.state is DomainState.PAUSED
    session.console.send(b"echo yes\n")
    domain = session.domain
    assert domain is not None
    assert unchanged(lambda: (session.console.history, domain.vcpus[0].hw.instructions)) == (b"", 0)
    session.unpause()
    until(lambda: b"yes" in session.console.history)
    session.pause()
    session.pause()
    assert session.state is DomainState.PAUSED
    session.unpause()
    until(lambda: session.state is DomainState.BLOCKED)


def test_a_request_to_power_off_reaches_the_guest_through_xenstore(make: Make) -> None:
    session = make()
    greeted(session)
    session.request("poweroff")
    end = session.wait(30)
    assert end is not None and end.reason is EndReason.POWEROFF
    assert b"asked to poweroff" in session.console.history


def test_a_reboot_gives_a_new_domid_and_an_empty_store(make: Make) -> None:
    session = make()
    greeted(session)
    session.request("reboot")
    greeted(session, 2)
    assert (session.domid, session.boots) == (2, 2)
    assert session.store.ls("/local/domain") == ["2"]


def test_a_domain_that_is_to_be_kept_stays_until_it_is_destroyed(make: Make) -> None:
    session = make(on_poweroff=Action.PRESERVE)
    session.console.send(b"poweroff\n")
    assert session.wait(30) is not None
    assert session.state.name == "SHUTDOWN"
    assert session.domain is not None
    session.destroy()
    assert session.state.name == "DESTROYED"
    assert session.domain is None


def test_the_end_of_a_domain_takes_its_nodes_with_it(make: Make) -> None:
    session = make()
    greeted(session)
    assert session.store.exists(f"/vm/{session.config.uuid}/name")
    session.destroy()
    assert session.store.ls("/local/domain") == []
    assert not session.store.exists(f"/vm/{session.config.uuid}")
    assert session.ending is not None and session.ending.reason is EndReason.DESTROYED


def test_a_domain_that_always_crashes_at_once_is_not_restarted_for_ever(tmp_path: Path) -> None:
    kernel = tmp_path / "kernel"
    kernel.write_bytes(kernels.shutdown(ShutdownReason.SHUTDOWN_crash))
    seen: list[End] = []
    lines: list[str] = []
    config = DomainConfig(kernel=str(kernel), memory_mib=16, on_crash=Action.RESTART)
    session = DomainSession(config, log=lines.append, on_restart=seen.append)
    session.start()
    end = session.wait(60)
    session.destroy()
    assert end is not None and end.reason is EndReason.CRASH
    assert any("not restarted: 4 starts in a row" in line for line in lines)
    assert (session.boots, [e.reason for e in seen]) == (4, [EndReason.CRASH] * 3)
    assert sum("started again" in line for line in lines) == 3


def test_what_ended_a_domain_is_said_in_its_log(shell: str) -> None:
    lines: list[str] = []
    session = DomainSession(DomainConfig(kernel=shell, memory_mib=16), log=lines.append)
    session.start()
    greeted(session)
    session.destroy(EndReason.TIMEOUT)
    assert session.ending == End(EndReason.TIMEOUT)
    assert [line for line in lines if "timeout" in line] == ["(XEN) d1 ended from outside: timeout"]
    assert not any("poweroff" in line for line in lines)


def test_a_kernel_that_is_gone_at_a_reboot_ends_the_session(make: Make, tmp_path: object, shell: str) -> None:
    copy = f"{tmp_path}/kernel"
    with open(shell, "rb") as source, open(copy, "wb") as target:
        target.write(source.read())
    session = DomainSession(DomainConfig(kernel=copy, memory_mib=16))
    session.start()
    greeted(session)
    os.unlink(copy)
    session.request("reboot")
    end = session.wait(30)
    session.destroy()
    assert end is not None and end.reason is EndReason.FAILED
    assert "No such file" in end.detail[0]


def test_the_page_tables_that_the_builder_made_pass_the_audit(make: Make) -> None:
    session = make(paused=True)
    assert session.host is not None
    assert session.host.machine.audit() == []


def test_the_history_can_be_read_after_the_end(make: Make) -> None:
    session = make()
    session.console.send(b"echo last words\npoweroff\n")
    session.wait(30)
    session.destroy()
    assert session.console.history.endswith(b"last words\r\n")


def test_a_domains_wall_clock_is_ahead_of_the_hosts_as_its_configuration_says(
    shell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wall_clock_s(**fields: int) -> int:
        config = DomainConfig(kernel=shell, memory_mib=16, paused=True, seed=1, **fields)  # type: ignore[arg-type]
        session = DomainSession(config, clock=VirtualClock())
        session.start()
        assert session.domain is not None
        _version, seconds = struct.unpack_from("<2I", session.domain.shared_info, WALL_CLOCK)
        session.destroy()
        return int(seconds)

    assert [wall_clock_s(rtc_timeoffset=ahead) - wall_clock_s() for ahead in (86400, -60)] == [86400, -60]
    try:
        monkeypatch.setenv("TZ", "EAST-3")  # three hours east
        time.tzset()
        assert DomainConfig(kernel=shell, localtime=True, rtc_timeoffset=5).time_offset_s == 3 * 3600 + 5
    finally:
        monkeypatch.undo()
        time.tzset()


def test_twenty_domains_one_after_the_other_leave_nothing(make: Make, shell: str) -> None:
    def one() -> None:
        session = DomainSession(DomainConfig(kernel=shell, memory_mib=16))
        session.start()
        session.console.send(b"poweroff\n")
        assert session.wait(30) is not None
        session.destroy()

    one()
    gc.collect()
    files, threads = open_descriptors(), threading.active_count()
    for _ in range(20):
        one()
    gc.collect()
    until(lambda: threading.active_count() <= threads)
    assert open_descriptors() <= files


def test_a_failed_start_leaves_nothing(shell: str) -> None:
    files = open_descriptors()
    for _ in range(5):
        with pytest.raises(DomzeroError):
            DomainSession(DomainConfig(kernel=shell, memory_mib=16, ramdisk="/nonexistent")).start()
    gc.collect()
    assert open_descriptors() <= files
