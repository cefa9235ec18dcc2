# SPDX-License-Identifier: Apache-2.0
"""Where keys come from: the seed alone, or the host."""

from domzero._machine import Machine
from domzero.hypervisor.clock import Entropy


def test_keys_depend_on_the_seed_and_the_purpose_alone() -> None:
    entropy = Entropy(5)
    key = entropy.key("rdrand")
    assert len(key) == 32
    assert entropy.key("rdrand") == key == Entropy(5).key("rdrand")
    assert key not in (entropy.key("other"), Entropy(6).key("rdrand"))
    assert Entropy(5).seed.to_bytes(8, "little") not in key


def test_without_a_seed_every_key_is_another_and_none_follows_from_the_order_of_frames() -> None:
    entropy = Entropy(None)
    keys = {entropy.key("rdrand") for _ in range(4)} | {Entropy(entropy.seed).key("rdrand")}
    assert len(keys) == 5


def test_a_machine_takes_keys_of_32_bytes_only() -> None:
    Machine(64, random_key=bytes(32))
    for wrong in (b"", bytes(31), bytes(33)):
        try:
            Machine(64, random_key=wrong)
        except (TypeError, ValueError):
            continue
        raise AssertionError("not refused")
