# SPDX-License-Identifier: Apache-2.0
"""What goes over the HTTP API, in and out."""

from __future__ import annotations

import datetime
from dataclasses import asdict
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID, uuid4

from pydantic import BaseModel, ConfigDict, Field, model_validator

from domzero.dom0.about import DESCRIPTION_MAX, LABEL_KEY_MAX, LABEL_VALUE_MAX, LABELS_MAX, About
from domzero.dom0.api.processor import CpuidItems, CpuLevel
from domzero.dom0.config import (
    CAP_MAX,
    EVENT_CHANNELS_MAX,
    EVENT_CHANNELS_MIN,
    GRANT_FRAMES_MAX,
    MAPTRACK_FRAMES_MAX,
    MEMORY_MAX_MIB,
    MEMORY_MIN_MIB,
    TIME_OFFSET_MAX_S,
    VCPUS_MAX,
    WEIGHT,
    WEIGHT_MAX,
    Action,
    DomainConfig,
)
from domzero.dom0.cpuspec import TEXT_MAX
from domzero.dom0.hostinfo import ThreadUsage
from domzero.dom0.hvmspec import (
    VIDEORAM_MIB_MAX,
    DiskBus,
    DomainType,
    Firmware,
    HvmOptions,
    Screen,
)
from domzero.dom0.life import DomainState, End, EndReason
from domzero.dom0.messages import VcpuState, VcpuStats
from domzero.dom0.names import NAME_MAX
from domzero.dom0.records import Record

Name = Annotated[str, Field(min_length=1, max_length=NAME_MAX, pattern=r"^[^/\x00\n]+$", examples=["guest"])]
DEVICES_MAX = 256
ABOUT = {"description", "labels", "autostart", "template"}
"""Fields of `About`."""
Description = Annotated[str, Field(max_length=DESCRIPTION_MAX)]
LabelKey = Annotated[str, Field(min_length=1, max_length=LABEL_KEY_MAX)]
LabelValue = Annotated[str, Field(max_length=LABEL_VALUE_MAX)]
Labels = Annotated[dict[LabelKey, LabelValue], Field(max_length=LABELS_MAX, description="For programs that manage it.")]
UNKNOWN_MAX = 20
"""Unknown fields that are named one by one."""


class Model(BaseModel):
    """Base of all: unknown fields are errors."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _few_unknown_fields(cls, data: Any) -> Any:
        if isinstance(data, dict) and (unknown := len(data.keys() - cls.model_fields.keys())) > UNKNOWN_MAX:
            raise ValueError(f"{unknown} unknown fields")
        return data


class HvmMachine(Model):
    """What only an HVM domain has."""

    firmware: Firmware = Firmware.BIOS
    boot: Annotated[
        str,
        Field(
            max_length=4, pattern="^[cdna]+$", description="c disks, d CD drives, n network; the first is tried first."
        ),
    ] = "cdn"
    hdtype: Annotated[DiskBus, Field(description="Where hda to hdd are.")] = DiskBus.IDE
    vga: Screen = Screen.STD
    videoram_mib: Annotated[int, Field(strict=True, ge=1, le=VIDEORAM_MIB_MAX, description="A power of two.")] = 16
    acpi: Annotated[bool, Field(strict=True)] = True
    hpet: Annotated[bool, Field(strict=True)] = True
    tablet: Annotated[bool, Field(strict=True, description="Its pointer is a USB tablet.")] = True

    def to_options(self) -> HvmOptions:
        """As Domain 0 has it."""
        return HvmOptions(**self.model_dump())

    @classmethod
    def of(cls, options: HvmOptions) -> HvmMachine:
        """From Domain 0's own."""
        return cls(**asdict(options))


