# SPDX-License-Identifier: Apache-2.0
"""What stays open ends when who has opened it may not any more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from uuid import uuid4

import pytest

from domzero.dom0.actors import Actor, PermissionDenied, Proof, Role
from domzero.dom0.bell import Bell
from domzero.dom0.database import Database
from domzero.dom0.events import Journal
from domzero.dom0.sessions import SESSIONS_OF_USER_MAX, Door, Sessions
from domzero.dom0.standing import Standing
from domzero.dom0.users import NotAuthenticated, Users


@pytest.fixture
def bell() -> Bell:
    return Bell()


@pytest.fixture
def users(bell: Bell) -> Iterator[Users]:
    database = Database()
    yield Users(database, Journal(database), bell)
    database.close()


def standing(users: Users, bell: Bell, actor: Actor, role: Role | None = Role.READ_ONLY) -> Standing:
    return Standing(users.again, bell, actor, role, "this", None)


async def of_new_token(users: Users, expires_at: float | None = None) -> Actor:
    await users.add("anna", Role.VM_ADMIN, None)
    _, text = users.add_token("anna", "", Role.VM_OPERATOR, expires_at)
    actor = users.of_token(text)
    assert actor is not None
    return actor


def test_what_is_waited_for_is_given_up_when_the_token_is_revoked(users: Users, bell: Bell) -> None:
    async def run() -> None:
        actor = await of_new_token(users)
        forever = asyncio.Event()
        waiting = asyncio.ensure_future(standing(users, bell, actor).during(forever.wait()))
        await asyncio.sleep(0)
        assert not waiting.done()
        users.set_role("anna", Role.READ_ONLY)  # that is enough
        await asyncio.sleep(0)
        assert not waiting.done()
        assert actor.proof.token is not None
        users.remove_token("anna", actor.proof.token)
        with pytest.raises(NotAuthenticated):
            await asyncio.wait_for(waiting, 10)

    asyncio.run(run())


def test_it_ends_when_the_token_expires_though_nothing_happens(users: Users, bell: Bell) -> None:
    async def run() -> None:
        actor = await of_new_token(users, time.time() + 0.2)
        assert isinstance(await asyncio.wait_for(standing(users, bell, actor, None).ends(), 10), NotAuthenticated)

    asyncio.run(run())


def test_a_role_that_is_taken_ends_what_needs_it_and_nothing_else(users: Users, bell: Bell) -> None:
    async def run() -> None:
        actor = await of_new_token(users)
        operator, reader = standing(users, bell, actor, Role.VM_OPERATOR), standing(users, bell, actor, Role.READ_ONLY)
        assert operator.check().role is Role.VM_OPERATOR  # the token gives no more
        users.set_role("anna", Role.READ_ONLY)
        with pytest.raises(PermissionDenied):
            operator.check()
        assert reader.check().role is Role.READ_ONLY
        users.set_role("anna", None)
        users.grant("anna", domain := uuid4(), Role.VM_ADMIN)
        assert reader.actor.may(Role.READ_ONLY)  # not looked up yet
        with pytest.raises(PermissionDenied):
            reader.check()
        assert Standing(users.again, bell, actor, Role.VM_OPERATOR, "this", domain).check().grants == {
            domain: Role.VM_OPERATOR
        }

    asyncio.run(run())


def test_another_user_of_the_same_name_is_somebody_else(users: Users) -> None:
    async def run() -> None:
        await users.add("bob", Role.READ_ONLY, "correct horse")
        actor = await users.log_in("bob", "correct horse", "basic")
        assert users.again(actor) is not None
        users.remove("bob")
        assert users.again(actor) is None
        await users.add("bob", Role.POOL_ADMIN, "correct horse")
        assert users.again(actor) is None
        assert users.again(replace(actor, proof=Proof())) is None  # nothing was shown

    asyncio.run(run())


def test_the_session_that_was_used_longest_ago_gives_way_to_a_users_next(bell: Bell) -> None:
    sessions = Sessions(bell)
    opened = [sessions.open(Door.XENAPI, Actor("anna", Role.READ_ONLY)) for _ in range(SESSIONS_OF_USER_MAX)]
    other = sessions.open(Door.PAGE, Actor("bob", Role.READ_ONLY))
    assert sessions.get(Door.XENAPI, opened[0].id) is opened[0]
    count = bell.count
    sessions.open(Door.PAGE, Actor("anna", Role.READ_ONLY))
    assert bell.count > count and opened[1].id not in sessions
    assert opened[0].id in sessions and other.id in sessions
    assert sessions.get(Door.PAGE, opened[0].id) is None  # another door's
