"""The compiled machine and its stub say the same."""

import ast
from pathlib import Path

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
        assert not declared
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


def test_match_args_are_the_same() -> None:
    for node in CLASSES:
        for item in node.body:
            if isinstance(item, ast.Assign) and getattr(item.targets[0], "id", "") == "__match_args__":
                assert getattr(_machine, node.name).__match_args__ == ast.literal_eval(item.value)