class DomainCreate(Model):
    """A domain to be created."""

    name: Name
    kernel: Annotated[
        str,
        Field(description="Path of a PV kernel on the host (bzImage or ELF); GRUB's if absent and there are disks."),
    ] = ""
    ramdisk: Annotated[str | None, Field(description="Path of an initramfs on the host.")] = None
    cmdline: Annotated[str, Field(description="Kernel command line.")] = ""
    memory_mib: Annotated[int, Field(strict=True, ge=MEMORY_MIN_MIB, le=MEMORY_MAX_MIB)] = 256
    maxmem_mib: Annotated[
        int | None,
        Field(
            ge=MEMORY_MIN_MIB, le=MEMORY_MAX_MIB, description="What its balloon may grow it to; `memory_mib` if absent."
        ),
    ] = None
    vcpus: Annotated[int, Field(strict=True, ge=1, le=VCPUS_MAX, description="Those that it starts with.")] = 1
    max_vcpus: Annotated[
        int | None,
        Field(strict=True, ge=1, le=VCPUS_MAX, description="What it may be given while it runs; `vcpus` if absent."),
    ] = None
    uuid: Annotated[UUID | None, Field(description="Drawn at random if not given.")] = None
    on_poweroff: Action = Action.DESTROY
    on_reboot: Action = Action.RESTART
    on_crash: Action = Action.DESTROY
    on_watchdog: Action = Action.DESTROY
    on_soft_reset: Action = Action.DESTROY
    max_event_channels: Annotated[
        int, Field(strict=True, ge=EVENT_CHANNELS_MIN, le=EVENT_CHANNELS_MAX, description="The highest port.")
    ] = 1023
    max_grant_frames: Annotated[int, Field(strict=True, ge=1, le=GRANT_FRAMES_MAX)] = 64
    max_maptrack_frames: Annotated[int, Field(strict=True, ge=0, le=MAPTRACK_FRAMES_MAX)] = 1024
    max_grant_version: Annotated[int, Field(strict=True, ge=1, le=2)] = 2
    seed: Annotated[
        int | None, Field(strict=True, description="Seed of all that is random in the domain's machine.")
    ] = None
    paused: Annotated[bool, Field(strict=True, description="Leave the domain paused after it is built.")] = False
    engine: Annotated[
        Literal["auto", "interpreter", "translator", "kvm", "tcg"],
        Field(description="For pvh and hvm auto, kvm or tcg; for pv auto, interpreter or translator."),
    ] = "auto"
    cpu: CpuLevel = "max"
    cpuid: CpuidItems = []
    rtc_timeoffset: Annotated[
        int,
        Field(
            strict=True,
            ge=-TIME_OFFSET_MAX_S,
            le=TIME_OFFSET_MAX_S,
            description="Seconds that its wall clock is ahead of the host's.",
        ),
    ] = 0
    localtime: Annotated[bool, Field(strict=True, description="Its wall clock has the host's local time.")] = False
    cap: Annotated[
        int, Field(strict=True, ge=0, le=CAP_MAX, description="Percent of one processor for all vCPUs; 0: no bound.")
    ] = 0
    cpu_weight: Annotated[
        int,
        Field(strict=True, ge=1, le=WEIGHT_MAX, description="Its part of a processor that several domains want."),
    ] = WEIGHT
    cpus: Annotated[
        list[Annotated[str, Field(max_length=TEXT_MAX)]],
        Field(max_length=VCPUS_MAX, description="For each vCPU, processors of the host that it may run on, as xl's."),
    ] = []
    disks: Annotated[
        list[str], Field(max_length=DEVICES_MAX, description="Block devices, as xl-disk-configuration(5) has them.")
    ] = []
    vifs: Annotated[
        list[str],
        Field(max_length=DEVICES_MAX, description="Network interfaces, as xl-network-configuration(5) has them."),
    ] = []
    shares: Annotated[
        list[str],
        Field(max_length=DEVICES_MAX, description="Directories of the host, as xl.cfg(5) has them under `p9`."),
    ] = []
    console: Annotated[
        str, Field(max_length=TEXT_MAX, description="`pty`: its console is a pty of the host's, too.", examples=["pty"])
    ] = ""
    channels: Annotated[
        list[str], Field(max_length=DEVICES_MAX, description="Further consoles, as xl.cfg(5) has them under `channel`.")
    ] = []

    vfbs: Annotated[
        list[str], Field(max_length=DEVICES_MAX, description="Its framebuffer, as xl.cfg(5) has it under `vfb`.")
    ] = []
    type: Annotated[DomainType, Field(description="Whether its machine is Domzero's own (pv) or QEMU's.")] = (
        DomainType.PV
    )
    hvm: Annotated[HvmMachine, Field(description="What only an HVM domain has.")] = HvmMachine()
    persistent: Annotated[
        bool, Field(strict=True, description="It is defined: after its end it is halted, and can be started again.")
    ] = False
    start: Annotated[bool, Field(strict=True, description="False: only define it.")] = True
    description: Description = ""
    labels: Labels = {}
    autostart: Annotated[bool, Field(strict=True, description="Start it with Domain 0.")] = False
    template: Annotated[bool, Field(strict=True, description="It is there to be cloned, and is not started.")] = False

    @model_validator(mode="after")
    def _is_kept(self) -> DomainCreate:
        if not self.persistent and (self.autostart or self.template or not self.start):
            raise ValueError("autostart, template and start=false are for persistent domains")
        if self.template and self.start:
            raise ValueError("a template is not started: say start=false")
        return self

    @classmethod
    def of(cls, record: Record) -> DomainCreate:
        """A definition as it would be asked for again, without passwords: those stay where they are hidden."""
        config = record.config
        values = {name: getattr(config, name) for name in cls.model_fields.keys() & DomainConfig.__slots__}
        values |= {"vfbs": [spec.text(hide=True) for spec in config.vfb_specs], "hvm": HvmMachine.of(config.hvm)}
        return cls(**values | asdict(record.about), persistent=True, start=False)

    def to_config(self) -> DomainConfig:
        """The configuration that this asks for."""
        values = self.model_dump(exclude={"uuid", "persistent", "start", "hvm", *ABOUT})
        return DomainConfig(**values, hvm=self.hvm.to_options(), uuid=self.uuid or uuid4())

    def to_about(self) -> About:
        """What is kept beside it."""
        return About(**self.model_dump(include=ABOUT))


