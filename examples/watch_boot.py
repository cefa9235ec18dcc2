# SPDX-License-Identifier: Apache-2.0
"""A boot watched: what Debian's kernel does until its /init, in instructions. First: `domzero image fetch debian`."""

import sys
from collections import Counter

import domzero

ports = Counter[int]()
with domzero.boot(image=sys.argv[1] if len(sys.argv) > 1 else "debian", memory_mib=256) as guest:

    @guest.on_hypercall("event_channel_op", "EVTCHNOP_send")
    def sent(call: domzero.Call) -> domzero.Verdict:
        ports[guest.virtual.read_u32(call.args[1])] += 1  # struct evtchn_send is a port
        return call.proceed()

    for milestone in ("Linux version", "Memory:", "Run /init as init process"):
        guest.run_until(console=milestone, timeout=300)
        vcpu = guest.vcpus[0]
        print(f"{milestone:<28} {vcpu.instructions:>13,} instructions, rip {vcpu.regs.rip:#x}, events {dict(ports)}")
