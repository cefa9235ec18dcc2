# SPDX-License-Identifier: Apache-2.0
"""How often a user may ask, with a clock of the test's."""

from __future__ import annotations

import asyncio
from contextlib import closing

import httpx

from domzero.dom0.actors import Role
from domzero.dom0.api.app import create_app
from domzero.dom0.api.rate import Rate
from domzero.dom0.database import Database
from domzero.dom0.manager import Manager


def test_a_burst_is_answered_and_then_a_steady_rate() -> None:
    rate = Rate(per_second=10, burst=5)
    assert [rate.take("anna", now=0.0) for _ in range(5)] == [0.0] * 5
    assert rate.take("anna", now=0.0) == 0.1
    assert rate.take("bob", now=0.0) == 0.0, "others have buckets of their own"
    assert rate.take("anna", now=0.1) == 0.0 and rate.take("anna", now=0.1) > 0
    assert [rate.take("anna", now=100.0) for _ in range(6)].count(0.0) == 5, "no more than a burst is saved up"


def test_what_is_remembered_of_users_is_bounded() -> None:
    rate = Rate()
    for number in range(5000):
        rate.take(f"user{number}", now=0.0)
    assert len(rate._buckets) == 2000


def test_a_user_who_asks_too_often_is_told_when_to_ask_again() -> None:
    async def scene() -> None:
        with closing(Database()) as database:
            app = create_app(Manager(database=database), token="owner's", rate=Rate(per_second=0.1, burst=2))
            users = app.state.services.users
            await users.add("eager", Role.READ_ONLY, None)
            _, token = users.add_token("eager", "", None, None)
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost/v1") as client:

                async def ask(shown: str) -> httpx.Response:
                    return await client.get("/domains", headers={"Authorization": f"Bearer {shown}"})

                assert [(await ask(token)).status_code for _ in range(2)] == [200, 200]
                refused = await ask(token)
                assert (refused.status_code, refused.json()["code"]) == (429, "TOO_MANY_REQUESTS")
                assert int(refused.headers["Retry-After"]) in (9, 10)
                assert [(await ask("owner's")).status_code for _ in range(5)] == [200] * 5

    asyncio.run(scene())
