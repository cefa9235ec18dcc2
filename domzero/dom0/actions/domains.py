# SPDX-License-Identifier: Apache-2.0
"""The life of a domain, and what is changed of it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, ClassVar
from uuid import UUID

from domzero.dom0 import messages
from domzero.dom0.about import About
from domzero.dom0.actions.base import Action, DomainAction
from domzero.dom0.actors import Role
from domzero.dom0.changes import Changes
from domzero.dom0.config import DomainConfig
from domzero.dom0.hostfiles import HostFile
from domzero.dom0.life import DomainState
from domzero.dom0.manager import BadState, Manager
from domzero.dom0.next_config import replace_next
from domzero.dom0.records import Record
from domzero.dom0.xenstore_nodes import home
from domzero.errors import ConfigError, DomzeroError

INPUT_SECONDS = 5.0
"""A guest may take to read what is typed."""


def _files_of(record: Record) -> list[HostFile]:
    following = [] if record.next_config is None else record.next_config.host_files()
    return [*record.config.host_files(), *following]


@dataclass(slots=True, frozen=True, kw_only=True)
class _New(Action[Record]):
    config: DomainConfig
    about: About = field(default_factory=About)

    @property
    def target(self) -> UUID | None:
        """The domain that comes to be."""
        return self.config.uuid

    def host_files(self) -> list[HostFile]:
        """Those of its configuration."""
        return self.config.host_files()

    def detail(self) -> dict[str, Any]:
        """Its name: the rest is in its definition."""
        return {"name": self.config.name, "kernel": self.config.kernel, "memory_mib": self.config.memory_mib}


@dataclass(slots=True, frozen=True, kw_only=True)
class CreateDomain(_New):
    """Build a domain and start it.

    :param persistent: it is defined, too.
    """

    kind: ClassVar[str] = "domain.create"
    role: ClassVar[Role] = Role.VM_ADMIN
    persistent: bool = False

    async def run(self, manager: Manager) -> Record:
        """Builds and starts it."""
        return await manager.create(self.config, self.about, persistent=self.persistent)


@dataclass(slots=True, frozen=True, kw_only=True)
class DefineDomain(_New):
    """Define a domain without starting it.

    :param startable: it has all that it needs for that.
    """

    kind: ClassVar[str] = "domain.define"
    role: ClassVar[Role] = Role.VM_ADMIN
    startable: bool = True

    async def run(self, manager: Manager) -> Record:
        """Defines it."""
        return await manager.define(self.config, self.about, startable=self.startable)


@dataclass(slots=True, frozen=True, kw_only=True)
class RedefineDomain(DomainAction[Record]):
    """Give a halted domain another definition."""

    kind: ClassVar[str] = "domain.redefine"
    role: ClassVar[Role] = Role.VM_ADMIN
    config: DomainConfig
    about: About
    startable: bool = True

    def detail(self) -> dict[str, Any]:
        """What it starts with: the rest is in its definition."""
        return {"name": self.config.name, "kernel": self.config.kernel, "memory_mib": self.config.memory_mib}

    def host_files(self) -> list[HostFile]:
        """Those of its configuration."""
        return self.config.host_files()

    def kept_files(self, record: Record) -> list[HostFile]:
        """Those that the domain has: who changes something else does not name them anew."""
        return _files_of(record)

    async def apply(self, manager: Manager, record: Record) -> Record:
        """Redefines it."""
        await manager.redefine(record, self.config, self.about, startable=self.startable)
        return record


@dataclass(slots=True, frozen=True, kw_only=True)
class ReplaceNextConfig(DomainAction[Record]):
    """Let a domain that runs start with another configuration the next time."""

    kind: ClassVar[str] = "domain.next"
    role: ClassVar[Role] = Role.VM_ADMIN
    config: DomainConfig

    def detail(self) -> dict[str, Any]:
        """What it starts with then."""
        return {"kernel": self.config.kernel, "memory_mib": self.config.memory_mib}

    def host_files(self) -> list[HostFile]:
        """Those of its configuration."""
        return self.config.host_files()

    def kept_files(self, record: Record) -> list[HostFile]:
        """Those that the domain has: who changes something else does not name them anew."""
        return _files_of(record)

    async def apply(self, manager: Manager, record: Record) -> Record:
        """Keeps it until then."""
        await replace_next(manager, record, self.config)
        return record


@dataclass(slots=True, frozen=True, kw_only=True)
class UndefineDomain(DomainAction[None]):
    """Forget a definition; a domain that runs goes on."""

    kind: ClassVar[str] = "domain.undefine"
    role: ClassVar[Role] = Role.VM_ADMIN

    async def apply(self, manager: Manager, record: Record) -> None:
        """Forgets it."""
        await manager.undefine(record)


@dataclass(slots=True, frozen=True, kw_only=True)
class StartDomain(DomainAction[Record]):
    """Start a halted domain."""

    kind: ClassVar[str] = "domain.start"
    role: ClassVar[Role] = Role.VM_OPERATOR
    paused: bool = False

    async def apply(self, manager: Manager, record: Record) -> Record:
        """Starts it."""
        await manager.start(record, paused=self.paused)
        return record


@dataclass(slots=True, frozen=True, kw_only=True)
class PauseDomain(DomainAction[None]):
    """Stop the vCPUs."""

    kind: ClassVar[str] = "domain.pause"
    role: ClassVar[Role] = Role.VM_OPERATOR

    async def apply(self, manager: Manager, record: Record) -> None:
        """Pauses it."""
        await manager.pause(record)


@dataclass(slots=True, frozen=True, kw_only=True)
class UnpauseDomain(DomainAction[None]):
    """Let the vCPUs go on."""

    kind: ClassVar[str] = "domain.unpause"
    role: ClassVar[Role] = Role.VM_OPERATOR

    async def apply(self, manager: Manager, record: Record) -> None:
        """Unpauses it."""
        await manager.unpause(record)


@dataclass(slots=True, frozen=True, kw_only=True)
class ShutDownDomain(DomainAction[None]):
    """Ask the guest to power off."""

    kind: ClassVar[str] = "domain.shutdown"
    role: ClassVar[Role] = Role.VM_OPERATOR

    async def apply(self, manager: Manager, record: Record) -> None:
        """Asks it."""
        await manager.request_shutdown(record, "poweroff")


@dataclass(slots=True, frozen=True, kw_only=True)
class RebootDomain(DomainAction[None]):
    """Ask the guest to reboot."""

    kind: ClassVar[str] = "domain.reboot"
    role: ClassVar[Role] = Role.VM_OPERATOR

    async def apply(self, manager: Manager, record: Record) -> None:
        """Asks it."""
        await manager.request_shutdown(record, "reboot")


@dataclass(slots=True, frozen=True, kw_only=True)
class ResetDomain(DomainAction[None]):
    """End a defined domain at once and start it again, without asking the guest."""

    kind: ClassVar[str] = "domain.reset"
    role: ClassVar[Role] = Role.VM_OPERATOR

    async def apply(self, manager: Manager, record: Record) -> None:
        """Resets it."""
        if not record.persistent:
            raise BadState(f"domain {record.name} is not defined: it would be gone with its end")
        if not record.gone or record.saved is not None:
            await manager.destroy(record)
        await manager.start(record)


@dataclass(slots=True, frozen=True, kw_only=True)
class DestroyDomain(DomainAction[None]):
    """End a domain at once; forget one that has ended."""

    kind: ClassVar[str] = "domain.destroy"
    role: ClassVar[Role] = Role.VM_OPERATOR

    async def apply(self, manager: Manager, record: Record) -> None:
        """Destroys it."""
        await manager.destroy(record)


@dataclass(slots=True, frozen=True, kw_only=True)
class ChangeDomain(DomainAction[None]):
    """Change what a domain has, what is kept beside it, or its state: all of it, or nothing.

    :param about: None: as it is.
    :param state: RUNNING, PAUSED or SHUTDOWN; None: as it is.
    """

    kind: ClassVar[str] = "domain.change"
    role: ClassVar[Role] = Role.VM_ADMIN
    changes: Changes = field(default_factory=Changes)
    about: About | None = None
    state: DomainState | None = None

    async def apply(self, manager: Manager, record: Record) -> None:
        """Changes it."""
        if self.about is not None:
            self.about.check()
        before = Changes.of(record)
        manager.check_changes(record, self.changes, runs=self.state is not None)
        await manager.change(record, self.changes)
        try:
            await self._change_state(manager, record)
        except DomzeroError:
            with suppress(DomzeroError):  # it may have ended meanwhile
                await manager.change(record, before if self.changes.needs_guest else Changes(name=before.name))
            raise
        if self.about is not None and self.about != record.about:
            record.about = self.about
            await manager.changed(record)

    async def _change_state(self, manager: Manager, record: Record) -> None:
        if self.state is DomainState.SHUTDOWN:
            await manager.request_shutdown(record, "poweroff")
        elif self.state is DomainState.PAUSED and record.state != DomainState.PAUSED:
            await manager.pause(record)
        elif self.state is DomainState.RUNNING and record.state not in (DomainState.RUNNING, DomainState.BLOCKED):
            await manager.unpause(record)


@dataclass(slots=True, frozen=True, kw_only=True)
class PinVcpu(DomainAction[None]):
    """Let a vCPU, or all, run on some of the host's processors only.

    :param vcpu: None: all.
    """

    kind: ClassVar[str] = "domain.pin"
    role: ClassVar[Role] = Role.VM_POWER_ADMIN
    vcpu: int | None
    cpus: frozenset[int]

    async def apply(self, manager: Manager, record: Record) -> None:
        """Pins it."""
        await manager.ask(record, messages.PinVcpu(self.vcpu, tuple(sorted(self.cpus))), messages.Done)


@dataclass(slots=True, frozen=True, kw_only=True)
class DumpCore(DomainAction[int]):
    """Write a core dump; its size.

    :param path: on the host, where the owner of Domain 0 may write: for who administers it.
    """

    kind: ClassVar[str] = "domain.dump-core"
    role: ClassVar[Role] = Role.POOL_ADMIN
    path: str

    async def apply(self, manager: Manager, record: Record) -> int:
        """Dumps it."""
        return await manager.dump_core(record, self.path)


@dataclass(slots=True, frozen=True, kw_only=True)
class PressSysRq(DomainAction[None]):
    """Press a key together with SysRq in the guest."""

    kind: ClassVar[str] = "domain.sysrq"
    role: ClassVar[Role] = Role.VM_OPERATOR
    key: str

    async def apply(self, manager: Manager, record: Record) -> None:
        """Presses it."""
        manager.check_runs(record)
        if len(self.key) != 1 or not self.key.isascii() or not self.key.isprintable():
            raise ConfigError("one printable ASCII character", key="key", hint="such as h, for the guest's help")
        manager.store.write(f"{home(record.domid or 0)}/control/sysrq", self.key)


@dataclass(slots=True, frozen=True, kw_only=True)
class SendNmi(DomainAction[None]):
    """Send a vCPU a non-maskable interrupt."""

    kind: ClassVar[str] = "domain.nmi"
    role: ClassVar[Role] = Role.VM_OPERATOR
    vcpu: int

    async def apply(self, manager: Manager, record: Record) -> None:
        """Sends it."""
        await manager.ask(record, messages.SendNmi(self.vcpu), messages.Done)


@dataclass(slots=True, frozen=True, kw_only=True)
class TypeText(DomainAction[None]):
    """Type on the console."""

    kind: ClassVar[str] = "domain.console"
    role: ClassVar[Role] = Role.VM_OPERATOR
    data: bytes

    def detail(self) -> dict[str, Any]:
        """How much: what is typed may be a password."""
        return {"bytes": len(self.data)}

    async def apply(self, manager: Manager, record: Record) -> None:
        """Types it."""
        if record.worker is None or record.ended:
            raise BadState(f"domain {record.name} is {record.state.value}")
        try:
            await asyncio.wait_for(record.worker.console_input(self.data), INPUT_SECONDS)
        except (TimeoutError, asyncio.TimeoutError):
            raise BadState(f"domain {record.name} does not read its console") from None