class DesiredState(str, Enum):
    """States that can be asked for."""

    RUNNING = "running"
    PAUSED = "paused"
    SHUTDOWN = "shutdown"


class DomainPatch(Model):
    """What may be changed of a domain; what is not given stays."""

    name: Name | None = None
    memory_target_mib: Annotated[
        int | None,
        Field(
            strict=True,
            ge=MEMORY_MIN_MIB,
            le=MEMORY_MAX_MIB,
            description="Asked of the guest's balloon driver; the limit from now on, unless one is given.",
        ),
    ] = None
    memory_limit_mib: Annotated[
        int | None,
        Field(
            strict=True,
            ge=MEMORY_MIN_MIB,
            le=MEMORY_MAX_MIB,
            description="What the hypervisor lets it have until its next target or start: up to its maxmem.",
        ),
    ] = None
    vcpus: Annotated[
        int | None,
        Field(strict=True, ge=1, le=VCPUS_MAX, description="Asked of the guest, which takes vCPUs in and out."),
    ] = None
    cap: Annotated[
        int | None,
        Field(strict=True, ge=0, le=CAP_MAX, description="Percent of one processor for all vCPUs; 0: no bound."),
    ] = None
    cpu_weight: Annotated[
        int | None,
        Field(strict=True, ge=1, le=WEIGHT_MAX, description="Its part of a processor that several domains want."),
    ] = None
    description: Description | None = None
    labels: Annotated[Labels | None, Field(description="All of them: those that are not named go.")] = None
    autostart: Annotated[bool | None, Field(strict=True, description="Start it with Domain 0.")] = None
    template: Annotated[bool | None, Field(strict=True, description="It is there to be cloned.")] = None
    state: Annotated[
        DesiredState | None, Field(description="`shutdown` asks the guest; it may take its time, or not obey.")
    ] = None


class ExitInfo(Model):
    """How a domain ended, the last time if it was started again."""

    reason: EndReason
    message: str
    at: datetime.datetime

    @classmethod
    def of(cls, end: End) -> ExitInfo:
        """From Domain 0's own record."""
        return cls(reason=end.reason, message=end.message, at=to_time(end.at))


