# SPDX-License-Identifier: Apache-2.0
"""What an xl.cfg file means: its keys and values turned into a DomainConfig.

What xl takes with a warning is taken here with a warning, too. Unlike xl, which ignores unknown keys silently, this
warns about them, and refuses keys that would change the guest but are not supported yet. All problems of a file are
told at once.
"""

from __future__ import annotations

import difflib
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from os import PathLike, fspath

from domzero.builder.files import read_file
from domzero.dom0 import xlhvm, xlkeys
from domzero.dom0.config import Action, DomainConfig
from domzero.dom0.hvmspec import DomainType
from domzero.dom0.xlsyntax import Setting, Settings, parse, parse_words
from domzero.errors import ConfigError, ConfigErrors, ImageError
from domzero.hypervisor.emulate.cpu_features import DEFAULT_LEVEL

BOOTLOADERS = ("pygrub", "pvgrub")
FIRMWARE = {"pvgrub64": "x86_64", "pvgrub32": "i386"}
"""GRUB's PV kernels, as xl.cfg(5) names them, and what they are for."""
POOL = "Pool-0"
_NUMBERS = ("driver_domain",)
FILE_MAX = 1 << 20
"""Bytes of a configuration file."""
_NUMBER = re.compile(r"[ \t\n\v\f\r]*([+-]?)(?:0x([0-9a-f]+)|(0[0-7]*)|([1-9][0-9]*))", re.IGNORECASE)
_LONG_MAX = (1 << 63) - 1

_LIMIT_KEYS = ("max_event_channels", "max_grant_frames", "max_maptrack_frames", "max_grant_version")
_ACTION_KEYS = ("on_poweroff", "on_reboot", "on_crash", "on_watchdog", "on_soft_reset")


@dataclass(slots=True)
class Parsed:
    """What a file says.

    :param keys: which keys were there, for callers that add defaults of their own.
    :param chosen: why it has its type, if that was not said.
    """

    config: DomainConfig
    warnings: list[str] = field(default_factory=list)
    keys: frozenset[str] = frozenset()
    chosen: str = ""


def read_text(path: str | PathLike[str]) -> str:
    """A configuration file's text; like xl, only of a regular file. ConfigError."""
    try:
        return read_file(path, "config", FILE_MAX).decode()
    except ImageError as error:
        raise ConfigError(error.message) from error
    except UnicodeDecodeError:
        raise ConfigError(f"{fspath(path)}: not a text file") from None


def load(text: str, source: str = "xl.cfg", extra: Sequence[str] = ()) -> Parsed:
    """Reads a file and what the command line adds to it; ConfigErrors with the keys at fault."""
    return from_settings(parse_words(extra, parse(text, source)))


def from_settings(settings: Settings) -> Parsed:
    """The configuration that keys and values mean; kernel and ramdisk stay as written. ConfigErrors, all at once."""
    return _Reader(settings).read()


def to_number(text: str) -> int | None:
    """A number as C's strtol reads it with base 0 (08 is none); None for what is none, or not a `long`."""
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    sign, hexadecimal, octal, decimal = match.groups()
    digits, base = next((part, base) for part, base in ((hexadecimal, 16), (octal, 8), (decimal, 10)) if part)
    if len(digits.lstrip("0")) > 22:
        return None
    number = int(digits, base) * (-1 if sign == "-" else 1)
    return number if -_LONG_MAX - 1 <= number <= _LONG_MAX else None


