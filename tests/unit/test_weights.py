# SPDX-License-Identifier: Apache-2.0
"""Weights as nice values."""

from __future__ import annotations

import pytest

from domzero.dom0 import xlcfg
from domzero.dom0.weights import NICE, NICE_MAX, STEP, steps_down
from domzero.errors import ConfigErrors


def test_distances_of_nice_values_are_those_of_weights() -> None:
    assert steps_down([]) == []
    assert steps_down([1]) == steps_down([65535]) == [0]
    assert steps_down([256, 512, 1024]) == [6, 3, 0]
    for weight in range(50, 1001):
        (behind, first) = steps_down([weight, 1000])
        assert first == 0 and weight * STEP**behind == pytest.approx(1000, rel=0.12)


def test_the_host_has_only_so_many_nice_values() -> None:
    assert steps_down([1, 65535, 3000]) == [NICE_MAX - NICE, 0, 14]


def test_a_weight_is_read_from_a_configuration_and_bounded() -> None:
    text = "name='a'; kernel='/k'; cpu_weight="
    assert xlcfg.load(f"{text}512").config.cpu_weight == 512
    assert xlcfg.load("name='a'; kernel='/k'").config.cpu_weight == 256
    for weight in (0, 65536):
        with pytest.raises(ConfigErrors, match="1 to 65535") as caught:
            xlcfg.load(f"{text}{weight}")
        assert [error.key for error in caught.value.errors] == ["cpu_weight"]
