# SPDX-License-Identifier: Apache-2.0
"""Setting fields of a VM."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

from domzero.dom0.actions import ChangeDomain, RedefineDomain
from domzero.dom0.actors import Role
from domzero.dom0.changes import Changes
from domzero.dom0.config import Action
from domzero.dom0.records import Record
from domzero.dom0.xenapi.failure import Failure, handle_invalid, not_allowed
from domzero.dom0.xenapi.objects import HALTED, power_state
from domzero.dom0.xenapi.values import reference
from domzero.dom0.xenapi.world import Call, World

MIB = 1 << 20
BLOCKED = "blocked_operations"


def check_domain(call: Call, vm: Record) -> None:
    """Failure: it is Domain 0, or the template that is always there: neither can be changed."""
    if vm is call.world.control_domain:
        raise not_allowed("this is Domain 0")
    if vm is call.world.template:
        raise not_allowed("this template is always there, as it is: clone it")
    check_not_blocked(call.world, vm, call.message.removeprefix("VM."))


def blocked_operations(world: World, vm: Record) -> dict[str, str]:
    """What clients have said must not be done with a VM over XenAPI, and why."""
    found: dict[str, str] = world.fields.get(vm.uuid, BLOCKED, {})
    return found


def check_not_blocked(world: World, vm: Record, operation: str) -> None:
    """Failure: clients have blocked it. A shutdown is either way."""
    blocked = blocked_operations(world, vm)
    for name in ("clean_shutdown", "hard_shutdown") if operation == "shutdown" else (operation,):
        if name in blocked:
            raise Failure("OPERATION_BLOCKED", reference(vm.uuid), blocked[name])


def domain_to_change(call: Call, identity: UUID) -> Record:
    """The domain of this identity. Failure: there is none, or it cannot be changed."""
    vm = call.world.record(identity)
    if vm is None or not call.actor.may(Role.READ_ONLY, identity):
        raise handle_invalid("VM", reference(identity))
    check_domain(call, vm)
    return vm


def check_state(vm: Record, *wanted: str) -> None:
    """Failure: the domain is in none of these states."""
    state = power_state(vm)
    if state not in wanted:
        raise bad_state(vm, *wanted)


def bad_state(vm: Record, *wanted: str) -> Failure:
    """That it is in another state than one of those."""
    expected = ", ".join(word.lower() for word in wanted)
    return Failure("VM_BAD_POWER_STATE", reference(vm.uuid), expected, power_state(vm).lower())


async def put_name(call: Call, vm: Record, value: Any) -> None:
    """VM.set_name_label."""
    check_domain(call, vm)
    await call.do(ChangeDomain(domain=vm.uuid, changes=Changes(name=value)))


async def edit(call: Call, vm: Record, **changes: Any) -> None:
    """Changes the configuration of a halted domain. Failure, ConfigError."""
    check_domain(call, vm)
    check_state(vm, HALTED)
    config = replace(vm.config, **changes)
    await call.do(RedefineDomain(domain=vm.uuid, config=config, about=vm.about, startable=False))


def _put_config(name: str, of: Callable[[Any], Any]) -> Callable[[Call, Record, Any], Awaitable[None]]:
    async def put(call: Call, vm: Record, value: Any) -> None:
        await edit(call, vm, **{name: of(value)})

    return put


put_kernel = _put_config("kernel", str)
put_ramdisk = _put_config("ramdisk", lambda text: text or None)
put_cmdline = _put_config("cmdline", str)


def put_about(name: str) -> Callable[[Call, Record, Any], Awaitable[None]]:
    """Sets something that is kept of a domain beside its configuration."""

    async def put(call: Call, vm: Record, value: Any) -> None:
        check_domain(call, vm)
        await call.do(ChangeDomain(domain=vm.uuid, about=replace(vm.about, **{name: value})))

    return put


async def put_template(call: Call, vm: Record, value: bool) -> None:
    """VM.set_is_a_template: of a halted domain."""
    check_state(vm, HALTED)
    await put_about("template")(call, vm, value)


def put_action(name: str) -> Callable[[Call, Record, Any], Awaitable[None]]:
    """Sets what happens when the domain ends in some way; it counts from the next end on."""

    async def put(call: Call, vm: Record, value: str) -> None:
        check_domain(call, vm)

        async def work() -> None:
            setattr(vm.config, name, Action(value.replace("_and_", "-")))
            await call.world.manager.changed(vm)

        await call.do_instead(ChangeDomain(domain=vm.uuid), work, vm.uuid)

    return put
