# SPDX-License-Identifier: Apache-2.0
"""Tests of a unikernel in CI: `UNIKERNEL=path pytest examples/test_unikernel.py` (here: that of guests/shell)."""

import os
import re

import domzero
from domzero.abi.errno import Errno


def test_it_greets_answers_and_powers_off() -> None:
    with domzero.boot(os.environ["UNIKERNEL"], memory_mib=32, cmdline="ci") as guest:
        guest.run_until(console="hello ci")
        guest.console.send("echo ping\npoweroff\n")
        assert guest.wait(timeout=60).reason == "poweroff", guest.console.tail
        assert re.search(r"^ping$", guest.console.text, re.MULTILINE)


def test_it_lives_without_its_watchdog() -> None:
    with domzero.boot(os.environ["UNIKERNEL"], memory_mib=32) as guest:
        guest.on_hypercall("sched_op", "SCHEDOP_watchdog")(lambda call: call.answer(-Errno.EPERM))
        guest.console.send("watchdog\necho alive\n")
        guest.run_until(console="alive")
        assert "armed" not in guest.console.text