class DomainInfo(Model):
    """A domain, alive or ended."""

    uuid: UUID
    domid: Annotated[int | None, Field(description="Changes with each reboot.")]
    name: str
    state: DomainState
    exists: Annotated[bool, Field(description="False once it has ended and given everything back.")]
    memory_mib: Annotated[int, Field(description="What it was started with, the last time.")]
    maxmem_mib: Annotated[int, Field(description="What its balloon may grow it to.")]
    memory_target_mib: Annotated[int, Field(description="What its balloon driver is asked for.")]
    memory_limit_mib: Annotated[int, Field(description="What the hypervisor lets it have.")]
    current_memory_mib: Annotated[int, Field(description="What it has.")]
    vcpus: Annotated[int, Field(description="That it should use.")]
    max_vcpus: Annotated[int, Field(description="That it has: the others are offline.")]
    cap: Annotated[int, Field(description="Percent of one processor for all vCPUs; 0: no bound.")]
    cpu_weight: Annotated[int, Field(description="Its part of a processor that several domains want.")]
    engine: Annotated[str | None, Field(description="What executes its code; null until it is built the first time.")]
    cpu_time_seconds: float
    kernel: str
    ramdisk: str | None
    cmdline: str
    disks: list[str]
    vifs: list[str]
    shares: list[str]
    console: str
    channels: list[str]
    vfbs: Annotated[list[str], Field(description="Without their passwords.")]
    type: DomainType
    hvm: Annotated[HvmMachine | None, Field(description="Of a domain of type hvm.")]
    on_poweroff: Action
    on_reboot: Action
    on_crash: Action
    on_watchdog: Action
    on_soft_reset: Action
    reboots: int
    created_at: datetime.datetime
    started_at: datetime.datetime | None
    exit: ExitInfo | None
    pid: Annotated[int | None, Field(description="The worker process.")]
    persistent: Annotated[bool, Field(description="It is defined: after its end it is halted.")]
    description: str
    labels: dict[str, str]
    autostart: Annotated[bool, Field(description="It starts with Domain 0.")]
    template: Annotated[bool, Field(description="It is there to be cloned.")]

    @classmethod
    def of(cls, record: Record) -> DomainInfo:
        """From Domain 0's own record."""
        config = record.config
        return cls(
            uuid=record.uuid,
            domid=record.domid,
            name=record.name,
            state=record.state,
            exists=not record.gone,
            memory_mib=config.memory_mib,
            maxmem_mib=config.static_max_mib,
            memory_target_mib=record.memory_target_mib,
            memory_limit_mib=record.memory_limit_mib,
            current_memory_mib=record.current_memory_mib,
            vcpus=config.vcpus,
            max_vcpus=config.vcpus_max,
            cap=config.cap,
            cpu_weight=config.cpu_weight,
            engine=record.engine,
            cpu_time_seconds=round(record.cpu_ns / 1e9, 3),
            kernel=config.kernel,
            ramdisk=config.ramdisk,
            cmdline=config.cmdline,
            disks=config.disks,
            vifs=config.vifs,
            shares=config.shares,
            console=config.console,
            channels=config.channels,
            vfbs=[spec.text(hide=True) for spec in config.vfb_specs],
            type=config.type,
            hvm=HvmMachine.of(config.hvm) if config.type is DomainType.HVM else None,
            on_poweroff=config.on_poweroff,
            on_reboot=config.on_reboot,
            on_crash=config.on_crash,
            on_watchdog=config.on_watchdog,
            on_soft_reset=config.on_soft_reset,
            reboots=record.reboots,
            created_at=to_time(record.created_at),
            started_at=None if record.started_at is None else to_time(record.started_at),
            exit=None if record.exit is None else ExitInfo.of(record.exit),
            pid=None if record.worker is None else record.worker.pid,
            persistent=record.persistent,
            description=record.about.description,
            labels=record.about.labels,
            autostart=record.about.autostart,
            template=record.about.template,
        )


class ConsoleInfo(Model):
    """A console of a domain's, as programs of the host find it."""

    number: Annotated[int, Field(description="In the guest, hvc0, hvc1, ...")]
    name: Annotated[str, Field(description="A channel's name.")]
    connection: Annotated[str, Field(description="`pty` or `socket`; empty if it is only here.")]
    place: Annotated[str, Field(description="The pty or the socket.")]
    state: Annotated[int | None, Field(description="Of a channel's back end: XenbusState.")]


