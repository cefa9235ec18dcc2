"""xl.cfg files: read as xl reads them, turned into a DomainConfig.

Unlike xl, which ignores unknown keys silently, this warns about them, and refuses keys that would change the guest but
are not supported yet.
"""

from __future__ import annotations

import difflib
import re
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

from domzero.dom0.config import Action, DomainConfig
from domzero.errors import ConfigError

Value: TypeAlias = "str | int | list[Value]"
T = TypeVar("T")

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r]+|\#[^\n]*)
      | (?P<newline>\n)
      | (?P<key>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<number>0[xX][0-9a-fA-F]+|[0-9]+)
      | (?P<string>'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*")
      | (?P<punctuation>[=,;\[\]])""",
    re.VERBOSE,
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", "'": "'", '"': '"'}
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|.)")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Keys with no effect on a PV guest here, whatever their value.
_HARMLESS = _words(
    """
    nomigrate pool cpu_weight nodes localtime rtc_timeoffset e820_host seclabel init_seclabel keymap vnc
    vnclisten vncdisplay vncunused vncpasswd sdl boot vga videoram bios serial usb usbdevice acpi apic pae hap
    nx device_model_version xen_platform_pci stdvga nographic opengl timer_mode hpet viridian max_grant_version
    max_event_channels max_grant_frames max_maptrack_frames gfx_passthru on_xend_start on_xend_stop
    shadow_memory
    """
)
# Keys that ask for something; only these values of theirs are what a domain has anyway.
_ONLY: dict[str, tuple[Value, ...]] = {
    "cpus": ("all", "", []),
    "cpus_soft": ("all", "", []),
    "cap": (0,),
    "tsc_mode": ("default", 0, ""),
    "cpuid": ("", []),
    "bootloader": ("",),
    "bootloader_args": ("", []),
    "driver_domain": (0,),
    "on_soft_reset": ("destroy", "soft-reset"),
    "vfb": ([],),
    "vkb": ([],),
    "p9": ([],),
    "channel": ([],),
    "pci": ([],),
    "usbctrl": ([],),
    "usbdev": ([],),
    "vtpm": ([],),
    "vdispl": ([],),
    "vsnd": ([],),
    "ioports": ([],),
    "irqs": ([],),
    "iomem": ([],),
    "device_tree": ("",),
    "vnuma": ([],),
    "pvshim": (0,),
    "nestedhvm": (0,),
    "passthrough": ("disabled", ""),
}
_ACTION_KEYS = ("on_poweroff", "on_reboot", "on_crash", "on_watchdog")
_USED = _words(
    """
    name type builder uuid vcpus maxvcpus memory maxmem kernel ramdisk cmdline root extra disk vif on_poweroff
    on_reboot on_crash on_watchdog engine seed
    """
)
KNOWN_KEYS = _USED | _HARMLESS | _ONLY.keys()


@dataclass(slots=True)
class Parsed:
    """What a file says.

    :param keys: which keys were there, for callers that add defaults of their own.
    """

    config: DomainConfig
    warnings: list[str] = field(default_factory=list)
    keys: frozenset[str] = frozenset()


class _Parser:
    def __init__(self, text: str, source: str) -> None:
        self._source = source
        self._tokens: list[tuple[str, str, int]] = []
        at, line = 0, 1
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                what = "a string that does not end on its line" if text[at] in "'\"" else f"a stray {text[at]!r}"
                raise self._error(line, what)
            if match.lastgroup != "space":
                self._tokens.append((str(match.lastgroup), match.group(), line))
            line += match.group().count("\n")
            at = match.end()
        self._tokens.append(("end", "", line))
        self._at = 0

    def parse(self) -> dict[str, Value]:
        values: dict[str, Value] = {}
        while True:
            kind, text, line = self._next()
            if kind == "end":
                return values
            if kind == "newline" or text == ";":
                continue
            if kind != "key":
                raise self._error(line, f"expected a key, found {text!r}")
            if self._next()[1] != "=":
                raise self._error(line, f"expected '=' after {text}", key=text)
            values[text] = self._value(text)
            kind, found, line = self._next()
            if kind not in ("newline", "end") and found != ";":
                raise self._error(line, f"expected the end of the line after {text}'s value, found {found!r}", key=text)
            if kind == "end":
                return values

    def _next(self) -> tuple[str, str, int]:
        token = self._tokens[min(self._at, len(self._tokens) - 1)]
        self._at += 1
        return token

    def _skip_newlines(self) -> None:
        while self._tokens[min(self._at, len(self._tokens) - 1)][0] == "newline":
            self._at += 1

    def _value(self, key: str, depth: int = 0) -> Value:
        kind, text, line = self._next()
        if kind == "string":
            return _ESCAPE.sub(_unescape, text[1:-1])
        if kind == "number":
            return int(text, 0) if not re.fullmatch(r"0[0-7]+", text) else int(text, 8)
        if text == "[" and depth < 8:
            return self._list(key, depth)
        hint = "a string needs quotes" if kind == "key" else "a value is a number, a quoted string or a list"
        found = "nothing" if kind in ("newline", "end") else repr(text)
        raise self._error(line, f"expected a value, found {found}", key=key, hint=hint)

    def _list(self, key: str, depth: int) -> list[Value]:
        values: list[Value] = []
        while True:
            self._skip_newlines()
            if self._tokens[self._at][1] == "]":
                self._at += 1
                return values
            values.append(self._value(key, depth + 1))
            self._skip_newlines()
            _, text, line = self._next()
            if text == "]":
                return values
            if text != ",":
                raise self._error(line, "expected ',' or ']' in the list", key=key)

    def _error(self, line: int, what: str, *, key: str | None = None, hint: str | None = None) -> ConfigError:
        return ConfigError(f"{self._source}, line {line}: {what}", key=key, hint=hint)


def _unescape(match: re.Match[str]) -> str:
    code = match[1]
    return chr(int(code[1:], 16)) if len(code) == 3 else _ESCAPES.get(code, "\\" + code)


def parse_values(text: str, source: str = "xl.cfg") -> dict[str, Value]:
    """Keys and values of a file; the last one counts. ConfigError with file and line."""
    return _Parser(text, source).parse()


def parse_extra(arguments: Sequence[str]) -> dict[str, Value]:
    """`key=value` words of a command line. The quotes around a single string, which a shell eats, may be missing."""
    values: dict[str, Value] = {}
    for argument in arguments:
        bare = re.fullmatch(r"([A-Za-z_]\w*)=([^'\"\[\];]*)", argument)
        if bare and not re.fullmatch(r"\s*(0[xX][0-9a-fA-F]+|[0-9]+)\s*", bare[2]):
            values[bare[1]] = bare[2]
        else:
            values |= parse_values(argument, "command line")
    return values


def load(text: str, source: str = "xl.cfg", extra: Sequence[str] = ()) -> Parsed:
    """Reads a file and what the command line adds to it; ConfigError names the key at fault."""
    return from_values(parse_values(text, source) | parse_extra(extra))


def from_values(values: dict[str, Value]) -> Parsed:
    """The configuration that keys and values mean; kernel and ramdisk stay as written."""
    warnings = []
    for key in values:
        if key not in KNOWN_KEYS:
            near = difflib.get_close_matches(key, KNOWN_KEYS, 1)
            warnings.append(f"unknown key {key} ignored" + (f": did you mean {near[0]}?" if near else ""))
        elif key in _ONLY and not any(_same(values[key], value) for value in _ONLY[key]):
            raise ConfigError("not supported yet", key=key, hint="remove it from the configuration")
    _check_type(values)
    config = DomainConfig(
        kernel=_string(values, "kernel"),
        name=_string(values, "name"),
        ramdisk=_string(values, "ramdisk") or None,
        cmdline=_cmdline(values, warnings),
        memory_mib=_number(values, "memory", _number(values, "maxmem", 256)),
        vcpus=_number(values, "vcpus", _number(values, "maxvcpus", 1)),
        engine=_string(values, "engine") or "auto",
        seed=_number(values, "seed", 0) if "seed" in values else None,
        disks=_strings(values, "disk"),
        vifs=_strings(values, "vif"),
    )
    if not config.kernel:
        raise ConfigError("missing", key="kernel", hint="the path of a PV kernel")
    if not config.name:
        raise ConfigError("missing", key="name", hint='every domain needs one, such as name="guest"')
    for key, given in (("maxmem", config.memory_mib), ("maxvcpus", config.vcpus)):
        most = _number(values, key, given)
        if most < given:
            raise ConfigError(f"{most} is less than the {given} that the domain starts with", key=key)
        if most > given:
            raise ConfigError("more than the domain starts with is not supported yet", key=key)
    if "uuid" in values:
        try:
            config.uuid = uuid.UUID(_string(values, "uuid"))
        except ValueError:
            raise ConfigError(f"not a UUID: {values['uuid']}", key="uuid") from None
    for key in _ACTION_KEYS:
        if key in values:
            setattr(config, key, _action(values, key))
    config.check()
    return Parsed(config, warnings, frozenset(values))


def _check_type(values: dict[str, Value]) -> None:
    kind = _string(values, "type") or "pv"
    builder = _string(values, "builder") or "generic"
    if kind in ("hvm", "pvh"):
        raise ConfigError(f"{kind} domains are not supported yet", key="type", hint='type="pv"')
    if kind != "pv":
        raise ConfigError(f"no such type: {kind}", key="type", hint="pv, pvh or hvm")
    if builder not in ("generic", "linux"):
        raise ConfigError(f"{builder} domains are not supported yet", key="builder", hint="leave it out")


def _cmdline(values: dict[str, Value], warnings: list[str]) -> str:
    if "cmdline" in values:
        warnings.extend(f"{key} ignored, as cmdline is given" for key in ("root", "extra") if key in values)
        return _string(values, "cmdline")
    root, extra = _string(values, "root"), _string(values, "extra")
    return " ".join(part for part in (f"root={root}" if root else "", extra) if part)


def _action(values: dict[str, Value], key: str) -> Action:
    text = _string(values, key)
    try:
        return Action(text)
    except ValueError:
        pass
    if text in ("rename-restart", "coredump-destroy", "coredump-restart", "soft-reset"):
        raise ConfigError(f"{text} is not supported yet", key=key, hint="destroy, restart or preserve")
    raise ConfigError(f"no such action: {text!r}", key=key, hint="destroy, restart or preserve")


def _same(given: Value, harmless: Value) -> bool:
    return type(given) is type(harmless) and given == harmless


def _string(values: dict[str, Value], key: str) -> str:
    return _typed(values, key, "", _as_string, "a quoted string")


def _as_string(value: Value) -> str | None:
    return value if isinstance(value, str) else None


def _number(values: dict[str, Value], key: str, default: int) -> int:
    return _typed(values, key, default, _as_number, "a number")


def _as_number(value: Value) -> int | None:
    # xl takes a number in quotes, too
    if isinstance(value, str) and re.fullmatch(r"0[xX][0-9a-fA-F]+|[0-9]+", value):
        return int(value, 0) if not value.startswith("0") or value[1:2] in "xX" else int(value, 8)
    return value if isinstance(value, int) else None


def _strings(values: dict[str, Value], key: str) -> list[str]:
    return _typed(values, key, [], _as_strings, "a list of quoted strings")


def _as_strings(value: Value) -> list[str] | None:
    if not isinstance(value, list):
        return None
    strings = [item for item in value if isinstance(item, str)]
    return strings if len(strings) == len(value) else None


def _typed(values: dict[str, Value], key: str, default: T, convert: Callable[[Value], T | None], expected: str) -> T:
    if key not in values:
        return default
    found = convert(values[key])
    if found is None:
        raise ConfigError(f"expected {expected}, found {values[key]!r}", key=key)
    return found
