# SPDX-License-Identifier: Apache-2.0
"""The machine: the binding's contract. Compared with the compiled module by tests/unit/test_machine_stub.py."""

from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address
from threading import Condition
from types import TracebackType
from typing import ClassVar, Final, Literal, TypeAlias, final

TRANSLATOR_THRESHOLD: int
"""Runs of a block before it is translated, if nothing else is asked for."""
__version__: str

class MachineError(Exception):
    """The machine could not be made, or has no frames left."""

class GuestFault(Exception):
    """A guest address given to the hypervisor is not mapped (or not writable) in the guest: -EFAULT to the guest.

    args: (va,)
    """

class VcpuRunning(Exception):
    """Registers were asked for while the vCPU runs in another thread."""

class MachineBug(Exception):
    """The machine panicked: a bug of ours, told by its text. The domain that met it is to be crashed: its vCPU refuses
    to run, and to do anything else for the guest."""

class Preempted(Exception):
    """There is more to do than one round. What has been done is kept: the same call goes on with it, after others had
    their turn. In a hypercall: it is made again, as a continuation."""

class XenRefused(Exception):
    """What was asked for is refused, as Xen would refuse it: the guest sees `-errno`. args: (errno, its name)."""

    errno: int

class GrantRefused(Exception):
    """A grant cannot be used. args: (`status`, its name)."""

    status: int
    """GNTST_*."""

@final
class Base:
    """Which page-table base of a vCPU: the guest kernel's, or that of its applications (64-bit guests)."""

    KERNEL: ClassVar[Base]
    USER: ClassVar[Base]

@final
class Callback:
    """An entry point of the guest kernel (callback.h)."""

    EVENT: ClassVar[Callback]
    FAILSAFE: ClassVar[Callback]
    SYSCALL: ClassVar[Callback]
    SYSCALL32: ClassVar[Callback]
    SYSENTER: ClassVar[Callback]
    NMI: ClassVar[Callback]

@final
class FrameType:
    """As what a machine frame is used."""

    NONE: ClassVar[FrameType]
    WRITABLE: ClassVar[FrameType]
    L1: ClassVar[FrameType]
    L2: ClassVar[FrameType]
    L3: ClassVar[FrameType]
    L4: ClassVar[FrameType]
    SEGDESC: ClassVar[FrameType]
    """A page of a GDT or LDT."""

Gpr: TypeAlias = Literal[
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"
]

Register: TypeAlias = (
    Gpr
    | Literal[
        "rip", "rflags", "cs", "ss", "ds", "es", "fs", "gs", "fs_base", "gs_base_kernel", "gs_base_user",
        "cr2", "mxcsr", "tsc_aux", "xcr0", "dr0_mask", "dr1_mask", "dr2_mask", "dr3_mask",
    ]
)  # fmt: skip
"""The registers of a PV guest's vCPU. `tsc_aux`, `xcr0` and the masks are not among those of `Vcpu.registers`."""

BareRegister: TypeAlias = (
    Gpr
    | Literal[
        "rip", "rflags", "cpl", "cs", "ss", "ds", "es", "fs", "gs", "cr0", "cr2", "cr3", "cr4", "efer", "star", "lstar",
        "fmask", "fs_base", "gs_base", "kernel_gs_base", "gdtr_base", "gdtr_limit", "idtr_base", "idtr_limit", "ldtr",
        "tr", "tss_base", "dr6", "dr7",
    ]
)  # fmt: skip
"""The registers of a processor without a hypervisor."""

@final
class BigLock:
    """A reentrant lock that is given to threads in the order in which they came; whoever lets go of it and takes it
    again comes after those who wait. Works with `with`, and as the lock of a `threading.Condition`."""

    def __new__(cls) -> BigLock: ...
    def acquire(self, blocking: bool = True) -> bool:
        """Waits until all have had it who came before; with `blocking=False` it is had at once or not at all. Nests.

        :returns: whether it is held now.
        """
    def release(self) -> None:
        """Undoes one `acquire`. RuntimeError: this thread does not hold it."""
    def condition(self) -> Condition:
        """A condition whose lock is this one."""
    @property
    def waiting(self) -> int:
        """How many threads wait for it."""
    def __enter__(self) -> None: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

def keep_image_unused(fd: int) -> None:
    """Keeps the disk image of an open file from being opened for writing until the file is closed, by locks that QEMU
    knows. OSError: EBUSY when somebody has it open."""

@final
class BlockDisk:
    """What a block device stores its sectors in."""

    @staticmethod
    def raw(fd: int, writable: bool) -> BlockDisk:
        """A regular file or a block device. `fd` is open, for writing if `writable`, and is closed with the disk."""
    @staticmethod
    def qcow2(fds: list[int], raw_base: bool, writable: bool) -> BlockDisk:
        """A qcow2 image and the backing files that it rests on, in their order; all are open and closed with the disk.

        :param raw_base: the last one is no qcow2 image.
        """
    @staticmethod
    def nbd(fd: int, bytes: int, flags: int, writable: bool) -> BlockDisk:
        """An export of so many bytes at the other end of an NBD connection, on which requests may be sent; `fd` is
        closed with the disk. `flags`: of transmission, as the other end has sent them."""
    @staticmethod
    def empty_drive() -> BlockDisk:
        """A read-only disk whose medium can be changed. It has no sectors as long as it has none."""
    def change(self, medium: BlockDisk | None) -> None:
        """Of a drive: what the other disk has is in it from now on, whose owner closes that one when it is no longer;
        None: nothing. What is being done is done with what was in it before."""
    def grow(self, bytes: int | None) -> None:
        """Makes it this large; None: finds out whether it has grown. OSError; EINVAL if it is larger than this already,
        ENOTSUP if it cannot be."""
    @property
    def sectors(self) -> int:
        """How many sectors of 512 bytes there are now."""
    @property
    def counts(self) -> BlockCounts:
        """What was done so far."""
    def limit(self, *, bps: int, bps_max: int, iops: int, iops_max: int) -> None:
        """Bounds what its rings do together, each number at most 10^15: bytes and requests a second, 0 for no bound,
        and how much of them may come at once, 0 for a tenth of a second's worth. Rings that wait are to be rung."""
    def close(self) -> None:
        """Lets go of the file and of its lock, once no ring uses it. What else is asked raises ValueError then."""

