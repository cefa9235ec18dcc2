# SPDX-License-Identifier: Apache-2.0
"""Domain 0's domains: creating, changing and ending them. All in one event loop; every guest in a worker of its own."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

from domzero.dom0.about import About
from domzero.dom0.changes import Changes
from domzero.dom0.config import Action, DomainConfig
from domzero.dom0.corefile import CoreFile
from domzero.dom0.database import Database
from domzero.dom0.definitions import Definitions
from domzero.dom0.events import Journal, Operation
from domzero.dom0.handles import Handle, new_handle
from domzero.dom0.hostinfo import ThreadUsage, thread_usage
from domzero.dom0.keep.keeping import Keeping
from domzero.dom0.keep.link import KeptSpawner
from domzero.dom0.life import DomainState, End, EndReason, Next, after_end
from domzero.dom0.memory_account import check_growth, check_room
from domzero.dom0.messages import (
    Audit,
    Audited,
    Change,
    DiskGone,
    Done,
    DumpCore,
    Dumped,
    ListVcpus,
    LogLine,
    Pause,
    PressButton,
    Progress,
    RenewThreads,
    Request,
    SetCap,
    SetMemoryLimit,
    SetVcpus,
    Suspended,
    Unpause,
    Vcpus,
    VcpuStats,
    VifGone,
)
from domzero.dom0.names import shown
from domzero.dom0.opening import in_thread
from domzero.dom0.records import DomainLog, Record
from domzero.dom0.roster import Roster
from domzero.dom0.saved_files import heard, remove_saved
from domzero.dom0.vfbspec import with_passwords
from domzero.dom0.weights import Weights
from domzero.dom0.worker_handle import A, WorkerGone
from domzero.dom0.worker_spawner import WorkerSpawner
from domzero.dom0.xenstore import Store
from domzero.dom0.xenstore_nodes import forget_nodes
from domzero.errors import DomzeroError, ResourceError

logger = logging.getLogger(__name__)

DOMAINS_MAX = 1024
ANSWER_SECONDS = 5.0
AUDIT_LINES = 1000


class BadState(DomzeroError):
    """The domain is not in a state in which this can be done."""


class NoAnswer(DomzeroError):
    """The domain's worker process does not answer: it is stopped, or the host is overloaded."""


