# SPDX-License-Identifier: Apache-2.0
"""What `domzero run` says about what cannot be run: one line, exit status 2, no traceback."""

from __future__ import annotations

import gzip
import json
import random
import re
from pathlib import Path

import pytest
from kernels import INFO, bzimage, elf, note

from domzero.cli.main import main
from domzero.dom0.confinement import SWITCH
from domzero.dom0.life import EndReason

KERNEL = elf(b"\x90" * 1000)


@pytest.fixture(autouse=True)
def unconfined(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command runs in this process, which has more to do."""
    monkeypatch.setenv(SWITCH, "1")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "good").write_bytes(KERNEL)
    (tmp_path / "truncated").write_bytes(bzimage(gzip.compress(elf(random.Random(1).randbytes(9999))))[:-100])
    (tmp_path / "plain").write_bytes(elf(note_area=b""))
    (tmp_path / "hvm").write_bytes(elf(note_area=note(INFO["PHYS32_ENTRY"], 0x1000)))
    (tmp_path / "large").write_bytes(elf(b"\x90", memsz=100 << 20))
    (tmp_path / "32bit").write_bytes(elf(machine=3, wide=False))
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    try:
        status = main(["run", *arguments])
    except SystemExit as exit_:
        status = int(exit_.code or 0)
    captured = capsys.readouterr()
    assert status == 2
    assert captured.out == ""
    assert "Traceback" not in captured.err
    return captured.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--kernel", "truncated"], "truncated bzImage"),
        (["--kernel", "plain"], "no Xen ELF notes"),
        (["--kernel", "hvm", "--type", "pv"], "HVM or PVH only"),
        (["--kernel", "large", "--memory", "64"], "does not fit into 64 MiB"),
        (["--kernel", "32bit"], "32-bit"),
        (["--kernel", "none"], "No such file"),
        (["--kernel", "."], "directory"),
        (["--kernel", "good", "--ramdisk", "none"], "ramdisk: none: No such file"),
        (["--kernel", "good", "--memory", "0"], "memory: 0 MiB is not possible"),
        (["--kernel", "good", "--memory", "-5"], "memory: -5 MiB is not possible"),
        (["--kernel", "good", "--memory", "99999999"], "is not possible"),
        (["--kernel", "good", "--vcpus", "0"], "vcpus: 0 is not possible"),
        (["--kernel", "good", "--cmdline", "x" * 1024], "cmdline: at most 1023 bytes"),
        (["--kernel", "good", "--cpuid", "host,avx512f=1"], "cpuid: avx512f=1: a domain's processor has no avx512f"),
        (["--kernel", "good", "--engine", "kvm"], "kvm engine is not here yet"),
        (["--kernel", "good", "--disk", "a.img,vpc"], "disk: 'a.img,vpc': no such format: 'vpc'"),
        (["--kernel", "good", "--vif", "gatewaydev=1"], "vif: 'gatewaydev=1': gatewaydev is not supported"),
        (["--kernel", "good", "--timeout", "0"], "timeout: "),
        (["--image", "none"], "no such image: none"),
        ([], "nothing to run"),
    ],
)
def test_what_cannot_run_is_refused_in_one_line(
    files: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    says: str,
) -> None:
    monkeypatch.chdir(files)
    monkeypatch.setenv("XDG_CACHE_HOME", str(files / "cache"))
    error = refused(capsys, *arguments)
    assert says in error
    assert error.count("\n") == 1
    assert error.startswith("domzero: ")


def test_bad_usage_is_exit_status_2_with_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert "usage: domzero run" in refused(capsys, "--memory", "much")
    assert "usage: domzero run" in refused(capsys, "--colour", "red")


def test_an_error_comes_as_json_when_asked_for(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = refused(capsys, "--kernel", str(files / "plain"), "--json")
    last = json.loads(error.splitlines()[-1])
    assert last["status"] == 2
    assert last["key"] == "kernel"


def test_help_names_every_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    statuses = capsys.readouterr().out.split("exit status:")[1].split("examples:")[0]
    assert {int(number) for number in re.findall(r"\b\d+\b", statuses)} == {
        2,
        *(reason.exit_status for reason in EndReason),
    }
