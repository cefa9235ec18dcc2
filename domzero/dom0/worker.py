# SPDX-License-Identifier: Apache-2.0
"""A worker: the process that one start of a domain lives in, with its ring 0, its vCPUs and its back ends.

Forked by the fork server for a `worker_handle.WorkerHandle`. It does what the control socket says (see `messages`), and
ends with that socket, or with its parent.
"""

from __future__ import annotations

import functools
import logging
import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import closing

from domzero import _machine
from domzero.dom0 import confinement, vcpus
from domzero.dom0.console import Console
from domzero.dom0.control_channel import CHUNK, ControlChannel
from domzero.dom0.diskspec import parse_disk
from domzero.dom0.file_passing import receive_files, receive_sockets
from domzero.dom0.instance import Instance
from domzero.dom0.json_values import MessageError
from domzero.dom0.life import DomainState, EndReason
from domzero.dom0.message_set import Refused
from domzero.dom0.messages import (
    AddViewer,
    Answer,
    AttachDisk,
    AttachVif,
    Audit,
    Audited,
    CaptureVif,
    ChangeMedium,
    DetachDisk,
    DetachVif,
    DiskGone,
    Disks,
    Done,
    DumpCore,
    Dumped,
    ExitCount,
    Exited,
    ExitKind,
    ExpectSuspend,
    FrameKind,
    GetStats,
    GoOn,
    GrowDisk,
    InputTaken,
    LimitDisk,
    ListDisks,
    ListVcpus,
    ListVifs,
    LogLine,
    Measure,
    Measured,
    Message,
    Pause,
    Picture,
    PinVcpu,
    RenewThreads,
    Resume,
    Resumed,
    Save,
    Saved,
    SendNmi,
    SetCap,
    SetMemoryLimit,
    SetVif,
    Start,
    Started,
    Stats,
    Stop,
    TakePicture,
    Unpause,
    Vcpus,
    VifGone,
    Vifs,
    decode_request,
)
from domzero.dom0.open_files import OpenDisk, received_domain
from domzero.dom0.parent import die_with
from domzero.dom0.socket_frames import FrameDecoder
from domzero.dom0.suspension import Suspension
from domzero.dom0.vifspec import parse_vif
from domzero.dom0.weights import NICE
from domzero.dom0.wire import Wire
from domzero.dom0.xenstore import RemoteStore
from domzero.dom0.xenstore.relay import RelayConnection
from domzero.errors import ConfigError, DomzeroError

logger = logging.getLogger(__name__)

_DETAIL_LINES = 100
SWITCH_INTERVAL_S = 1e-4
"""After which a thread that waits for the interpreter is given it. vCPUs that make one hypercall after the other take
it again and again, and Domain 0 waits for an answer that takes it ten times."""


