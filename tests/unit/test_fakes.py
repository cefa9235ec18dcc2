# SPDX-License-Identifier: Apache-2.0
"""The fakes offer what the contract of the machine, `_machine.pyi`, has, and nothing else but what is for tests."""

import ast
from pathlib import Path

import builder_machine
import fake_frames
import fakes
import pytest

import domzero

STUB = ast.parse((Path(domzero.__file__).parent / "_machine.pyi").read_text())
STUB_CLASSES = {node.name: node for node in STUB.body if isinstance(node, ast.ClassDef)}
FAKES = {
    (fakes, "FakeMachine"): "Machine",
    (fakes, "FakeDomain"): "Domain",
    (fakes, "FakeGrantTable"): "GrantTable",
    (fakes, "FakeEventChannels"): "EventChannels",
    (fakes, "FakeVcpu"): "Vcpu",
    (fake_frames, "FakeFrameInfo"): "FrameInfo",
    (builder_machine, "BuilderMachine"): "Machine",
    (builder_machine, "BuilderDomain"): "Domain",
    (builder_machine, "BuilderVcpu"): "Vcpu",
}
FOR_TESTS = {
    "FakeMachine": {"close"},
    "FakeVcpu": {"va_base", "place", "peek"},
    "BuilderMachine": {"close"},
    "BuilderVcpu": {"entry", "leaf"},
}
"""Methods that tests call, and the hypervisor does not."""


def methods(node: ast.ClassDef) -> dict[str, ast.FunctionDef]:
    found: dict[str, ast.FunctionDef] = {}
    for item in node.body:
        if isinstance(item, ast.FunctionDef):
            found.setdefault(item.name, item)
    return found


def signature(function: ast.FunctionDef, cls: str) -> tuple[object, ...]:
    """Names, kinds and defaults of the parameters, and what is returned; `Fake` names as those they stand for."""
    args = function.args
    returns = ast.unparse(function.returns) if function.returns else ""
    for (_, fake), real in FAKES.items():
        returns = returns.replace(f"'{fake}'", real).replace(fake, real)
    return (
        [a.arg for a in args.posonlyargs + args.args],
        [a.arg for a in args.kwonlyargs],
        len(args.defaults),
        [default is not None for default in args.kw_defaults],
        args.vararg is None and args.kwarg is None,
        "Exit" if (cls, function.name) == ("Vcpu", "run") else returns,
    )


@pytest.mark.parametrize(("module", "fake", "real"), [(*key, real) for key, real in FAKES.items()])
def test_a_fake_has_the_methods_of_what_it_stands_for(module: object, fake: str, real: str) -> None:
    tree = ast.parse(Path(str(module.__file__)).read_text())  # type: ignore[attr-defined]
    (node,) = (n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == fake)
    assert "__getattr__" not in methods(node)
    offered = {name: f for name, f in methods(node).items() if not name.startswith("_")}
    offered = {name: f for name, f in offered.items() if name not in FOR_TESTS.get(fake, ())}
    declared = methods(STUB_CLASSES[real])
    assert offered.keys() <= declared.keys()
    differ = [n for n, f in offered.items() if signature(f, real) != signature(declared[n], real)]
    assert not differ
