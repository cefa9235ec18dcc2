# SPDX-License-Identifier: Apache-2.0
"""AVX in a Debian guest: what `--cpu` shows, results, and registers that nobody loses, on each engine."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from building import ROOT, Run, need_compiler

from domzero import _machine
from domzero.dom0.images.cache import Image
from domzero.dom0.images.cpio import directory, file, write_cpio

pytestmark = [pytest.mark.guest, pytest.mark.timeout(600)]

LOADER = Path("/lib64/ld-linux-x86-64.so.2")


@pytest.fixture(scope="module")
def programs(debian: Image, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Debian's initramfs with avx.c in it, static and dynamic with lazily bound functions, and what that says here."""
    need_compiler(headers=False)
    if not {"avx2", "fma"} <= set(_machine.host_features()):
        pytest.skip("the host has no AVX2")
    out = tmp_path_factory.mktemp("avx")
    source = ROOT / "tests" / "guest" / "avx.c"
    entries = [directory("lib64"), directory("avx")]
    for name, options in (("static", ["-static"]), ("dynamic", ["-Wl,-z,lazy"])):
        subprocess.run(["gcc", "-O2", *options, "-o", out / name, source], check=True)
        entries.append(file(f"avx/{name}", (out / name).read_bytes(), 0o755))
    listed = subprocess.run([LOADER, "--list", out / "dynamic"], capture_output=True, text=True, check=True).stdout
    library = re.search(r"=> (\S+libc\.so\.6)", listed)
    assert library is not None, listed
    entries.append(file("lib64/ld-linux-x86-64.so.2", LOADER.read_bytes(), 0o755))
    entries.append(file("lib64/libc.so.6", Path(library[1]).read_bytes(), 0o755))
    ramdisk = Path(debian.ramdisk).read_bytes()
    path = out / "avx.cpio.gz"
    path.write_bytes(ramdisk + bytes(-len(ramdisk) % 4) + write_cpio(entries))
    return path, subprocess.run([out / "static"], capture_output=True, text=True, check=True).stdout


def lines_of(run: Run, debian: Image, ramdisk: Path, *options: str) -> str:
    """What both programs and the dynamic loader say in a guest."""
    commands = (
        "/avx/static; echo AVX then; LD_LIBRARY_PATH=/lib64 /avx/dynamic; "
        "/lib64/ld-linux-x86-64.so.2 --help | grep x86-64-v; poweroff\n"
    )
    kernel = ["--kernel", str(debian.kernel), "--ramdisk", str(ramdisk), "--cmdline", debian.cmdline or ""]
    result = run(*kernel, "--memory", "256", "--vcpus", "2", *options, stdin=commands.encode(), limit=400)
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout.decode(errors="replace").replace("\r", "")


def said(text: str) -> str:
    return "".join(f"{line}\n" for line in re.findall(r"^AVX .*$", text, re.MULTILINE))


@pytest.mark.parametrize("engine", ["interpreter", "translator"])
def test_avx_gives_the_hosts_results_and_loses_no_register(
    programs: tuple[Path, str], debian: Image, domzero_run: Run, engine: str
) -> None:
    if engine == "translator" and (reason := _machine.translator_unavailable()) is not None:
        pytest.skip(reason)
    ramdisk, expected = programs
    assert "AVX registers kept" in expected
    text = lines_of(domzero_run, debian, ramdisk, "--engine", engine, "--vcpus", "1")
    assert said(text) == f"{expected}AVX then\n{expected}"
    assert re.search(r"x86-64-v3 \(supported, searched\)", text), text[-2000:]


def test_a_level_below_v3_has_no_avx_and_programs_do_without(
    programs: tuple[Path, str], debian: Image, domzero_run: Run
) -> None:
    ramdisk, _ = programs
    text = lines_of(domzero_run, debian, ramdisk, "--cpu", "v2")
    assert said(text) == "AVX supported 0 0\nAVX then\nAVX supported 0 0\n"
    assert re.search(r"x86-64-v2 \(supported, searched\)", text), text[-2000:]
    assert not re.search(r"x86-64-v3 \(supported", text)


def test_cpuid_takes_a_single_feature_away(programs: tuple[Path, str], debian: Image, domzero_run: Run) -> None:
    ramdisk, _ = programs
    text = lines_of(domzero_run, debian, ramdisk, "--cpuid", "host,avx2=0")
    assert "AVX supported 0 1\n" in said(text)