class Worker:
    """Carries out what Domain 0 asks."""

    def __init__(
        self,
        control: socket.socket,
        guest: socket.socket,
        toolstack: socket.socket,
        files: socket.socket,
        *,
        keeps: bool = False,
    ) -> None:
        self._socket = control
        self._files = files
        self._keeps = keeps
        self._console = Console()
        self._channel = ControlChannel(control, hold=self._console.hold, release=self._console.release, keeps=keeps)
        self._leave_console = self._console.add_sink(self._channel.console)
        self._toolstack = RelayConnection(toolstack, name="toolstack", keeps=keeps)
        self._toolstack.call_home("/local/domain/0")
        self._guest = RelayConnection(guest, name="guest", keeps=keeps)
        self._store = RemoteStore(
            self._toolstack, self._guest, is_away=lambda: self._toolstack.is_away, on_away=self._resume_meanwhile
        )
        self._serving = threading.get_ident()
        self._instance: Instance | None = None
        self._exited: Exited | None = None
        self._suspension = Suspension(self._channel.send)
        self._input: queue.SimpleQueue[bytes] = queue.SimpleQueue()  # bounded by Domain 0, which waits for `InputTaken`
        self._unread_input = 0
        self._input_lock = threading.Lock()
        threading.Thread(target=self._type, name="console-input", daemon=True).start()

    def say(self, line: str) -> None:
        """A line for the log."""
        self._log(line)

    def run(self) -> None:
        """Until Domain 0 says stop, says what is no message, or has gone and none comes in its place."""
        self._serving = threading.get_ident()
        while self._serve() and self._keeps:
            if self._socket.fileno() < 0 and not self._resume():
                return

    def _serve(self) -> bool:
        """What one Domain 0 says. True: it has gone; its socket is closed if no other one has come in its place."""
        decoder, session = FrameDecoder(), self._channel.session
        try:
            while data := self._socket.recv(CHUNK):
                for kind, payload in decoder.feed(data):
                    if kind == FrameKind.CONSOLE:
                        with self._input_lock:
                            self._unread_input += len(payload)
                        self._input.put(payload)
                    elif not self._request(*decode_request(payload)):
                        self._channel.finish()
                        return False
                    if session != self._channel.session:
                        return True  # another one has come meanwhile: what this one has said besides is nobody's
        except OSError:
            pass
        if self._keeps:
            self._part()
        return True

    def _part(self) -> None:
        self._channel.detach()
        self._socket.close()
        self._suspension.go_on()  # what was being saved is not: its file has nobody any more

    def _resume_meanwhile(self) -> None:
        """While a request waits for an answer of xenstore's, and Domain 0 has gone: the next one answers it, when it
        has come, and is itself answered when the request is through."""
        if self._keeps and threading.get_ident() == self._serving:
            self._part()
            if not self._resume():
                raise DomzeroError("there is no Domain 0 any more")

    def _resume(self) -> bool:
        """Waits for another Domain 0; the guest goes on meanwhile, and waits only for what Domain 0 has to do."""
        sockets = receive_sockets(self._files)
        if not sockets:
            return False
        self._socket, guest, toolstack = sockets
        self._leave_console()
        self._channel.resume(self._socket)
        self._leave_console = self._console.add_sink(self._channel.console, replay=True)
        self._guest.resume(guest)
        self._toolstack.resume(toolstack)
        return True

    def _request(self, message: Message, request_id: int, count: int) -> bool:
        try:
            files = receive_files(self._files, request_id, count)
        except Exception as error:  # noqa: BLE001 - whatever it is, the request has its answer
            self._channel.send(_refusal(error), request_id)
        else:
            job = functools.partial(self._carry_out, message, request_id, files, self._channel.session)
            if isinstance(message, DumpCore | Save | TakePicture):  # other requests are answered meanwhile
                threading.Thread(target=job, name="file", daemon=True).start()
            else:
                job()
        return not isinstance(message, Stop)

    def _carry_out(self, message: Message, request_id: int, files: list[int], session: int) -> None:
        answer: Answer
        try:
            answer = self._do(message, files)
        except Exception as error:  # noqa: BLE001 - as above
            answer = _refusal(error)
        finally:
            while files:  # that nobody took
                os.close(files.pop())
        self._channel.send(answer, request_id, session)

    def _do(self, message: Message, files: list[int]) -> Answer:
        """:param files: that came with it; who uses them takes them out."""
        if isinstance(message, Start):
            return self._start(message, _all(files))
        instance = self._instance
        if isinstance(message, Stop):
            if instance is not None:
                self._instance = None
                self._suspension.give_up()
                instance.destroy(EndReason.DESTROYED)
                instance.close(process_ends=True)
            return Done()
        if isinstance(message, Resume):
            return self._resumed()
        if instance is None:
            raise DomzeroError("there is no domain yet")
        if isinstance(message, Pause):
            instance.pause()
        elif isinstance(message, Unpause):
            instance.unpause()
        elif isinstance(message, GetStats):
            return Stats(instance.state, time.process_time_ns(), instance.memory_mib)
        elif isinstance(message, Measure):
            return _measured(instance)
        elif isinstance(message, Audit):
            return Audited(tuple(instance.audit()))
        elif isinstance(message, DumpCore):
            if len(files) != 1:
                raise MessageError(f"{len(files)} files for a core dump")
            return Dumped(instance.dump_core(files[0]))
        elif isinstance(message, ExpectSuspend):
            self._suspension.expect()
        elif isinstance(message, Save):
            if len(files) != 1:
                raise MessageError(f"{len(files)} files for a saved domain")
            return Saved(self._suspension.write(instance, files[0]))
        elif isinstance(message, GoOn):
            self._suspension.go_on()
        elif isinstance(message, AttachDisk | ChangeMedium):
            if len(files) != len(message.files):
                raise MessageError(f"{len(files)} files for a disk of {len(message.files)}")
            use = instance.disks.attach if isinstance(message, AttachDisk) else instance.disks.change_medium
            use(parse_disk(message.spec), OpenDisk(message.files, fds=_all(files)))
        elif isinstance(message, DetachDisk):
            instance.disks.detach(message.vdev, force=message.force)
        elif isinstance(message, GrowDisk):
            instance.disks.grow(message.vdev, message.bytes)
        elif isinstance(message, LimitDisk):
            instance.disks.limit(message.vdev, message.limits.check())
        elif isinstance(message, ListVcpus):
            return Vcpus(tuple(vcpus.stats(instance.domain)))
        elif isinstance(message, PinVcpu):
            vcpus.pin(instance.domain, message.vcpu, message.processors)
        elif isinstance(message, RenewThreads):
            vcpus.renew_threads(instance.domain)
        elif isinstance(message, SetCap):
            instance.domain.set_cap(message.percent)
        elif isinstance(message, SetMemoryLimit):
            instance.limit_memory(message.mib)
        elif isinstance(message, SendNmi):
            vcpus.send_nmi(instance.domain, message.vcpu)
        elif isinstance(message, ListDisks):
            return Disks(tuple(instance.disks.stats()))
        elif isinstance(message, AttachVif):
            if len(files) != 1:
                raise MessageError(f"{len(files)} files for an interface's wire")
            instance.vifs.attach(parse_vif(message.spec), Wire(files.pop()))
        elif isinstance(message, DetachVif):
            instance.vifs.detach(message.devid, force=message.force)
        elif isinstance(message, SetVif):
            instance.vifs.set(parse_vif(message.spec))
        elif isinstance(message, CaptureVif):
            if len(files) != 1:
                raise MessageError(f"{len(files)} files for a capture")
            instance.vifs.capture(message.devid, files.pop(), snaplen=message.snaplen, frames=message.frames)
        elif isinstance(message, TakePicture):
            if len(files) != 1:
                raise MessageError(f"{len(files)} files for a picture")
            return Picture(*instance.take_picture(files[0]))
        elif isinstance(message, AddViewer):
            if len(files) != 1:
                raise MessageError(f"{len(files)} files for a viewer")
            instance.add_viewer(socket.socket(fileno=files.pop()))
        elif isinstance(message, ListVifs):
            return Vifs(tuple(instance.vifs.stats()))
        else:
            raise MessageError(f"{type(message).__name__} is no request")
        return Done()

    def _start(self, start: Start, fds: list[int]) -> Started:
        config = start.config
        with closing(received_domain(config, start.disk_files, start.ttys, start.addresses, fds)) as files:
            if self._instance is not None:
                raise ConfigError("this worker has its domain already")
            self._instance = Instance.build(
                config,
                self._store,
                self._console,
                domid=start.domid,
                log=self._log,
                files=files,
                saved=files.kernel if start.is_saved else None,
                progress=self._suspension.progress(),
            )
        self._guest.call_home(f"/local/domain/{start.domid}")
        self._instance.disks.tell_gone(lambda devid: self._channel.send(DiskGone(devid)))
        self._instance.vifs.tell_gone(lambda devid: self._channel.send(VifGone(devid)))
        self._instance.limit_memory(config.memory_mib)  # until Domain 0 gives it more
        self._instance.host.forget_touched()
        _machine.give_back_free()  # what its images took while they were read
        threading.Thread(target=self._wait, args=(self._instance,), name="exit", daemon=True).start()
        if not config.paused:
            self._instance.unpause()
        engine = self._instance.domain.engine
        return Started(engine.engine, engine.why)

    def _resumed(self) -> Resumed:
        instance = self._instance
        with self._input_lock:
            unread = self._unread_input
        if instance is None:
            return Resumed(False, False, None, unread, (), ())
        disks = tuple(disk.vdev for disk in instance.disks.stats())
        vifs = tuple(vif.devid for vif in instance.vifs.stats())
        return Resumed(True, instance.state == DomainState.PAUSED, self._exited, unread, disks, vifs)

    def _log(self, line: str) -> None:
        self._channel.send(LogLine(line))

    def _wait(self, instance: Instance) -> None:
        while self._suspension.takes(instance, (end := instance.wait()).reason):
            pass
        if self._instance is instance:  # else it was told to stop
            detail = end.detail[:_DETAIL_LINES]
            self._exited = Exited(end.reason, detail, instance.lived_s, time.process_time_ns())
            self._channel.send(self._exited)

    def _type(self) -> None:
        while True:
            data = self._input.get()
            count = len(data)
            while data:
                data = data[self._console.send(data) :]
                if data:
                    self._console.wait_room(1.0)
            with self._input_lock:
                self._unread_input -= count
                self._channel.send(InputTaken(count))