@dataclass(slots=True)
class _Reader:
    """Reads settings as xl does: a value of the wrong kind is ignored with a warning."""

    settings: Settings
    warnings: list[str] = field(default_factory=list)
    errors: list[ConfigError] = field(default_factory=list)

    def read(self) -> Parsed:
        kind, chosen = self._type(), ""
        if kind is None:
            kind, chosen = self._choose()
        self._check_keys(kind)
        config = self._config()
        config.type = kind
        if kind.is_full:
            self._read_hvm(config)
        else:
            self._check_bootloader(config)
            self._check_firmware(config)
        if not config.name:
            self._error("name", "missing", 'every domain needs one, such as name="guest"')
        try:
            config.check()
        except ConfigErrors as errors:
            named = {error.key for error in self.errors}
            self.errors.extend(error for error in errors.errors if error.key not in named)
        if self.errors:
            raise ConfigErrors(self.errors)
        return Parsed(config, self.warnings, frozenset(self.settings), chosen)

    def _check_keys(self, kind: DomainType) -> None:
        """Says what becomes of the keys that are not honoured."""
        reasons = xlkeys.REASONS
        if kind.is_full:
            own = xlhvm.REASONS if kind is DomainType.HVM else xlhvm.REASONS_OF_PVH
            told = xlhvm.HONOURED.union(*(reason.keys for reason in own))
            others = (xlkeys.Reason(reason.keys - told, reason.text) for reason in xlkeys.REASONS)
            reasons = (*own, *others)
        for key, setting in self.settings.items():
            if key not in xlkeys.KNOWN:
                near = difflib.get_close_matches(key[:64], xlkeys.KNOWN, 1)
                self.warnings.append(f"unknown key {key} ignored" + (f": did you mean {near[0]}?" if near else ""))
            elif key in xlkeys.REFUSED and not self._asks_for_nothing(key):
                self._error(key, "not supported yet", "remove it from the configuration")
            elif key == "pool" and setting.value not in ("", "0", POOL):
                self.warnings.append(f"pool: all processors of the host are one pool, {POOL}")
        for reason in reasons:
            named = [key for key in self.settings if key in reason.keys and not self._asks_for_nothing(key)]
            if named:
                self.warnings.append(f"{', '.join(named)}: {reason.text}")

    def _config(self) -> DomainConfig:
        config = DomainConfig(
            kernel=self._string("kernel"),
            name=self._string("name"),
            ramdisk=self._string("ramdisk") or None,
            cmdline=self._cmdline(),
            memory_mib=self._number("memory", self._number("maxmem", 256)),
            vcpus=self._number("vcpus", self._number("maxvcpus", 1)),
            engine=self._string("engine") or "auto",
            cpu=self._string("cpu") or DEFAULT_LEVEL,
            cpuid=self._cpuid(),
            seed=self._number("seed", 0) if "seed" in self.settings else None,
            disks=self._strings("disk"),
            vifs=self._strings("vif"),
            shares=self._strings("p9"),
            channels=self._strings("channel"),
            vfbs=self._strings("vfb"),
            console=self._string("console"),
        )
        if "maxvcpus" in self.settings:
            config.max_vcpus = self._number("maxvcpus", config.vcpus)
        config.localtime = bool(self._number("localtime", 0))
        config.rtc_timeoffset = self._number("rtc_timeoffset", 0)
        config.cap = self._number("cap", 0)
        config.cpu_weight = self._number("cpu_weight", config.cpu_weight)
        config.cpus = self._cpus(config.vcpus_max)
        if "maxmem" in self.settings:
            config.maxmem_mib = self._number("maxmem", config.memory_mib)
        for key in _LIMIT_KEYS:
            setattr(config, key, self._number(key, getattr(config, key)))
        if text := self._string("uuid"):
            try:
                config.uuid = uuid.UUID(text)
            except ValueError:
                self._error("uuid", f"not a UUID: {text[:100]}")
        for key in _ACTION_KEYS:
            if text := self._string(key):
                self._set_action(config, key, text)
        return config

    def _cpuid(self) -> list[str]:
        """libxl's grammar is a string, XEND's a list of them."""
        setting = self.settings.get("cpuid")
        if setting is None or not setting.value:
            return []
        return [setting.value] if isinstance(setting.value, str) else self._strings("cpuid")

    def _cpus(self, vcpus: int) -> list[str]:
        """A list of processors for all vCPUs, or a list with one for each."""
        setting = self.settings.get("cpus")
        if setting is None or not setting.value:
            return []
        return [setting.value] * vcpus if isinstance(setting.value, str) else self._strings("cpus")

    def _set_action(self, config: DomainConfig, key: str, text: str) -> None:
        actions = [action.value for action in Action]
        if (key, text) == ("on_soft_reset", "soft-reset"):
            return  # xl's default; no PV domain has it, and it is destroyed
        if text == "rename-restart":
            kept = (
                "coredump-restart starts it again and keeps its memory in a file, preserve keeps all and starts nothing"
            )
            self._error(key, f"{text} is not supported yet", f"{', '.join(actions)} ({kept})")
        elif text == "soft-reset":
            self._error(key, f"{text} is not supported yet", ", ".join(actions))
        elif text not in actions:
            self._error(key, f"no such action: {text[:100]!r}", ", ".join(actions))
        else:
            setattr(config, key, Action(text))

    def _check_bootloader(self, config: DomainConfig) -> None:
        """Both kinds of boot loader are GRUB's PV kernel: nobody reads a guest's file system on the host."""
        text = self._string("bootloader")
        if text and text.rpartition("/")[2] not in BOOTLOADERS:
            self._error("bootloader", f"not supported: {text[:100]!r}", " or ".join(BOOTLOADERS))
        elif text and config.kernel:
            self._error("bootloader", "there is a kernel, too", "remove one of the two")
        elif text and not config.disks:
            self._error("bootloader", "there is no disk to start from", "add a disk, or a kernel in its place")
        elif not config.kernel and not config.disks:
            self._error("kernel", "missing", "the path of a PV kernel, or a disk to start from")

    def _check_firmware(self, config: DomainConfig) -> None:
        """GRUB's PV kernel for 64-bit or for 32-bit domains."""
        text = self._string("firmware")
        if not text:
            return
        if text not in FIRMWARE:
            self._error("firmware", f"not for a PV domain: {text[:100]!r}", " or ".join(FIRMWARE))
        elif config.kernel or self._string("bootloader"):
            self._error("firmware", "there is a kernel or a bootloader, too", "remove one of the two")
        elif config.disks:
            from domzero.dom0.images.grub import find_pvgrub  # only who starts from a disk needs it

            config.kernel = str(find_pvgrub(kind=FIRMWARE[text]) or "")
            if not config.kernel:
                self._error("firmware", f"GRUB's PV kernel is not here: {text}", "apt-get install grub-xen-host")

    def _type(self) -> DomainType | None:
        """What the file says; None: nothing."""
        kind, builder = self._string("type"), self._string("builder")
        if kind and kind not in [each.value for each in DomainType]:
            self._error("type", f"no such type: {kind[:100]}", "pv, pvh or hvm")
            return DomainType.PV
        if builder not in ("", "generic", "linux", "hvm"):
            self._error("builder", f"no such builder: {builder[:100]}", "leave it out")
        if kind:
            return DomainType(kind)
        return {"hvm": DomainType.HVM, "generic": DomainType.PV, "linux": DomainType.PV}.get(builder)

    def _choose(self) -> tuple[DomainType, str]:
        if self._string("bootloader") or self._string("firmware") in FIRMWARE:
            return DomainType.PV, "GRUB's PV kernel is to start it"
        from domzero.dom0.qemu.kinds import type_of  # those that say their type do without

        return type_of(DomainConfig(kernel=self._string("kernel"), disks=self._strings("disk")))

    def _read_hvm(self, config: DomainConfig) -> None:
        if config.type is not DomainType.HVM:
            return
        keys = self.settings.keys()
        reader = xlhvm.Reader(self._string, self._number, self._words_of, keys, self._error, self.warnings)
        xlhvm.read_hvm(reader, config)

    def _words_of(self, key: str) -> list[str]:
        """A string, or a list of them."""
        setting = self.settings.get(key)
        if setting is None or not setting.value:
            return []
        return [setting.value] if isinstance(setting.value, str) else self._strings(key)

    def _cmdline(self) -> str:
        if "cmdline" in self.settings:
            self.warnings.extend(
                f"{key} ignored, as cmdline is given" for key in ("root", "extra") if key in self.settings
            )
            return self._string("cmdline")
        root, extra = self._string("root"), self._string("extra")
        return " ".join(part for part in (f"root={root}" if root else "", extra) if part)

    def _asks_for_nothing(self, key: str) -> bool:
        """Whether the value changes nothing, or is one that xl ignores with a warning."""
        value = self.settings[key].value
        if xlkeys.asks_for_nothing(key, value):
            return True
        if key in _NUMBERS:
            return isinstance(value, list) and self._ignored(key, "a number")
        return key in xlkeys.REFUSED and not isinstance(value, list) and self._ignored(key, "a list")

    def _error(self, key: str, message: str, hint: str | None = None) -> None:
        setting = self.settings.get(key)
        self.errors.append(ConfigError((setting.where if setting else "") + message, key=key, hint=hint))

    def _ignored(self, key: str, expected: str) -> bool:
        setting = self.settings[key]
        shown = f"{str(setting.value)[:60]!r}" if isinstance(setting.value, str) else "a list"
        warning = f"{setting.where}{key} ignored: expected {expected}, found {shown}"
        if warning not in self.warnings:
            self.warnings.append(warning)
        return True

    def _string(self, key: str) -> str:
        setting = self.settings.get(key)
        if setting is None:
            return ""
        if isinstance(setting.value, str):
            return setting.value
        self._ignored(key, "a string")
        return ""

    def _number(self, key: str, default: int) -> int:
        setting = self.settings.get(key)
        if setting is None:
            return default
        number = to_number(setting.value) if isinstance(setting.value, str) and not setting.added else None
        if number is None:
            self._ignored(key, "a number" + (" that is not made with +=" if setting.added else ""))
            return default
        return number

    def _strings(self, key: str) -> list[str]:
        setting = self.settings.get(key)
        if setting is None:
            return []
        strings = [item for item in setting.value if isinstance(item, str)]
        if isinstance(setting.value, list) and len(strings) == len(setting.value):
            return strings
        self._ignored(key, "a list of strings")
        return []


__all__ = [
    "Parsed",
    "Setting",
    "Settings",
    "from_settings",
    "load",
    "parse",
    "parse_words",
    "read_text",
    "to_number",
]
