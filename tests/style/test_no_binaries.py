# SPDX-License-Identifier: Apache-2.0
"""The repository holds sources only: no binaries, and nothing that a build or a run of a tool makes."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
ALLOWED = ("fuzz/corpus/", "tests/guest/real_xen/", "docs/images/")
"""Inputs that a fuzzer found, answers recorded on real Xen, pictures of documents."""
VENDORED = "domzero/dom0/web/static/vendor/"
"""Libraries of the page, minified text as their authors publish it: there is no smaller one of xterm.js."""
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
    own = [name for name in tracked() if not name.startswith(VENDORED)]
    assert {name: (ROOT / name).stat().st_size for name in own if (ROOT / name).stat().st_size > MAX_BYTES} == {}


def test_vendored_libraries_have_their_licences_and_a_line_that_says_where_they_are_from() -> None:
    directories = {name.removeprefix(VENDORED).split("/")[0] for name in tracked() if name.startswith(VENDORED)}
    directories.remove("README.md")
    readme = (ROOT / VENDORED / "README.md").read_text()
    assert directories
    for name in directories:
        (licence,) = (ROOT / VENDORED / name).glob("LICENSE*")
        assert "Copyright" in licence.read_text(), name
        assert f"| `{name}` |" in readme


def test_the_package_names_the_licences_of_what_is_vendored() -> None:
    project = (ROOT / "pyproject.toml").read_text().partition("[project]")[2].partition("\n[")[0]
    named = {path for pattern in re.findall(r'"(\S*LICENSE\S*)"', project) for path in ROOT.glob(pattern)}
    assert named == {ROOT / "LICENSE", *(ROOT / VENDORED).rglob("LICENSE*")}
    expression = re.search(r'^license = "(.*)"', project, re.MULTILINE)
    readme = (ROOT / VENDORED / "README.md").read_text()
    assert expression is not None
    assert all(name in readme for name in expression[1].split(" AND ")[1:])
