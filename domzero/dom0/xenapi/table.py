# SPDX-License-Identifier: Apache-2.0
"""How a class is said: its fields, where their values come from, and its messages. Messages for fields are derived.

The first parameter of nearly every message is a session, which is not among those that are listed here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from domzero.dom0.actors import Actor, Role
from domzero.dom0.records import Record as Domain
from domzero.dom0.xenapi.failure import Failure
from domzero.dom0.xenapi.journal import Audience
from domzero.dom0.xenapi.values import BOOL, INT, STRING, STRING_MAP, STRINGS, VOID, Map, Record, Ref, Set, Type
from domzero.dom0.xenapi.world import Call, World

Getter = Callable[[World, Any], Any]
Setter = Callable[[Call, Any, Any], Awaitable[None]]
Handler = Callable[..., Coroutine[Any, Any, Any]]
EVERYBODY = "*"
"""In an audience: whoever is logged in. No user has this name."""


def domain_of(it: Any) -> UUID | None:
    """The domain that an object is or belongs to."""
    domain = it if isinstance(it, Domain) else getattr(it, "vm", None)
    return domain.uuid if isinstance(domain, Domain) else None


def _its_domain(world: World, it: Any) -> Audience:
    """The audience of what is a domain or belongs to one; of all else nobody in particular."""
    domain = domain_of(it)
    return () if domain is None else (domain,)


def may_see(actor: Actor, audience: Audience) -> bool:
    """Whether somebody may look at an object with this audience."""
    if actor.may(Role.READ_ONLY):
        return True
    return any(
        actor.may(Role.READ_ONLY, each) if isinstance(each, UUID) else each in (EVERYBODY, actor.name)
        for each in audience
    )


@dataclass(frozen=True)
class Field:
    """A field of a class.

    :param get: its value of an object; without one it is kept for clients, as they set it.
    :param put: sets it.
    :param default: of a field that is kept.
    :param kept: whether clients may set it, and it is kept for them.
    :param writable: XAPI lets clients set it.
    :param volatile: a change of it alone is no event.
    :param role: the least that may set it, where `put` makes no action of Domain 0's.
    """

    name: str
    type: Type
    get: Getter | None = None
    put: Setter | None = None
    default: Any = None
    kept: bool = False
    writable: bool = False
    volatile: bool = False
    role: Role | None = None


def ro(name: str, type: Type, get: Getter | None = None, *, default: Any = None, volatile: bool = False) -> Field:
    """A field that clients read.

    :param get: gives it; else it is always `default`.
    """
    return Field(name, type, get or (lambda world, it: default), default=default, volatile=volatile)


def rw(name: str, type: Type, get: Getter, put: Setter | None, *, role: Role | None = None) -> Field:
    """A field that clients set, too; without `put` setting it is not implemented."""
    return Field(name, type, get, put, writable=True, role=role)


def kept(name: str, type: Type = STRING_MAP, default: Any = None) -> Field:
    """A field that is the clients': what they set is kept, and means nothing to Domain 0."""
    empty: Any = {} if isinstance(type, Map) else [] if isinstance(type, Set) else ""
    return Field(name, type, default=empty if default is None else default, kept=True, writable=True)


@dataclass(frozen=True)
class Message:
    """A message of a class.

    :param parameters: names and types, without the session.
    :param optional: so many of the last parameters may be missing.
    :param do: carries it out: called with the `Call` and the parameters as `Type.read` gives them; a reference is the
        object itself.
    :param session: whether it is for those who have logged in.
    :param role: the least that may ask for it, where it is no action of Domain 0's that says so itself; None: whoever
        may look at everything.
    :param implicit: derived from a field or the class.
    :param open: it looks itself at what who sends it may: also for those who may not look at everything, though no
        object that they may look at is among its parameters.
    """

    name: str
    parameters: tuple[tuple[str, Type], ...]
    result: Type
    do: Handler | None
    optional: int = 0
    session: bool = True
    implicit: bool = False
    role: Role | None = None
    open: bool = False


