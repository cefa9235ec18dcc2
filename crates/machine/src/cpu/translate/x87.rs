// SPDX-License-Identifier: Apache-2.0
//! x87 instructions that the host does as they are, on its own x87 registers, and how these change hands.
//!
//! The guest's state is loaded when a block that needs it begins, and stays with the host while translated code runs: also through
//! callouts that do not touch it, as nothing that is compiled here uses x87. It is saved before any other handler, and before the
//! run loop or the layer above goes on. All six exceptions are masked while it is loaded, so that the host never raises #MF.
// Registers are moved by hand.
#![allow(unsafe_code)]

use super::asm::{at, frame, S0, S1, S2};
use super::callout::Kind;
use super::emit::{wanted, Emitter};
use super::flat;
use super::select::{self, How};
use super::Handled;
use crate::cpu::region::Frame;
use crate::cpu::x87state::{sw, F80, X87};
use crate::cpu::Cpu;
use iced_x86::{Code, Instruction, OpKind};
use std::arch::naked_asm;

/// The bits of a control word that mask exceptions.
const MASKS: u16 = 0x3f;
/// Those that choose precision and rounding, and the one for the infinities of the 287.
pub(super) const ROUNDING: u64 = 0x1f00;
/// What a control word has besides: all exceptions masked, and the bit that is always set.
pub(super) const MASKED: i64 = 0x7f;

/// Whether the host does it as it is. What is approximated or differs between makers of processors is left to handlers, and so
/// is what saves or loads the state, which tells where the last instruction was.
pub(super) fn is_native(i: &Instruction) -> bool {
    let in_place = (0..i.op_count()).all(|n| i.op_kind(n) != OpKind::Memory || select::plain_memory(i));
    in_place
        && (is_move(i.code()) || is_arithmetic(i.code()) || is_comparison(i.code()) || is_control(i.code()))
}

fn is_move(code: Code) -> bool {
    use Code::*;
    matches!(
        code,
        Fld_m32fp
            | Fld_m64fp
            | Fld_m80fp
            | Fild_m16int
            | Fild_m32int
            | Fild_m64int
            | Fld_sti
            | Fld1
            | Fldz
            | Fldl2t
            | Fldl2e
            | Fldpi
            | Fldlg2
            | Fldln2
            | Fst_m32fp
            | Fstp_m32fp
            | Fst_m64fp
            | Fstp_m64fp
            | Fstp_m80fp
            | Fist_m16int
            | Fistp_m16int
            | Fisttp_m16int
            | Fist_m32int
            | Fistp_m32int
            | Fisttp_m32int
            | Fistp_m64int
            | Fisttp_m64int
            | Fst_sti
            | Fstp_sti
            | Fxch_st0_sti
            | Fcmovb_st0_sti
            | Fcmovnb_st0_sti
            | Fcmove_st0_sti
            | Fcmovne_st0_sti
            | Fcmovbe_st0_sti
            | Fcmovnbe_st0_sti
            | Fcmovu_st0_sti
            | Fcmovnu_st0_sti
    )
}

fn is_arithmetic(code: Code) -> bool {
    use Code::*;
    matches!(
        code,
        Fadd_m32fp
            | Fmul_m32fp
            | Fsub_m32fp
            | Fsubr_m32fp
            | Fdiv_m32fp
            | Fdivr_m32fp
            | Fadd_m64fp
            | Fmul_m64fp
            | Fsub_m64fp
            | Fsubr_m64fp
            | Fdiv_m64fp
            | Fdivr_m64fp
            | Fiadd_m32int
            | Fimul_m32int
            | Fisub_m32int
            | Fisubr_m32int
            | Fidiv_m32int
            | Fidivr_m32int
            | Fiadd_m16int
            | Fimul_m16int
            | Fisub_m16int
            | Fisubr_m16int
            | Fidiv_m16int
            | Fidivr_m16int
            | Fadd_st0_sti
            | Fmul_st0_sti
            | Fsub_st0_sti
            | Fsubr_st0_sti
            | Fdiv_st0_sti
            | Fdivr_st0_sti
            | Fadd_sti_st0
            | Fmul_sti_st0
            | Fsub_sti_st0
            | Fsubr_sti_st0
            | Fdiv_sti_st0
            | Fdivr_sti_st0
            | Faddp_sti_st0
            | Fmulp_sti_st0
            | Fsubp_sti_st0
            | Fsubrp_sti_st0
            | Fdivp_sti_st0
            | Fdivrp_sti_st0
            | Fsqrt
            | Fprem
            | Fprem1
            | Frndint
            | Fscale
            | Fxtract
            | Fchs
            | Fabs
    )
}

