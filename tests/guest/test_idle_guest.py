# SPDX-License-Identifier: Apache-2.0
"""A guest that has little to do gives back what made it fast, and neither it nor who talks to it sees that."""

from __future__ import annotations

import pytest
from waiting import until

import domzero
from domzero.hypervisor import idle

pytestmark = pytest.mark.guest


def test_a_guest_without_work_gives_back_its_decoded_code_and_goes_on(
    shell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"KEPT_BYTES": 0, "PERIOD_NS": 1_000_000}.items():
        monkeypatch.setattr(idle, name, value)
    given_back = []
    whole = idle.IdleMemory.give_back

    def counted(memory: idle.IdleMemory, now_ns: int) -> bool:
        given_back.append(done := whole(memory, now_ns))
        return done

    monkeypatch.setattr(idle.IdleMemory, "give_back", counted)
    with domzero.boot(shell, memory_mib=16) as guest:
        guest.unpause()
        for n in range(20):  # each time it sleeps, what it did is forgotten
            before = sum(given_back)
            guest.console.send(f"echo word {n}\n")
            guest.console.expect(f"word {n}\n")
            until(lambda before=before: sum(given_back) > before)  # type: ignore[misc]  # bound at once
        guest.console.send("poweroff\n")
        assert guest.wait(60).reason == "poweroff"
