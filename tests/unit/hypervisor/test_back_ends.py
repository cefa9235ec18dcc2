# SPDX-License-Identifier: Apache-2.0
"""When back ends answer: on a thread of their own, or at an instruction of a deterministic run."""

from __future__ import annotations

import threading
from collections.abc import Callable

from domzero.hypervisor.back_ends import LATENCY_NS, BackEnds

WAIT_S = 60


class Port:
    """A back end's port."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback = callback
        self.is_open = True
        self.is_due = False


def threaded(failed: Callable[[Exception], None] = lambda error: None) -> BackEnds:
    return BackEnds("test", virtual_now=None, schedule=lambda: None, failed=failed)


def test_the_answer_comes_on_another_thread_and_after_the_call_that_sends() -> None:
    lock = threading.Lock()
    seen: list[threading.Thread] = []

    def answer() -> None:
        with lock:
            seen.append(threading.current_thread())

    back_ends = threaded()
    with lock:  # as a guest's handler would need what the sender holds
        back_ends.ring(Port(answer))
        assert seen == []
    back_ends.settle()
    assert len(seen) == 1 and seen[0] is not threading.current_thread()
    back_ends.stop()


def test_events_before_the_answer_are_one_and_later_ones_another() -> None:
    entered, go_on = threading.Event(), threading.Event()
    count = 0

    def answer() -> None:
        nonlocal count
        count += 1
        entered.set()
        assert go_on.wait(WAIT_S)

    back_ends = threaded()
    port = Port(answer)
    back_ends.ring(port)
    assert entered.wait(WAIT_S)
    for _ in range(100):
        back_ends.ring(port)  # while the first is being answered
    go_on.set()
    back_ends.settle()
    assert count == 2
    back_ends.stop()


def test_no_callback_runs_once_stop_has_returned() -> None:
    entered, go_on = threading.Event(), threading.Event()
    ended: list[str] = []

    def slow() -> None:
        entered.set()
        assert go_on.wait(WAIT_S)
        ended.append("slow")

    back_ends = threaded()
    back_ends.ring(Port(slow))
    back_ends.ring(Port(lambda: ended.append("never")))
    assert entered.wait(WAIT_S)
    stopper = threading.Thread(target=back_ends.stop)
    stopper.start()
    go_on.set()
    stopper.join(WAIT_S)
    assert ended in (["slow"], ["slow", "never"])
    before = list(ended)
    back_ends.ring(Port(lambda: ended.append("late")))
    back_ends.settle()
    assert ended == before


def test_a_closed_port_is_not_answered() -> None:
    back_ends = threaded()
    seen: list[int] = []
    gate = threading.Event()
    held: list[bool] = []
    back_ends.ring(Port(lambda: held.append(gate.wait(WAIT_S))))
    port = Port(lambda: seen.append(1))
    back_ends.ring(port)
    port.is_open = False
    gate.set()
    back_ends.settle()
    assert seen == []
    back_ends.stop()


def test_an_error_of_a_back_end_is_told_and_the_next_event_is_answered() -> None:
    errors: list[Exception] = []
    seen: list[int] = []

    def fail() -> None:
        raise RuntimeError("a bug")

    back_ends = threaded(errors.append)
    back_ends.ring(Port(fail))
    back_ends.ring(Port(lambda: seen.append(1)))
    back_ends.settle()
    assert [str(error) for error in errors] == ["a bug"]
    assert seen == [1]
    back_ends.stop()


def test_in_a_deterministic_run_the_answer_comes_at_a_time_that_is_a_sum() -> None:
    now = 1000
    scheduled: list[int | None] = []
    seen: list[int] = []
    back_ends = BackEnds(
        "test",
        virtual_now=lambda: now,
        schedule=lambda: scheduled.append(back_ends.next_ns()),
        failed=lambda error: None,
    )
    back_ends.ring(Port(lambda: seen.append(1)))
    now = 5000
    back_ends.ring(Port(lambda: seen.append(2)))
    assert scheduled == [1000 + LATENCY_NS]
    back_ends.fire(999 + LATENCY_NS)
    assert seen == []
    back_ends.fire(1000 + LATENCY_NS)
    assert seen == [1, 2]
    assert back_ends.next_ns() is None