class VcpuInfo(Model):
    """One vCPU of a domain."""

    vcpu: int
    state: VcpuState
    processor: Annotated[int | None, Field(description="Of the host, that it ran on last.")]
    cpu_time_seconds: float
    affinity: Annotated[list[int], Field(description="Processors of the host that it may run on.")]

    @classmethod
    def of(cls, vcpu: VcpuStats, usage: ThreadUsage | None) -> VcpuInfo:
        """From what the worker says, and what the host knows of its thread."""
        return cls(
            vcpu=vcpu.vcpu,
            state=vcpu.state,
            processor=usage.processor if usage else None,
            cpu_time_seconds=round((vcpu.spent_ns + (usage.cpu_ns if usage else 0)) / 1e9, 3),
            affinity=list(vcpu.affinity),
        )


class Pinning(Model):
    """Where vCPUs may run."""

    vcpu: Annotated[int | None, Field(strict=True, ge=0, lt=VCPUS_MAX, description="All of them if absent.")] = None
    cpus: Annotated[str, Field(max_length=TEXT_MAX, description="Of the host, as xl has them.", examples=["0-3,^1"])]


class CoreDump(Model):
    """Where a core dump goes."""

    path: Annotated[str, Field(max_length=4096, description="Absolute, on the host. A file that is there is replaced.")]


class CoreInfo(Model):
    """A core dump that was written."""

    path: str
    bytes: Annotated[int, Field(description="Of the file, with its holes.")]


class SysRq(Model):
    """A key to be pressed together with SysRq."""

    key: Annotated[str, Field(min_length=1, max_length=1, examples=["h"])]


class Nmi(Model):
    """Where a non-maskable interrupt goes."""

    vcpu: Annotated[int, Field(strict=True, ge=0, lt=VCPUS_MAX)] = 0


class ConsoleInput(Model):
    """Text to type on a domain's console."""

    data: Annotated[str, Field(max_length=4096)]


class FieldError(Model):
    """One field that is wrong."""

    field: Annotated[str, Field(description="Its name; nested ones with dots.", examples=["memory_mib"])]
    message: str


class Problem(Model):
    """An error (RFC 9457, application/problem+json)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: Annotated[str, Field(description="For programs; XenAPI's where it has one.", examples=["HANDLE_INVALID"])]
    errors: list[FieldError] = []


class HostInfo(Model):
    """The host, as `xl info` names it."""

    host: str
    release: str
    version: str
    machine: str
    nr_cpus: int
    max_cpu_id: int
    nr_nodes: int
    cores_per_socket: int
    threads_per_core: int
    cpu_mhz: float
    hw_caps: str
    virt_caps: str
    total_memory: Annotated[int, Field(description="MiB")]
    free_memory: Annotated[int, Field(description="MiB")]
    outstanding_claims: int
    free_cpus: int
    xen_major: int
    xen_minor: int
    xen_extra: str
    xen_version: str
    xen_caps: str
    xen_scheduler: str
    xen_pagesize: int
    platform_params: str
    xen_changeset: str
    xen_commandline: str
    cc_compiler: str
    xend_config_format: int
    domzero_version: str
    engine: Annotated[str, Field(description="What `auto` means here, and why.")]
    full_virtualization: Annotated[
        str, Field(description="Which QEMU runs HVM and PVH domains, with KVM or TCG, and why; none: there is none.")
    ]
    user_network: Annotated[
        Literal["passt", "builtin"], Field(description="What makes the network `user`: passt where it is installed.")
    ]
    worker_confinement: Annotated[str, Field(description="How workers are confined by the kernel; none: not at all.")]
    dom0_memory_mib: Annotated[int, Field(description="Resident memory of the Domain 0 process.")]
    dom0_cpu_seconds: float
    uptime_seconds: float
    domains: int
    pid: int


class AuditInfo(Model):
    """What an audit has found."""

    problems: Annotated[list[str], Field(description="Where the hypervisor's books are wrong; empty when all is well.")]


class HostLog(Model):
    """What the hypervisor and Domain 0 have said."""

    lines: list[str]


def to_time(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
