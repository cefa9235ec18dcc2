// SPDX-License-Identifier: Apache-2.0
//! What both sides load before a case and give back after it, and the address space they share.

/// Two writable, executable pages, filled with int3 around the case.
pub const CODE_VA: u64 = 0x1000_0000;
pub const CODE_PAGES: u64 = 2;
/// The data pages, of the kinds in [`PAGES`].
pub const DATA_VA: u64 = 0x2000_0000;
/// gs points here.
pub const GS_BASE: u64 = DATA_VA + 0x1080;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Page {
    None,
    Rw,
    Ro,
}

use Page::{None as N, Ro, Rw};
pub const PAGES: [Page; 12] = [N, Rw, Rw, N, Ro, Rw, Ro, N, Rw, Rw, Rw, N];

pub fn page_va(index: usize) -> u64 {
    DATA_VA + index as u64 * 4096
}

pub const CF: u64 = 1;
pub const PF: u64 = 4;
pub const AF: u64 = 0x10;
pub const ZF: u64 = 0x40;
pub const SF: u64 = 0x80;
pub const DF: u64 = 0x400;
pub const OF: u64 = 0x800;
pub const AC: u64 = 1 << 18;
pub const ARITH: u64 = CF | PF | AF | ZF | SF | OF;

/// Bytes of an fxsave image that carry state: control, x87, xmm.
pub const FX: usize = 416;

#[derive(Clone, PartialEq, Eq)]
pub struct State {
    /// rax rcx rdx rbx rsp rbp rsi rdi r8..r15
    pub regs: [u64; 16],
    pub rip: u64,
    /// 64 or 32: what the code segment is.
    pub bits: u32,
    pub rflags: u64,
    pub fx: [u8; FX],
    /// Upper halves of the ymm registers.
    pub ymm: [u128; 16],
}

impl Default for State {
    fn default() -> Self {
        let mut s = State {
            regs: [0; 16],
            rip: CODE_VA,
            bits: 64,
            rflags: 0x202,
            fx: [0; FX],
            ymm: [0; 16],
        };
        s.fx[0..2].copy_from_slice(&0x37fu16.to_le_bytes());
        s.set_mxcsr(0x1f80);
        s
    }
}

impl State {
    pub fn xmm(&self, i: usize) -> u128 {
        u128::from_le_bytes(self.fx[160 + 16 * i..176 + 16 * i].try_into().unwrap())
    }
    pub fn set_xmm(&mut self, i: usize, v: u128) {
        self.fx[160 + 16 * i..176 + 16 * i].copy_from_slice(&v.to_le_bytes());
    }
    pub fn mxcsr(&self) -> u32 {
        u32::from_le_bytes(self.fx[24..28].try_into().unwrap())
    }
    pub fn set_mxcsr(&mut self, v: u32) {
        self.fx[24..28].copy_from_slice(&v.to_le_bytes());
    }
}

/// How a case ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum End {
    /// Ran into an int3; rip is after it.
    Breakpoint,
    Fault {
        vector: u8,
        code: Option<u32>,
        cr2: u64,
    },
    /// The interpreter stopped in a way that has no native counterpart.
    Other(String),
}