def message(
    name: str,
    do: Handler | None,
    result: Type = VOID,
    /,
    *,
    optional: int = 0,
    session: bool = True,
    role: Role | None = None,
    open: bool = False,
    **parameters: Type,
) -> Message:
    """A message that is not derived; without `do` it is refused as not implemented."""
    return Message(name, tuple(parameters.items()), result, do, optional, session, role=role, open=open)


async def _nothing(world: World, objects: Iterable[Any]) -> None:
    """Objects whose fields need no preparation."""


@dataclass(frozen=True)
class Kind:
    """A class.

    :param all: its objects by their identity.
    :param find: one of them, if it is quicker than through `all`.
    :param prepare: awaited before fields of some objects are read.
    :param visible: get_all and the like exist.
    :param role: the least that may set fields that are kept for clients.
    :param audience: who may look at an object beside those who may look at everything.
    """

    name: str
    fields: tuple[Field, ...]
    all: Callable[[World], Mapping[UUID, Any]]
    find: Callable[[World, UUID], Any | None] | None = None
    prepare: Callable[[World, Iterable[Any]], Awaitable[None]] = _nothing
    explicit: tuple[Message, ...] = ()
    visible: bool = True
    role: Role = Role.POOL_OPERATOR
    audience: Callable[[World, Any], Audience] = _its_domain
    by_name: dict[str, Field] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.by_name.update({each.name: each for each in self.fields})

    def get(self, world: World, identity: UUID) -> Any | None:
        """One of its objects."""
        return self.find(world, identity) if self.find is not None else self.all(world).get(identity)

    def seen_by(self, world: World, actor: Actor) -> Mapping[UUID, Any]:
        """Those that somebody may look at."""
        every = self.all(world)
        if actor.may(Role.READ_ONLY):
            return every
        with world.still():
            return {identity: it for identity, it in every.items() if may_see(actor, self.audience(world, it))}

    def find_for(self, world: World, actor: Actor | None, identity: UUID) -> Any | None:
        """One that somebody may look at. None: there is no such object, for them.

        :param actor: None: nobody has logged in, and nobody asks for an object.
        """
        it = self.get(world, identity)
        if it is None or actor is None or actor.may(Role.READ_ONLY):
            return None if actor is None else it
        with world.still():
            return it if may_see(actor, self.audience(world, it)) else None

    def value(self, world: World, identity: UUID, it: Any, one: Field) -> Any:
        """A field's value, for the wire."""
        found = one.get(world, it) if one.get else world.fields.get(identity, one.name, one.default)
        return one.type.write(found)

    def record(self, world: World, identity: UUID, it: Any) -> dict[str, Any]:
        """All fields of an object, for the wire."""
        return {one.name: self.value(world, identity, it, one) for one in self.fields}

    def messages(self) -> list[Message]:
        """All of them; an explicit one stands for a derived one of its name."""
        found = {each.name: each for each in self._derived()}
        found |= {each.name: each for each in self.explicit}
        return list(found.values())

    # --- derived

    def _derived(self) -> Iterable[Message]:
        if "uuid" in self.by_name:
            yield self._implicit("get_record", self._get_record, Record(self.name), ("self", Ref(self.name)))
            yield self._implicit("get_by_uuid", self._get_by_uuid, Ref(self.name), ("uuid", STRING))
            if "name_label" in self.by_name:
                yield self._implicit(
                    "get_by_name_label", self._get_by_name_label, Set(Ref(self.name)), ("label", STRING)
                )
        if self.visible:
            yield self._implicit("get_all", self._get_all, Set(Ref(self.name)))
            if "uuid" in self.by_name:
                records = Map(Ref(self.name), Record(self.name))
                yield self._implicit("get_all_records", self._get_all_records, records)
        for one in self.fields:
            yield from self._of_field(one)

    def _implicit(
        self, name: str, do: Handler | None, result: Type, *parameters: tuple[str, Type], role: Role | None = None
    ) -> Message:
        return Message(name, parameters, result, do, implicit=True, role=role, open=True)

    def _of_field(self, one: Field) -> Iterable[Message]:
        it = ("self", Ref(self.name))

        async def get(call: Call, found: Found) -> Any:
            await self.prepare(call.world, [found.it])
            return self.value(call.world, found.identity, found.it, one)

        yield self._implicit(f"get_{one.name}", get, _written(one.type), it)
        if not one.writable:
            return
        can = one.kept or one.put is not None
        role = self.role if one.kept else one.role

        async def put(call: Call, found: Found, value: Any) -> None:
            if one.put is not None:
                await one.put(call, found.it, value)
            else:
                call.world.fields.put(found.identity, one.name, one.type.write(value))

        async def now(call: Call, found: Found) -> Any:
            return (
                one.get(call.world, found.it)
                if one.get
                else call.world.fields.get(found.identity, one.name, one.default)
            )

        async def add_pair(call: Call, found: Found, key: Any, value: Any) -> None:
            current = dict(await now(call, found))
            if key in current:
                raise Failure("MAP_DUPLICATE_KEY", self.name, one.name, str(found.identity), str(key))
            await put(call, found, current | {key: value})

        async def remove_pair(call: Call, found: Found, key: Any) -> None:
            current = dict(await now(call, found))
            current.pop(key, None)  # without it, too, it is for who may
            await put(call, found, current)

        async def add_one(call: Call, found: Found, value: Any) -> None:
            current = list(await now(call, found))
            await put(call, found, current if value in current else [*current, value])

        async def remove_one(call: Call, found: Found, value: Any) -> None:
            await put(call, found, [item for item in await now(call, found) if item != value])

        yield self._implicit(f"set_{one.name}", put if can else None, VOID, it, ("value", one.type), role=role)
        if isinstance(one.type, Map):
            pair = (("key", one.type.key), ("value", one.type.value))
            yield self._implicit(f"add_to_{one.name}", add_pair if can else None, VOID, it, *pair, role=role)
            yield self._implicit(f"remove_from_{one.name}", remove_pair if can else None, VOID, it, pair[0], role=role)
        elif isinstance(one.type, Set):
            yield self._implicit(
                f"add_{one.name}", add_one if can else None, VOID, it, ("value", one.type.of), role=role
            )
            yield self._implicit(
                f"remove_{one.name}", remove_one if can else None, VOID, it, ("value", one.type.of), role=role
            )

    async def _get_record(self, call: Call, found: Found) -> Any:
        await self.prepare(call.world, [found.it])
        return self.record(call.world, found.identity, found.it)

    async def _get_all(self, call: Call) -> list[UUID]:
        return list(self.seen_by(call.world, call.actor))

    async def _get_all_records(self, call: Call) -> dict[UUID, Any]:
        world = call.world
        await self.prepare(world, list(self.seen_by(world, call.actor).values()))
        those = self.seen_by(world, call.actor)
        with world.still():
            return {identity: self.record(world, identity, it) for identity, it in those.items()}

    def present(self, world: World) -> dict[UUID, Any]:
        """All its objects with all their fields; what is measured is as old as the last who asked."""
        with world.still():
            return {identity: self.record(world, identity, it) for identity, it in self.all(world).items()}

    async def _get_by_uuid(self, call: Call, text: str) -> UUID:
        identity = Ref(self.name).read(text, "uuid")
        if identity is None or self.find_for(call.world, call.actor, identity) is None:
            raise Failure("UUID_INVALID", self.name, text)
        return identity

    async def _get_by_name_label(self, call: Call, label: str) -> list[UUID]:
        one = self.by_name["name_label"]
        return [
            identity
            for identity, it in self.seen_by(call.world, call.actor).items()
            if self.value(call.world, identity, it, one) == label
        ]


@dataclass(frozen=True)
class Found:
    """An object that a reference named."""

    identity: UUID
    it: Any


class Written(Type):
    """A value of a type that was written already."""

    def __init__(self, type: Type) -> None:
        self.name = type.name
        self.type = type

    def write(self, value: Any) -> Any:
        """As it is."""
        return value


def _written(type: Type) -> Type:
    return Written(type)


__all__ = [
    "BOOL",
    "EVERYBODY",
    "INT",
    "STRING",
    "STRINGS",
    "Audience",
    "Field",
    "Found",
    "Kind",
    "Message",
    "Written",
    "kept",
    "may_see",
    "message",
    "replace",
    "ro",
    "rw",
]
