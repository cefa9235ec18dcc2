# SPDX-License-Identifier: Apache-2.0
"""Features of the processor that CPUID shows: their names, where they are, and which of them a domain can have.

The names are libxl's (see `cpuid` in xl.cfg(5)).
"""

from domzero import _machine

Register = tuple[int, int | None, str]
"""Leaf, subleaf where there are several, and eax, ebx, ecx or edx."""

NAMES: dict[Register, str] = {
    (0x1, None, "ecx"): (
        "sse3 pclmulqdq dtes64 monitor dscpl vmx smx est tm2 ssse3 cntxid - fma cmpxchg16 xtpr pdcm - pcid dca sse4.1 "
        "sse4.2 x2apic movbe popcnt tscdeadline aes xsave osxsave avx f16c rdrand hypervisor"
    ),
    (0x1, None, "edx"): (
        "fpu vme de pse tsc msr pae mce cmpxchg8 apic - sysenter mtrr pge mca cmov pat pse36 psn clfsh - ds acpi mmx "
        "fxsr sse sse2 ss htt tm ia64 pbe"
    ),
    (0x7, 0, "ebx"): (
        "fsgsbase tsc_adjust - bmi1 hle avx2 fdp-exn-only smep bmi2 erms invpcid rtm cmt ntsc mpx rdt-a avx512f "
        "avx512dq rdseed adx smap avx512-ifma - clflushopt clwb proc-trace avx512pf avx512er avx512cd sha avx512bw "
        "avx512vl"
    ),
    (0x7, 0, "ecx"): (
        "prefetchwt1 avx512-vbmi umip pku ospke - avx512-vbmi2 cet-ss gfni vaes vpclmulqdq avx512-vnni "
        "avx512-bitalg - avx512-vpopcntdq - - - - - - - rdpid - - cldemote - movdiri movdir64b enqcmd"
    ),
    (0x7, 0, "edx"): (
        "- - avx512-4vnniw avx512-4fmaps fsrm - - - avx512-vp2intersect srbds-ctrl md-clear rtm-always-abort - "
        "tsx-force-abort serialize - tsxldtrk - - - cet-ibt - avx512-fp16 - - - ibrsb stibp l1d-flush arch-caps "
        "core-caps ssbd"
    ),
    (0xD, 1, "eax"): "xsaveopt xsavec xgetbv1 xsaves",
    (0x80000001, None, "ecx"): (
        "lahfsahf cmplegacy svm extapic altmovcr8 abm sse4a misalignsse 3dnowprefetch osvw ibs xop skinit wdt - lwp "
        "fma4 - - nodeid - tbm topoext perfctr_core perfctr_nb - dbext"
    ),
    (0x80000001, None, "edx"): (
        "- - - - - - - - - - - syscall - - - - - - - - nx - mmxext - - ffxsr page1gb rdtscp - lm 3dnowext 3dnow"
    ),
    (0x80000008, None, "ebx"): (
        "clzero - rstr-fp-err-ptrs - - - - - - wbnoinvd - - ibpb - ibrs amd-stibp ibrs-always stibp-always ibrs-fast "
        "ibrs-same-mode no-lmsl - - ppin amd-ssbd virt-ssbd ssb-no - psfd btc-no ibpb-ret"
    ),
    (0x80000021, None, "eax"): (
        "- - lfence+ - - - nscb - auto-ibrs - - - - - - - - - - - - - - - - - - - - srso-no srso-us-no"
    ),
}
"""By register, from bit 0 up."""

ALIASES = {"sse4_1": "sse4.1", "sse4_2": "sse4.2", "cx16": "cmpxchg16", "cx8": "cmpxchg8"}

PLACES: dict[str, tuple[Register, int]] = {
    name: (register, bit) for register, names in NAMES.items() for bit, name in enumerate(names.split()) if name != "-"
}
"""Where each feature's bit is."""

_V1 = (
    "fpu de tsc msr pae mce cmpxchg8 apic mca cmov pat clfsh acpi mmx fxsr sse sse2 syscall nx rdtscp lm dbext "
    "hypervisor fsgsbase erms fsrm rdrand rdseed adx clflushopt clwb ssb-no lfence+ nscb auto-ibrs srso-no srso-us-no"
)
_V2 = _V1 + " sse3 ssse3 sse4.1 sse4.2 popcnt cmpxchg16 lahfsahf aes pclmulqdq sha"
_V3 = _V2 + " xsave xsaveopt xsavec xgetbv1 avx avx2 fma f16c bmi1 bmi2 movbe abm"
_MAX = _V3 + " vaes vpclmulqdq"

LEVELS = {name: frozenset(words.split()) for name, words in (("v1", _V1), ("v2", _V2), ("v3", _V3), ("max", _MAX))}
"""What a domain's processor has by level: those of the x86-64 psABI. What these do not name, and what no registers of
vectors are needed for, all levels have."""
DEFAULT_LEVEL = "max"

BY_HOST = frozenset(("avx", "avx2", "fma", "f16c", "vaes", "vpclmulqdq"))
"""The interpreter has them everywhere; but they are worth it only where the host runs them."""

NEEDS = {
    "sse": "fxsr",
    "sse2": "sse",
    "sse3": "sse2",
    "ssse3": "sse3",
    "sse4.1": "ssse3",
    "sse4.2": "sse4.1",
    "aes": "sse2",
    "pclmulqdq": "sse2",
    "sha": "sse2",
    "xsaveopt": "xsave",
    "xsavec": "xsave",
    "xgetbv1": "xsave",
    "avx": "xsave",
    "avx2": "avx",
    "fma": "avx",
    "f16c": "avx",
    "vaes": "avx2",
    "vpclmulqdq": "avx2",
}
"""What a feature is nothing without."""


def available() -> frozenset[str]:
    """What a domain can have on this host, whatever its engine is."""
    return supported(LEVELS["max"] - BY_HOST | BY_HOST & set(_machine.host_features()))


def supported(features: frozenset[str]) -> frozenset[str]:
    """These features without those that need others that are not there."""
    while True:
        left = frozenset(name for name in features if NEEDS.get(name, name) in features)
        if left == features:
            return left
        features = left
