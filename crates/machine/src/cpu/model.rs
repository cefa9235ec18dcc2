// SPDX-License-Identifier: Apache-2.0
//! What kind of processor code finds, and what of it is switched on.

use super::decode::Vendor;
use super::Cpu;
use crate::abi::x86::{cpuid, cr4, xcr0};
use crate::random::RandomStream;

/// One row of the CPUID table: leaf, subleaf (`None`: any), eax ebx ecx edx.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuidRow {
    /// eax before `cpuid`.
    pub leaf: u32,
    /// ecx before `cpuid`, where it counts.
    pub subleaf: Option<u32>,
    /// eax, ebx, ecx and edx after it.
    pub regs: [u32; 4],
}

/// What code learns of the processor that it runs on, and what decides which instructions it has.
pub struct Model {
    pub(crate) cpuid: Vec<CpuidRow>,
    /// Whose decoding rules are followed: CPUID says which.
    pub(crate) vendor: Vendor,
    /// cpuid is left to the layer above: CPUID faulting.
    pub cpuid_traps: bool,
    /// CR4 as the guest sees it: TSD, FSGSBASE and OSXSAVE decide what instructions do. [`Cpu::set_cr4`] changes it.
    pub(crate) cr4: u64,
    /// TSC_AUX, for rdtscp and rdpid.
    pub tsc_aux: u32,
    /// What rdrand and rdseed give.
    pub(crate) random: RandomStream,
}

impl Model {
    pub(crate) fn new(random: RandomStream) -> Model {
        Model {
            cpuid: Vec::new(),
            vendor: Vendor::Amd,
            cpuid_traps: false,
            cr4: cr4::INITIAL | cr4::FSGSBASE,
            tsc_aux: 0,
            random,
        }
    }
}

/// Features of AVX and after it that this host's processor has, by the names that libxl has for them.
pub fn host_features() -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    let known = [
        ("avx", is_x86_feature_detected!("avx")),
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("f16c", is_x86_feature_detected!("f16c")),
        ("vaes", is_x86_feature_detected!("vaes")),
        ("vpclmulqdq", is_x86_feature_detected!("vpclmulqdq")),
    ];
    #[cfg(not(target_arch = "x86_64"))]
    let known: [(&str, bool); 0] = [];
    known
        .iter()
        .filter(|(_, has)| *has)
        .map(|(name, _)| *name)
        .collect()
}

impl Cpu {
    /// What `cpuid` shows: the row with this very subleaf, else the one for any subleaf, else zeros; and what depends on
    /// CR4 and XCR0.
    pub fn cpuid(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        let rows = || self.model.cpuid.iter().filter(|r| r.leaf == leaf);
        let mut regs = rows()
            .find(|r| r.subleaf == Some(subleaf))
            .or_else(|| rows().find(|r| r.subleaf.is_none()))
            .map_or([0; 4], |r| r.regs);
        match (leaf, subleaf) {
            (cpuid::FEATURES, _) if self.model.cr4 & cr4::OSXSAVE != 0 => regs[2] |= cpuid::OSXSAVE,
            (cpuid::XSTATE, 0 | 1) if regs[1] != 0 => regs[1] = xcr0::area_bytes(self.fpu.xcr0),
            _ => {}
        }
        regs
    }

    /// Whether CPUID shows xsave: CR4.OSXSAVE can be set.
    pub(crate) fn has_xsave(&self) -> bool {
        self.cpuid(cpuid::FEATURES, 0)[2] & cpuid::XSAVE != 0
    }
}
