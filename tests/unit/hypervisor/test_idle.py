# SPDX-License-Identifier: Apache-2.0
"""When a vCPU gives back what it keeps to be fast."""

from __future__ import annotations

from typing import Any

import pytest

from domzero.hypervisor.idle import KEPT_BYTES, LITTLE, PERIOD_NS, IdleMemory

NOTHING_TO_WAIT_FOR = float("inf")


@pytest.fixture
def idle(vcpu: Any) -> IdleMemory:
    vcpu.hw.cached_bytes = KEPT_BYTES + 1
    return IdleMemory(vcpu.hw, 0)


def test_a_vcpu_with_little_to_do_gives_back_once_in_a_period(vcpu: Any, idle: IdleMemory) -> None:
    vcpu.hw.instructions = LITTLE
    assert not idle.give_back(PERIOD_NS - 1)
    assert idle.give_back(PERIOD_NS) and vcpu.hw.cached_bytes == 0
    vcpu.hw.cached_bytes = KEPT_BYTES + 1
    assert not idle.give_back(PERIOD_NS + 1)
    assert idle.give_back(2 * PERIOD_NS)


def test_what_a_busy_vcpu_needs_stays(vcpu: Any, idle: IdleMemory) -> None:
    for period in range(1, 4):
        vcpu.hw.instructions += LITTLE + 1
        assert not idle.give_back(period * PERIOD_NS)
    assert vcpu.hw.cached_bytes


def test_little_is_not_worth_it(vcpu: Any, idle: IdleMemory) -> None:
    vcpu.hw.cached_bytes = KEPT_BYTES
    assert not idle.give_back(PERIOD_NS)
    assert vcpu.hw.cached_bytes == KEPT_BYTES


def test_a_sleep_without_end_is_interrupted_once_and_only_if_there_is_something_to_give_back(
    vcpu: Any, idle: IdleMemory
) -> None:
    assert idle.sleep_ns(1, NOTHING_TO_WAIT_FOR) == PERIOD_NS - 1
    assert idle.sleep_ns(1, 5) == 5
    assert idle.give_back(PERIOD_NS)
    assert idle.sleep_ns(PERIOD_NS, NOTHING_TO_WAIT_FOR) == NOTHING_TO_WAIT_FOR


def test_python_lets_go_of_memory_that_it_has_touched_and_keeps_what_is_in_it(host: Any) -> None:
    host.memory[5000:5004] = b"kept"
    host.forget_touched()
    assert bytes(host.memory[5000:5004]) == b"kept"