@final
class BlockCounts:
    """What a disk's rings have done."""

    reads: int
    writes: int
    read_bytes: int
    written_bytes: int
    flushes: int
    discards: int
    errors: int
    """Requests that were answered with an error."""
    held: int
    """How often requests have waited for the limits."""

@final
class BlockRing:
    """A ring of a block front end, served by a thread of its own, or by whoever calls `ring`."""

    def __new__(
        cls,
        grants: GrantTable,
        disk: BlockDisk,
        ring_refs: list[int],
        *,
        is_32bit: bool,
        persistent: bool,
        sector_bytes: int,
        port: EventPort,
        broken: Callable[[str], object],
        thread: str | None,
    ) -> BlockRing:
        """Maps the ring. `port` sends the front end its event, and the front end's wakes the thread from now on;
        `broken` is told why the ring is served no more. `thread`: its name; None: there is none. MachineError: the
        pages cannot be mapped, or are no ring."""
    def ring(self) -> None:
        """Looks for requests: the front end has sent its event, or they need not wait for limits any more."""
    def close(self) -> None:
        """Returns when no request is being done any more. Lets go of the ring's pages."""

@final
class Machine:
    """All machine frames of one host: one memfd. `fileno()` can be mapped with mmap: guest RAM without copying."""

    def __new__(
        cls,
        frames: int,
        *,
        seed: int = 0,
        random_key: bytes | None = None,
        virtual_time_ns: int | None = None,
        host_time_ns: int = 0,
    ) -> Machine:
        """`seed`: order of the frames. `random_key`: 32 bytes, on which the guests' rdrand and rdseed depend; without
        it they depend on `seed` alone. `host_time_ns`: what system time, if it is the host's, begins at."""
    @property
    def frames(self) -> int: ...
    @property
    def free_frames(self) -> int: ...
    @property
    def m2p(self) -> tuple[int, int]:
        """First frame and number of frames of the machine-to-phys table (readable by guests at
        HYPERVISOR_VIRT_START)."""
    @property
    def m2p_compat(self) -> tuple[int, int]:
        """The same with four bytes per entry, which 32-bit guests see at HYPERVISOR_VIRT_START_PAE."""
    def fileno(self) -> int: ...
    def now_ns(self) -> int:
        """System time; also the guests' TSC (1 GHz)."""
    def advance_to(self, ns: int) -> None:
        """Moves virtual time forward; no effect on a host clock."""
    def read(self, maddr: int, length: int) -> bytes: ...
    def write(self, maddr: int, data: bytes | bytearray | memoryview) -> None:
        """Writes machine memory; decoded code from it is forgotten. ValueError outside memory."""
    def test_and_set_bit(self, maddr: int, bit: int) -> bool:
        """Atomically sets bit `bit` of the little-endian bit string at `maddr`; returns what it was."""
    def test_and_clear_bit(self, maddr: int, bit: int) -> bool: ...
    def compare_exchange_u32(self, maddr: int, old: int, new: int) -> int:
        """Atomically replaces the aligned word at `maddr` if it is `old`; returns what it was."""
    def create_domain(self, domid: int, *, is_32bit: bool = False) -> Domain: ...
    def hand_out_last(self, mfns: list[int]) -> None:
        """Those of these frames that are free are given out after all others, but by `Domain.alloc_at`."""
    def frame_info(self, mfn: int) -> FrameInfo: ...
    def audit(self) -> list[str]:
        """Recomputes all frame types and counts from the page tables, and uses of grants from their users; says where
        the books differ."""

@final
class FrameInfo:
    """One frame-table entry."""

    @property
    def owner(self) -> int | None: ...
    @property
    def type(self) -> FrameType: ...
    @property
    def type_count(self) -> int: ...
    @property
    def refs(self) -> int: ...
    @property
    def pinned(self) -> bool: ...
    @property
    def validated(self) -> bool: ...

