# SPDX-License-Identifier: Apache-2.0
"""What the Domain 0 process and a worker say to each other, over the worker's control socket.

A frame (`socket_frames`) is a message, or console bytes as they are. A message is one of the dataclasses here; a
request has an identifier, which its answer repeats, and says how many open files belong to it (`file_passing`).
What is no message raises `MessageError` with what is wrong: the other end is at fault, and is ended for it.
"""

from __future__ import annotations

import typing
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import TypeAlias

from domzero.dom0.config import DomainConfig
from domzero.dom0.device_stats import DiskStats, VifStats
from domzero.dom0.diskspec import DiskFile, DiskLimits
from domzero.dom0.life import DomainState, EndReason
from domzero.dom0.message_set import MessageSet, Refused
from domzero.hypervisor.engine import Engine


class FrameKind(IntEnum):
    """What a frame carries."""

    MESSAGE = 0
    CONSOLE = 1


# --- requests, from the Domain 0 process


@dataclass(slots=True, frozen=True)
class Start:
    """Build the domain and let it run, unless it is to be paused. Answer: Started.

    Files: the kernel, the ramdisk if there is one, those of each disk, a connected socket for each pty or socket of its
    consoles, for who looks at its screen, and for each interface.

    :param disk_files: what each disk's image and the files that it rests on are.
    :param ttys: names of the ptys of its consoles, empty for sockets.
    :param addresses: where its screens can be looked at.
    :param is_saved: the first file is that of a saved domain, which goes on; there are no kernel and no ramdisk.
    """

    domid: int
    config: DomainConfig
    disk_files: tuple[tuple[DiskFile, ...], ...] = ()
    ttys: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    is_saved: bool = False


@dataclass(slots=True, frozen=True)
class Pause:
    """Stop the vCPUs. Answer: Done."""


@dataclass(slots=True, frozen=True)
class Unpause:
    """Let the vCPUs go on. Answer: Done."""


@dataclass(slots=True, frozen=True)
class GetStats:
    """Answer: Stats."""


@dataclass(slots=True, frozen=True)
class Measure:
    """Answer: Measured."""


@dataclass(slots=True, frozen=True)
class Audit:
    """Let the hypervisor count everything again. Answer: Audited."""


@dataclass(slots=True, frozen=True)
class AttachDisk:
    """Plug a disk in. Answer: Done.

    :param files: what its files are, which come with this.
    """

    spec: str
    files: tuple[DiskFile, ...]


@dataclass(slots=True, frozen=True)
class DetachDisk:
    """Ask the guest to let go of a disk, or take it away at once. Answer: Done; `DiskGone` comes when it is gone."""

    vdev: str
    force: bool


@dataclass(slots=True, frozen=True)
class ChangeMedium:
    """Put another medium into a CD drive, or none. Answer: Done.

    :param spec: of the drive with it.
    :param files: what its files are, which come with this.
    """

    spec: str
    files: tuple[DiskFile, ...]


@dataclass(slots=True, frozen=True)
class GrowDisk:
    """Make a disk this large, or find out whether it has grown. Answer: Done."""

    vdev: str
    bytes: int | None


@dataclass(slots=True, frozen=True)
class LimitDisk:
    """Bound what the guest does with a disk. Answer: Done."""

    vdev: str
    limits: DiskLimits


@dataclass(slots=True, frozen=True)
class ListDisks:
    """Answer: Disks."""


@dataclass(slots=True, frozen=True)
class ListVcpus:
    """Answer: Vcpus."""


@dataclass(slots=True, frozen=True)
class PinVcpu:
    """Let a vCPU, or all of them, run on these processors only. Answer: Done."""

    vcpu: int | None
    processors: tuple[int, ...]


@dataclass(slots=True, frozen=True)
class RenewThreads:
    """Give vCPUs new threads, with the priority of the worker. Answer: Done."""


@dataclass(slots=True, frozen=True)
class SetCap:
    """Bound the processor time of the vCPUs, in percent of one processor; 0 for no bound. Answer: Done."""

    percent: int


@dataclass(slots=True, frozen=True)
class SetMemoryLimit:
    """Let the domain have so many MiB of memory; it keeps what it has. Answer: Done."""

    mib: int


@dataclass(slots=True, frozen=True)
class SetVcpus:
    """Plug vCPUs of a machine of QEMU's in, or ask its guest to let go of some: to this many. Answer: Done."""

    count: int


@dataclass(slots=True, frozen=True)
class SendNmi:
    """Interrupt a vCPU as nothing can mask. Answer: Done."""

    vcpu: int


