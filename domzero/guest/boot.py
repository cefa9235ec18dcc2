# SPDX-License-Identifier: Apache-2.0
"""`domzero.boot`: a guest from a kernel, from an image of the cache, or from an xl.cfg file."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from os import PathLike, fspath
from pathlib import Path

from domzero.dom0.config import DomainConfig
from domzero.errors import ConfigError
from domzero.guest.guest import Guest
from domzero.guest.start import Start

FilePath = str | PathLike[str]
_LOG_LINES = 1000


def boot(
    kernel: FilePath | None = None,
    *,
    ramdisk: FilePath | None = None,
    cmdline: str | None = None,
    image: str | None = None,
    config: FilePath | None = None,
    memory_mib: int | None = None,
    vcpus: int | None = None,
    name: str | None = None,
    seed: int | None = None,
    engine: str | None = None,
    cpu: str | None = None,
    cpuid: Sequence[str] = (),
    disks: Sequence[str] = (),
    vifs: Sequence[str] = (),
    shares: Sequence[str] = (),
    virtual_time: bool = False,
    log: Callable[[str], None] | None = None,
) -> Guest:
    """Builds a guest in this process. It is paused before its kernel's first instruction, so that hooks can be set:
    `Guest.run_until`, `unpause`, `step` and `wait` make it go.

    What it is comes from `kernel`, from `image` or from `config`; the other arguments take the place of what those say.

    :param kernel: path of a PV kernel, bzImage or ELF.
    :param ramdisk: path of an initramfs.
    :param cmdline: the kernel's command line, at most 1023 bytes.
    :param image: an image of the cache by its name, or a distribution's newest: "debian"
        (`domzero image fetch debian` gets it).
    :param config: path of an xl.cfg file; paths in it are relative to its directory.
    :param memory_mib: memory in MiB, 256 when nobody says.
    :param vcpus: virtual CPUs, 1 when nobody says.
    :param name: the domain's name; the kernel's file name when nobody says.
    :param seed: of the order of machine frames and of all randomness; drawn when not given.
    :param engine: what executes its code: "interpreter", "translator", or "auto", the faster one that runs here, which
        it is when nobody says. Both give the same answers; "check" compares them, with `virtual_time` and one vCPU.
    :param cpu: what its processor has at most: "v1", "v2" or "v3" of x86-64, the same on every host that can do it, or
        "max", all that this host and the engines have, which it is when nobody says.
    :param cpuid: what CPUID shows otherwise, as xl.cfg(5) has it: "host,avx2=0".
    :param disks: specifications of more disks, as xl-disk-configuration(5) has them: "a.qcow2", "b.img,raw,xvda,ro".
    :param vifs: specifications of network interfaces, as xl-network-configuration(5) has them; "" reaches out as you
        do. Not with `virtual_time`.
    :param shares: specifications of directories of the host for the guest, as xl.cfg(5) has them under `p9`:
        "tag=share,path=/srv/share", and `,writable` behind it. Not with `virtual_time`.
    :param virtual_time: time is driven by instructions and begins at the same moment in each run. With one vCPU, and as
        long as the program types and pauses at points that the guest determines, a run with the same seed (0 when not
        given) is the same, instruction by instruction.
    :param log: called with each line of the hypervisor's log, with the big lock held; must not wait.
    :raises ConfigError: a value that cannot be, no such image.
    :raises ImageError: a kernel or ramdisk that cannot be used.
    :raises ResourceError: no room for it.
    """
    if sum(given is not None for given in (kernel, image, config)) != 1:
        raise ConfigError("give one of kernel, image and config", key="boot")
    what = _configuration(kernel, image, config)
    if ramdisk is not None:
        what.ramdisk = fspath(ramdisk)
    if cmdline is not None:
        what.cmdline = cmdline
    if memory_mib is not None:
        what.memory_mib = memory_mib
        what.maxmem_mib = None if what.maxmem_mib is None else max(memory_mib, what.maxmem_mib)
    if vcpus is not None:
        what.vcpus = vcpus
    if name is not None:
        what.name = name
    if seed is not None:
        what.seed = seed
    if engine is not None:
        what.engine = engine
    if cpu is not None:
        what.cpu = cpu
    what.cpuid = [*what.cpuid, *cpuid]
    what.disks = [*what.disks, *disks]
    what.vifs = [*what.vifs, *vifs]
    what.shares = [*what.shares, *shares]
    what.check()
    lines: deque[str] = deque(maxlen=_LOG_LINES)

    def keep(line: str) -> None:
        lines.append(line)
        if log is not None:
            log(line)

    return Guest(Start(what, keep, virtual_time=virtual_time), lines)


def _configuration(kernel: FilePath | None, image: str | None, config: FilePath | None) -> DomainConfig:
    if kernel is not None:
        return DomainConfig(kernel=fspath(kernel))
    if image is not None:
        from domzero.dom0.images.cache import ImageCache

        found = ImageCache().find(image)
        return DomainConfig(kernel=found.kernel, ramdisk=found.ramdisk, cmdline=found.cmdline, name=found.name)
    assert config is not None
    return _from_xlcfg(Path(config))


def _from_xlcfg(path: Path) -> DomainConfig:
    from domzero.dom0 import xlcfg

    found = xlcfg.load(xlcfg.read_text(path), str(path)).config
    found.kernel = str(path.parent / found.kernel)
    if found.ramdisk is not None:
        found.ramdisk = str(path.parent / found.ramdisk)
    return found


__all__ = ["boot"]
