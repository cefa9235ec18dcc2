# SPDX-License-Identifier: Apache-2.0
"""What requests say of a domain's processor."""

from typing import Annotated, Literal

from pydantic import Field

from domzero.dom0.cpuspec import TEXT_MAX
from domzero.hypervisor.emulate.cpu_policy import CPUID_ITEMS_MAX

CpuLevel = Annotated[
    Literal["v1", "v2", "v3", "max"],
    Field(description="What its processor has at most: a level of x86-64, or all that there is on this host."),
]
CpuidItems = Annotated[
    list[Annotated[str, Field(max_length=TEXT_MAX)]],
    Field(
        max_length=CPUID_ITEMS_MAX,
        description="What CPUID shows otherwise, as xl.cfg(5) has it under `cpuid`.",
        examples=[["host,avx2=0"]],
    ),
]