@final
class Domain:
    """The machine's side of a domain: its frames and its page tables. Thread-safe."""

    @property
    def domid(self) -> int: ...
    vm_assist: int
    """The behaviours that the guest has asked for, a bit for each (`VmAssistType`). A vCPU sees a change when its next
    `run` begins."""
    @property
    def frames_owned(self) -> int: ...
    def alloc(self, count: int) -> list[int]:
        """Zeroed machine frames, owned by the domain, with the allocation reference. MachineError when there are
        none."""
    def alloc_at(self, mfns: list[int]) -> None:
        """These frames, zeroed, as `alloc` gives them. MachineError, and none of them, when one is not free or named
        twice."""
    def list_frames(self) -> tuple[list[int], list[tuple[int, int]]]:
        """The frames that it owns, without shared ones of the hypervisor's, in order; and the tables that it has
        pinned, each with its level."""
    def pin_table(self, mfn: int, level: int) -> None:
        """Validates a page table of this level, 1 to 4, and pins it, as MMUEXT_PIN_L*_TABLE does. XenRefused.
        Preempted: call it again."""
    def alloc_extent(self, order: int, *, below: int = ...) -> int | None:
        """2**order zeroed frames in a row, aligned to their size and below frame `below`: the first of them;
        None when there are none. Preempted: the search goes on when it is called again."""
    def release(self, mfn: int) -> None:
        """Drops the allocation reference (memory_op decrease_reservation); the frame is freed with its last reference.
        A tree of page tables that goes with it is left to `settle`. XenRefused: EINVAL."""
    @property
    def owes(self) -> bool:
        """Whether page tables wait to be taken down. A vCPU does that before it executes guest code."""
    def settle(self) -> None:
        """Takes them down. Preempted."""
    def share_hypervisor_frames(self, count: int) -> list[int]:
        """Zeroed frames of the hypervisor (shared_info, grant table) that this domain may map, also writable."""
    def m2p_set(self, mfn: int, pfn: int) -> None:
        """XenRefused: EINVAL when the frame is not the domain's."""
    def get_ref(self, mfn: int, *, writable: bool) -> None:
        """Takes a reference (and a writable type reference) on a frame this domain owns, for a grant or a backend.
        XenRefused: EINVAL; EBUSY for one of page tables that are being taken down."""
    def put_ref(self, mfn: int, *, writable: bool) -> None: ...
    def outside_refs(self) -> list[tuple[int, int, int]]:
        """References of get_ref that are not given back: (mfn, plain ones, writable ones), in order. For audits."""
    def host_mapped(self, mfn: int) -> None:
        """Says that the host writes this frame through its own mapping: decoded code from it is never kept."""
    def hold(self, mfn: int) -> None:
        """host_mapped, and a writable reference that lasts until destroy, so that the guest cannot make a page table
        of a ring that a backend writes. XenRefused: EINVAL."""
    def create_grants(self, frames: int, maptrack_frames: int) -> GrantTable:
        """The domain's grant table, of at most `frames` frames, and its mappings of others' grants, 256 for each of
        `maptrack_frames`. Once, and before its vCPUs. MachineError when there is no memory."""
    def create_events(self, shared_info: int, max_port: int, *, host_ends_above: bool) -> EventChannels:
        """The domain's ports, the highest being `max_port`; `shared_info` is the machine address of that page. Once,
        and before its vCPUs. `host_ends_above`: `Vcpu.run` does not answer hypercalls that tell host code."""
    def create_vcpu(self, vcpu_id: int) -> Vcpu:
        """The next one by number."""
    @property
    def is_dying(self) -> bool:
        """Whether its end has begun."""
    def begin_end(self) -> None:
        """From here on its vCPUs do not begin to run guest code, and nobody gets a new reference to its frames."""
    def destroy(self) -> int:
        """Drops every pin, page table and reference; gives all frames back. Returns frames still referenced by
        others."""

@final
class BellQueue:
    """Numbers of what has happened, each there once until it is taken. Thread-safe."""

    def __new__(cls) -> BellQueue: ...
    def put(self, number: int) -> None: ...
    def get(self) -> int:
        """Waits for one, without the interpreter's lock."""
    def take(self) -> list[int]:
        """All that are there."""

@final
class EventChannel:
    """A port, as it was."""

    port: int
    status: int
    """EVTCHNSTAT_*."""
    vcpu: int
    """Whom it notifies."""
    remote_domid: int
    remote_port: int
    virq: int
    priority: int
    has_host: bool
    """Whether the other end is host code."""

@final
class EventPort:
    """The host's end of a port. Any thread; no lock of Python's is needed."""

    @property
    def port(self) -> int:
        """The guest's port."""
    @property
    def is_open(self) -> bool: ...
    def notify(self) -> None:
        """Sends the guest an event; nothing once the port is closed."""
    def close(self) -> None:
        """Lets go of the port, which waits for a new peer."""

@final
class EventChannels:
    """One domain's event channels. Thread-safe. What is refused is XenRefused, with the errno of the hypercall."""

    def alloc_unbound(self, remote_domid: int) -> int: ...
    def bind_interdomain(self, remote_domid: int, remote_port: int) -> int: ...
    def bind_virq(self, virq: int, vcpu_id: int) -> int: ...
    def bind_ipi(self, vcpu_id: int) -> int: ...
    def bind_vcpu(self, port: int, vcpu_id: int) -> None: ...
    def bind_host(self, port: int, domid: int, queue: BellQueue | None, number: int) -> EventPort:
        """Connects host code that acts for `domid` to a port that waits for that domain: the guest's events put
        `number` into `queue`. Without a queue they are lost until a device takes the port, which looks then."""
    def close_port(self, port: int) -> None: ...
    def close(self) -> None:
        """The domain ends: every port is closed, and none is given out any more."""
    def reset(self, at_once: int, resume: bool) -> bool:
        """A round of EVTCHNOP_reset, of so many ports: whether it was the last."""
    def init_control(self, vcpu_id: int, gfn: int, offset: int) -> None: ...
    def expand_array(self, vcpu_id: int, gfn: int, at_once: int) -> bool:
        """A round of EVTCHNOP_expand_array, of so many ports: whether it was the last."""
    def set_priority(self, port: int, priority: int) -> None: ...
    def send(self, port: int) -> None: ...
    def send_virq(self, vcpu_id: int, virq: int) -> None:
        """Raises a virtual interrupt; lost when no port is bound to it."""
    def set_pending(self, port: int) -> None:
        """Makes an event pending on a port, whatever it is bound to, and tells its vCPU unless masked."""
    def unmask(self, port: int) -> None: ...
    def is_pending(self, port: int) -> bool:
        """Of a port that is in use."""
    def block(self, vcpu_id: int) -> None:
        """SCHEDOP_block: enables upcalls; the vCPU is blocked unless one is pending."""
    def poll(self, vcpu_id: int, ports: list[int]) -> None:
        """SCHEDOP_poll: the vCPU is blocked until one of the ports is pending or an upcall is due, unless it is so."""
    def move_info(self, vcpu_id: int, maddr: int) -> None:
        """Copies a vCPU's `vcpu_info` to where it is from now on; every event counts as pending, and the vCPU is told.
        The frame is held, and lies in memory with room for it."""
    def channel(self, port: int) -> EventChannel: ...
    @property
    def channels(self) -> list[EventChannel]: ...
    @property
    def virqs(self) -> list[tuple[tuple[int, int], int]]:
        """((vcpu, virq), port)"""
    @property
    def frames(self) -> list[int]:
        """Frames of the guest that are written, once for each use; each holds a writable reference."""
    def audit(self) -> list[str]:
        """Where the books are wrong. Nobody may be in init_control, expand_array or reset."""

