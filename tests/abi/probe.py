# SPDX-License-Identifier: Apache-2.0
"""Asks a C compiler for the layouts and numbers of Xen's public headers.

`python tests/abi/probe.py` writes them to `golden.json`, which the tests compare with `domzero.abi`, so that machines
without the headers check them too. Nothing is run: the values are read from a section of the object file, so that the
32-bit layouts need no 32-bit C library.
"""

import ctypes
import importlib
import json
import pkgutil
import shutil
import struct
import subprocess
import tempfile
from enum import IntEnum, IntFlag
from pathlib import Path
from typing import Any

import domzero.abi
from domzero.abi.layout import Wire, WireUnion, layout_for

GOLDEN = Path(__file__).with_name("golden.json")
INCLUDE = Path("/usr/include")

HEADERS = [
    "xen/xen.h", "xen/elfnote.h", "xen/features.h", "xen/version.h", "xen/vcpu.h", "xen/sched.h",
    "xen/event_channel.h", "xen/grant_table.h", "xen/memory.h", "xen/physdev.h", "xen/callback.h", "xen/nmi.h",
    "xen/hvm/hvm_op.h", "xen/hvm/params.h", "xen/arch-x86/cpuid.h", "xen/io/console.h", "xen/io/xs_wire.h",
    "xen/io/blkif.h", "xen/io/netif.h", "xen/io/9pfs.h", "xen/io/fbif.h", "xen/io/kbdif.h", "xen/io/xenbus.h",
    "xen/errno.h",
]  # fmt: skip

# C names where the header has no `struct NAME`.
C_TYPES = {
    "evtchn_status_u": "__typeof__(((struct evtchn_status *)0)->u)",
    "evtchn_status_interdomain": "__typeof__(((struct evtchn_status *)0)->u.interdomain)",
    "start_info_console": "__typeof__(((struct start_info *)0)->console)",
    "start_info_console_domU": "__typeof__(((struct start_info *)0)->console.domU)",
    "start_info_console_dom0": "__typeof__(((struct start_info *)0)->console.dom0)",
    "netif_extra_info_gso": "__typeof__(((struct netif_extra_info *)0)->u.gso)",
    "gnttab_copy_ptr": "struct gnttab_copy_ptr",
    "gnttab_copy_ptr_u": "__typeof__(((struct gnttab_copy *)0)->source.u)",
    "gnttab_cache_flush_a": "__typeof__(((struct gnttab_cache_flush *)0)->a)",
    "grant_entry_v2": "union grant_entry_v2",
    "grant_entry_v2_full_page": "__typeof__(((union grant_entry_v2 *)0)->full_page)",
    "grant_entry_v2_sub_page": "__typeof__(((union grant_entry_v2 *)0)->sub_page)",
    "grant_entry_v2_transitive": "__typeof__(((union grant_entry_v2 *)0)->transitive)",
}
C_FIELDS = {"in_": "in"}
# Fields that are unions or have other names in C; compared through the fields around them.
SKIPPED_FIELDS = {
    ("callback_register_compat", "cs"),
    ("callback_register_compat", "address"),
    ("xen_add_to_physmap_batch", "foreign_domid"),
    ("xen_add_to_physmap_batch_compat", "foreign_domid"),
    *((f"xen_reserved_device_memory_map{w}", f) for w in ("", "_compat") for f in ("seg", "bus", "devfn")),
    *((f"physdev_manage_pci_ext{w}", f) for w in ("", "_compat") for f in ("physfn_bus", "physfn_devfn")),
    *((f"physdev_pci_device_add{w}", f) for w in ("", "_compat") for f in ("physfn_bus", "physfn_devfn")),
}
# Only one of the two widths has the structure.
ONLY_64 = {"iret_context"}
# Enums whose members have the C name without this prefix.
PREFIXES = {
    "Errno": "XEN_", "Hypercall": "__", "ElfNote": "XEN_ELFNOTE_", "XenFeature": "XENFEAT_",
}  # fmt: skip
NOT_C = {"XenFeature.grant_map_identity"}
# Enums of the processor's own facts, which have no C names.
OWN_ENUMS = {"Pte", "Vector"}
# Names of the 32-bit headers, where these have no name of their own.
NARROW_NAMES = {
    "FLAT_COMPAT_RING1_CS": "FLAT_RING1_CS", "FLAT_COMPAT_RING1_DS": "FLAT_RING1_DS",
    "FLAT_COMPAT_RING1_SS": "FLAT_RING1_SS", "FLAT_COMPAT_RING3_SS": "FLAT_RING3_SS",
    "FLAT_COMPAT_RING3_CS": "FLAT_RING3_CS", "FLAT_COMPAT_RING3_DS": "FLAT_RING3_DS",
    "HYPERVISOR_VIRT_START_PAE": "__HYPERVISOR_VIRT_START_PAE",
    "MACH2PHYS_VIRT_START_PAE": "__MACH2PHYS_VIRT_START_PAE",
    "MACH2PHYS_VIRT_END_PAE": "__MACH2PHYS_VIRT_END_PAE",
    "MACH2PHYS_NR_ENTRIES_PAE": "MACH2PHYS_NR_ENTRIES",
}  # fmt: skip
# Module constants that are ours, or that the headers spell differently.
OWN_CONSTANTS = {
    "PAGE_SHIFT", "PAGE_SIZE", "GOLDEN", "MEMOP_EXTENT_SHIFT", "MEMOP_CMD_MASK", "XEN_CPUID_FIRST_LEAF",
    "MACH2PHYS_COMPAT_VIRT_END", "MSR_HYPERCALL_PAGE",
    "XEN_DOMCTL_INTERFACE_VERSION", "XEN_SYSCTL_INTERFACE_VERSION", "XENPF_INTERFACE_VERSION", "XEN_COMMANDLINE_LEN",
    "XEN_DOMCTL_createdomain", "XEN_DOMCTL_getdomaininfo", "XEN_DOMCTL_shadow_op", "XENOPROF_init",
    "XENOPROF_get_buffer", "XENOPROF_last_op",
    "GNTMAP_guest_avail0_shift", "GNTTABOP_CMD_MASK",
}  # fmt: skip


