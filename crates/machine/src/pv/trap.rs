//! What the PV rules make of each thing that stops the engine.

use super::{CallbackKind, Entry, Vcpu};
use crate::cpu::fault::{vector, Fault, PrivInsn, Trap};
use crate::exit::Exit;

/// `ud2a; .ascii "xen"`: the instruction after it is emulated for the guest kernel and its applications.
const EMULATE_PREFIX: [u8; 5] = [0x0f, 0x0b, b'x', b'e', b'n'];
const CPUID: [u8; 2] = [0x0f, 0xa2];
/// The vector of hypercalls in 32-bit guests: open to ring 1.
const HYPERCALL_VECTOR: u8 = 0x82;
/// DR6.BS: the #DB is a single step.
const DR6_BS: u64 = 1 << 14;

impl Vcpu {
    /// `None` when the guest goes on.
    pub(super) fn handle_trap(&mut self, trap: Trap) -> Option<Exit> {
        match trap {
            Trap::EndBlock => None,
            Trap::Syscall if self.guest_kernel() && !self.is_32bit() => self.hypercall(),
            Trap::Syscall => {
                let kind = if self.cpu.is_32bit_code() {
                    CallbackKind::Syscall32
                } else {
                    CallbackKind::Syscall
                };
                let cb = self.callback(kind);
                self.bounced(cb.entry(), cb.mask_events, "system call")
            }
            Trap::Sysenter => self.fault(Fault::gp()),
            Trap::Fault(f) if f.vector == vector::UD && self.forced_emulation() => None,
            Trap::Fault(f) => {
                if f.vector == vector::DB {
                    self.debug_regs[6] |= DR6_BS;
                }
                self.fault(f)
            }
            Trap::SoftInt { vector, len } => self.soft_int(vector, len),
            Trap::Priv { insn, len } => self.privileged(insn, len),
            Trap::Unsupported(why) => Some(Exit::Unsupported(why)),
        }
    }

    /// Delivers `f`, or ends in the exit that crashes the domain.
    pub(super) fn fault(&mut self, f: Fault) -> Option<Exit> {
        match self.deliver(f) {
            Ok(()) => None,
            Err(reason) => Some(Exit::Fault {
                vector: f.vector,
                error_code: f.error_code,
                cr2: f.cr2,
                reason,
            }),
        }
    }

    fn bounced(&mut self, to: Entry, mask: bool, what: &'static str) -> Option<Exit> {
        match self.bounce(to, None, mask) {
            Ok(()) => None,
            Err(reason) => {
                let reason = if reason.is_empty() { what } else { reason };
                Some(Exit::Fault {
                    vector: vector::DF,
                    error_code: None,
                    cr2: 0,
                    reason,
                })
            }
        }
    }

    fn forced_emulation(&mut self) -> bool {
        let mut bytes = [0u8; 7];
        if self.cpu.read_bytes(self.cpu.rip, &mut bytes).is_err() || bytes[..5] != EMULATE_PREFIX {
            return false;
        }
        if bytes[5..] != CPUID {
            return false;
        }
        self.cpu.rip = self.cpu.rip.wrapping_add(7);
        let r = self.cpu.cpuid(self.cpu.regs[0] as u32, self.cpu.regs[1] as u32);
        for (reg, value) in [0, 3, 1, 2].into_iter().zip(r) {
            self.cpu.regs[reg] = u64::from(value);
        }
        true
    }

    /// `int n`: #BP and #OF have gates of their own that applications may use; for the rest the guest's DPL decides.
    fn soft_int(&mut self, v: u8, len: u8) -> Option<Exit> {
        if v == vector::DB && len == 1 {
            // icebp is an exception, not an interrupt: the gate's DPL does not count.
            return self.fault(Fault::new(vector::DB));
        }
        if v == HYPERCALL_VECTOR && self.is_32bit() && self.guest_kernel() {
            return self.hypercall();
        }
        let gate = self.traps[usize::from(v)];
        if v != vector::BP && v != vector::OF && gate.dpl() < self.guest_cpl() {
            self.cpu.rip = self.cpu.rip.wrapping_sub(u64::from(len));
            return self.fault(Fault::with_code(vector::GP, u32::from(v) << 3 | 2));
        }
        if self.is_null(gate.entry()) {
            self.cpu.rip = self.cpu.rip.wrapping_sub(u64::from(len));
            return self.fault(Fault::with_code(vector::GP, u32::from(v) << 3 | 2));
        }
        self.bounced(gate.entry(), gate.masks_events(), "software interrupt")
    }

    /// Whether an I/O instruction that the guest may execute on this port is answered without the layer above, which
    /// has only the PCI configuration ports to look after.
    fn answers_io(&self, port: u16) -> bool {
        self.fast_hypercalls && self.iopl >= self.guest_cpl() && !(0xcf8..0xd00).contains(&port)
    }

    fn privileged(&mut self, insn: PrivInsn, len: u8) -> Option<Exit> {
        let io = matches!(
            insn,
            PrivInsn::In { .. } | PrivInsn::Out { .. } | PrivInsn::StringIo
        );
        match insn {
            // Xen emulates both as nothing, for a guest whose virtual IOPL allows them: the event mask is in vcpu_info.
            PrivInsn::Cli | PrivInsn::Sti if self.iopl >= self.guest_cpl() => {
                self.cpu.rip = self.cpu.rip.wrapping_add(u64::from(len));
                None
            }
            // No port belongs to a guest. Linux reads one 100,000 times when it looks for a timer, so this is answered here.
            PrivInsn::In { port, size } if self.answers_io(port) => {
                let mask = u64::MAX >> (64 - 8 * u32::from(size.clamp(1, 4)));
                let kept = if size < 4 { self.cpu.regs[0] & !mask } else { 0 };
                self.cpu.regs[0] = kept | mask;
                self.cpu.rip = self.cpu.rip.wrapping_add(u64::from(len));
                None
            }
            PrivInsn::Out { port, .. } if self.answers_io(port) => {
                self.cpu.rip = self.cpu.rip.wrapping_add(u64::from(len));
                None
            }
            _ if self.guest_kernel() || (io && self.iopl >= self.guest_cpl()) => {
                Some(Exit::Privileged { insn, len })
            }
            _ => self.fault(Fault::gp()),
        }
    }
}