@final
class NetLink:
    """A network interface's wire: a connected Unix stream socket with QEMU's framing, or a tap of the host with
    IFF_NO_PI and IFF_VNET_HDR. It outlives rings that use it."""

    def __new__(cls, fd: int, tap_mtu: int | None = None) -> NetLink:
        """`fd` is closed with the link. `tap_mtu`: of the interface, if it is a tap."""
    @property
    def counts(self) -> NetCounts:
        """What was done so far."""
    def set_rate(self, bytes: int, interval_us: int) -> None:
        """Bounds what the guest sends to so many bytes in each interval; 0: there is no bound. Rings that wait know of
        it when they are woken."""
    def set_up(self, up: bool) -> None:
        """False: frames of both directions are dropped."""
    def capture(self, fd: int, name: str, snaplen: int, frames: int) -> bool:
        """Copies what passes to a connected Unix stream socket, which is the capture's from here on: a pcapng file with
        `snaplen` bytes of each frame, until there are `frames` of them (0: any number), the reader goes, or the link
        is closed. What a reader is too slow for is left out and counted. False: there are too many. OSError."""
    def close(self) -> None:
        """Lets go of the socket, once no rings use it, and ends captures."""

@final
class NetCounts:
    """What an interface's rings have done."""

    sent_frames: int
    sent_bytes: int
    received_frames: int
    received_bytes: int
    errors: int
    """Frames of the guest's that were answered with an error."""
    spoofed: int
    """Frames of the guest's with a source address that is not its own; dropped."""
    dropped: int
    """Frames that could not be understood or taken, or came while the link was down."""

@final
class NetAgreed:
    """What both ends of an interface have agreed to."""

    def __new__(
        cls,
        *,
        mac: bytes,
        keeps_mac: bool,
        addresses: list[IPv4Address | IPv6Address],
        mtu: int,
        scatter: bool,
        gso_v4: bool,
        gso_v6: bool,
        checksum_v4: bool,
        checksum_v6: bool,
        rx_notify: bool,
        multicast_control: bool,
    ) -> NetAgreed:
        """`keeps_mac`: frames with another source address are dropped; and so are those of another source than
        `addresses` in ARP and IP, if any are named."""

@final
class NetRings:
    """The queues of a network front end, served by one thread."""

    def __new__(
        cls,
        grants: GrantTable,
        link: NetLink,
        ring_refs: list[tuple[int, int]],
        agreed: NetAgreed,
        *,
        transmitted: list[EventPort],
        received: list[EventPort],
        broken: Callable[[str], object],
        lost: Callable[[], object],
        thread: str,
    ) -> NetRings:
        """Maps the rings, (tx, rx) of each queue. `transmitted` and `received` send the front end its events, and the
        front end's wake the thread from now on; `broken` is told why the rings are served no more, `lost` that the
        wire's other end has gone. MachineError: the pages cannot be mapped, or are no ring."""
    def wake(self) -> None:
        """The link's settings have changed."""
    def close(self) -> None:
        """Returns when nothing is being moved any more. Lets go of the rings' pages."""

@final
class Share:
    """A directory of the host that guests may use, each as long as it has rings."""

    def __new__(cls, fd: int, writable: bool) -> Share:
        """Takes a descriptor of a directory, which may be one by O_PATH; it is the share's from here on. OSError:
        it is no directory, or the kernel is older than Linux 5.8."""
    @property
    def counts(self) -> ShareCounts: ...
    def close(self) -> None: ...

@final
class ShareCounts:
    """What a share has seen; `errors` are requests answered with an error: that a file is not there is one."""

    @property
    def requests(self) -> int: ...
    @property
    def errors(self) -> int: ...
    @property
    def read_bytes(self) -> int: ...
    @property
    def written_bytes(self) -> int: ...

@final
class ShareRings:
    """The rings of a 9pfs front end, served by one thread."""

    def __new__(
        cls,
        grants: GrantTable,
        share: Share,
        ring_refs: list[int],
        *,
        ports: list[EventPort],
        broken: Callable[[str], object],
        thread: str,
    ) -> ShareRings:
        """Maps the rings. `ports`, of each ring, send the front end its events, and the front end's wake the thread;
        `broken` is told why the rings are served no more. MachineError: the pages cannot be mapped, or are no rings."""
    def close(self) -> None:
        """Returns when no request is being done any more. Lets go of the rings' pages."""

def confine(directories: list[tuple[int, bool]] = ..., terminal: bool = ..., makes_code: bool = ...) -> list[str]:
    """Gives up, for good, all that a worker does not need of the kernel (crates/confine); while there is one thread.

    :param directories: descriptors, which it takes, of those whose files it goes on to open, and whether it writes
        them.
    :param terminal: it goes on to change the settings of its terminal.
    :param makes_code: it goes on to map code of the translator's: shared memory that is read and run.
    :returns: what this kernel, or whoever confined the process before, did not let happen, a line each.
    """

