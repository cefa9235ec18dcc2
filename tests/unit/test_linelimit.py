# SPDX-License-Identifier: Apache-2.0
"""The limit on what a guest may write to the log."""

from domzero.dom0.linelimit import LineLimit


def test_a_flood_is_cut_and_what_was_dropped_is_said_when_it_ends() -> None:
    written: list[str] = []
    time = [0.0]
    limit = LineLimit(written.append, per_second=10, burst=20, now=lambda: time[0])
    for number in range(1000):
        limit(f"line {number}")
    assert written == [f"line {number}" for number in range(20)]
    time[0] = 1.0
    limit("after")
    assert written[20:] == ["(980 lines were dropped)", "after"]


def test_lines_that_come_slowly_are_all_written() -> None:
    written: list[str] = []
    time = [0.0]
    limit = LineLimit(written.append, per_second=10, burst=2, now=lambda: time[0])
    for number in range(100):
        time[0] += 0.11
        limit(str(number))
    assert written == [str(number) for number in range(100)]
