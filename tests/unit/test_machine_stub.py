# SPDX-License-Identifier: Apache-2.0
"""The compiled machine and its stub say the same."""

import ast
from pathlib import Path
from types import GetSetDescriptorType

import pytest

import domzero

_machine = pytest.importorskip("domzero._machine", reason="the machine is not built: make setup")
STUB = ast.parse((Path(domzero.__file__).parent / "_machine.pyi").read_text())
CLASSES = [node for node in STUB.body if isinstance(node, ast.ClassDef)]


def stub_members(node: ast.ClassDef) -> dict[str, ast.FunctionDef | None]:
    members: dict[str, ast.FunctionDef | None] = {}
    for item in node.body:
        if isinstance(item, ast.FunctionDef):
            members.setdefault(item.name, item)
        elif isinstance(item, ast.Assign):
            members.update((t.id, None) for t in item.targets if isinstance(t, ast.Name))
        elif isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            members[item.target.id] = None
    return members


def public(cls: type) -> set[str]:
    return {n for n in vars(cls) if not n.startswith("_")}


def test_every_stub_class_is_in_the_module_and_the_other_way_round() -> None:
    compiled = {n for n, v in vars(_machine).items() if isinstance(v, type)}
    assert compiled == {node.name for node in CLASSES}


@pytest.mark.parametrize("node", CLASSES, ids=lambda n: n.name)
def test_members_are_the_same(node: ast.ClassDef) -> None:
    compiled = getattr(_machine, node.name)
    declared = {n for n in stub_members(node) if not n.startswith("_")}
    if issubclass(compiled, Exception):
        # What an instance carries is set when it is raised: see test_machine_vcpu.py.
        assert declared <= {"errno", "status"}
        return
    assert public(compiled) == declared


@pytest.mark.parametrize("node", CLASSES, ids=lambda n: n.name)
def test_parameters_have_the_same_names_and_kinds(node: ast.ClassDef) -> None:
    compiled = getattr(_machine, node.name)
    for name, function in stub_members(node).items():
        method = compiled if name == "__new__" else vars(compiled).get(name)
        if function is None or function.decorator_list or method is None or not hasattr(method, "__text_signature__"):
            continue
        signature = (method.__text_signature__ or "()").strip("()").replace("$self", "self")
        words = [w.split("=")[0].strip() for w in signature.split(",") if w.strip()]
        args = function.args
        expected = [a.arg for a in args.args] + (["*"] if args.kwonlyargs else []) + [a.arg for a in args.kwonlyargs]
        if words and words[0] in ("self", "cls") and expected and expected[0] == words[0]:
            words, expected = words[1:], expected[1:]
        assert [w for w in words if w != "/"] == [e for e in expected if e not in ("self", "cls")], (
            f"{node.name}.{name}"
        )


@pytest.mark.parametrize("node", CLASSES, ids=lambda n: n.name)
def test_properties_are_properties_and_methods_are_methods(node: ast.ClassDef) -> None:
    compiled = getattr(_machine, node.name)
    for name, function in stub_members(node).items():
        if function is None or name == "__new__":
            continue
        decorators = {ast.unparse(d) for d in function.decorator_list}
        assert isinstance(vars(compiled)[name], GetSetDescriptorType) == ("property" in decorators), name


@pytest.mark.parametrize("node", CLASSES, ids=lambda n: n.name)
def test_members_of_enumerations_are_of_their_class_and_differ(node: ast.ClassDef) -> None:
    compiled = getattr(_machine, node.name)
    names = [
        item.target.id
        for item in node.body
        if isinstance(item, ast.AnnAssign)
        and isinstance(item.target, ast.Name)
        and ast.unparse(item.annotation) == f"ClassVar[{node.name}]"
    ]
    members = [getattr(compiled, name) for name in names]
    assert all(type(member) is compiled for member in members)
    assert len(set(members)) == len(names)


def test_every_exit_can_be_made_and_matched() -> None:
    values = {
        "bool": True,
        "int": 7,
        "int | None": None,
        "str": "why",
        "Gpr": "rbx",
        "tuple[int, int, int, int, int, int]": (1,) * 6,
    }
    for node in CLASSES:
        if not node.name.startswith("Exit"):
            continue
        fields = {
            name: values[ast.unparse(f.returns)]
            for name, f in stub_members(node).items()
            if f is not None and f.returns is not None and f.decorator_list
        }
        exit_ = getattr(_machine, node.name)(*fields.values())
        assert tuple(fields) == getattr(exit_, "__match_args__", ())
        assert {name: getattr(exit_, name) for name in fields} == fields


def test_match_args_are_the_same() -> None:
    for node in CLASSES:
        for item in node.body:
            if isinstance(item, ast.Assign) and getattr(item.targets[0], "id", "") == "__match_args__":
                assert getattr(_machine, node.name).__match_args__ == ast.literal_eval(item.value)