def confine_network() -> list[str]:
    """As `confine`, of a process that connects sockets of IPv4 and IPv6 (`run_usernet`); it opens no file."""

def landlock_version() -> int:
    """Of the kernel's landlock; 0: it has none."""

def vnc_response(password: bytes, challenge: bytes) -> bytes:
    """What a viewer of VNC with this password answers to a challenge of 16 bytes, in as many (RFC 6143, 7.2.2); a
    password's first 8 bytes count. ValueError."""

def translator_unavailable() -> str | None:
    """Why `Vcpu.set_translator` is refused on this host; None: it is not."""

def host_features() -> list[str]:
    """Of avx, avx2, fma, f16c, vaes and vpclmulqdq those that this host's processor has."""

def give_back_free() -> None:
    """Gives what this process's allocator holds free back to the host; without the interpreter's lock."""

def run_switch(fd: int, control: int, first_s: int) -> None:
    """Is a switch, whose ports connect to a listening Unix socket, until the last port has gone, or none has come in
    `first_s` seconds. What may be asked of it comes to the listening socket `control`. Closes both. OSError."""

def run_usernet(
    fd: int,
    *,
    mtu: int,
    guest: IPv4Address,
    prefix_length: int,
    gateway: IPv4Address,
    dns: IPv4Address,
    name_servers: Sequence[IPv4Address | IPv6Address],
    host_name: str,
    ipv6_prefix: IPv6Address | None,
    tcp: Sequence[tuple[int, int]],
    udp: Sequence[tuple[int, int]],
) -> None:
    """Is the network of the guest behind a connected Unix socket (crates/usernet), until that is closed. Closes `fd`,
    and the descriptors of `tcp` and `udp`: listening and bound sockets, each with the guest's port that it leads to.
    `dns` is the name server that the guest is told, which asks `name_servers` of the host's. OSError, ValueError."""

@final
class GrantTable:
    """One domain's grants, and its mappings of others'. Thread-safe; waits without the interpreter's lock."""

    @property
    def version(self) -> int: ...
    @property
    def entries(self) -> int: ...
    @property
    def frames(self) -> list[int]: ...
    @property
    def status_frames(self) -> list[int]: ...
    def grow(self, frames: int) -> None:
        """GrantRefused: general_error."""
    def entry_maddr(self, ref: int) -> int:
        """GrantRefused: bad_gntref."""
    def status_maddr(self, ref: int) -> int:
        """Where GTF_reading and GTF_writing of an entry are. GrantRefused: bad_gntref."""
    def seed(self, ref: int, mfn: int, domid: int) -> None:
        """Fills in a reserved entry; ValueError for another one."""
    def set_version(self, version: int) -> None:
        """XenRefused: EINVAL, EBUSY, ERANGE, ENOMEM."""
    def swap(self, ref_a: int, ref_b: int) -> None:
        """GrantRefused: bad_gntref, eagain."""
    def begin_use(self, ref: int, domid: int, *, writable: bool) -> int:
        """Host code that acts for `domid` begins to use a grant: its frame. GrantRefused."""
    def end_use(self, ref: int, *, writable: bool) -> None:
        """Ends one such use; nothing when there is none, or the domain has ended."""
    def active(self) -> list[tuple[int, int, int, int, int]]:
        """The grants in use, as they were when their first users came: (ref, user's domid, mfn, readers, writers)."""
    def mappings(self) -> list[tuple[int, int, int, int, int]]:
        """The mappings of others' grants: (handle, owner's domid, ref, mfn, GNTMAP_* flags)."""
    def maps(self, mfn: int, owner: int) -> bool:
        """Whether this domain maps that frame of domain `owner`."""
    def other_refs(self) -> list[tuple[int, int, int]]:
        """What `Domain.outside_refs` has beside the references of this table's grants; below zero where it has less."""
    def close(self) -> None:
        """The domain ends: it uses nobody's grants any more, and nobody uses its own."""

@final
class VcpuTimers:
    """A vCPU's timers, in system time; one that no vCPU has, for tests. Any thread."""

    LAST_DEADLINE_NS: Final[int]
    """146 years: no host runs so long, and virtual time, which jumps to the next timer, stays countable in 63 bits."""

    def __new__(cls) -> VcpuTimers: ...
    @property
    def next_ns(self) -> int | None:
        """When the next one expires."""
    @property
    def has_poll(self) -> bool: ...
    def set_singleshot(self, when_ns: int | None) -> None:
        """VCPUOP_set_singleshot_timer; None stops it. A uint64_t: its upper half has passed already, and what is at
        LAST_DEADLINE_NS or later never comes."""
    def set_periodic(self, period_ns: int) -> None:
        """VCPUOP_set_periodic_timer; 0 stops it. The first one is due at once if the last one is a period ago."""
    def set_poll(self, when_ns: int | None) -> None:
        """The end of SCHEDOP_poll; None: it ends with an event only."""
    def take_due(self, now_ns: int) -> tuple[bool, bool]:
        """Whether VIRQ_TIMER is to be raised, and whether SCHEDOP_poll is over. `run` does both by itself."""

