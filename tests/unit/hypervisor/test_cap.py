# SPDX-License-Identifier: Apache-2.0
"""The cap of a domain, with a clock that only the test moves."""

from __future__ import annotations

import pytest

from domzero.hypervisor.cap import PERIOD_NS, SHORTEST_NS, Cap


class Clock:
    """System time."""

    def __init__(self) -> None:
        self.ns = 1_000

    def now(self) -> int:
        return self.ns


@pytest.fixture
def clock() -> Clock:
    return Clock()


def use(cap: Cap, clock: Clock, total_ns: int, threads: int = 1) -> int:
    """Threads that always want to run, as `vcpu_thread` lets them: what they used until system time `total_ns`."""
    used = 0
    while clock.ns < total_ns:
        if not (slice_ns := cap.slice_ns()):
            assert cap.next_period_ns > clock.ns
            clock.ns = cap.next_period_ns
            continue
        clock.ns += slice_ns
        for _ in range(threads):
            cap.charge(slice_ns)
            used += slice_ns
    return used


@pytest.mark.parametrize("percent", [1, 10, 50, 99])
@pytest.mark.parametrize("threads", [1, 4])
def test_threads_together_use_what_the_cap_allows(clock: Clock, percent: int, threads: int) -> None:
    cap = Cap(clock.now)
    cap.set(percent)
    span = 400 * PERIOD_NS
    assert use(cap, clock, span, threads) == pytest.approx(span * percent / 100, rel=0.05)


def test_what_was_not_used_is_not_saved_up(clock: Clock) -> None:
    cap = Cap(clock.now)
    cap.set(50)
    assert cap.slice_ns() == PERIOD_NS // 2
    clock.ns += 1000 * PERIOD_NS
    assert cap.slice_ns() == PERIOD_NS // 2


def test_who_used_too_much_waits_for_as_many_periods(clock: Clock) -> None:
    cap = Cap(clock.now)
    cap.set(10)
    cap.slice_ns()
    cap.charge(PERIOD_NS)  # ten periods' worth
    waited = 0
    while not cap.slice_ns():
        clock.ns = cap.next_period_ns
        waited += 1
    assert waited == 10


def test_a_slice_is_never_so_short_that_nothing_gets_done(clock: Clock) -> None:
    cap = Cap(clock.now)
    cap.set(1)
    cap.slice_ns()
    cap.charge(PERIOD_NS // 100 - 1)
    assert cap.slice_ns() == SHORTEST_NS
