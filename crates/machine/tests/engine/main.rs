// SPDX-License-Identifier: Apache-2.0
//! The CPU engine against the host's own CPU, and against hostile bytes.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod cases;
mod engines;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod far;
mod faults;
mod fuzz;
mod fuzz_pv;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod generate;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod guest;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod intel;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod native;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod operands;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod oracle;
mod parallel;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod report;
mod rng;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod segments;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod smc;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod state;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod streams;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod tables;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod vendor;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod x87;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod xsave;

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
#[test]
#[ignore = "the native oracle needs an x86-64 Linux host"]
fn each_instruction_form_does_what_the_hosts_cpu_does() {}