@final
class Vcpu:
    """One virtual CPU. One thread at a time may use it; `kick`, `notify`, `poke` and `unblock` may be called from any
    thread."""

    @property
    def vcpu_id(self) -> int: ...

    # --- running
    def run(self, budget: int, deadline_ns: int = ...) -> Exit:
        """Runs guest code with the interpreter lock released, for at most `budget` instructions or until system time
        `deadline_ns`. Pending events are delivered on the way in and whenever `notify` was called."""
    def kick(self) -> None:
        """Makes `run` return Interrupted, within a millisecond."""
    def notify(self) -> None:
        """An event was made pending in vcpu_info: a running vCPU looks at once."""
    @property
    def timers(self) -> VcpuTimers: ...
    @property
    def is_up(self) -> bool:
        """Whether it has been started, and not stopped since. Any thread may ask, and say so."""
    @is_up.setter
    def is_up(self, value: bool) -> None: ...
    @property
    def is_blocked(self) -> bool:
        """In SCHEDOP_block or SCHEDOP_poll; any thread's event ends it."""
    def unblock(self) -> None:
        """Ends both, and pokes if it was so."""
    def poke(self) -> None:
        """Ends `sleep`, or the next one."""
    def sleep(self, lock: BigLock, timeout_s: float | None = None) -> None:
        """Waits until it is poked, without `lock`, which the caller holds and has again then. Not at all, if it was
        poked since the last time."""
    def hypercall_return(self, rc: int) -> None:
        """Sets rax (sign-extended as the guest's width asks)."""
    def hypercall_restart(self) -> None:
        """Moves rip back onto the hypercall instruction: a continuation."""
    def skip(self, length: int) -> None:
        """Moves rip past an emulated instruction; if it was single-stepped, the next `run` delivers #DB."""
    def inject(self, vector: int, error_code: int | None = None, cr2: int = 0) -> None:
        """Queues an exception for the guest; delivered through its trap table by the next `run`."""
    @property
    def instructions(self) -> int:
        """Instructions executed since creation."""

    @property
    def cached_bytes(self) -> int:
        """Memory that decoded code and translations take."""
    def forget_cached(self) -> None:
        """Forgets them. What is needed again is made again: the guest sees no difference. `give_back_free` gives
        their memory back to the host."""

    # --- registers
    def registers(self) -> dict[str, int]: ...
    def get_reg(self, name: Register) -> int: ...
    def set_reg(self, name: Register, value: int) -> None: ...
    @property
    def guest_kernel(self) -> bool: ...
    @guest_kernel.setter
    def guest_kernel(self, value: bool) -> None: ...

    # --- PV state
    def set_trap(self, vector: int, cs: int, address: int, flags: int) -> None:
        """One entry of set_trap_table, already checked. flags as in struct trap_info (TI_GET_DPL, TI_GET_IF)."""
    def get_trap(self, vector: int) -> tuple[int, int, int]: ...
    def set_callback(self, kind: Callback, cs: int, address: int, mask_events: bool) -> None: ...
    def get_callback(self, kind: Callback) -> tuple[int, int, bool]: ...
    def set_kernel_stack(self, ss: int, sp: int) -> None: ...
    def get_kernel_stack(self) -> tuple[int, int]: ...
    def set_vcpu_info(self, maddr: int) -> None:
        """Where evtchn_upcall_pending / evtchn_upcall_mask of this vCPU are."""
    def set_base(self, kind: Base, mfn: int) -> None:
        """Installs a top-level page table (MMUEXT_NEW_BASEPTR, NEW_USER_BASEPTR), validated. XenRefused: EINVAL.
        Preempted."""
    def get_base(self, kind: Base) -> int: ...
    def set_segment_base(self, which: int, base: int) -> None:
        """SEGBASE_FS, SEGBASE_GS_USER, SEGBASE_GS_KERNEL, SEGBASE_GS_USER_SEL. XenRefused: EINVAL."""
    def set_gdt(self, mfns: list[int], entries: int) -> None:
        """XenRefused: EINVAL. Preempted."""
    def get_gdt(self) -> tuple[list[int], int]:
        """Its frames, and how many entries may be used."""
    def get_ldt(self) -> tuple[int, int]:
        """Where it is, and its entries."""
    def set_ldt(self, va: int, entries: int) -> None:
        """XenRefused: EINVAL."""
    def set_cr0_ts(self, ts: bool) -> None: ...
    def get_cr0_ts(self) -> bool: ...
    def set_debug_reg(self, index: int, value: int) -> None:
        """XenRefused: ENODEV for a register that there is not, EINVAL for bits that there are not, EPERM for what
        is not the guest's to set."""
    def get_debug_reg(self, index: int) -> int | None:
        """None: there is no such register (dr4 and dr5 with CR4.DE)."""
    def set_cr4(self, value: int) -> None:
        """CR4 as the guest sees it; TSD, DE and FSGSBASE have their effects."""
    def get_cr4(self) -> int: ...
    def set_cpuid_faulting(self, on: bool) -> None:
        """cpuid of applications raises #GP."""
    def set_io_bitmap(self, va: int, ports: int) -> None:
        """PHYSDEVOP_set_iobitmap; looked at in guest memory for each access."""
    def send_nmi(self) -> None:
        """The NMI callback (entry 2 of the trap table) is entered by the next `run` that may."""
    def set_cpuid(self, leaves: list[tuple[int, int | None, int, int, int, int]]) -> None:
        """(leaf, subleaf or None for any, eax, ebx, ecx, edx); leaves not listed read as zero. For `cpuid` with and
        without the forced-emulation prefix."""
    def get_iopl(self) -> int: ...
    def set_iopl(self, iopl: int) -> None: ...

    # --- guest memory, in the guest kernel's address space. GuestFault where not mapped.
    def read_va(self, va: int, length: int) -> bytes: ...
    def write_va(self, va: int, data: bytes | bytearray) -> None: ...
    def translate(self, va: int) -> int | None:
        """Machine address behind a guest virtual address, without side effects."""
    def page_walk(self, va: int) -> list[tuple[int, int, int, int]]:
        """(level, table mfn, index, entry), for crash reports."""

    # --- page-table hypercalls, whole: arguments as the guest gave them. XenRefused: their error.
    def mmu_update(self, req_va: int, count: int, done_va: int, foreigndom: int) -> None: ...
    def mmuext_op(self, op_va: int, count: int, done_va: int, foreigndom: int) -> None: ...
    def mmu_update_part(self, req_va: int, count: int, done_va: int, foreigndom: int) -> tuple[int, int] | None:
        """A bounded part: the first two arguments to go on with, None when it is done."""
    def mmuext_op_part(self, op_va: int, count: int, done_va: int, foreigndom: int) -> tuple[int, int] | None:
        """As mmu_update_part."""
    def iret(self) -> str | None:
        """The iret hypercall, when it comes in a multicall: None, or why the domain crashes."""
    def load_fpu(self, image: bytes) -> None:
        """x87, MXCSR and vector registers from the 512 bytes of fxsave."""
    def save_fpu(self) -> bytes:
        """What `load_fpu` takes."""
    def save_upper_vectors(self) -> bytes:
        """The upper halves of the ymm registers, 16 bytes each, which `load_fpu` makes zero."""
    def load_upper_vectors(self, image: bytes) -> None:
        """What `save_upper_vectors` gave. ValueError: it has another size."""
    # Of these, Preempted too.
    def update_va_mapping(self, va: int, value: int, flags: int) -> None: ...
    def update_va_mapping_otherdomain(self, va: int, value: int, flags: int, domid: int) -> None: ...
    def update_descriptor(self, maddr: int, descriptor: int) -> None: ...
    def grant_table_op(self, command: int, va: int, count: int) -> tuple[int, int] | None:
        """The first elements of an array (GNTTABOP map, unmap, unmap_and_replace, copy, swap): the last two arguments
        to go on with, None when it is done. XenRefused: EFAULT; ENOSYS for another command."""
    def event_channel_op(self, command: int, va: int) -> int | None:
        """A command of event_channel_op, its argument copied in and out, or a round of it: the command to go on with
        after the guest's events; None: it is done. XenRefused."""
    def set_translator(self, threshold: int, code_bytes: int | None = None, prove: bool = False) -> None:
        """Makes host code of blocks of guest code that have run `threshold` times; 0: all is interpreted. `code_bytes`
        is the size of the cache. With `prove` host code is proved before it runs; what that refuses ends the domain.
        OSError: the host cannot; `translator_unavailable` says why."""
    def translated(self) -> tuple[int, float, int]:
        """Blocks of guest code that became host code, the seconds that this took, and the bytes of it that are kept."""
    def prove_code(self) -> tuple[int, int, int]:
        """Proves all translated code as it is now, if it was made with `prove`: how many blocks, host instructions and
        accesses of guest memory that is. RuntimeError: some is refused, and which."""
    def set_check(self, on: bool) -> None:
        """Compares translated with interpreted code from now on: each slice runs on both. The domain has one vCPU, time
        is virtual, and there is a translator. ExitUnsupported: they differ."""
    def checked(self) -> tuple[int, str | None]:
        """How many instructions were compared, and the report of the first difference."""
    def dump_code(self, fd: int) -> None:
        """Writes to this file what is translated from now on: each block's instructions, and the host's for them. The
        descriptor is the vCPU's from now on."""
    def vcpu_op(self, command: int, vcpu_id: int, va: int) -> int:
        """VCPUOP_is_up, set_singleshot_timer, stop_singleshot_timer. XenRefused: ENOENT, EINVAL, EFAULT."""
    def set_timer_op(self, when_ns: int) -> None: ...
    def set_fast_hypercalls(self, enabled: bool) -> None:
        """Lets the machine answer without an exit what docs/compat.md says is answered in the machine. Off for
        tracing."""
    def watch_traps(self, vectors: list[int]) -> None:
        """Makes `run` end with ExitTrap after each delivery of one of these exceptions (0 to 255); [] for none."""

