// SPDX-License-Identifier: Apache-2.0
//! What Intel's processors do instead, where makers choose and the engine does what AMD's do.

use crate::generate::Case;
use crate::native::Native;
use crate::state::*;
use crate::tables::{gpr, RCX, RDI, RSI};
use crate::vendor::host_is_amd;
use iced_x86::{Instruction, Mnemonic, OpKind, Register};

/// A segment that is not flat, which a case loads before it uses it.
#[derive(Clone, Copy)]
pub struct Segment {
    pub register: Register,
    pub base: u32,
    /// The offsets that are inside.
    pub first: u32,
    pub last: u32,
}

/// How a case ended here.
struct Ended<'a> {
    case: &'a Case,
    host: &'a Native,
    end: &'a End,
    guest_end: &'a End,
    guest: &'a State,
}

/// What the host did, as an AMD processor would have done it. Where the host is not AMD's and did exactly what its maker
/// does instead, its end and state are replaced by AMD's, and are then compared like all others. The first three choose
/// between exceptions of one instruction: Intel SDM volume 3, "Priority among simultaneous exceptions and interrupts", has
/// these exceptions in one class, inside of which the order depends on the implementation.
///
/// - `bound` with an index below the lower bound raises #BR without a look at the upper bound, which cannot be read.
/// - An x87 store with an unmasked exception other than #P only raises it, without a look at an operand that cannot be
///   written.
/// - `stos` to an address that is not canonical and not aligned raises #GP before #AC.
/// - `rep movs` with 32-bit addresses clears the upper halves of rsi and rdi even if no iteration is completed (not in
///   the manual; KVM's instruction emulator has it for a count of zero, `string_registers_quirk`).
/// - `dpps` and `dppd` have any of the NaNs among their products in any element (Intel SDM volume 2, DPPS: horizontal
///   propagation of NaNs and their positions depend on the implementation).
pub fn as_amd(
    case: &Case,
    host: &Native,
    end: End,
    native: &mut State,
    guest_end: &End,
    guest: &State,
) -> End {
    if host_is_amd() {
        return end;
    }
    let ended = Ended {
        case,
        host,
        end: &end,
        guest_end,
        guest,
    };
    let at_guest = case.insns.iter().find(|i| i.ip() == guest.rip);
    if let Some(i) = at_guest {
        if ended.bound_not_read(i, native) || ended.stos_not_canonical(i, native) {
            return guest_end.clone();
        }
        if ended.store_not_tried(i, native) {
            *native = case.state.clone();
            native.rip = case.start;
            return guest_end.clone();
        }
    }
    if let [i] = &case.insns[..] {
        ended.movs_pointers(i, native);
        ended.dot_nans(i, native);
    }
    end
}

