# SPDX-License-Identifier: Apache-2.0
"""Domzero: a Xen-compatible paravirtualizing hypervisor that installs with pip and runs as an ordinary user.

For programs (docs/guide/python.md)::

    import domzero

    with domzero.boot("vmlinuz", ramdisk="initramfs.cpio", cmdline="console=hvc0") as guest:
        guest.run_until(console="Run /init")
        print(guest.vcpus[0].regs.rip)

What is listed in `__all__` is loaded when it is first used.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from domzero.errors import ConfigError as ConfigError
    from domzero.errors import DomzeroError as DomzeroError
    from domzero.errors import GuestEnded as GuestEnded
    from domzero.errors import GuestError as GuestError
    from domzero.errors import GuestRunning as GuestRunning
    from domzero.errors import ImageError as ImageError
    from domzero.errors import NotMapped as NotMapped
    from domzero.errors import ResourceError as ResourceError
    from domzero.errors import WaitTimeout as WaitTimeout
    from domzero.guest.boot import boot as boot
    from domzero.guest.console import GuestConsole as GuestConsole
    from domzero.guest.guest import Guest as Guest
    from domzero.guest.guest import GuestEnd as GuestEnd
    from domzero.guest.hooks import Call as Call
    from domzero.guest.hooks import Trap as Trap
    from domzero.guest.hooks import Verdict as Verdict
    from domzero.guest.memory import AddressSpace as AddressSpace
    from domzero.guest.memory import PageTableEntry as PageTableEntry
    from domzero.guest.memory import PageWalk as PageWalk
    from domzero.guest.registers import GuestVcpu as GuestVcpu
    from domzero.guest.registers import Registers as Registers

    __version__: str

_HOMES = {
    "domzero.errors": (
        "ConfigError DomzeroError GuestEnded GuestError GuestRunning ImageError NotMapped ResourceError WaitTimeout"
    ),
    "domzero.guest.boot": "boot",
    "domzero.guest.console": "GuestConsole",
    "domzero.guest.guest": "Guest GuestEnd",
    "domzero.guest.hooks": "Call Trap Verdict",
    "domzero.guest.memory": "AddressSpace PageTableEntry PageWalk",
    "domzero.guest.registers": "GuestVcpu Registers",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}
__all__ = sorted([*_HOME_OF, "__version__"])


def __getattr__(name: str) -> object:
    value: object
    if name == "__version__":
        # The compiled module and the package are one; importlib.metadata takes longer than all else at the start.
        from domzero._machine import __version__ as value
    elif name in _HOME_OF:
        from importlib import import_module

        value = getattr(import_module(_HOME_OF[name]), name)
    else:
        raise AttributeError(f"module 'domzero' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
