# SPDX-License-Identifier: Apache-2.0
"""Imports point down only, and files stay small enough to fit in a head."""

import ast
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAYERS = {"errors": 0, "abi": 0, "hypervisor": 1, "builder": 2, "dom0": 3, "debug": 3, "guest": 4, "lab": 5, "cli": 6}
MAX_LINES = 600
LONGER = {"domzero/_machine.pyi": 1100}
"""A compiled module has one stub."""
FACE = "domzero.__init__"
"""What programs import; the package's own modules take its version and `_machine` from the same name."""
ACQUAINTED = {
    frozenset({"domzero.hypervisor.domain", "domzero.hypervisor.vcpu"}),
    frozenset({"domzero.dom0.hostinfo", "domzero.dom0.manager"}),
    frozenset({"domzero.dom0.xenstore.store", "domzero.dom0.xenstore.connection"}),
}
"""Pairs whose objects know each other, a domain and its vCPUs for one: one of the imports is for type checking only."""


def python_files() -> list[Path]:
    return sorted((ROOT / "domzero").rglob("*.py"))


def layer_of(parts: tuple[str, ...]) -> str | None:
    """The layer a dotted module path below `domzero` belongs to."""
    return parts[0] if parts and parts[0] in LAYERS else None


def imported_modules(path: Path) -> list[str]:
    package = path.relative_to(ROOT).with_suffix("").parts
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level]) if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found += [module] + [f"{module}.{alias.name}" for alias in node.names]
    return found


@pytest.mark.parametrize("path", python_files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down_only(path: Path) -> None:
    own = layer_of(path.relative_to(ROOT / "domzero").with_suffix("").parts)
    if own is None:
        return
    for module in imported_modules(path):
        parts = tuple(module.split("."))
        other = layer_of(parts[1:]) if parts[0] == "domzero" else None
        if other is not None:
            assert LAYERS[other] <= LAYERS[own], f"{path.name} ({own}) imports {module} ({other})"


def test_no_imports_go_in_circles() -> None:
    """Those under TYPE_CHECKING count: what needs another's type cannot be understood without it."""
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in python_files()}
    graph = {name: {m for m in imported_modules(path) if m in modules} for name, path in modules.items()}
    for name in graph:
        package = f"{name.rsplit('.', 1)[0]}.__init__"
        graph[name] |= {f"{m}.__init__" for m in imported_modules(modules[name])} & modules.keys() - {package, FACE}
    reach: dict[str, set[str]] = {}
    for name in graph:
        seen: set[str] = set()
        todo = [name]
        while todo:
            new = graph[todo.pop()] - seen
            seen |= new
            todo += new
        reach[name] = seen
    circles = {frozenset(m for m in reach[name] if name in reach[m]) for name in graph} - {frozenset()}
    assert circles <= ACQUAINTED


def test_abi_modules_contain_no_logic_above_them() -> None:
    for path in (ROOT / "domzero" / "abi").glob("*.py"):
        outside = [m for m in imported_modules(path) if m.startswith("domzero.") and not m.startswith("domzero.abi")]
        assert not outside, f"{path.name} imports {outside}"


def test_no_source_file_is_past_its_limit() -> None:
    command = ["git", "ls-files", "-co", "--exclude-standard", "*.py", "*.rs", "*.pyi"]
    tracked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.split()
    sizes = {f: len((ROOT / f).read_text().splitlines()) for f in tracked if (ROOT / f).exists()}
    long = {f: n for f, n in sizes.items() if n > LONGER.get(f, MAX_LINES)}
    assert not long, f"split these: {long}"


def test_only_clock_and_entropy_read_host_time_and_randomness() -> None:
    """Deterministic mode: everything below Domain 0 takes time and randomness from the host object."""
    forbidden = {"time", "random", "secrets", "datetime"}
    for folder in ("abi", "hypervisor", "builder"):
        for path in (ROOT / "domzero" / folder).rglob("*.py"):
            if path.name == "clock.py":
                continue
            bad = {m.split(".")[0] for m in imported_modules(path)} & forbidden
            assert not bad, f"{path.relative_to(ROOT)} imports {bad}; use hypervisor/clock.py"


def test_the_machine_crate_knows_no_python() -> None:
    manifest = (ROOT / "crates" / "machine" / "Cargo.toml").read_text()
    assert "pyo3" not in manifest
