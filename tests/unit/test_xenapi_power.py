# SPDX-License-Identifier: Apache-2.0
"""XenAPI's word for what a domain does."""

from __future__ import annotations

import pytest

from domzero.dom0.config import Action, DomainConfig
from domzero.dom0.life import DomainState, Next
from domzero.dom0.records import Record
from domzero.dom0.xenapi.objects import power_state


@pytest.mark.parametrize(
    ("state", "domid", "following", "ending", "word"),
    [
        (DomainState.RUNNING, 3, None, False, "Running"),
        (DomainState.BUILDING, 3, None, False, "Running"),
        (DomainState.PAUSED, 3, None, False, "Paused"),
        (DomainState.HALTED, None, None, True, "Halted"),
        (DomainState.SHUTDOWN, 3, Next(Action.RESTART), False, "Running"),
        (DomainState.SHUTDOWN, 3, Next(Action.RESTART), True, "Halted"),
        (DomainState.SHUTDOWN, 3, Next(Action.PRESERVE), False, "Halted"),
        (DomainState.SHUTDOWN, 3, Next(Action.DESTROY), False, "Halted"),
    ],
)
def test_a_domain_that_is_about_to_start_again_runs(
    state: DomainState, domid: int | None, following: Next | None, ending: bool, word: str
) -> None:
    record = Record(DomainConfig(kernel="/k"), domid=domid, state=state, following=following, ending=ending)
    assert power_state(record) == word