def _measured(instance: Instance) -> Measured:
    return Measured(
        instance.state,
        time.process_time_ns(),
        instance.memory_mib,
        tuple(vcpus.stats(instance.domain)),
        tuple(instance.disks.stats()),
        tuple(instance.vifs.stats()),
        tuple(ExitCount(ExitKind(kind), count) for kind, count in sorted(instance.domain.exits().items())),
    )


def _refusal(error: Exception) -> Refused:
    if isinstance(error, DomzeroError):
        return Refused.of(error)
    logger.error("a fault of the worker", exc_info=error)  # to stderr, which Domain 0 keeps
    return Refused("DomzeroError", f"a fault of the worker: {type(error).__name__}: {error}")


def _all(files: list[int]) -> list[int]:
    taken = files[:]
    files.clear()
    return taken


def run(
    parent: int,
    sockets: list[socket.socket],
    shares: Sequence[tuple[int, bool]] = (),
    *,
    confined: bool = True,
    makes_code: bool = False,
    keeps: bool = False,
) -> int:
    """All that the process does; returns its exit status.

    :param parent: the process that this one ends with.
    :param sockets: control, the guest's xenstore, the toolstack's xenstore, files.
    :param shares: directories that it serves, and whether it writes their files.
    :param confined: before anything of the domain is looked at.
    :param makes_code: its domain has the translator.
    :param keeps: it goes on when Domain 0 has gone, and waits for the next one.
    """
    control, guest, toolstack, files = sockets
    die_with(parent)
    confinement.step_down()
    os.nice(NICE)  # Domain 0 says more: `weights`
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    missing = []
    if confined:
        missing = confinement.confine(shares, makes_code=makes_code)
    else:
        for directory, _ in shares:
            os.close(directory)  # each comes again with what it is for
    try:
        worker = Worker(control, guest, toolstack, files, keeps=keeps)
        for what in missing:
            worker.say(f"process {os.getpid()} is not confined by {what}")
        worker.run()
    except DomzeroError as error:
        print(error, file=sys.stderr)
        return 1
    return 0
