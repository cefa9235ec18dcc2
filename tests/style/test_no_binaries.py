# SPDX-License-Identifier: Apache-2.0
"""The repository holds sources only: no binaries, and nothing that a build or a run of a tool makes."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
ALLOWED = ("fuzz/corpus/", "tests/guest/real_xen/", "docs/images/")
"""Inputs that a fuzzer found, answers recorded on real Xen, pictures of documents."""
MAX_BYTES = 200_000
GENERATED = (".so", ".o", ".a", ".d", ".elf", ".pyc", ".whl", ".new", ".orig", ".rej", ".gz", ".xz", ".deb")


def tracked() -> list[str]:
    """Files that are committed or staged, without those that are deleted in the working tree."""
    output = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in output.split("\0") if name and (ROOT / name).is_file() and not name.startswith(ALLOWED)]


def test_no_binary_is_committed() -> None:
    assert [name for name in tracked() if b"\0" in (ROOT / name).read_bytes()] == []


def test_nothing_that_is_built_is_committed() -> None:
    assert [name for name in tracked() if name.endswith(GENERATED)] == []
    ignored = subprocess.run(["git", "ls-files", "-ci", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    assert ignored.stdout.split() == []


def test_no_committed_file_is_large() -> None:
    assert {name: (ROOT / name).stat().st_size for name in tracked() if (ROOT / name).stat().st_size > MAX_BYTES} == {}
