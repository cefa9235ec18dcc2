# SPDX-License-Identifier: Apache-2.0
"""`import domzero`: the public names, all of them documented, and nothing loaded before it is used."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import domzero

NAMES = (
    "AddressSpace Call ConfigError DomzeroError Guest GuestConsole GuestEnd GuestEnded GuestError GuestRunning "
    "GuestVcpu ImageError NotMapped PageTableEntry PageWalk Registers ResourceError Trap Verdict WaitTimeout "
    "__version__ boot"
)
MEMBERS = {
    "Guest": """close console domain end log machine on_hypercall on_trap after_hypercall page_walk pause paused
        physical read remove_hook run_until step unpause vcpus virtual wait write""",
    "GuestConsole": "expect send tail text unread",
    "GuestEnd": "detail instructions reason",
    "GuestVcpu": "hw id in_kernel instructions regs state",
    "Call": "answer args command name proceed result struct vcpu",
    "Trap": "cr2 error_code in_kernel name rip vcpu vector",
    "PageWalk": "entries maddr paddr va",
    "PageTableEntry": "flags index is_present level mfn table_mfn value",
}


def test_these_are_the_public_names() -> None:
    assert sorted(domzero.__all__) == sorted(NAMES.split())
    assert set(NAMES.split()) <= set(dir(domzero))
    with pytest.raises(AttributeError, match="domzero' has no attribute 'bott'"):
        _ = domzero.bott


def test_what_programs_use_is_there_and_documented() -> None:
    pytest.importorskip("domzero._machine", reason="the machine is not built")
    for name in NAMES.split():
        assert name == "__version__" or inspect.getdoc(getattr(domzero, name)), name
    for name, members in MEMBERS.items():
        cls = getattr(domzero, name)
        source = inspect.getsource(cls)
        for member in members.split():
            found = getattr(cls, member, None)
            if inspect.isfunction(found) or isinstance(found, property):
                assert inspect.getdoc(found), f"{name}.{member}"
            else:  # set in __init__, or a field
                assert f"self.{member}" in source or f"    {member}: " in source, f"{name}.{member}"


def test_importing_domzero_loads_nothing_else() -> None:
    code = (
        "import sys, domzero; print([name for name in sys.modules if name.startswith(('domzero.', 'importlib.meta'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