impl Ended<'_> {
    /// The guest faulted because of an operand in memory, with one of these.
    fn guest_faulted(&self, vectors: &[u8]) -> bool {
        matches!(self.guest_end, End::Fault { vector, .. } if vectors.contains(vector))
    }

    /// Bytes at `va`, if they are there.
    fn memory(&self, va: u64, n: usize) -> Option<Vec<u8>> {
        let byte = |va: u64| {
            let mapped = (0..PAGES.len()).any(|k| page_va(k) == va & !0xfff && PAGES[k] != Page::None);
            mapped.then(|| self.host.page(va & !0xfff)[(va & 0xfff) as usize])
        };
        (0..n as u64).map(|k| byte(va.wrapping_add(k))).collect()
    }

    fn bound_not_read(&self, i: &Instruction, native: &State) -> bool {
        let raised = matches!(self.end, End::Fault { vector: 5, .. });
        let (true, Mnemonic::Bound, true) = (raised, i.mnemonic(), native.rip == self.guest.rip) else {
            return false;
        };
        let size = i.op0_register().size();
        let segment = self.case.segment.filter(|s| s.register == i.memory_segment());
        let Some(offset) = i.virtual_address(1, 0, |r, _, _| match gpr(r) {
            // Of 32-bit code: the segment is added below.
            None => Some(0),
            Some(n) if r.size() == 2 => Some(native.regs[n] & 0xffff),
            Some(n) => Some(native.regs[n]),
        }) else {
            return false;
        };
        let (offset, base) = (offset as u32, segment.map_or(0, |s| s.base));
        let lower = self.memory(u64::from(offset.wrapping_add(base)), size);
        let upper = offset.wrapping_add(size as u32);
        let (first, last) = segment.map_or((0, u32::MAX), |s| (s.first, s.last));
        let inside = |at: u32| at >= first && at <= last && last - at >= size as u32 - 1;
        let unreadable = match *self.guest_end {
            End::Fault { vector: 14, cr2, .. } => {
                let end = u64::from(upper.wrapping_add(base)) + size as u64;
                inside(upper) && (end - size as u64..end).contains(&cr2)
            }
            End::Fault { vector: 12 | 13, .. } => !inside(upper),
            _ => false,
        };
        let signed = |v: u32| if size == 2 { i32::from(v as i16) } else { v as i32 };
        let n = gpr(i.op0_register()).unwrap_or(0);
        let below = lower.is_some_and(|b| {
            let mut word = [0; 4];
            word[..size].copy_from_slice(&b);
            signed(native.regs[n] as u32) < signed(u32::from_le_bytes(word))
        });
        inside(offset) && unreadable && below
    }

    fn stos_not_canonical(&self, i: &Instruction, native: &State) -> bool {
        use Mnemonic::*;
        if !matches!(i.mnemonic(), Stosb | Stosw | Stosd | Stosq) || i.op0_kind() != OpKind::MemoryESRDI {
            return false;
        }
        let raised = matches!(
            self.end,
            End::Fault {
                vector: 13,
                code: Some(0),
                ..
            }
        );
        let va = native.regs[RDI];
        let canonical = (va as i64) << 16 >> 16 == va as i64;
        let aligned = va & (i.memory_size().size() as u64 - 1) == 0;
        raised && self.guest_faulted(&[17]) && native.rflags & AC != 0 && !canonical && !aligned
    }

    fn store_not_tried(&self, i: &Instruction, native: &State) -> bool {
        use Mnemonic::*;
        const SUMMARY: u16 = 0x80;
        let was = &self.case.state;
        let word = |s: &State, at: usize| u16::from_le_bytes([s.fx[at], s.fx[at + 1]]);
        let (before, after) = (word(was, 2), word(native, 2));
        // All but #P, after which the rounded value is stored.
        let unmasked = after & !word(native, 0) & 0x1f != 0;
        let raised = unmasked && before & SUMMARY == 0 && after & SUMMARY != 0;
        // Flags of exceptions, the stack fault, C1, summary and busy may be new; nothing is popped.
        let same = (before ^ after) & !0x82ff == 0
            && native.fx[4] == was.fx[4]
            && native.fx[24..28] == was.fx[24..28]
            && native.fx[32..] == was.fx[32..]
            && native.regs == was.regs
            && (native.rflags ^ was.rflags) & (ARITH | DF) == 0;
        matches!(i.mnemonic(), Fst | Fstp | Fist | Fistp | Fisttp | Fbstp)
            && i.op0_kind() == OpKind::Memory
            && self.case.insns.len() == 1
            && (*self.end == End::Breakpoint && native.rip == i.next_ip() + 1 || native.rip == i.next_ip())
            && self.guest_faulted(&[12, 13, 14, 17])
            && raised
            && same
    }

    fn movs_pointers(&self, i: &Instruction, native: &mut State) {
        use Mnemonic::*;
        let narrow = i.op0_kind() == OpKind::MemoryESEDI && self.case.state.bits == 64;
        let none_completed = native.regs[RCX] == self.case.state.regs[RCX];
        if !narrow
            || !matches!(i.mnemonic(), Movsb | Movsw | Movsd | Movsq)
            || !(i.has_rep_prefix() || i.has_repne_prefix())
            || !none_completed
        {
            return;
        }
        for r in [RSI, RDI] {
            let was = self.case.state.regs[r];
            if native.regs[r] == was & 0xffff_ffff {
                native.regs[r] = was;
            }
        }
    }

    fn dot_nans(&self, i: &Instruction, native: &mut State) {
        use Mnemonic::*;
        let double = matches!(i.mnemonic(), Dppd | Vdppd);
        // Completed: rip is that of the next instruction, or of what follows its int3.
        if !double && !matches!(i.mnemonic(), Dpps | Vdpps) || native.rip == i.ip() {
            return;
        }
        let state = &self.case.state;
        let halves = |r: Register| {
            let n = (r as usize - Register::XMM0 as usize) & 15;
            [state.xmm(n), state.ymm[n]]
        };
        let to = (i.op0_register() as usize - Register::XMM0 as usize) & 15;
        let second = i.op_count() - 2;
        let a = halves(i.op_register(second - 1));
        let b = if i.op_kind(second) == OpKind::Register {
            Some(halves(i.op_register(second)))
        } else {
            i.virtual_address(second, 0, |r, _, _| crate::oracle::register(state, r))
                .and_then(|va| self.memory(va, i.memory_size().size()))
                .map(|mut b| {
                    b.resize(32, 0);
                    [0, 16].map(|at| u128::from_le_bytes(b[at..at + 16].try_into().expect("sixteen bytes")))
                })
        };
        let Some(b) = b else { return };
        let settle = |mut host: u128, guest: u128, a: u128, b: u128| {
            let nans = if double {
                product_nans::<64>(a, b, i.immediate8(), state.mxcsr())
            } else {
                product_nans::<32>(a, b, i.immediate8(), state.mxcsr())
            };
            let bits = if double { 64 } else { 32 };
            for k in 0..128 / bits {
                let mask = (u128::MAX >> (128 - bits)) << (k * bits);
                let lane = |v: u128| ((v & mask) >> (k * bits)) as u64;
                if nans.contains(&lane(host)) && nans.contains(&lane(guest)) {
                    host = host & !mask | guest & mask;
                }
            }
            host
        };
        native.set_xmm(to, settle(native.xmm(to), self.guest.xmm(to), a[0], b[0]));
        native.ymm[to] = settle(native.ymm[to], self.guest.ymm[to], a[1], b[1]);
    }
}

