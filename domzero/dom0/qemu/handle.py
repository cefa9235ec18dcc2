# SPDX-License-Identifier: Apache-2.0
"""A domain whose machine is QEMU's, as Domain 0 sees it: what `worker_handle.WorkerHandle` is for a PV domain.

It takes the same requests (`messages`) and makes them QMP commands; what QEMU's machine does not have is refused by
name. The process ends with Domain 0, unless a keeper has it, and when it ends by itself that is the domain's crash.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from domzero.dom0.config import DomainConfig
from domzero.dom0.json_values import MessageError
from domzero.dom0.life import DomainState, EndReason
from domzero.dom0.messages import Change, Exited, LogLine, Request, Resumed
from domzero.dom0.opening import in_thread
from domzero.dom0.qemu import devices, requests, saving
from domzero.dom0.qemu.command import command_line, vif_id
from domzero.dom0.qemu.launch import NOT_CONFINED
from domzero.dom0.qemu.nodes import write_nodes
from domzero.dom0.qemu.opened import Opened, open_all
from domzero.dom0.qemu.process import KeptQemu, OwnQemu, QemuProcess, files_again
from domzero.dom0.qemu.program import Program, find_qemu
from domzero.dom0.qemu.qmp import QmpClient, QmpError, QmpGone, number, objects
from domzero.dom0.qemu.saved import SavedState
from domzero.dom0.qemu.serial import SerialConsole
from domzero.dom0.qemu.transcript import Transcript
from domzero.dom0.qemu.viewers import Viewers
from domzero.dom0.worker_handle import NOT_WANTED, A, WorkerGone, how_it_ended
from domzero.dom0.worker_spawner import Child, WorkerSpawner
from domzero.dom0.xenstore import Store
from domzero.errors import ConfigError, DomzeroError, ResourceError

logger = logging.getLogger(__name__)

START_SECONDS = 30.0
"""QEMU may take until it answers."""
LOADED_PER_SECOND = 4 << 20
"""Bytes of a saved state, which may take besides."""
STOP_SECONDS = 0.7
WORDS_MAX = 300
"""Characters of its last line that are told."""
_GONE = "its QEMU has ended"
_REASONS = {
    "guest-shutdown": EndReason.POWEROFF,
    "guest-reset": EndReason.REBOOT,
    "host-qmp-system-reset": EndReason.REBOOT,
    "guest-panic": EndReason.CRASH,
}
"""What the reasons of QMP's SHUTDOWN mean to Xen."""
_SERIAL, _TRANSCRIPT, _PTY, _SCREEN = "serial", "transcript", "pty", "screen"
"""What the keeper has of a QEMU, beside its monitor and its stderr."""
_commands: dict[Program, dict[str, frozenset[str]]] = {}
"""What each QEMU's schema says: it is asked once."""