def modules() -> list[Any]:
    """All modules of domzero.abi."""
    return [importlib.import_module(f"domzero.abi.{m.name}") for m in pkgutil.iter_modules(domzero.abi.__path__)]


def structures() -> dict[str, type]:
    """Every structure that is laid out, by name."""
    found: dict[str, type] = {}
    for module in modules():
        for name, value in vars(module).items():
            if isinstance(value, type) and issubclass(value, Wire | WireUnion) and hasattr(value, "compat"):
                found[name] = value
    return found


def enums() -> dict[str, Any]:
    """Every enum, by name."""
    found: dict[str, Any] = {}
    for module in modules():
        for name, value in vars(module).items():
            if isinstance(value, type) and issubclass(value, IntEnum | IntFlag) and value.__module__ == module.__name__:
                found[name] = value
    return found


def declared() -> dict[str, dict[str, int]]:
    """What `domzero.abi` says, by width: expression to value. Numbers are with the 64-bit ones."""
    result: dict[str, dict[str, int]] = {"64": {}, "32": {}}
    for name, cls in structures().items():
        for width, is_32bit in (("64", False), ("32", True)):
            if is_32bit and name in ONLY_64:
                continue
            layout: Any = layout_for(cls, is_32bit)
            result[width][f"sizeof {name}"] = ctypes.sizeof(layout)
            for field in layout._fields_:
                if (layout.__name__, field[0]) not in SKIPPED_FIELDS:
                    result[width][f"offsetof {name} {field[0]}"] = getattr(layout, field[0]).offset
    for name, cls in enums().items():
        if name in OWN_ENUMS:
            continue
        for member, value in cls.__members__.items():
            if f"{name}.{member}" not in NOT_C:
                result["64"][f"value {PREFIXES.get(name, '')}{member}"] = int(value)
    for module in modules():
        for name, value in vars(module).items():
            if type(value) is not int or not name[0].isupper() or name in OWN_CONSTANTS:
                continue
            if module.__name__ == "domzero.abi.x86" and not name.startswith("X86_"):
                continue
            if name in NARROW_NAMES:
                result["32"][f"value {NARROW_NAMES[name]}"] = value
            else:
                result["64"][f"value {name}"] = value - (1 << 64) if value >> 63 else value
    return result


