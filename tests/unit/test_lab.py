# SPDX-License-Identifier: Apache-2.0
"""`domzero lab`: what it shows is what the manuals say, and its page and its programs are current."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import lab_page
import pytest

pytest.importorskip("domzero._machine", reason="the machine is not built: make setup")

from domzero.cli.main import main
from domzero.lab import instructions, page_table, paths, unported
from domzero.lab.document import Document
from domzero.lab.lessons import LESSONS

ROOT = Path(__file__).parents[2]
PRIVILEGED = {
    "cli", "sti", "lgdt", "lidt", "lldt", "ltr", "lmsw", "clts", "read_cr0", "write_cr0", "read_cr2", "write_cr2",
    "read_cr3", "write_cr3", "read_cr4", "write_cr4", "read_cr8", "read_dr7", "write_dr7", "sysretq", "swapgs",
    "invlpg", "wbinvd", "invd", "in", "out", "hlt", "rdmsr", "wrmsr", "rdpmc",
}  # fmt: skip
UMIP = {"sgdt", "sidt", "sldt", "str", "smsw"}
EMULATED = {
    "clts", "read_cr0", "write_cr0", "read_cr2", "write_cr2", "read_cr3", "write_cr3", "read_cr4", "write_cr4",
    "read_dr7", "write_dr7", "wbinvd", "rdmsr", "wrmsr",
}  # fmt: skip


@pytest.fixture(scope="module")
def results() -> dict[str, instructions.Result]:
    return {result.probe.label: result for result in instructions.run()}


def test_privileged_instructions_run_in_ring_0_and_fault_in_rings_1_and_3(
    results: dict[str, instructions.Result],
) -> None:
    for name in PRIVILEGED:
        seen = results[name].seen
        assert seen["ring 0"].outcome in ("runs", "halts"), name
        assert [(seen[p].outcome, seen[p].exception) for p in ("ring 1", "ring 3")] == [("traps", "#GP(0)")] * 2, name


def test_popf_iret_and_the_questions_about_segments_fail_silently_above_ring_0(
    results: dict[str, instructions.Result],
) -> None:
    for name in ("popfq", "iretq", "lar", "lsl", "verr", "verw"):
        assert results[name].verdicts["ring 3"] == results[name].verdicts["ring 1"] == "SILENT", name
    assert results["popfq"].seen["ring 0"].changes["IF"] == (1, 0)
    assert "IF" not in results["popfq"].seen["ring 3"].changes


def test_table_registers_leak_to_ring_3_unless_umip_is_set(results: dict[str, instructions.Result]) -> None:
    assert {name for name, result in results.items() if result.umip} == UMIP
    for name in UMIP:
        assert results[name].verdicts["ring 3"] == "LEAKS", name


def test_the_ring_is_in_cs_for_everybody_to_see(results: dict[str, instructions.Result]) -> None:
    rings = {place: seen.changes["rax"][1] & 3 for place, seen in results["read_cs"].seen.items()}
    assert rings == {"ring 0": 0, "ring 1": 1, "ring 3": 3, "pv64": 3, "pv32": 1}


def test_xen_emulates_for_a_pv_kernel_what_it_emulates_and_nothing_else(
    results: dict[str, instructions.Result],
) -> None:
    assert {name for name, result in results.items() if result.verdicts["pv64"] == "emulated"} == EMULATED
    assert {n for n, r in results.items() if r.verdicts.get("pv32") == "emulated"} == EMULATED - {"wrmsr"}
    assert results["syscall"].verdicts["pv64"] == "hypercall"


def test_the_same_update_is_free_natively_and_checked_for_a_guest() -> None:
    data = page_table.document().data
    assert [step["state"]["a read sees"] for step in data["native"]] == ["A", "A", "B", "B", "T's entries"]
    assert [step["outcome"] for step in data["pv"]] == [
        "", "emulated", "#PF(3)", "emulated", "ok", "-EBUSY", "-EBUSY",
        "", "-EINVAL", "ok", "ok", "-EBUSY", "ok", "ok",
    ]  # fmt: skip


@pytest.mark.parametrize(("lesson", "answer"), [(paths.syscall, 4711), (paths.page_fault, 42)])
def test_all_kernels_give_the_application_the_same_answer(lesson: object, answer: int) -> None:
    data = lesson().data  # type: ignore[operator]
    assert data["answer"] == answer
    assert {hop["ring"] for hop in data["native"] if hop["who"] == "kernel"} == {"0"}
    assert {hop["ring"] for hop in data["pv"] if hop["who"] == "kernel"} == {"3"}
    assert {hop["ring"] for hop in data["pv32"] if hop["who"] == "kernel"} == {"1"}
    bases = {hop["who"]: hop["page_tables"] for hop in data["pv"] if hop["page_tables"]}
    assert bases["kernel"] != bases["application"]


def test_an_unported_kernel_runs_on_the_machine_and_goes_wrong_silently_as_a_guest() -> None:
    data = unported.document().data
    assert data["machine"]["serial"] == "OK\n"
    assert any("general protection fault" in line for line in data["crash"])
    wrong = [(d["instruction"], d["what"]) for d in data["guest"]["differences"] if d["verdict"] == "WRONG"]
    assert ("popf", "IF is 1, not 0") in wrong
    assert sum(what.startswith("goes to complain") for _, what in wrong) == 4


def test_the_page_of_the_guide_is_from_this_engine() -> None:
    def without_addresses(text: str) -> str:  # which frames it gets may change with any of the hypervisor's own
        return re.sub(r"\s+", " ", re.sub(r"\b[0-9a-f]{6,16}\b|-{4,}", "N", text))

    written = without_addresses((ROOT / "docs" / "guide" / "lab.md").read_text())
    assert written == without_addresses(lab_page.page()), "python tools/lab_page.py > docs/guide/lab.md"


def test_the_programs_are_what_their_sources_say() -> None:
    if not all(shutil.which(tool) for tool in ("cc", "ld", "objdump", "objcopy", "make")):
        pytest.skip("no binutils")
    check = [sys.executable, str(ROOT / "tools" / "lab_listings.py"), "--check"]
    assert subprocess.run(check, check=False).returncode == 0, "python tools/lab_listings.py"


def test_lines_fit_the_width_and_have_no_colours_but_on_a_terminal() -> None:
    doc = Document()
    doc.heading("Heading", 1)
    doc.paragraph("word " * 50)
    doc.table(("a", "b"), [("traps #GP(0)", "much text " * 20), ("x", "y")])
    text = doc.text(80)
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text
    assert "\x1b[33mtraps\x1b[0m #GP(0)" in doc.text(80, colour=True)


def test_the_command_lists_its_topics_and_says_what_it_does_not_have(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "--json"]) == 0
    assert (
        json.loads(capsys.readouterr().out)["topics"].items()
        >= {lesson.name: lesson.about for lesson in LESSONS}.items()
    )
    assert main(["lab", "instructions", "popfq", "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)["instructions"]
    assert (one["places"]["ring 3"]["verdict"], one["bytes"]) == ("SILENT", "9d")
    assert main(["lab", "instructions", "nonsense"]) == 2
    assert main(["lab", "syscall", "--kernel", "x"]) == 2