@final
class Outcome:
    """What became of one instruction."""

    EXECUTED: ClassVar[Outcome]
    ENTERED: ClassVar[Outcome]
    """An exception, whose handler was reached through the IDT."""
    RAISED: ClassVar[Outcome]
    """An exception, whose handler was not reached yet."""
    HALTED: ClassVar[Outcome]
    SHUTDOWN: ClassVar[Outcome]
    """An exception without a handler: a triple fault."""
    UNSUPPORTED: ClassVar[Outcome]
    """The engine cannot do it: `Step.reason`."""

@final
class Step:
    """One instruction of `Bare`; `vector`, `error_code` and `cr2` are those of an exception."""

    @property
    def outcome(self) -> Outcome: ...
    @property
    def vector(self) -> int | None: ...
    @property
    def error_code(self) -> int | None: ...
    @property
    def cr2(self) -> int: ...
    @property
    def reason(self) -> str | None: ...

@final
class Bare:
    """A processor with all its rings and no hypervisor under its kernel, for `domzero lab`: no PV guest comes near it.

    It has a domain of its own, whose frames are plain memory: page tables are written with `Machine.write`.
    """

    def __new__(cls, machine: Machine, domid: int) -> Bare: ...
    def alloc(self, count: int) -> list[int]:
        """Zeroed machine frames. MachineError when there are none."""
    def step(self) -> Step:
        """Runs one instruction."""
    def run(self, limit: int) -> Step | None:
        """Runs until `hlt` or a shutdown; None when `limit` instructions are used up."""
    @property
    def instructions(self) -> int: ...
    @property
    def output(self) -> bytes:
        """What was written to the serial port at 0x3f8, up to 64 KiB."""
    def registers(self) -> dict[str, int]: ...
    def get_reg(self, name: BareRegister) -> int: ...
    def set_reg(self, name: BareRegister, value: int) -> None: ...
    def load_table(self, which: Literal["gdt", "idt", "tss"], base: int, limit: int) -> None:
        """As lgdt, lidt and ltr load them; a GDT has to begin at a page boundary."""
    def set_cpuid(self, leaves: list[tuple[int, int | None, int, int, int, int]]) -> None: ...
    def read_va(self, va: int, length: int) -> bytes:
        """Reads as ring 0. GuestFault where not mapped."""
    def write_va(self, va: int, data: bytes | bytearray) -> None: ...
    def page_walk(self, va: int) -> list[tuple[int, int, int, int]]: ...