class Manager:
    """All domains of this host. Methods are called in the event loop.

    :param confined: workers are (`confinement`).
    :param database: where definitions and the like are kept, open as long as this. None: in memory.
    :param keeper: what starts workers that can outlive this process. None: they end with it.
    """

    def __init__(
        self, *, confined: bool = True, database: Database | None = None, keeper: KeptSpawner | None = None
    ) -> None:
        self.confined = confined
        self.database = database or Database()
        self.events = Journal(self.database)
        self.roster = Roster()
        self.store = Store(schedule=lambda turn: asyncio.get_running_loop().call_soon(turn))
        self.log = DomainLog()
        self.started_at = time.time()
        self.closing = asyncio.Event()
        self._definitions = Definitions(self.database)
        self._changed = asyncio.Condition()
        self._spawner = keeper or WorkerSpawner(confined=confined)
        self.keeping = None if keeper is None else Keeping(keeper, self.store, self.roster)
        self._jobs: set[asyncio.Task[None]] = set()
        self._weights = Weights(
            self._list_vcpus, lambda record: self.ask(record, RenewThreads(), Done), self.spawn, self.say
        )
        self.store.write("/local/domain/0/domid", 0)
        self.store.write("/local/domain/0/name", "Domain-0")

    # --- finding

    def all(self, *, halted: bool = False, ended: bool = False) -> list[Record]:
        """The domains that exist; those that are halted or have ended, if asked for, before them."""
        return self.roster.all(halted=halted, ended=ended)

    def find(self, key: str) -> Record:
        """The domain of this domid, uuid or name, tried in this order; one that ended if no other has it. NotFound."""
        return self.roster.find(key)

    # --- creating

    async def create(self, config: DomainConfig, about: About | None = None, *, persistent: bool = False) -> Record:
        """Builds a domain and starts it; errors of configuration and images come with the key at fault.

        :param persistent: it is defined, too, once it has started.
        """
        config.check()
        self.roster.check_unique(config.name, config.uuid)
        record = Record(config, about=about or About())
        record.about.check()
        await self.begin(record, paused=config.paused, persistent=persistent)
        return record

    async def define(self, config: DomainConfig, about: About | None = None, *, startable: bool = True) -> Record:
        """Keeps a domain that is not started.

        :param startable: it has all that it needs for that.
        """
        config.check(startable=startable)
        self.roster.check_unique(config.name, config.uuid)
        record = Record(config, about=about or About(), state=DomainState.HALTED, ending=True, gone=True)
        record.about.check()
        self.roster.halt(record)
        await self._keep(record)
        return record

    async def start(self, record: Record, *, paused: bool = False) -> None:
        """Starts a domain that is halted."""
        if record.state is not DomainState.HALTED:
            raise BadState(f"domain {record.name} is {record.state.value}")
        if record.about.template:
            raise BadState(f"{record.name} is a template", hint="clone it, and start the clone")
        record.config.check()
        await self.begin(record, paused=paused, persistent=True)

    async def undefine(self, record: Record) -> None:
        """Forgets a definition. A domain that runs goes on, and is gone with its end."""
        if not record.persistent:
            raise BadState(f"domain {record.name} is not defined")
        record.persistent = False
        self._definitions.remove(record.uuid)
        if record.saved is not None:
            remove_saved(record.saved)
        if self.roster.halted.pop(record.uuid, None) is not None:
            self.events.note("domain", record.uuid, Operation.DEL)
        await self._notify()

    async def redefine(self, record: Record, config: DomainConfig, about: About, *, startable: bool = True) -> None:
        """Gives a halted domain another definition; its uuid stays. `startable` as in `define`."""
        if record.state is not DomainState.HALTED:
            raise BadState(f"domain {record.name} is {record.state.value}", hint="shut it down first")
        config.uuid = record.uuid
        config.vfbs = with_passwords(config.vfbs, record.config.vfbs)
        config.check(startable=startable)
        self.roster.check_unique(config.name, None, besides=record)
        about.check()
        record.config, record.about = config, about
        await self.changed(record)

    async def begin(self, record: Record, *, paused: bool, persistent: bool, saved: int | None = None) -> None:
        """Starts a domain that does not exist; if it cannot be, it is again what it was before.

        :param saved: the open file that it goes on from.
        """
        if self.closing.is_set():
            raise BadState("Domain 0 is shutting down")
        if len(self.roster.live) >= DOMAINS_MAX:
            raise ResourceError(f"there are {DOMAINS_MAX} domains already")
        check_room(record.config.memory_mib, self.roster.live.values())
        record.memory_target_mib = record.memory_limit_mib = record.config.memory_mib
        record.state, record.exit, record.following = DomainState.BUILDING, None, None
        record.ending = record.gone = False
        record.quick_crashes = record.reboots = 0
        self.roster.enter(record)
        if not record.persistent:
            self.events.note("domain", record.uuid, Operation.ADD)
        try:
            await self._launch(record, paused=paused, saved=saved)
        except BaseException as error:
            destroyed = record.ending
            await self.end(record, End(EndReason.FAILED, (str(error),)), keep=False)
            if destroyed:
                raise BadState(f"domain {record.name} was destroyed while it was built") from error
            raise
        if persistent and not record.persistent:
            await self._keep(record)
            if record.gone and self.roster.ended.pop(record.uuid, None) is not None:
                self.roster.halt(record)  # it has ended already

    async def _keep(self, record: Record) -> None:
        """Defines it."""
        record.persistent = True
        self._definitions.save(record)
        self.events.note("domain", record.uuid, Operation.ADD)
        await self._notify()

    async def _launch(self, record: Record, *, paused: bool, saved: int | None = None) -> None:
        domid = self.roster.new_domid()
        record.domid = domid
        record.state = DomainState.BUILDING
        record.cpu_ns = record.steps_down = 0
        if record.memory_target_mib != record.config.memory_mib:  # as xl, it starts with what its balloon was at
            record.config.maxmem_mib = record.config.static_max_mib
            record.config.memory_mib = record.memory_target_mib
        record.memory_limit_mib = record.current_memory_mib = record.config.memory_mib
        record.started_mono = time.monotonic()
        worker = self.new_worker(record, domid)
        self.note(record)
        try:
            # The time zone is in files, which a worker does not open.
            offset_s = record.config.time_offset_s
            config = dataclasses.replace(record.config, paused=paused, rtc_timeoffset=offset_s, localtime=False)
            await worker.start(config, saved)
            record.engine = worker.engine
        except WorkerGone:
            self._say_stderr(record, worker)
            raise
        record.started_at = time.time()
        if record.worker is not worker or record.ending:
            return  # it has ended already
        if not record.ended:
            record.state = DomainState.PAUSED if paused else DomainState.RUNNING
        self.store.introduce(domid)
        self.say(f"domain {record.name} started as domain {domid}" + (", paused" if paused else ""))
        self.spawn(self._weights.tell_group(record))
        self.spawn(self._weights.hold(self.all(), started=record))
        await self.changed(record)

    def new_worker(self, record: Record, domid: int) -> Handle:
        """What talks to the worker of a domain, which has none yet."""
        worker = record.worker = new_handle(
            self._spawner,
            self.store,
            record.config,
            domid,
            on_console=record.console.output,
            on_event=lambda event: self.worker_event(record, worker, event),
            on_gone=lambda how: self.worker_gone(record, worker, how),
        )
        return worker

    # --- changing

    async def pause(self, record: Record) -> None:
        """Stops the domain's vCPUs."""
        await self.ask(record, Pause(), Done)
        record.state = DomainState.PAUSED
        await self.changed(record)

    async def unpause(self, record: Record) -> None:
        """Lets the domain's vCPUs go on."""
        await self.ask(record, Unpause(), Done)
        if not record.ended:
            record.state = DomainState.RUNNING
        await self._weights.hold(self.all(), started=record)
        await self.changed(record)

    async def audit(self, record: Record) -> list[str]:
        """Lets the domain's hypervisor count everything again: where its books are wrong."""
        return list((await self.ask(record, Audit(), Audited)).problems[:AUDIT_LINES])

    async def request_shutdown(self, record: Record, how: str) -> None:
        """Asks the guest for `poweroff` or `reboot`: through control/shutdown in xenstore, or by a button of QEMU's."""
        self.check_runs(record)
        if record.config.type.is_full:
            await self.ask(record, PressButton(how), Done)
            return
        self.store.write(f"/local/domain/{record.domid}/control/shutdown", how)

    async def destroy(self, record: Record) -> None:
        """Ends a domain at once; forgets one that has ended."""
        if record.gone:
            if (saved := record.saved) is not None:
                record.saved = None
                record.state = record.rests
                await self.changed(record)
                remove_saved(saved)
                return
            if record.persistent:
                raise BadState(f"domain {record.name} is halted", hint="undefine it to remove its definition")
            self.roster.ended.pop(record.uuid, None)
            return
        if record.ended:
            await self.end(record, record.exit)
        else:
            self.say(f"domain {record.name} ({record.domid}) is destroyed by request")
            await self.end(record, End(EndReason.DESTROYED, ("by request",)))

    def check_changes(self, record: Record, changes: Changes, *, runs: bool = False) -> None:
        """Raises what `change` would, without changing anything.

        :param runs: the domain must run for something else, too.
        """
        is_halted = record.state is DomainState.HALTED
        if runs or (changes.needs_guest and not is_halted):
            self.check_runs(record)
        changes.check(record)
        if changes.name is not None:
            self.roster.check_unique(changes.name, None, besides=record)
        if changes.limit_mib is not None and not is_halted:
            key = "memory_target_mib" if changes.memory_limit_mib is None else "memory_limit_mib"
            check_growth(record, changes.limit_mib, self.roster.live.values(), key=key)

    async def change(self, record: Record, changes: Changes) -> None:
        """Makes changes, all or none of them: ConfigError, BadState, NameInUse."""
        self.check_changes(record, changes)
        if record.state is DomainState.HALTED:
            changes.apply(record, self.store)
            await self.changed(record)
            return
        requests: list[tuple[Request, Request]] = []  # each with the one that undoes it
        if changes.cap is not None:
            requests.append((SetCap(changes.cap), SetCap(record.config.cap)))
        if changes.limit_mib is not None:
            requests.append((SetMemoryLimit(changes.limit_mib), SetMemoryLimit(record.memory_limit_mib)))
        if changes.vcpus is not None and record.config.type.is_full:
            requests.append((SetVcpus(changes.vcpus), SetVcpus(record.config.vcpus)))
        undo: list[Request] = []
        try:
            for request, inverse in requests:
                await self.ask(record, request, Done)
                undo.append(inverse)
            self.check_changes(record, changes)  # others were served meanwhile: it may have ended, its name be taken
        except DomzeroError:
            for request in undo:
                with suppress(DomzeroError):
                    await self.ask(record, request, Done)
            raise
        changes.apply(record, self.store)
        if changes.cpu_weight is not None:
            await self._weights.hold(self.all())
        await self.changed(record)

    async def vcpus(self, record: Record) -> list[tuple[VcpuStats, ThreadUsage | None]]:
        """The domain's vCPUs, with what they do and what their threads have used."""
        found = await self._list_vcpus(record)
        pid = record.worker.pid if record.worker is not None else None
        return [(vcpu, thread_usage(pid, vcpu.thread_id) if pid and vcpu.thread_id else None) for vcpu in found]

    async def _list_vcpus(self, record: Record) -> Sequence[VcpuStats]:
        return (await self.ask(record, ListVcpus(), Vcpus)).vcpus

    async def wait_ended(self, record: Record, timeout: float) -> bool:
        """Waits until the domain has ended for good (or is preserved after its end), or Domain 0 shuts down."""
        with suppress(TimeoutError, asyncio.TimeoutError):
            async with self._changed:
                await asyncio.wait_for(
                    self._changed.wait_for(lambda: self._over(record) or self.closing.is_set()), timeout
                )
        return self._over(record)

    def _over(self, record: Record) -> bool:
        is_kept = record.following is not None and record.following.action == Action.PRESERVE
        return record.gone or (record.ended and not record.ending and is_kept)

    async def dump_core(self, record: Record, path: str) -> int:
        """Writes a domain's core dump to a file of this path, when it is whole. It may have ended, and be preserved.

        :returns: bytes of the file.
        """
        if record.ending or record.worker is None or record.state == DomainState.BUILDING:
            raise BadState(f"domain {record.name} is {record.state.value}")
        return await self._dump_core(record, record.worker, partial(CoreFile, Path(path)))

    async def _dump_core(self, record: Record, worker: Handle, make: Callable[[], CoreFile]) -> int:
        with closing(await in_thread(make)) as file:
            dumped = await worker.request(DumpCore(), Dumped, [file.fd])
            await in_thread(file.keep)
        self.say(f"domain {record.name}: core dump in {shown(str(file.path))}")
        return dumped.bytes

    async def ask(self, record: Record, request: Request, expected: type[A], files: Sequence[int] = ()) -> A:
        """Asks a domain's worker. What it answers as an error is raised; BadState, NoAnswer.

        :param files: that go with the request; they stay the caller's.
        """
        self.check_runs(record)
        if record.worker is None:
            raise BadState(f"domain {record.name} is {record.state.value}")
        try:
            return await asyncio.wait_for(record.worker.request(request, expected, files), ANSWER_SECONDS)
        except (TimeoutError, asyncio.TimeoutError):
            raise NoAnswer(
                f"the worker of domain {record.name}, process {record.worker.pid}, does not answer",
                hint="`domzero destroy` ends it all the same",
            ) from None

    def check_runs(self, record: Record) -> None:
        """Raises BadState unless its guest is there."""
        if record.ended or record.ending or record.state == DomainState.BUILDING:
            raise BadState(f"domain {record.name} is {record.state.value}")

    # --- ends

    def worker_event(self, record: Record, worker: Handle, event: Change) -> None:
        """Something has happened to a domain."""
        if isinstance(event, LogLine):
            self.log.add(event.line)
        elif record.worker is not worker:
            pass  # of a start before this one
        elif isinstance(event, DiskGone):
            record.config.put_disk(event.devid, None)
            self.spawn(self.changed(record))
        elif isinstance(event, VifGone):
            record.config.put_vif(event.devid, None)
            self.spawn(self.changed(record))
        elif isinstance(event, Suspended | Progress):
            heard(record, event)
        elif not record.ending and not record.ended:
            record.cpu_ns = event.cpu_ns
            self._guest_ended(record, End(event.reason, event.detail), event.lived_s)

    def worker_gone(self, record: Record, worker: Handle, how: str) -> None:
        """A worker has ended, and nobody has told it to."""
        if record.worker is not worker or record.ending or record.state == DomainState.BUILDING:
            return
        self._say_stderr(record, worker)
        if not record.ended:
            self._guest_ended(record, End(EndReason.CRASH, (how,)), time.monotonic() - record.started_mono)
        if record.following is not None and record.following.action == Action.PRESERVE:
            self.spawn(self.end(record, record.exit))  # what was to be kept went with its process

    def _guest_ended(self, record: Record, end: End, lived_s: float) -> None:
        record.state = end.state
        record.following = following = after_end(record.config, end, lived_s, record.quick_crashes)
        record.exit = end.noted(following.note)
        note = f" ({following.note})" if following.note else ""
        record.quick_crashes = following.quick_crashes
        self.say(f"domain {record.name} ({record.domid}) ended: {end.message}; {following.action.value}{note}")
        self.note(record)
        if record.domid is not None:
            self.store.domain_stopped(record.domid)
        self.go_on(record)

    def go_on(self, record: Record) -> None:
        """Does what follows an end."""
        if (following := record.following) is None:
            return
        if following.core and record.worker is not None:
            self.spawn(self._follow_with_core(record, record.worker, following))
        else:
            self._follow(record, following)

    async def _follow_with_core(self, record: Record, worker: Handle, following: Next) -> None:
        try:
            await self._dump_core(record, worker, partial(CoreFile.automatic, record.name))
        except DomzeroError as error:
            self.say(f"domain {record.name}: no core dump: {error}")
        if record.worker is worker and not record.ending:
            self._follow(record, following)

    def _follow(self, record: Record, following: Next) -> None:
        if following.action == Action.RESTART and not self.closing.is_set():
            self.spawn(self._restart(record, following.delay_s))
        elif following.action == Action.DESTROY:
            self.spawn(self.end(record, record.exit))
        else:
            self.spawn(self.changed(record))

    async def _restart(self, record: Record, delay_s: float) -> None:
        await self.changed(record)
        await self._drop_worker(record)
        if delay_s:
            await asyncio.sleep(delay_s)
        if record.ending or self.closing.is_set():
            return
        record.reboots += 1
        record.take_next()
        try:
            await self._launch(record, paused=False)
        except (DomzeroError, OSError) as error:
            if record.ending:
                return  # destroyed meanwhile
            self.say(f"domain {record.name} could not be started again: {error}")
            await self.end(record, End(EndReason.FAILED, (f"it could not be started again: {error}",)))

    async def _drop_worker(self, record: Record) -> None:
        worker, domid = record.worker, record.domid
        if worker is not None:
            await worker.stop()
            if record.worker is worker:  # it was the record's until now: whoever comes meanwhile waits, too
                record.worker = None
        if domid is not None:
            self.store.release(domid)
        forget_nodes(self.store, record.uuid, domid)

    async def end(self, record: Record, end: End | None, *, keep: bool = True) -> None:
        """Ends a domain, whose end this is, and gives back all that it has; waits if that is under way."""
        if record.ending:
            async with self._changed:
                await self._changed.wait_for(lambda: record.gone or not record.ending)  # or it runs again
            return
        record.ending = True
        record.exit = end
        self.note(record)
        await self._drop_worker(record)
        self.spawn(self._weights.hold(self.all()))
        record.gone = True
        record.take_next()
        if record.persistent:
            record.state, record.domid, record.current_memory_mib = record.rests, None, 0
            self.roster.halt(record)
        else:
            record.state = end.state if end is not None else DomainState.DESTROYED
            self.roster.leave(record, keep=keep)
            self.events.note("domain", record.uuid, Operation.DEL)
        await self.changed(record)

    async def close(self) -> None:
        """Ends all domains, by force: whatever they have goes with their processes; or leaves them to the keeper."""
        self.closing.set()
        self.events.close()
        left = [] if self.keeping is None else self.keeping.leave()
        ended = [record for record in self.all() if record not in left]
        for record in ended:
            if record.worker is not None:
                record.worker.kill()
        await self._notify()
        end = End(EndReason.DESTROYED, ("Domain 0 shut down",))
        await asyncio.gather(*(self.end(record, end) for record in ended))
        for job in list(self._jobs):
            job.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)
        self._spawner.close()

    def prepare(self) -> None:
        """Gets ready for the first domain; those that are defined are there from now on."""
        if self.keeping is None:  # else when what an earlier Domain 0 has left was taken over
            self._spawner.prepare()
        records, faults = self._definitions.load()
        for record in records:
            self.roster.halt(record)
        for fault in faults:
            logger.warning("%s", fault)
            self.say(fault)

    def say(self, line: str) -> None:
        """A line of Domain 0 in the log."""
        self.log.add(f"(DOM0) {line}")
        logger.info("%s", line)

    def _say_stderr(self, record: Record, worker: Handle) -> None:
        for line in worker.stderr_text.splitlines():
            self.say(f"{record.name}: {line}")

    def spawn(self, job: Coroutine[object, object, None]) -> asyncio.Task[None]:
        """Does something meanwhile, until Domain 0 ends."""
        task = asyncio.get_running_loop().create_task(job)
        self._jobs.add(task)
        task.add_done_callback(self._job_done)
        return task

    def _job_done(self, task: asyncio.Task[None]) -> None:
        self._jobs.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a job of Domain 0 failed", exc_info=error)

    async def changed(self, record: Record) -> None:
        """Something about a domain has changed: it is kept if it is defined, and who waits for it is told."""
        record.generation += 1
        if record.persistent:
            self._definitions.save(record)
        if record.persistent or not record.gone:
            self.events.note("domain", record.uuid)
        self.note(record)
        await self._notify()

    def note(self, record: Record) -> None:
        """Writes a domain down for the next Domain 0, if there may be one that goes on with it."""
        if self.keeping is not None:
            self.keeping.note(record)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()
