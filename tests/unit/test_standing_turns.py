# SPDX-License-Identifier: Apache-2.0
"""What somebody waits for, as long as they may."""

from __future__ import annotations

import asyncio

import pytest

from domzero.dom0.actors import OWNER, Actor
from domzero.dom0.bell import Bell
from domzero.dom0.standing import Standing
from domzero.dom0.users import NotAuthenticated


def outcome(order: tuple[str, ...], *, may: bool = True) -> int:
    """Of work that ends, while what users may changes, in one turn of the event loop.

    :param may: they may still.
    """

    async def run() -> int:
        bell, done = Bell(), asyncio.Event()
        allowed = [True]

        def again(actor: Actor) -> Actor | None:
            return actor if allowed[0] else None

        async def work() -> int:
            await done.wait()
            return 7

        waiting = asyncio.create_task(Standing(again, bell, OWNER, None, "", None).during(work()))
        for _ in range(5):
            await asyncio.sleep(0)
        allowed[0] = may
        for what in order:
            (done.set if what == "work" else bell.ring)()
        return await asyncio.wait_for(waiting, 30)

    return asyncio.run(run())


ORDERS = [("work", "bell"), ("bell", "work"), ("bell", "work", "bell")]


@pytest.mark.parametrize("order", ORDERS)
def test_what_comes_with_a_change_of_users_is_not_kept_back(order: tuple[str, ...]) -> None:
    assert outcome(order) == 7


@pytest.mark.parametrize("order", ORDERS)
def test_what_comes_with_the_end_of_a_right_is_given_to_nobody(order: tuple[str, ...]) -> None:
    with pytest.raises(NotAuthenticated):
        outcome(order, may=False)
