"""Domain 0's domains: creating, changing and ending them. All in one event loop; every guest in a worker of its own."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
import uuid
from collections import OrderedDict
from collections.abc import Coroutine
from contextlib import suppress

from domzero.abi.xen import DOMID_FIRST_RESERVED
from domzero.dom0.config import MEMORY_MIN_MIB, Action, DomainConfig
from domzero.dom0.control import Json
from domzero.dom0.hostinfo import memory_mib
from domzero.dom0.names import DOMAIN_0, NAME_MAX, as_uuid, check_name, is_domid, shown
from domzero.dom0.records import DomainLog, DomainState, Exit, ExitReason, Record
from domzero.dom0.workers import Worker, WorkerGone
from domzero.dom0.xenstore import Store
from domzero.errors import ConfigError, DomzeroError, ResourceError

logger = logging.getLogger(__name__)

ENDED_KEPT = 64
MESSAGE_MAX = 1000
DOMAINS_MAX = 1024
ANSWER_SECONDS = 5.0
STATS_SECONDS = 0.5
RESTART_PAUSE_SECONDS = 1.0
AUDIT_LINES = 1000


class NotFound(DomzeroError):
    """No such domain."""


class NameInUse(ConfigError):
    """Another domain has this name or uuid."""


class BadState(DomzeroError):
    """The domain is not in a state in which this can be done."""


class Manager:
    """All domains of this host. Methods are called in the event loop."""

    def __init__(self) -> None:
        self.store = Store(schedule=lambda turn: asyncio.get_running_loop().call_soon(turn))
        self.log = DomainLog()
        self.started_at = time.time()
        self.closing = asyncio.Event()
        self._live: dict[uuid.UUID, Record] = {}
        self._ended: OrderedDict[uuid.UUID, Record] = OrderedDict()
        self._next_domid = 1
        self._changed = asyncio.Condition()
        self._jobs: set[asyncio.Task[None]] = set()
        self.store.write("/local/domain/0/domid", 0)
        self.store.write("/local/domain/0/name", "Domain-0")

    # --- finding

    def all(self, *, ended: bool = False) -> list[Record]:
        """The domains that exist, and those that did if asked for, oldest first."""
        records = sorted(self._live.values(), key=lambda record: record.domid or 0)
        return [*self._ended.values(), *records] if ended else records

    def find(self, key: str) -> Record:
        """The domain of this domid, uuid or name, tried in this order; one that ended if none lives. NotFound."""
        identity = as_uuid(key)
        for records in (self._live.values(), reversed(self._ended.values())):
            for record in records:
                if is_domid(key):
                    found = str(record.domid) == (key.lstrip("0") or "0")
                else:
                    found = record.name == key if identity is None else record.uuid == identity
                if found:
                    return record
        raise NotFound(f"no such domain: {shown(key[:NAME_MAX])}", hint="`domzero list` shows what there is")

    # --- creating

    async def create(self, config: DomainConfig) -> Record:
        """Builds a domain and starts it; errors of configuration and images come with the key at fault."""
        if self.closing.is_set():
            raise BadState("Domain 0 is shutting down")
        config.check()
        self._check_unique(config.name, config.uuid)
        if len(self._live) >= DOMAINS_MAX:
            raise ResourceError(f"there are {DOMAINS_MAX} domains already")
        self._check_memory(config.static_max_mib)
        record = Record(config, memory_target_mib=config.memory_mib)
        self._live[record.uuid] = record
        self._ended.pop(record.uuid, None)
        try:
            await self._launch(record, paused=config.paused)
        except BaseException as error:
            destroyed = record.ending
            await self._end(record, Exit(ExitReason.FAILED, str(error)), DomainState.CRASHED, keep=False)
            if destroyed:
                raise BadState(f"domain {config.name} was destroyed while it was built") from error
            raise
        return record

    def _check_unique(self, name: str, identity: uuid.UUID | None, besides: Record | None = None) -> None:
        for record in self._live.values():
            if record is besides:
                continue
            if record.name == name:
                raise NameInUse(f"domain {record.domid} has the name {name!r} already", key="name")
            if record.uuid == identity:
                raise NameInUse(f"domain {record.domid} has this uuid already", key="uuid")
        if name == DOMAIN_0:
            raise NameInUse("Domain-0 is the name of Domain 0", key="name")

    def _check_memory(self, wanted_mib: int) -> None:
        total, _ = memory_mib()
        used = sum(record.config.static_max_mib for record in self._live.values())
        if total and used + wanted_mib > total:
            raise ResourceError(
                f"{wanted_mib} MiB are not there: the host has {total} MiB, other domains have {used} of them",
                key="memory",
            )

    def _new_domid(self) -> int:
        used = {record.domid for record in self._live.values()}
        while self._next_domid in used:
            self._advance_domid()
        domid = self._next_domid
        self._advance_domid()
        return domid

    def _advance_domid(self) -> None:
        self._next_domid = self._next_domid % (DOMID_FIRST_RESERVED - 1) + 1

    async def _launch(self, record: Record, *, paused: bool) -> None:
        domid = self._new_domid()
        record.domid = domid
        record.state = DomainState.BUILDING
        record.cpu_ns = 0
        record.memory_target_mib = record.config.memory_mib
        worker = Worker(
            self.store,
            domid,
            (f"/local/domain/{domid}", f"/vm/{record.uuid}", f"/local/domain/0/backend/console/{domid}"),
            on_console=record.console.output,
            on_event=lambda message: self._worker_event(record, worker, message),
            on_gone=lambda how: self._worker_gone(record, worker, how),
        )
        record.worker = worker
        try:
            await worker.start(dataclasses.replace(record.config, paused=paused))
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
        await self._notify()

    # --- changing

    async def pause(self, record: Record) -> None:
        """Stops the domain's vCPUs."""
        await self._ask(record, "pause")
        record.state = DomainState.PAUSED
        await self._notify()

    async def unpause(self, record: Record) -> None:
        """Lets the domain's vCPUs go on."""
        await self._ask(record, "unpause")
        if not record.ended:
            record.state = DomainState.RUNNING
        await self._notify()

    async def audit(self, record: Record) -> list[str]:
        """Lets the domain's hypervisor count everything again: where its books are wrong."""
        answer = await self._ask(record, "audit")
        problems = answer.get("problems")
        return [str(line) for line in problems[:AUDIT_LINES]] if isinstance(problems, list) else []

    def request_shutdown(self, record: Record, how: str) -> None:
        """Asks the guest, through control/shutdown in xenstore, for `poweroff` or `reboot`."""
        self._check_runs(record)
        self.store.write(f"/local/domain/{record.domid}/control/shutdown", how)

    async def destroy(self, record: Record) -> None:
        """Ends a domain at once; forgets one that has ended."""
        if record.gone:
            self._ended.pop(record.uuid, None)
            return
        if record.ended:
            await self._end(record, record.exit, record.state)
        else:
            await self._end(record, Exit(ExitReason.DESTROYED, "destroyed by request"), DomainState.DESTROYED)

    def check_changes(self, record: Record, *, name: str | None, memory_target_mib: int | None, runs: bool) -> None:
        """Raises what `rename` and `set_memory_target` would, without changing anything.

        :param runs: the domain must run for other changes, too.
        """
        if name is not None:
            check_name(name)
            self._check_unique(name, None, besides=record)
        if memory_target_mib is not None or runs:
            self._check_runs(record)
        most = record.config.static_max_mib
        if memory_target_mib is not None and not MEMORY_MIN_MIB <= memory_target_mib <= most:
            raise ConfigError(
                f"{memory_target_mib} MiB is not possible: {MEMORY_MIN_MIB} to the domain's maximum of {most}",
                key="memory_target_mib",
            )

    async def rename(self, record: Record, name: str) -> None:
        """Gives a domain another name; NameInUse."""
        self.check_changes(record, name=name, memory_target_mib=None, runs=False)
        record.config.name = name
        if not record.ending:
            for path in (f"/local/domain/{record.domid}/name", f"/vm/{record.uuid}/name"):
                if self.store.exists(path):
                    self.store.write(path, name)
        await self._notify()

    async def set_memory_target(self, record: Record, mib: int) -> None:
        """Asks the guest's balloon driver for this amount of memory."""
        self.check_changes(record, name=None, memory_target_mib=mib, runs=True)
        record.memory_target_mib = mib
        self.store.write(f"/local/domain/{record.domid}/memory/target", mib * 1024)

    async def refresh(self, record: Record) -> None:
        """Asks the worker for the state and the time used; keeps what is known if it does not answer at once."""
        if record.worker is None or record.state == DomainState.BUILDING or record.ending:
            return
        with suppress(DomzeroError, TimeoutError, asyncio.TimeoutError):
            stats = await asyncio.wait_for(record.worker.request("stats"), STATS_SECONDS)
            record.cpu_ns = int(stats.get("cpu_ns", record.cpu_ns))
            state = str(stats.get("state", ""))
            if not record.ended and record.state != DomainState.PAUSED and state in ("running", "blocked"):
                record.state = DomainState(state)

    async def wait_ended(self, record: Record, timeout: float) -> bool:
        """Waits until the domain has ended for good (or is preserved after its end), or Domain 0 shuts down."""
        with suppress(TimeoutError, asyncio.TimeoutError):
            async with self._changed:
                await asyncio.wait_for(
                    self._changed.wait_for(lambda: self._over(record) or self.closing.is_set()), timeout
                )
        return self._over(record)

    def _over(self, record: Record) -> bool:
        return record.gone or (record.ended and not record.ending and self._preserved(record))

    async def _ask(self, record: Record, op: str) -> Json:
        self._check_runs(record)
        if record.worker is None:
            raise BadState(f"domain {record.name} is {record.state.value}")
        try:
            return await asyncio.wait_for(record.worker.request(op), ANSWER_SECONDS)
        except (TimeoutError, asyncio.TimeoutError):
            raise DomzeroError(f"the worker of domain {record.name} does not answer") from None

    def _check_runs(self, record: Record) -> None:
        if record.ended or record.ending or record.state == DomainState.BUILDING:
            raise BadState(f"domain {record.name} is {record.state.value}")

    # --- ends

    def _worker_event(self, record: Record, worker: Worker, message: Json) -> None:
        if message["event"] == "log":
            self.log.add(str(message.get("line", "")))
        elif message["event"] == "exit" and record.worker is worker and not record.ending and not record.ended:
            reason = str(message.get("reason", ""))
            record.cpu_ns = int(message.get("cpu_ns", record.cpu_ns))
            known = next((item for item in ExitReason if item.value == reason), ExitReason.CRASH)
            self._mark_ended(record, Exit(known, str(message.get("message", ""))[:MESSAGE_MAX]))
            self._spawn(self._guest_ended(record))

    def _worker_gone(self, record: Record, worker: Worker, how: str) -> None:
        if record.worker is worker and not record.ending and record.state != DomainState.BUILDING:
            self._say_stderr(record, worker)
            if not record.ended:
                self._mark_ended(record, Exit(ExitReason.CRASH, how))
            self._spawn(self._guest_ended(record, worker_gone=True))

    def _mark_ended(self, record: Record, end: Exit) -> None:
        crashed = end.reason in (ExitReason.CRASH, ExitReason.WATCHDOG)
        record.exit = end
        record.state = DomainState.CRASHED if crashed else DomainState.SHUTDOWN

    def _preserved(self, record: Record) -> bool:
        return record.exit is not None and self._action(record, record.exit.reason) == Action.PRESERVE

    def _action(self, record: Record, reason: ExitReason) -> Action:
        config = record.config
        return {
            ExitReason.POWEROFF: config.on_poweroff,
            ExitReason.REBOOT: config.on_reboot,
            ExitReason.CRASH: config.on_crash,
            ExitReason.WATCHDOG: config.on_watchdog,
        }.get(reason, Action.DESTROY)

    async def _guest_ended(self, record: Record, *, worker_gone: bool = False) -> None:
        end = record.exit
        if end is None or record.domid is None:
            return
        self.store.domain_stopped(record.domid)
        action = self._action(record, end.reason)
        self.say(f"domain {record.name} ({record.domid}) ended: {end.message or end.reason.value}; {action.value}")
        await self._notify()
        if action == Action.RESTART and not self.closing.is_set():
            await self._restart(record, crashed=record.state == DomainState.CRASHED)
        elif action == Action.DESTROY or worker_gone:
            await self._end(record, end, record.state)

    async def _restart(self, record: Record, *, crashed: bool) -> None:
        lived = time.time() - (record.started_at or 0)
        await self._drop_worker(record)
        if crashed and lived < RESTART_PAUSE_SECONDS:
            await asyncio.sleep(RESTART_PAUSE_SECONDS)
        if record.ending or self.closing.is_set():
            return
        record.reboots += 1
        try:
            await self._launch(record, paused=False)
        except (DomzeroError, OSError) as error:
            self.say(f"domain {record.name} could not be started again: {error}")
            await self._end(record, Exit(ExitReason.FAILED, str(error)), DomainState.CRASHED)

    async def _drop_worker(self, record: Record) -> None:
        worker, domid = record.worker, record.domid
        record.worker = None
        if worker is not None:
            await worker.stop()
        if domid is not None:
            self.store.release(domid)
            self.store.rm(f"/local/domain/0/backend/console/{domid}")
        self.store.rm(f"/vm/{record.uuid}")

    async def _end(self, record: Record, end: Exit | None, state: DomainState, *, keep: bool = True) -> None:
        if record.ending:
            async with self._changed:
                await self._changed.wait_for(lambda: record.gone)
            return
        record.ending = True
        record.exit = end
        await self._drop_worker(record)
        record.state = state
        record.gone = True
        self._live.pop(record.uuid, None)
        if keep:
            self._ended[record.uuid] = record
            while len(self._ended) > ENDED_KEPT:
                self._ended.popitem(last=False)
        await self._notify()

    async def close(self) -> None:
        """Ends all domains, by force: whatever they have goes with their processes."""
        self.closing.set()
        for record in self._live.values():
            if record.worker is not None:
                record.worker.kill()
        await self._notify()
        end = Exit(ExitReason.DESTROYED, "Domain 0 shut down")
        await asyncio.gather(*(self._end(record, end, DomainState.DESTROYED) for record in self.all()))
        for job in list(self._jobs):
            job.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)

    def say(self, line: str) -> None:
        """A line of Domain 0 in the log."""
        self.log.add(f"(DOM0) {line}")
        logger.info("%s", line)

    def _say_stderr(self, record: Record, worker: Worker) -> None:
        for line in worker.stderr_text.splitlines():
            self.say(f"{record.name}: {line}")

    def _spawn(self, job: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(job)
        self._jobs.add(task)
        task.add_done_callback(self._job_done)

    def _job_done(self, task: asyncio.Task[None]) -> None:
        self._jobs.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a job of Domain 0 failed", exc_info=error)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()