fn is_comparison(code: Code) -> bool {
    use Code::*;
    matches!(
        code,
        Fcom_m32fp
            | Fcomp_m32fp
            | Fcom_m64fp
            | Fcomp_m64fp
            | Ficom_m16int
            | Ficomp_m16int
            | Ficom_m32int
            | Ficomp_m32int
            | Fcom_st0_sti
            | Fcomp_st0_sti
            | Fucom_st0_sti
            | Fucomp_st0_sti
            | Fcompp
            | Fucompp
            | Ftst
            | Fxam
            | Fcomi_st0_sti
            | Fcomip_st0_sti
            | Fucomi_st0_sti
            | Fucomip_st0_sti
    )
}

fn is_control(code: Code) -> bool {
    use Code::*;
    matches!(
        code,
        Fnstcw_m2byte
            | Fldcw_m2byte
            | Fnstsw_m2byte
            | Fnstsw_AX
            | Wait
            | Fnclex
            | Fnop
            | Fincstp
            | Fdecstp
            | Ffree_sti
            | Ffreep_sti
    )
}

/// Whether makers of processors differ in what becomes of the condition codes.
pub(super) fn opens_codes(i: &Instruction) -> bool {
    use iced_x86::Mnemonic as M;
    matches!(
        i.mnemonic(),
        M::Fcmovb
            | M::Fcmovnb
            | M::Fcmove
            | M::Fcmovne
            | M::Fcmovbe
            | M::Fcmovnbe
            | M::Fcmovu
            | M::Fcmovnu
            | M::Fcomi
            | M::Fcomip
            | M::Fucomi
            | M::Fucomip
            | M::Fprem
            | M::Fprem1
            | M::Ffree
            | M::Ffreep
            | M::Fxtract
    )
}

/// Whether its handler leaves the x87 state alone: that of an instruction which has one only for operands that are out of the ordinary.
pub(super) fn is_left_alone(handled: &Handled) -> bool {
    match handled {
        Handled::Repeat(_) => true,
        Handled::Slow(i, _) => {
            let how = select::hows(std::slice::from_ref(i), flat::mode_of(i), false);
            !matches!(how.first(), None | Some(How::Handler | How::X87))
        }
    }
}

impl Emitter<'_> {
    /// At the entry of a block that needs the x87 registers: they must be the guest's.
    pub(super) fn look_at_x87(&mut self) {
        self.look_at(frame!(x87_away), Kind::X87);
    }

    pub(super) fn x87(&mut self, i: &Instruction) -> Option<()> {
        match i.code() {
            // No exception that is not masked is pending.
            Code::Wait => Some(()),
            Code::Fldcw_m2byte => self.load_control(i),
            _ => self.same(i, How::X87),
        }
    }

    /// A control word that masks all exceptions, taken from memory once; another one is left to the handler.
    fn load_control(&mut self, i: &Instruction) -> Option<()> {
        let slow = self.asm.label();
        let ea = self.address(i);
        let operand = self.check(ea, wanted(i, 0, How::X87)?);
        self.asm.load16(S2, operand);
        self.asm.constant(S0, MASKS.into());
        self.asm.pext_register(S0, S2, S0);
        self.asm.lea(S0, at(S0, -i64::from(MASKS)));
        self.asm.jmp_unless_zero(slow);
        // What is loaded has the masks whatever was found.
        self.asm.rorx(S2, S2, 8);
        self.asm.constant(S1, ROUNDING);
        self.asm.pdep_register(S2, S2, S1);
        self.asm.lea(S2, at(S2, MASKED));
        self.asm.store(frame!(control), S2);
        self.asm.load_control(frame!(control));
        self.handler_stub(i, slow, false)
    }
}