/// The NaNs among the chosen products of `dpps` (32) and `dppd` (64), quiet: the first operand's, else the second's,
/// else that of an invalid operation; and the one that infinities of both signs add up to.
fn product_nans<const BITS: u32>(a: u128, b: u128, imm: u8, mxcsr: u32) -> Vec<u64> {
    let (exponent, quiet, default) = match BITS {
        32 => (0x7f80_0000u64, 1 << 22, 0xffc0_0000),
        _ => (0x7ff0_0000_0000_0000, 1 << 51, 0xfff8_0000_0000_0000),
    };
    let sign = 1u64 << (BITS - 1);
    let zeroes = mxcsr & 0x40 != 0;
    let lane = |v: u128, k: u32| (v >> (k * BITS)) as u64 & (sign | (sign - 1));
    let nan = |v: u64| v & (sign - 1) > exponent;
    // Denormal operands are zeros, if so asked.
    let operand = |v: u64| if zeroes && v & exponent == 0 { v & sign } else { v };
    let product = |x: u64, y: u64| match BITS {
        32 => {
            let p = f32::from_bits(operand(x) as u32) * f32::from_bits(operand(y) as u32);
            (p.is_nan(), p.is_infinite(), p.is_sign_negative())
        }
        _ => {
            let p = f64::from_bits(operand(x)) * f64::from_bits(operand(y));
            (p.is_nan(), p.is_infinite(), p.is_sign_negative())
        }
    };
    let (mut out, mut infinite) = (Vec::new(), [false; 2]);
    for k in (0..128 / BITS).filter(|k| imm >> (4 + k) & 1 != 0) {
        let (x, y) = (lane(a, k), lane(b, k));
        let (is_nan, is_infinite, negative) = product(x, y);
        match (nan(x), nan(y)) {
            (true, _) => out.push(x | quiet),
            (_, true) => out.push(y | quiet),
            _ if is_nan => out.push(default),
            _ if is_infinite => infinite[usize::from(negative)] = true,
            _ => {}
        }
    }
    if infinite == [true, true] {
        out.push(default);
    }
    out
}

/// `rep movs` with 32-bit addresses as the first of several instructions: what it leaves in the upper halves of its
/// pointers ([`as_amd`]) would be seen by the others, so they are clear from the start.
pub fn settle(case: &mut Case) {
    use Mnemonic::*;
    let first = &case.insns[0];
    let movs = matches!(first.mnemonic(), Movsb | Movsw | Movsd | Movsq);
    if !host_is_amd() && movs && first.op0_kind() == OpKind::MemoryESEDI {
        for r in [RSI, RDI] {
            case.state.regs[r] &= 0xffff_ffff;
        }
    }
}
