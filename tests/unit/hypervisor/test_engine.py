# SPDX-License-Identifier: Apache-2.0
"""Which engine a domain gets, and what is said where it cannot be had."""

from __future__ import annotations

import pytest
from fakes import make_domain, make_host

from domzero import _machine
from domzero.errors import ConfigError, ResourceError
from domzero.hypervisor import engine
from domzero.hypervisor.clock import HostClock
from domzero.hypervisor.engine import Engine, choose

NO_PROCESSOR = "the translator needs a processor with BMI2"


@pytest.fixture(autouse=True)
def host_that_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_machine, "translator_unavailable", lambda: None)
    monkeypatch.delenv(engine.VARIABLE, raising=False)


def thresholds(domain: object) -> list[int]:
    """What each vCPU of a domain was told last."""
    told = []
    for vcpu in domain.vcpus:  # type: ignore[attr-defined]
        told.append([call[1] for call in vcpu.hw.calls if call[0] == "set_translator"][-1])
    return told


def test_every_vcpu_gets_the_engine_that_is_asked_for() -> None:
    domain = make_domain(make_host(), vcpus=3, engine=Engine.TRANSLATOR)
    assert thresholds(domain) == [engine.THRESHOLD] * 3
    assert domain.engine.engine is Engine.TRANSLATOR
    domain = make_domain(make_host(), vcpus=2, engine=Engine.INTERPRETER)
    assert thresholds(domain) == [0, 0]
    assert domain.engine.engine is Engine.INTERPRETER


def test_auto_is_the_translator_where_nothing_speaks_against_it() -> None:
    domain = make_domain(make_host(), vcpus=2)
    assert thresholds(domain) == [engine.THRESHOLD] * 2
    assert str(domain.engine) == "translator (auto: the fastest here)"


def test_the_log_says_which_engine_it_is_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_machine, "translator_unavailable", lambda: NO_PROCESSOR)
    host = make_host()
    make_domain(host)
    assert any(line.endswith(f"engine: interpreter ({NO_PROCESSOR})") for line in host.log_lines)


def test_a_host_without_the_translator_has_the_interpreter_unless_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_machine, "translator_unavailable", lambda: NO_PROCESSOR)
    assert choose(Engine.AUTO) == engine.Choice(Engine.INTERPRETER, NO_PROCESSOR)
    with pytest.raises(ConfigError, match="cannot run here: the translator needs a processor with BMI2") as raised:
        choose(Engine.TRANSLATOR)
    assert raised.value.key == "engine"


def test_a_host_that_gives_no_memory_for_code_has_the_interpreter_unless_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from fakes import FakeVcpu

    def refuse(vcpu: FakeVcpu, threshold: int, code_bytes: int | None = None) -> None:
        vcpu.calls.append(("set_translator", threshold))
        if threshold and vcpu.vcpu_id == 1:
            raise OSError("no memory for translated code: Permission denied")

    monkeypatch.setattr(FakeVcpu, "set_translator", refuse)
    host = make_host()
    domain = make_domain(host, vcpus=2)
    assert thresholds(domain) == [0, 0]
    assert str(domain.engine) == "interpreter (no memory for translated code: Permission denied)"
    with pytest.raises(ResourceError, match="Permission denied"):
        make_domain(host, vcpus=2, engine=Engine.TRANSLATOR)


@pytest.mark.parametrize(
    ("wish", "chosen", "threshold"),
    [
        ("interpreter", Engine.INTERPRETER, 0),
        ("translator", Engine.TRANSLATOR, engine.THRESHOLD),
        ("translator:2", Engine.TRANSLATOR, 2),
    ],
)
def test_the_environment_says_what_auto_means_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, wish: str, chosen: Engine, threshold: int
) -> None:
    monkeypatch.setenv(engine.VARIABLE, wish)
    assert choose(Engine.AUTO) == engine.Choice(chosen, "DOMZERO_ENGINE says so", threshold)
    assert choose(Engine.INTERPRETER).engine is Engine.INTERPRETER
    assert choose(Engine.TRANSLATOR).threshold == engine.THRESHOLD


@pytest.mark.parametrize(
    "wish", ["", "kvm", "auto", "translator:", "translator:0", "translator:-1", "translator:\u0663"]
)
def test_an_environment_that_names_no_engine_is_an_error(monkeypatch: pytest.MonkeyPatch, wish: str) -> None:
    monkeypatch.setenv(engine.VARIABLE, wish)
    with pytest.raises(ConfigError, match="DOMZERO_ENGINE="):
        choose(Engine.AUTO)


def test_what_is_not_here_says_so() -> None:
    with pytest.raises(ConfigError, match="kvm engine is not here yet"):
        engine.find("kvm")
    with pytest.raises(ConfigError, match="no such engine: steam"):
        engine.find("steam")


def test_both_engines_are_compared_for_one_vcpu_in_virtual_time() -> None:
    host = make_host()
    domain = make_domain(host, engine=Engine.CHECK)
    assert thresholds(domain) == [engine.CHECK_THRESHOLD]
    assert ("set_check", True) in domain.vcpus[0].hw.calls
    with pytest.raises(ConfigError, match="one vCPU, with virtual time"):
        make_domain(host, vcpus=2, engine=Engine.CHECK)
    host.clock = HostClock()
    with pytest.raises(ConfigError, match="one vCPU, with virtual time"):
        make_domain(host, engine=Engine.CHECK)