@dataclass(slots=True, frozen=True)
class PressButton:
    """Press the power button (`poweroff`) or the reset button (`reboot`) of a machine of QEMU's. Answer: Done."""

    how: str


@dataclass(slots=True, frozen=True)
class AttachVif:
    """Plug a network interface in. File: its wire. Answer: Done."""

    spec: str


@dataclass(slots=True, frozen=True)
class DetachVif:
    """Ask the guest to let go of an interface, or take it away. Answer: Done; `ListVifs` says when it has gone."""

    devid: int
    force: bool


@dataclass(slots=True, frozen=True)
class SetVif:
    """Change the settings of an interface: its rate and its link. Answer: Done."""

    spec: str


@dataclass(slots=True, frozen=True)
class CaptureVif:
    """Copy an interface's frames to a socket, as `_machine.NetLink.capture` does. File: the socket. Answer: Done."""

    devid: int
    snaplen: int
    frames: int


@dataclass(slots=True, frozen=True)
class ListVifs:
    """Answer: Vifs."""


@dataclass(slots=True, frozen=True)
class DumpCore:
    """Write a core dump, while the vCPUs stand still. File: an empty one. Answer: Dumped, when it is done."""


@dataclass(slots=True, frozen=True)
class ExpectSuspend:
    """The guest is about to be asked to suspend itself: when it does, `Suspended` comes, and it is not at its end.
    Answer: Done."""


@dataclass(slots=True, frozen=True)
class Save:
    """Write the suspended domain to a file. File: one that has been begun (`save_format.begin`). Answer: Saved, when it
    is done; `Progress` comes before."""


@dataclass(slots=True, frozen=True)
class GoOn:
    """Let a guest that has suspended itself go on, as if it had not been; what is being written is given up. One that
    has not yet goes on as soon as it has. Answer: Done."""


@dataclass(slots=True, frozen=True)
class AddViewer:
    """Let somebody look at the screen, by RFB, who has shown who they are. File: a connected socket. Answer: Done."""


@dataclass(slots=True, frozen=True)
class TakePicture:
    """Write what the screen shows, as a PNG file. File: an empty one. Answer: Picture."""


@dataclass(slots=True, frozen=True)
class Resume:
    """Domain 0 is there again, over new sockets of which this is the first request. Answer: Resumed."""


@dataclass(slots=True, frozen=True)
class Stop:
    """End, without asking the guest. Answer: Done."""


# --- answers, from the worker


@dataclass(slots=True, frozen=True)
class Done:
    """It is done."""


@dataclass(slots=True, frozen=True)
class Started:
    """The domain is there.

    :param engine: what executes its code, and why it is that one.
    """

    engine: Engine
    why: str


@dataclass(slots=True, frozen=True)
class Resumed:
    """What has become of the domain while Domain 0 was away; what it has printed is sent anew, from its oldest byte.

    :param is_built: `Start` had come, and was carried out.
    :param exited: how its guest has ended.
    :param unread_input: bytes of console input that the guest has not taken.
    :param disks: names of the disks that it has.
    :param vifs: numbers of its interfaces.
    """

    is_built: bool
    is_paused: bool
    exited: Exited | None
    unread_input: int
    disks: tuple[str, ...]
    vifs: tuple[int, ...]


@dataclass(slots=True, frozen=True)
class Stats:
    """The domain's state, and the processor time of the whole worker: the guest's and that of its back ends.

    :param memory_mib: that the guest has now.
    """

    state: DomainState
    cpu_ns: int
    memory_mib: int


@dataclass(slots=True, frozen=True)
class Audited:
    """Where the hypervisor's books are wrong, a line each."""

    problems: tuple[str, ...]


@dataclass(slots=True, frozen=True)
class Disks:
    """The disks that there are."""

    disks: tuple[DiskStats, ...]


@dataclass(slots=True, frozen=True)
class Dumped:
    """The core dump is written.

    :param bytes: of the file, with its holes.
    """

    bytes: int


@dataclass(slots=True, frozen=True)
class Saved:
    """The suspended domain is in the file.

    :param bytes: of the file.
    """

    bytes: int


@dataclass(slots=True, frozen=True)
class Picture:
    """The picture is written.

    :param bytes: of the file.
    """

    width: int
    height: int
    bytes: int


class VcpuState(str, Enum):
    """What a vCPU is doing, in the words of `xl vcpu-list`."""

    RUNNING = "running"
    BLOCKED = "blocked"
    PAUSED = "paused"
    OFFLINE = "offline"


