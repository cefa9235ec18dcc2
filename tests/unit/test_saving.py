# SPDX-License-Identifier: Apache-2.0
"""Guests that do not suspend themselves, or too late; and files that a killed Domain 0 has left."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from domzero.dom0 import saving
from domzero.dom0.life import EndReason
from domzero.dom0.manager import BadState, NoAnswer
from domzero.dom0.messages import Suspended
from domzero.dom0.records import Saving
from domzero.dom0.saved_files import sweep
from domzero.dom0.suspension import Suspension
from domzero.hypervisor.saved import SaveError

NODE = "/local/domain/3/control/shutdown"


class Store(dict[str, str]):
    """xenstore, and a guest that clears its node as soon as it looks at it, if it does."""

    def __init__(self, *, looks: bool) -> None:
        super().__init__()
        self.looks = looks
        self.written: list[str] = []

    def write(self, path: str, value: str) -> None:
        self.written.append(value)
        self[path] = "" if self.looks else value

    def read(self, path: str) -> str:
        return self[path]


def ask(store: Store, *, is_up: bool = True, suspends: bool = False) -> None:
    record: Any = SimpleNamespace(name="a", domid=3, saving=Saving(), is_up=is_up)
    manager: Any = SimpleNamespace(store=store)

    async def run() -> None:
        if suspends:
            record.saving.suspended.set()
        await saving._suspend_guest(manager, record)

    asyncio.run(run())


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving, "ANSWER_SECONDS", 0.0)
    monkeypatch.setattr(saving, "LOOK_SECONDS", 0.001)


@pytest.mark.parametrize("looks", [True, False])
def test_a_guest_that_does_not_suspend_itself_is_told_that_nobody_waits(quick: None, looks: bool) -> None:
    store = Store(looks=looks)
    with pytest.raises(NoAnswer, match="does not suspend itself"):
        ask(store)
    assert store.written == ["suspend", ""] and store[NODE] == ""


def test_a_guest_that_suspends_itself_is_not_waited_for(quick: None) -> None:
    ask(Store(looks=True), suspends=True)


def test_a_guest_that_ends_instead_is_not_saved(quick: None) -> None:
    with pytest.raises(BadState, match="has ended"):
        ask(Store(looks=True), is_up=False)


class Guest:
    def __init__(self) -> None:
        self.went_on = 0

    def go_on(self) -> None:
        self.went_on += 1


def test_a_guest_that_suspends_itself_too_late_goes_on_at_once() -> None:
    told: list[object] = []
    suspension, guest = Suspension(told.append), Guest()
    suspension.expect()
    suspension.go_on()
    assert suspension.takes(guest, EndReason.SUSPEND)  # type: ignore[arg-type]
    assert (told, guest.went_on) == ([], 1)
    assert not suspension.takes(guest, EndReason.SUSPEND), "it was not asked to"  # type: ignore[arg-type]


def test_a_suspended_guest_stands_still_until_it_is_to_go_on() -> None:
    told: list[object] = []
    there = threading.Event()

    def tell(event: object) -> None:
        told.append(event)
        there.set()

    suspension, guest = Suspension(tell), Guest()
    suspension.expect()
    assert not suspension.takes(guest, EndReason.CRASH), "that is its end"  # type: ignore[arg-type]
    with pytest.raises(SaveError):
        suspension.write(guest, 0)  # type: ignore[arg-type]
    thread = threading.Thread(target=suspension.takes, args=(guest, EndReason.SUSPEND))
    thread.start()
    assert there.wait(60) and (told, guest.went_on) == ([Suspended()], 0)
    with pytest.raises(SaveError):
        suspension.expect()
    suspension.go_on()
    thread.join(60)
    assert bool(guest.went_on)


def test_what_a_killed_domain_0_has_left_of_files_is_removed(tmp_path: Path) -> None:
    for name in ("kept.save", "nobody.save", ".kept.save.1234.part", "other.txt"):
        (tmp_path / name).touch()
    sweep(tmp_path, [str(tmp_path / "kept.save")])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept.save", "other.txt"]
    sweep(tmp_path / "missing", [])
