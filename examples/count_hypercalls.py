# SPDX-License-Identifier: Apache-2.0
"""Hypercalls counted: `python examples/count_hypercalls.py KERNEL [RAMDISK] [CMDLINE]`, until the guest ends."""

import sys
from collections import Counter

import domzero

kernel, ramdisk, cmdline = [*sys.argv[1:], None, None][:3]
counts = Counter[str]()
with domzero.boot(kernel, ramdisk=ramdisk, cmdline=cmdline) as guest:

    @guest.after_hypercall()
    def count(call: domzero.Call) -> None:
        failed = "" if call.result is None or call.result >= 0 else " failed"
        counts[f"{call.name} {call.command or ''}{failed}"] += 1

    print(f"The guest ended: {guest.wait(timeout=600)}")
for name, number in counts.most_common():
    print(f"{number:>8}  {name}")