ExitPrivileged: TypeAlias = (
    "ExitRdmsr | ExitWrmsr | ExitMovFromCr | ExitMovToCr | ExitMovFromDr | ExitMovToDr | ExitClts | ExitWbinvd"
)
"""A privileged instruction of the guest kernel; all others are answered by the machine."""

Exit: TypeAlias = (
    "ExitHypercall | ExitPrivileged | ExitFault | ExitTrap | ExitBudget | ExitDeadline | ExitInterrupted"
    " | ExitUnsupported"
)
"""Why `Vcpu.run` came back. Exits can be made, for tests of what handles them."""

@final
class ExitHypercall:
    """Hypercall `nr` with six arguments, as in the registers (not truncated)."""

    __match_args__ = ("nr", "args")
    def __new__(cls, nr: int, args: tuple[int, int, int, int, int, int]) -> ExitHypercall: ...
    @property
    def nr(self) -> int: ...
    @property
    def args(self) -> tuple[int, int, int, int, int, int]: ...

@final
class ExitRdmsr:
    """rdmsr of the guest kernel. As of each privileged instruction: emulate it and `skip(length)`, or inject #GP."""

    __match_args__ = ("length",)
    def __new__(cls, length: int) -> ExitRdmsr: ...
    @property
    def length(self) -> int: ...

@final
class ExitWrmsr:
    """wrmsr."""

    __match_args__ = ("length",)
    def __new__(cls, length: int) -> ExitWrmsr: ...
    @property
    def length(self) -> int: ...

@final
class ExitMovFromCr:
    """mov from control register `cr` to `register`."""

    __match_args__ = ("cr", "register", "length")
    def __new__(cls, cr: int, register: Gpr, length: int) -> ExitMovFromCr: ...
    @property
    def cr(self) -> int: ...
    @property
    def register(self) -> Gpr: ...
    @property
    def length(self) -> int: ...

@final
class ExitMovToCr:
    """mov from `register` to control register `cr`."""

    __match_args__ = ("cr", "register", "length")
    def __new__(cls, cr: int, register: Gpr, length: int) -> ExitMovToCr: ...
    @property
    def cr(self) -> int: ...
    @property
    def register(self) -> Gpr: ...
    @property
    def length(self) -> int: ...

@final
class ExitMovFromDr:
    """mov from debug register `dr` to `register`."""

    __match_args__ = ("dr", "register", "length")
    def __new__(cls, dr: int, register: Gpr, length: int) -> ExitMovFromDr: ...
    @property
    def dr(self) -> int: ...
    @property
    def register(self) -> Gpr: ...
    @property
    def length(self) -> int: ...

@final
class ExitMovToDr:
    """mov from `register` to debug register `dr`."""

    __match_args__ = ("dr", "register", "length")
    def __new__(cls, dr: int, register: Gpr, length: int) -> ExitMovToDr: ...
    @property
    def dr(self) -> int: ...
    @property
    def register(self) -> Gpr: ...
    @property
    def length(self) -> int: ...

@final
class ExitClts:
    """clts."""

    __match_args__ = ("length",)
    def __new__(cls, length: int) -> ExitClts: ...
    @property
    def length(self) -> int: ...

@final
class ExitWbinvd:
    """wbinvd."""

    __match_args__ = ("length",)
    def __new__(cls, length: int) -> ExitWbinvd: ...
    @property
    def length(self) -> int: ...

@final
class ExitFault:
    """An exception that the guest cannot take: the domain crashes. `reason` says why it could not be delivered."""

    __match_args__ = ("vector", "error_code", "cr2", "reason")
    def __new__(cls, vector: int, error_code: int | None, cr2: int, reason: str) -> ExitFault: ...
    @property
    def vector(self) -> int: ...
    @property
    def error_code(self) -> int | None: ...
    @property
    def cr2(self) -> int: ...
    @property
    def reason(self) -> str: ...

@final
class ExitTrap:
    """An exception that is watched (`Vcpu.watch_traps`) was delivered to the guest kernel: the vCPU is at its handler.

    rip: where it was, as the guest is told; cr2: of a page fault; in_kernel: whether its kernel was running.
    """

    __match_args__ = ("vector", "error_code", "cr2", "rip", "in_kernel")
    def __new__(cls, vector: int, error_code: int | None, cr2: int, rip: int, in_kernel: bool) -> ExitTrap: ...
    @property
    def vector(self) -> int: ...
    @property
    def error_code(self) -> int | None: ...
    @property
    def cr2(self) -> int: ...
    @property
    def rip(self) -> int: ...
    @property
    def in_kernel(self) -> bool: ...

@final
class ExitBudget:
    """The instruction budget is spent, exactly."""

    def __new__(cls) -> ExitBudget: ...

@final
class ExitDeadline:
    """System time has passed the deadline."""

    def __new__(cls) -> ExitDeadline: ...

@final
class ExitInterrupted:
    """`kick` was called."""

    def __new__(cls) -> ExitInterrupted: ...

@final
class ExitUnsupported:
    """The guest asks for something this engine cannot do (yet): the domain crashes with this text."""

    __match_args__ = ("reason",)
    def __new__(cls, reason: str) -> ExitUnsupported: ...
    @property
    def reason(self) -> str: ...
