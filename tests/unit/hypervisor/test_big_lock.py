# SPDX-License-Identifier: Apache-2.0
"""The big lock goes to threads in the order in which they came."""

from __future__ import annotations

import signal
import threading
from functools import partial

import pytest
from waiting import until

from domzero._machine import BigLock

WAIT_S = 60


def test_who_comes_first_has_it_first_and_who_lets_go_is_the_last() -> None:
    lock = BigLock()
    order: list[str] = []

    def take(name: str) -> None:
        with lock:
            order.append(name)

    lock.acquire()
    threads = []
    for count, name in enumerate("abcd", start=1):
        thread = threading.Thread(target=take, args=(name,))
        thread.start()
        threads.append(thread)
        until(partial(lambda count: lock.waiting == count, count))
    lock.release()
    take("again")
    for thread in threads:
        thread.join(WAIT_S)
    assert order == ["a", "b", "c", "d", "again"]


def test_a_thread_that_takes_it_over_and_over_keeps_nobody_waiting_longer_than_one_turn() -> None:
    lock = BigLock()
    stop = threading.Event()
    turns = 0

    def hog() -> None:
        nonlocal turns
        while not stop.is_set():
            with lock:
                turns += 1

    thread = threading.Thread(target=hog)
    thread.start()
    until(lambda: turns > 0)
    for _ in range(200):
        with lock:
            before = turns
        with lock:
            assert turns - before <= 2, "the turn that was under way, and the one whose turn it was"
    stop.set()
    thread.join(WAIT_S)


def test_it_nests_also_while_others_wait() -> None:
    lock = BigLock()
    had = threading.Event()

    def other() -> None:
        with lock:
            had.set()

    with lock:
        thread = threading.Thread(target=other)
        thread.start()
        until(lambda: lock.waiting == 1)
        with lock:
            assert lock.acquire(blocking=False)
            lock.release()
        assert not had.is_set()
    assert had.wait(WAIT_S)
    thread.join(WAIT_S)


def test_without_waiting_it_is_had_only_when_free() -> None:
    lock = BigLock()
    answers: list[bool] = []

    def attempt() -> None:
        if answers_now := lock.acquire(blocking=False):
            lock.release()
        answers.append(answers_now)

    for held in (True, False):
        if held:
            lock.acquire()
        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join(WAIT_S)
        if held:
            lock.release()
    assert answers == [False, True]


def test_a_condition_gives_all_of_a_nested_lock_back_and_takes_it_again() -> None:
    lock = BigLock()
    condition = lock.condition()
    ready: list[int] = []

    def tell() -> None:
        with condition:
            ready.append(1)
            condition.notify_all()

    thread = threading.Thread(target=tell)
    with condition, condition:
        thread.start()
        assert condition.wait_for(lambda: bool(ready), WAIT_S)
        assert not condition.wait(0)
    thread.join(WAIT_S)
    with pytest.raises(RuntimeError):
        lock.release()


def test_a_wait_that_a_signal_ends_leaves_the_others_in_order() -> None:
    lock = BigLock()
    held, let_go = threading.Event(), threading.Event()
    main = threading.main_thread().ident
    assert main is not None and threading.current_thread() is threading.main_thread()

    class Interrupted(Exception):
        pass

    def interrupt(*_: object) -> None:
        raise Interrupted

    def hold() -> None:
        with lock:
            held.set()
            until(lambda: lock.waiting == 1)
            signal.pthread_kill(main, signal.SIGUSR1)
            assert let_go.wait(WAIT_S)

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        thread = threading.Thread(target=hold)
        thread.start()
        assert held.wait(WAIT_S)
        with pytest.raises(Interrupted):
            lock.acquire()
        assert lock.waiting == 0
        let_go.set()
        with lock:
            pass
        thread.join(WAIT_S)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_no_turn_is_lost_among_many_threads() -> None:
    lock = BigLock()
    total = 0

    def work() -> None:
        nonlocal total
        for _ in range(3000):
            with lock:
                now = total
                total = now + 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert total == 24_000
    assert lock.waiting == 0
