# SPDX-License-Identifier: Apache-2.0
"""The hypervisor's log on stderr: it never waits for a reader."""

from __future__ import annotations

import os
import threading

from domzero.cli.terminal import LOG_LINES_QUEUED, LogWriter


def test_a_reader_that_stalls_stops_nobody_and_is_told_what_it_missed() -> None:
    read, write = os.pipe()
    log = LogWriter(write)
    total = LOG_LINES_QUEUED + 100_000
    for number in range(total):  # more than the pipe and the queue take: it returns all the same
        log(f"line {number}")

    def finish() -> None:
        log.finish(60)
        os.close(write)

    finisher = threading.Thread(target=finish)
    finisher.start()
    with open(read, "rb") as file:
        text = file.read()
    finisher.join()
    lines = text.decode().splitlines()
    assert lines[0] == "line 0"
    dropped = sum(int(line.split()[0].strip("(")) for line in lines if "were dropped" in line)
    kept = sum(line.startswith("line ") for line in lines)
    assert kept + dropped == total