/// What `fxsave64` writes.
#[repr(C, align(16))]
struct Saved {
    control: u16,
    status: u16,
    tags: u8,
    /// Where the host's last instruction was: nobody's business.
    unused: [u8; 27],
    /// ST(0) to ST(7).
    regs: [u128; 8],
    vectors: [u8; 352],
}

const _: () = assert!(size_of::<Saved>() == 512);

/// What `frstor` reads.
#[repr(C, packed)]
struct Restored {
    /// Control word, status word, tag word, and where the last instruction was.
    words: [u32; 7],
    regs: [[u8; 10]; 8],
}

const _: () = assert!(size_of::<Restored>() == 108);

/// Takes the x87 state from the host, whose own is what calls expect afterwards: empty, with the control word of `fninit`.
#[unsafe(naked)]
unsafe extern "C" fn save(_to: *mut Saved) {
    naked_asm!("fxsave64 [rdi]", "fninit", "ret")
}

/// Gives the host an x87 state.
#[unsafe(naked)]
unsafe extern "C" fn load(_from: *const Restored) {
    naked_asm!("frstor [rdi]", "ret")
}

impl Cpu {
    /// Whether x87 instructions can be the host's: none of them raises an exception, nor is one pending.
    fn x87_allowed(&self) -> bool {
        let x87 = &self.fpu.x87;
        !self.fpu.ts && x87.control & MASKS == MASKS && x87.status & (sw::ES | sw::BUSY) == 0
    }

    /// Loads the guest's x87 state into the host's registers, unless it is there; false if it must not be.
    pub(super) fn lend_x87(&mut self, f: &mut Frame) -> bool {
        if f.x87_away == 0 {
            return true;
        }
        if !self.x87_allowed() {
            return false;
        }
        let from = restored(&self.fpu.x87);
        // SAFETY: an image whose exceptions are all masked, and none pending. Nothing that is compiled uses x87 until it is saved.
        unsafe { load(&from) };
        f.x87_away = 0;
        true
    }

    /// Brings it back to the CPU, if it is not there.
    pub(super) fn fetch_x87(&mut self, f: &mut Frame) {
        if f.x87_away != 0 {
            return;
        }
        let mut to = Saved {
            control: 0,
            status: 0,
            tags: 0,
            unused: [0; 27],
            regs: [0; 8],
            vectors: [0; 352],
        };
        // SAFETY: the area is as large and as aligned as the instruction asks for.
        unsafe { save(&mut to) };
        f.x87_away = 1;
        let x87 = &mut self.fpu.x87;
        x87.set_control(to.control);
        x87.set_status_word(to.status);
        x87.tags = to.tags;
        for (n, v) in to.regs.into_iter().enumerate() {
            x87.regs[(usize::from(x87.top) + n) & 7] = F80 {
                m: v as u64,
                se: (v >> 64) as u16,
            };
        }
    }
}

fn restored(x87: &X87) -> Restored {
    // What is in a register that is not empty the processor finds out itself.
    let tags = (0..8).fold(0, |word, n| {
        word | if x87.tags >> n & 1 == 0 { 3 << (2 * n) } else { 0 }
    });
    let mut image = Restored {
        words: [x87.control.into(), x87.status_word().into(), tags, 0, 0, 0, 0],
        regs: [[0; 10]; 8],
    };
    for n in 0..8 {
        let v = x87.regs[(usize::from(x87.top) + n) & 7];
        let [m0, m1, m2, m3, m4, m5, m6, m7] = v.m.to_le_bytes();
        let [s0, s1] = v.se.to_le_bytes();
        image.regs[n] = [m0, m1, m2, m3, m4, m5, m6, m7, s0, s1];
    }
    image
}