@dataclass(slots=True, frozen=True)
class VcpuStats:
    """One vCPU.

    :param thread_id: of its thread, to the host; None for one that never ran.
    :param affinity: the processors that it may run on.
    :param spent_ns: of processors, by threads that it had before.
    """

    vcpu: int
    state: VcpuState
    thread_id: int | None
    affinity: tuple[int, ...]
    spent_ns: int


@dataclass(slots=True, frozen=True)
class Vcpus:
    """The vCPUs that there are."""

    vcpus: tuple[VcpuStats, ...]


@dataclass(slots=True, frozen=True)
class Vifs:
    """The network interfaces that there are."""

    vifs: tuple[VifStats, ...]


class ExitKind(str, Enum):
    """Why guest code leaves the machine: a hypercall, a privileged instruction, or what is in `_machine.Exit`."""

    HYPERCALL = "hypercall"
    RDMSR = "rdmsr"
    WRMSR = "wrmsr"
    MOV_FROM_CR = "mov_from_cr"
    MOV_TO_CR = "mov_to_cr"
    MOV_FROM_DR = "mov_from_dr"
    MOV_TO_DR = "mov_to_dr"
    CLTS = "clts"
    WBINVD = "wbinvd"
    FAULT = "fault"
    TRAP = "trap"
    BUDGET = "budget"
    DEADLINE = "deadline"
    INTERRUPTED = "interrupted"
    UNSUPPORTED = "unsupported"


@dataclass(slots=True, frozen=True)
class ExitCount:
    """How often guest code left the machine for one reason."""

    kind: ExitKind
    count: int


@dataclass(slots=True, frozen=True)
class Measured:
    """All that is counted of a domain, at one moment.

    :param cpu_ns: processor time of the whole worker, as in Stats.
    :param memory_mib: that the guest has.
    """

    state: DomainState
    cpu_ns: int
    memory_mib: int
    vcpus: tuple[VcpuStats, ...]
    disks: tuple[DiskStats, ...]
    vifs: tuple[VifStats, ...]
    exits: tuple[ExitCount, ...]


# --- events, from the worker


@dataclass(slots=True, frozen=True)
class LogLine:
    """A line of the hypervisor's log."""

    line: str


@dataclass(slots=True, frozen=True)
class Exited:
    """The guest has ended; its last words have been sent."""

    reason: EndReason
    detail: tuple[str, ...]
    lived_s: float
    cpu_ns: int


@dataclass(slots=True, frozen=True)
class Suspended:
    """The guest has suspended itself, as it was asked to."""


@dataclass(slots=True, frozen=True)
class Progress:
    """So much of a file is written or read, of 1."""

    done: float


@dataclass(slots=True, frozen=True)
class DiskGone:
    """A disk that was to be taken away is: its guest has let go of it, or had no choice. Comes before any answer that
    does not count it any more."""

    devid: int


@dataclass(slots=True, frozen=True)
class VifGone:
    """As `DiskGone`, of a network interface."""

    devid: int


@dataclass(slots=True, frozen=True)
class InputTaken:
    """So many bytes of console input are in the guest's queue, and more may come."""

    count: int


Request: TypeAlias = (
    Start
    | Pause
    | Unpause
    | GetStats
    | Measure
    | Audit
    | AttachDisk
    | DetachDisk
    | ChangeMedium
    | GrowDisk
    | LimitDisk
    | ListDisks
    | AttachVif
    | DetachVif
    | SetVif
    | CaptureVif
    | ListVifs
    | ListVcpus
    | PinVcpu
    | RenewThreads
    | PressButton
    | SendNmi
    | SetCap
    | SetMemoryLimit
    | SetVcpus
    | DumpCore
    | ExpectSuspend
    | Save
    | GoOn
    | TakePicture
    | AddViewer
    | Resume
    | Stop
)
Answer: TypeAlias = (
    Done | Started | Resumed | Stats | Measured | Audited | Disks | Vifs | Vcpus | Dumped | Saved | Picture | Refused
)
Change: TypeAlias = LogLine | Exited | DiskGone | VifGone | Suspended | Progress
"""What Domain 0 makes something of."""
Event: TypeAlias = Change | InputTaken
Message: TypeAlias = Request | Answer | Event

_MESSAGES: MessageSet[Message] = MessageSet(
    kind for union in (Request, Answer, Event) for kind in typing.get_args(union)
)
encode = _MESSAGES.encode
decode = _MESSAGES.decode
decode_request = _MESSAGES.decode_request
