# SPDX-License-Identifier: Apache-2.0
"""What is printed when a domain crashes."""

from typing import Any

import pytest
from fakes import make_domain

from domzero.hypervisor import crash


@pytest.mark.parametrize("is_32bit", [False, True])
def test_a_crash_report_shows_code_and_stack_in_the_guests_width(host: Any, is_32bit: bool) -> None:
    vcpu = make_domain(host, is_32bit=is_32bit).vcpus[0]
    code = vcpu.hw.place(b"\x90" * 16 + b"\x0f\x0b" + b"\x90" * 30)
    stack = vcpu.hw.place((0x1122334455667788).to_bytes(8, "little") * 64)
    vcpu.hw.regs.update(rip=code + 16, rsp=stack, cs=0xE033)
    crash.report(vcpu, "why")
    text = "\n".join(vcpu.domain.crash_report)
    assert "90 90 <0f> 0b 90" in text
    assert ("55667788 11223344 55667788" if is_32bit else "1122334455667788 1122334455667788") in text


def test_a_crash_report_says_what_cannot_be_read(host: Any) -> None:
    vcpu = make_domain(host).vcpus[0]
    vcpu.hw.regs.update(rip=0x1000, rsp=0x2000)
    crash.report(vcpu, "why", walk=0x3000)
    text = "\n".join(vcpu.domain.crash_report)
    assert "?? <??> ??" in text
    assert "Fault while accessing guest memory" in text
    assert "Pagetable walk from 0000000000003000" in text