def c_expression(key: str) -> str:
    """The C expression of a key of `declared`."""
    kind, name, *rest = key.split()
    if kind == "value":
        return name
    c_type = C_TYPES.get(name, f"struct {name}")
    if kind == "sizeof":
        return f"sizeof({c_type})"
    return f"__builtin_offsetof({c_type}, {C_FIELDS.get(rest[0], rest[0])})"


def section(obj: bytes, name: bytes) -> bytes:
    """Contents of a section of a little-endian ELF object."""
    if obj[4] == 2:
        (shoff,), counts, layout = struct.unpack_from("<Q", obj, 0x28), struct.unpack_from("<3H", obj, 0x3A), "<IIQQQQ"
    else:
        (shoff,), counts, layout = struct.unpack_from("<I", obj, 0x20), struct.unpack_from("<3H", obj, 0x2E), "<IIIIII"
    size, count, names = counts
    headers = [struct.unpack_from(layout, obj, shoff + i * size) for i in range(count)]
    strings = headers[names][4]
    for header in headers:
        start = strings + header[0]
        if obj[start : obj.index(b"\0", start)] == name:
            return obj[header[4] : header[4] + header[5]]
    raise KeyError(name)


def ask(keys: list[str], width: str, *, compiler: str = "cc") -> dict[str, int]:
    """Compiles the expressions of `keys` for this width and returns their values."""
    lines = [
        "typedef unsigned char uint8_t; typedef unsigned short uint16_t; typedef unsigned int uint32_t;",
        "typedef unsigned long long uint64_t; typedef signed char int8_t; typedef short int16_t; typedef int int32_t;",
        "typedef long long int64_t; typedef __SIZE_TYPE__ size_t;",
        "typedef uint32_t grant_ref_t; void *memcpy(void *, const void *, size_t);",
        "#define __XEN_TOOLS__ 1",
        *(f"#include <{header}>" for header in HEADERS),
        *(["#include <asm/processor-flags.h>"] if width == "64" else []),
        'const long long probe[] __attribute__((section(".probe"), used)) = {',
        *(f"  (long long)({c_expression(key)})," for key in keys),
        "};",
    ]
    with tempfile.TemporaryDirectory() as folder:
        source, obj = Path(folder, "probe.c"), Path(folder, "probe.o")
        source.write_text("\n".join(lines))
        command = [compiler, f"-m{width}", "-std=gnu11", "-ffreestanding", "-w", "-c", str(source), "-o", str(obj)]
        subprocess.run(command, check=True, capture_output=True, text=True)
        data = section(obj.read_bytes(), b".probe")
    return dict(zip(keys, struct.unpack(f"<{len(keys)}q", data), strict=True))


def why_not() -> str | None:
    """Why the headers cannot be asked here."""
    if not (INCLUDE / "xen/xen.h").exists():
        return "Xen's headers are missing: apt-get install libxen-dev"
    if shutil.which("cc") is None:
        return "no C compiler"
    return None


def main() -> None:
    """Writes the golden file."""
    values = {width: ask(sorted(keys), width) for width, keys in declared().items()}
    GOLDEN.write_text(json.dumps(values, indent=0, sort_keys=True) + "\n")
    print(f"{GOLDEN}: {sum(map(len, values.values()))} values")


if __name__ == "__main__":
    main()