class QemuHandle:
    """One QEMU. Its callbacks run in the event loop; they are those of `WorkerHandle`.

    :param spawner: what starts it, if it can outlive this process.
    """

    def __init__(
        self,
        store: Store,
        domid: int,
        *,
        on_console: Callable[[bytes], None],
        on_event: Callable[[Change], None],
        on_gone: Callable[[str], None],
        spawner: WorkerSpawner | None = None,
    ) -> None:
        self.domid = domid
        self.strays: set[str] = set()
        """Devices that were being plugged in when the Domain 0 before this one was killed, and that are going."""
        self._spawner = spawner
        self._transcript: Transcript | None = None
        self._exited_meanwhile: Exited | None = None
        self._is_resuming = False
        self.engine: str | None = None
        """kvm or tcg, once it is built."""
        self.config: DomainConfig | None = None
        """What it was started with, and what was plugged in since."""
        self._store = store
        self._on_console = on_console
        self._on_event = on_event
        self._on_gone = on_gone
        self._process: QemuProcess | None = None
        self._qmp: QmpClient | None = None
        self._console: SerialConsole | None = None
        self._pty: SerialConsole | None = None
        self._viewers: Viewers | None = None
        self._jobs: set[asyncio.Task[Any]] = set()
        self._deleting: set[str] = set()
        self._stopping = False
        self._started_mono = 0.0
        self._is_started = False
        self._over = False
        self.accelerator = ""
        self._saving = saving.Saving(self)
        self._settled = asyncio.Event()  # nothing is being started
        self._settled.set()

    @property
    def pid(self) -> int | None:
        """The process's id, while it runs."""
        return self._process.pid if self._process is not None and not self._process.ended.done() else None

    @property
    def stderr_text(self) -> str:
        """The last that the process wrote."""
        return "" if self._process is None else self._process.words

    @property
    def process(self) -> QemuProcess:
        """The process. WorkerGone."""
        if self._process is None:
            raise WorkerGone(_GONE)
        return self._process

    @property
    def qmp(self) -> QmpClient:
        """Its monitor. WorkerGone."""
        if self._qmp is None:
            raise WorkerGone(_GONE)
        return self._qmp

    async def start(self, config: DomainConfig, saved: int | None = None) -> None:
        """Starts the process and the domain in it; raises what goes wrong there.

        :param saved: an open file, which is the caller's: the domain goes on from what is in there (`save_format`).
        """
        state = None
        if saved is not None:
            state = await in_thread(functools.partial(SavedState, saved))
            config = replace(config, engine=state.machine.fact("accelerator") or config.engine)
        seconds = START_SECONDS + (0 if state is None else state.bytes / LOADED_PER_SECOND)
        with contextlib.closing(await in_thread(functools.partial(open_all, config, self.domid))) as opened:
            if self._stopping:
                raise WorkerGone(NOT_WANTED)
            self._settled.clear()
            try:
                await asyncio.wait_for(self._start(config, opened, state), seconds)
            except (TimeoutError, asyncio.TimeoutError):
                self.kill()
                raise ResourceError(f"QEMU has not started the domain in {seconds:g} s") from None
            except QmpGone:
                raise await self._why_not_started() from None
            except QmpError as error:
                self.kill()
                raise ResourceError(f"QEMU does not start the domain: {error.message}") from error
            except BaseException:
                self.kill()
                raise
            finally:
                self._settled.set()
        if self._stopping:  # who said so waits, and ends it
            raise WorkerGone(NOT_WANTED)

    async def _start(self, config: DomainConfig, opened: Opened, state: SavedState | None) -> None:
        self.config = config
        for note in opened.domain.notes:
            self._on_event(LogLine(f"(DOM0) {note}"))
        program = find_qemu()
        monitor, opened.files.monitor = _pair(opened)
        serial, opened.files.serial = _pair(opened)
        try:
            arguments = command_line(config, opened.accelerator, opened.files)
            if state is not None:
                places = {place.name: place.value for place in state.machine.places}
                vcpus = state.machine.vcpus
                arguments = command_line(config, opened.accelerator, opened.files, places=places, vcpus=vcpus)
                arguments += ("-incoming", "defer")
            await self._launch(program, arguments, opened, monitor, serial)
        except BaseException as error:
            monitor.close()
            serial.close()
            if isinstance(error, OSError):
                raise ResourceError(f"QEMU could not be started: {error}") from error
            raise
        opened.given()
        self._qmp = qmp = QmpClient(monitor, on_event=self._event, on_lost=self._lost)
        self._console = await SerialConsole.start(serial, self._output)
        await qmp.begin()
        if program in _commands:
            qmp.use(_commands[program])
        else:
            _commands[program] = dict(await qmp.learn())
        await self._serve(config, opened)
        self.accelerator = opened.accelerator.name
        if state is not None:
            await saving.load(self, state)
        self._started_mono = time.monotonic()
        self._is_started = True
        for spec in config.disk_specs:
            await devices.limit_disk(self, spec)
        for vif in config.vif_specs:
            if not vif.is_up:
                await qmp.ask("set_link", {"name": vif_id(vif.devid), "up": False})
        if config.memory_mib < config.static_max_mib and state is None:
            await qmp.ask("balloon", {"value": config.memory_mib << 20})
        if not config.paused:
            await qmp.ask("cont")
        for line in self.stderr_text.splitlines():
            if line.startswith(NOT_CONFINED):
                self._on_event(LogLine(f"(DOM0) process {self.pid} is {line[:WORDS_MAX]}"))
        self.engine = opened.accelerator.name
        self._on_event(LogLine(f"(DOM0) domain {config.name}: {program}, {opened.accelerator}"))

    async def _launch(
        self, program: Program, arguments: list[str], opened: Opened, monitor: socket.socket, serial: socket.socket
    ) -> None:
        """Starts the process. With a keeper, that has then what another Domain 0 needs."""
        numbers, again = opened.files.numbers(), opened.files.named()
        if self._spawner is None:
            self._process = OwnQemu(program.path, arguments, numbers, again=again, on_end=self._ended)
            return
        self._transcript = transcript = Transcript()
        stderr, stderr_write = os.pipe()
        try:
            command = [files_again(again), program.path, *arguments]
            child = await self._spawner.launch(command, numbers, stderr_write)
        except BaseException:
            os.close(stderr)
            raise
        finally:
            os.close(stderr_write)
        self._process = KeptQemu(child, stderr, on_end=self._ended)
        files = opened.domain
        parts = {_SERIAL: serial.fileno(), _TRANSCRIPT: transcript.fileno()}
        if self.config is not None and self.config.console:
            parts[_PTY] = files.consoles[0].sock.fileno()
        if files.screens:
            parts[_SCREEN] = files.screens[0].sock.fileno()
        self._spawner.hold(child, self.domid, [monitor.fileno(), stderr], files.outsides(), parts)

    async def take_over(
        self,
        child: Child,
        files: Sequence[int],
        parts: dict[str, int],
        words: str,
        config: DomainConfig,
        *,
        engine: str | None,
        started_mono: float,
        is_up: bool,
        was_paused: bool,
    ) -> Resumed | None:
        """Goes on with the QEMU of a Domain 0 that has gone; None: it has ended, and `how_it_ended` says how.

        :param files, parts: what `WorkerSpawner.hold` was given, which are this one's from here on.
        :param words: what has been read from its stderr.
        :param is_up: the domain was started; else its QEMU is there to be ended.
        :param was_paused: if it stands still, that is what somebody wants.
        """
        self.config, self.engine, self._started_mono = replace(config), engine, started_mono
        self.accelerator = engine or ""
        left = [*files, *parts.values()]
        try:
            self._process = KeptQemu(child, files[1] if len(files) > 1 else -1, on_end=self._ended, words=words)
            left = [fd for fd in left if fd not in files[1:2]]
            if child.ended.done():
                await self._process.ended
            if child.ended.done() or not is_up:
                return None
            self._is_started = self._is_resuming = True
            self._transcript = Transcript(os.dup(parts[_TRANSCRIPT]))
            self._on_console(self._transcript.read())
            self._console = await SerialConsole.start(socket.socket(fileno=os.dup(parts[_SERIAL])), self._output)
            if _PTY in parts:
                self._pty = await SerialConsole.start(socket.socket(fileno=os.dup(parts[_PTY])), self._typed)
            if _SCREEN in parts:
                self._let_viewers_in(socket.socket(fileno=os.dup(parts[_SCREEN])))
            sock = socket.socket(fileno=os.dup(files[0]))
            self._qmp = QmpClient(sock, on_event=self._event, on_lost=self._lost, resumes=True)
        finally:
            for fd in left:
                os.close(fd)
        try:
            return await self._resume(self._qmp, was_paused=was_paused)
        except DomzeroError as error:  # it has ended, or it talks nonsense
            if not isinstance(error, QmpGone):
                logger.error("the QEMU of domain %d cannot be gone on with: %s", self.domid, error)
                self._process.kill()
            await self._process.ended
            return None

    async def _resume(self, qmp: QmpClient, *, was_paused: bool) -> Resumed:
        await qmp.resume()
        await qmp.learn()  # it may be another version's
        state = await requests.state(self)
        if state is DomainState.PAUSED and not was_paused:
            await saving.go_on(self)
            state = await requests.state(self)
        if state.is_end and self._exited_meanwhile is None:  # the event was being read when Domain 0 was killed
            self._event("GUEST_PANICKED" if state is DomainState.CRASHED else "SHUTDOWN", {"reason": "guest-shutdown"})
        disks, vifs = await devices.what_there_is(self)
        self._is_resuming = False
        return Resumed(True, state is DomainState.PAUSED, self._exited_meanwhile, 0, disks, vifs)

    def leave(self) -> None:
        """Lets the QEMU wait for another Domain 0."""
        self._stopping = True
        if self._process is not None:
            self._process.leave()
        self._close()

    @property
    def how_it_ended(self) -> str:
        """In a line, once it has."""
        return self._how_it_ended(self.process.ended.result())

    async def _serve(self, config: DomainConfig, opened: Opened) -> None:
        """Lets people in: at a pty, and at the address of its screen."""
        files = opened.domain
        consoles = files.consoles
        tty = ""
        if config.console:
            main = consoles.pop(0)
            tty = main.tty
            self._pty = await SerialConsole.start(main.sock, self._typed)
        screen = files.screens.pop(0) if files.screens else None
        write_nodes(self._store, config, self.domid, tty=tty, channels=opened.ttys, screen=screen)
        if screen is not None:
            password = config.vfb_specs[0].password
            if password:
                await self.qmp.ask("set_password", {"protocol": "vnc", "password": password})
            self._let_viewers_in(screen.sock)

    def _let_viewers_in(self, sock: socket.socket) -> None:
        is_known = not (self.config and self.config.vfb_specs and self.config.vfb_specs[0].password)
        self._viewers = Viewers(sock, functools.partial(self.add_viewer, is_known=is_known))

    async def request(self, request: Request, expected: type[A], files: Sequence[int] = ()) -> A:
        """Carries a request out; raises what QEMU refuses, or WorkerGone.

        :param files: that go with the request; they stay the caller's.
        """
        if self.pid is None:
            raise WorkerGone(_GONE)
        self._saving.check(request)
        try:
            answer = await self._saving.answer(request, files) or await requests.carry_out(self, request, files)
            self._saving.answered(request)
        except QmpGone:
            raise WorkerGone(_GONE) from None
        if not isinstance(answer, expected):
            raise MessageError(f"{type(answer).__name__} is no answer to {type(request).__name__}")
        return answer

    async def console_input(self, data: bytes) -> None:
        """Types on the serial port; waits while the guest is behind with reading. WorkerGone."""
        if self._console is None or not await self._console.type(data):
            raise WorkerGone(_GONE)

    def hold_console(self, *, held: bool) -> None:
        """Leaves the guest's output in its serial port, or takes it again."""
        if self._console is not None:
            self._console.hold(held=held)

    async def add_viewer(self, fd: int, *, is_known: bool) -> None:
        """Shows its screen to whoever is at the other end of a socket, which stays the caller's.

        :param is_known: no password is asked for.
        """
        name = f"viewer{fd}"
        await self.qmp.ask("getfd", {"fdname": name}, [fd])
        await self.qmp.ask("add_client", {"protocol": "vnc", "fdname": name, "skipauth": is_known})

    async def kvm_exits(self) -> int:
        """How often its vCPUs have left the guest for KVM. QmpError: the host does not count it."""
        answer = await self.qmp.ask("query-stats", {"target": "vcpu"})
        exits = 0
        for result in objects(answer, "statistics"):
            for entry in objects(result.get("stats"), "statistics"):
                if entry.get("name") == "exits":
                    exits += number(entry, "value")
        return exits

    async def stop(self) -> None:
        """Ends the process, by force if it must be. May be called several times at once."""
        self._stopping = True
        await self._settled.wait()
        process = self._process
        if process is not None and not process.ended.done():
            with contextlib.suppress(DomzeroError, TimeoutError, asyncio.TimeoutError):
                await asyncio.wait_for(self.qmp.ask("quit"), STOP_SECONDS)
                await asyncio.wait_for(asyncio.shield(process.ended), STOP_SECONDS)
            process.kill()
            await process.ended
        self._close()

    def kill(self) -> None:
        """Ends the process at once; one that is being started as soon as it is there."""
        self._stopping = True
        if self._process is not None:
            self._process.kill()

    def spawn(self, job: Any) -> None:
        """Does something beside what goes on, until it ends."""
        task = asyncio.get_running_loop().create_task(job)
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)

    def tell(self, change: Change) -> None:
        """Tells Domain 0 of something."""
        self._on_event(change)

    # --- what comes from QEMU

    def _output(self, data: bytes) -> None:
        if self._transcript is not None:
            self._transcript.add(data)
        self._on_console(data)
        if self._pty is not None and self._console is not None:
            self._pty.pass_on(data, self._console)

    def _typed(self, data: bytes) -> None:
        """On the pty."""
        if self._console is not None and self._pty is not None:
            self._console.pass_on(data, self._pty)

    def _event(self, name: str, data: dict[str, Any]) -> None:
        if name == "GUEST_PANICKED":
            self._exited(EndReason.CRASH, ("the guest says that it has crashed",))
        elif name == "SHUTDOWN":
            reason = str(data.get("reason", ""))
            self._exited(_REASONS.get(reason, EndReason.UNKNOWN), () if reason in _REASONS else (reason[:100],))
        elif name == "DEVICE_DELETED" and isinstance(device := data.get("device"), str):
            self._begin_deletion(device)

    def _begin_deletion(self, device: str) -> None:
        if devices.is_known(self, device) and device not in self._deleting:
            self._deleting.add(device)
            self.spawn(self._deleted(device))

    async def _deleted(self, device: str) -> None:
        try:
            with contextlib.suppress(DomzeroError):
                await devices.device_deleted(self, device)
        finally:
            self._deleting.discard(device)

    def _exited(self, reason: EndReason, detail: tuple[str, ...]) -> None:
        if not self._over and not self._stopping and self._is_started:
            self._over = True
            lived_s = time.monotonic() - self._started_mono
            exited = Exited(reason, detail, lived_s, self.process.cpu_ns())
            if self._is_resuming:
                self._exited_meanwhile = exited
            else:
                self._on_event(exited)

    def _lost(self, fault: str) -> None:
        """Its monitor says no more: it ends, as a QEMU that nobody can ask for anything."""
        if fault:
            logger.error("the QEMU of domain %d talks nonsense: %s", self.domid, fault)
            if self._process is not None:
                self._process.kill()
        elif not self._stopping:
            self.spawn(self._end_without_monitor())

    async def _end_without_monitor(self) -> None:
        with contextlib.suppress(TimeoutError, asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.shield(self.process.ended), STOP_SECONDS)
            return
        logger.error("the QEMU of domain %d has closed its monitor", self.domid)
        self.process.kill()

    def _ended(self, status: int) -> None:
        if not self._stopping and self._is_started and not self._is_resuming:
            self._on_gone(self._how_it_ended(status))

    def _how_it_ended(self, status: int) -> str:
        return f"its QEMU ended with {how_it_ended(status, self.stderr_text, most=WORDS_MAX)}"

    async def _why_not_started(self) -> DomzeroError:
        """Its end, as an error: what QEMU said last is the reason."""
        if self._process is None:
            return WorkerGone(_GONE)
        if self._stopping:
            return WorkerGone(NOT_WANTED)
        try:
            status = await asyncio.wait_for(asyncio.shield(self._process.ended), STOP_SECONDS)
        except (TimeoutError, asyncio.TimeoutError):
            self.kill()
            return WorkerGone(_GONE)
        text = self.stderr_text
        if "Failed to get" in text and "lock" in text:
            return ConfigError("a disk is in use by another domain or program", key="disk")
        return ResourceError(f"QEMU does not start the domain: {self._how_it_ended(status)}")

    def _close(self) -> None:
        for job in self._jobs:
            job.cancel()
        for part in (self._viewers, self._console, self._pty, self._qmp):
            if part is not None:
                part.close()
        if self._transcript is not None:
            self._transcript.close()
        self._viewers = self._console = self._pty = self._qmp = self._transcript = None


def _pair(opened: Opened) -> tuple[socket.socket, int]:
    """A socket pair; the other end is QEMU's, and closed with what was opened for it."""
    ours, theirs = socket.socketpair()
    fd = theirs.detach()
    opened.own(fd)
    return ours, fd


__all__ = ["QemuHandle"]
