# SPDX-License-Identifier: Apache-2.0
"""What guests/probe sees here, compared with what it saw on real Xen 4.17 (real_xen/*.txt, made by tools/real_xen.py).

A difference must be named in ALLOWED with its reason. The reference ran on QEMU's software CPU, an AMD model: where its
instructions are not those of a real processor, the reference is wrong, not Domzero.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from building import ROOT, Run, need_compiler

pytestmark = pytest.mark.guest

POLICY = "Domzero's own policy"
MODEL = "another CPU model"
QEMU = "QEMU's CPU differs from a real one"
ALLOWED = [
    (r"capabilities|cpuid |.*rdmsr 0x(8b|ce|c0010015|c001001f)$|(kernel|user) xgetbv", MODEL),
    (r"(kernel|user) (xsetbv|vmrun|vmload|vmsave|stgi|clgi|invlpga|sysexit|sysenter|rdpid|invpcid)$", MODEL),
    (r"(rdmsr|wrmsr) 0x(1a0|140|c0000080|c001001f|c0011019|c0011029)\b", MODEL),
    (r"(kernel|user) (int\d+|int1_long|icebp|lock_mov|clflush_null|emms with TS|smsw)$", QEMU),
    (r"(kernel|user) (push|jump)_noncanonical$", QEMU),
    (r"(kernel|user) mov_(from|to)_cr[15]$|.*(kernel|user) far return |(kernel|user) popf_ac|kernel jump_m2p", QEMU),
    (r"xen slot \d+ bits|top table slot 3", POLICY),
    (r"hypercall 18 all zero|console_io |xenoprof_op (0|14) ", POLICY),
    (r"grant_table_op 4 ", "transfer is refused"),
    (r"dm_op [12] ", "the probe's own domain id differs"),
    # Its software CPU gives #GP(0x822) for int 0x82, which a gate refuses, not #GP(0x412): Xen takes it for int 4.
    (r"hypercall instruction in user mode$", QEMU),
]


def answers(text: str) -> dict[str, str]:
    """Each line's name and value; lines that begin with dots belong to the one before."""
    found: dict[str, str] = {}
    place = key = ""
    for line in text.replace("\r", "").splitlines():
        if line.startswith("-- "):
            place = line[3:] + ": "
        elif line.startswith("... "):
            found[key] += f"; {line[4:]}"
        elif line:
            name, _, value = line.rpartition(" = ") if " = " in line else (" ".join(line.split()[:3]), "", line)
            key = place + name if line.startswith(("kernel ", "user ")) else name
            while key in found:
                key += "'"
            found[key] = value
    return found


@pytest.fixture(scope="session")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with the probe, built."""
    need_compiler()
    out = tmp_path_factory.mktemp("probe")
    shutil.copytree(ROOT / "guests" / "probe", out, dirs_exist_ok=True)
    subprocess.run(["make", "-s", "-B", "-C", out], check=True)
    return out


@pytest.mark.parametrize("width", ["64", "32"])
def test_the_probe_sees_what_it_saw_on_real_xen(probe: Path, domzero_run: Run, width: str) -> None:
    result = domzero_run("--kernel", str(probe / f"probe{width}"), "--memory", "64", limit=400)
    here = answers(result.stdout.decode(errors="replace"))
    there = answers((Path(__file__).parent / "real_xen" / f"{width}.txt").read_text())
    assert "done" in here, result.stderr.decode()
    different = {
        name: (there.get(name), here.get(name))
        for name in here.keys() | there.keys()
        if here.get(name) != there.get(name)
    }
    unexpected = {
        name: values for name, values in different.items() if not any(re.match(pattern, name) for pattern, _ in ALLOWED)
    }
    assert not unexpected
