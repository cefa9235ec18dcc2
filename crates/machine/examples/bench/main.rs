// SPDX-License-Identifier: Apache-2.0
//! Speed of the CPU engines in millions of instructions per second, beside the host's own CPU on the same code.
//!
//! `cargo run --release -p domzero-machine --example bench [-- [--json] [--seconds S] [NAME...]]`
// The kernels run on the host too.
#![allow(unsafe_code)]

mod pv;
mod x87;

use domzero_machine::abi::selector::{FLAT_KERNEL_SS, FLAT_RING3_CS32};
use domzero_machine::testing::{pte, TestVm, STACK_TOP};
use domzero_machine::{Stop, TranslatorOptions};
use iced_x86::code_asm::*;
use std::time::{Duration, Instant};

/// Where the code goes, here and natively.
const CODE: u64 = 0x1000_0000;
const CODE_PAGES: u64 = 512;
const DATA: u64 = 0x2000_0000;
const DATA_PAGES: u64 = 1024;
/// What the guest returns to: an int3.
const END: u64 = CODE + CODE_PAGES * 4096 - 16;

type Result<T> = std::result::Result<T, IcedError>;

/// A function of the number of iterations (rdi) that uses rax, rcx, rdx, rsi, r8..r11, xmm0..7 and [`DATA`].
struct Kernel {
    name: &'static str,
    bits: u32,
    what: &'static str,
    code: fn() -> Result<Vec<u8>>,
    data: fn() -> Vec<u8>,
}

fn assemble(body: impl FnOnce(&mut CodeAssembler) -> Result<()>) -> Result<Vec<u8>> {
    let mut a = CodeAssembler::new(64)?;
    body(&mut a)?;
    a.assemble(CODE)
}

fn call_loop() -> Result<Vec<u8>> {
    assemble(|a| {
        let (mut top, mut callee) = (a.create_label(), a.create_label());
        a.mov(rsi, DATA)?;
        a.set_label(&mut top)?;
        a.call(callee)?;
        a.add(rcx, rax)?;
        a.sub(rdi, 1)?;
        a.jne(top)?;
        a.ret()?;
        a.set_label(&mut callee)?;
        a.mov(rax, qword_ptr(rsi))?;
        a.add(rax, 1)?;
        a.mov(qword_ptr(rsi), rax)?;
        a.ret()
    })
}

fn straight() -> Result<Vec<u8>> {
    assemble(|a| {
        let mut top = a.create_label();
        a.set_label(&mut top)?;
        for i in 0..6 {
            a.lea(rax, qword_ptr(rcx + rdx * 4 + 8))?;
            a.add(rcx, rax)?;
            a.xor(edx, eax)?;
            a.shl(r8, 3)?;
            a.and(r8, 0xfff0)?;
            a.mov(r9, rcx)?;
            a.sub(r9, r8)?;
            a.movzx(r10d, al)?;
            a.or(r10, i + 1)?;
        }
        a.sub(rdi, 1)?;
        a.jne(top)?;
        a.ret()
    })
}

fn chase() -> Result<Vec<u8>> {
    assemble(|a| {
        let mut top = a.create_label();
        a.mov(rax, DATA)?;
        a.set_label(&mut top)?;
        for _ in 0..8 {
            a.mov(rax, qword_ptr(rax))?;
        }
        a.sub(rdi, 1)?;
        a.jne(top)?;
        a.ret()
    })
}

/// A cycle through `nodes` words, `stride` bytes apart, in an order that no prefetcher guesses.
fn cycle(nodes: u64, stride: u64) -> Vec<u8> {
    let order = shuffled(nodes);
    let mut data = vec![0; (nodes * stride) as usize];
    let at = |n: u64| DATA + n * stride;
    // The cycle passes through node 0, where the walk begins.
    for (i, &n) in order.iter().enumerate() {
        let next = order[(i + 1) % order.len()];
        data[(n * stride) as usize..][..8].copy_from_slice(&at(next).to_le_bytes());
    }
    data
}

fn shuffled(n: u64) -> Vec<u64> {
    let mut order: Vec<u64> = (0..n).collect();
    let mut seed = 0x2545_f491_4f6c_dd1du64;
    for i in (1..order.len()).rev() {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        order.swap(i, (seed % (i as u64 + 1)) as usize);
    }
    order
}

/// Blocks as kernels have them, each followed by another one far away.
fn spread(blocks: usize) -> Result<Vec<u8>> {
    assemble(|a| {
        let mut labels: Vec<_> = (0..=blocks).map(|_| a.create_label()).collect();
        let mut top = a.create_label();
        a.mov(rsi, DATA)?;
        a.set_label(&mut top)?;
        a.jmp(labels[0])?;
        for n in shuffled(blocks as u64) {
            let (n, d) = (n as usize, (n % 500) as i32 * 8);
            a.set_label(&mut labels[n])?;
            a.mov(rax, qword_ptr(rsi + d))?;
            a.add(rax, n as i32)?;
            a.test(eax, 1 << (n % 13))?;
            a.cmovne(rcx, rax)?;
            a.mov(qword_ptr(rsi + d), rax)?;
            a.cmp(rcx, n as i32)?;
            a.je(labels[n + 1])?;
            a.jmp(labels[n + 1])?;
        }
        a.set_label(&mut labels[blocks])?;
        a.sub(rdi, 1)?;
        a.jne(top)?;
        a.ret()
    })
}

fn copy() -> Result<Vec<u8>> {
    assemble(|a| {
        let mut top = a.create_label();
        a.mov(r8, rdi)?;
        a.set_label(&mut top)?;
        a.mov(rsi, DATA)?;
        a.mov(rdi, DATA + 0x4000)?;
        a.mov(ecx, 256)?;
        a.rep().movsb()?;
        a.sub(r8, 1)?;
        a.jne(top)?;
        a.ret()
    })
}

fn doubles() -> Result<Vec<u8>> {
    assemble(|a| {
        let mut top = a.create_label();
        a.mov(rsi, DATA)?;
        a.mov(eax, 3)?;
        a.cvtsi2sd(xmm0, eax)?;
        a.cvtsi2sd(xmm1, eax)?;
        a.set_label(&mut top)?;
        for i in 0..4 {
            a.movsd_2(xmm2, qword_ptr(rsi + i * 8))?;
            a.mulsd(xmm2, xmm0)?;
            a.addsd(xmm2, xmm1)?;
            a.movsd_2(qword_ptr(rsi + 64 + i * 8), xmm2)?;
        }
        a.sub(rdi, 1)?;
        a.jne(top)?;
        a.ret()
    })
}

fn bytes() -> Result<Vec<u8>> {
    assemble(|a| {
        let (mut top, mut other, mut next) = (a.create_label(), a.create_label(), a.create_label());
        a.mov(rsi, DATA)?;
        a.xor(ecx, ecx)?;
        a.set_label(&mut top)?;
        a.movzx(eax, byte_ptr(rsi + rcx))?;
        a.cmp(al, 0x60)?;
        a.ja(other)?;
        a.add(r8d, eax)?;
        a.jmp(next)?;
        a.set_label(&mut other)?;
        a.shl(eax, 2)?;
        a.xor(r8d, eax)?;
        a.set_label(&mut next)?;
        a.inc(ecx)?;
        a.and(ecx, 0xfff)?;
        a.dec(rdi)?;
        a.jne(top)?;
        a.ret()
    })
}

fn assemble_32(body: impl FnOnce(&mut CodeAssembler) -> Result<()>) -> Result<Vec<u8>> {
    let mut a = CodeAssembler::new(32)?;
    body(&mut a)?;
    a.assemble(CODE)
}

fn call_loop_32() -> Result<Vec<u8>> {
    assemble_32(|a| {
        let (mut top, mut callee) = (a.create_label(), a.create_label());
        a.mov(esi, DATA as u32)?;
        a.set_label(&mut top)?;
        a.call(callee)?;
        a.add(ecx, eax)?;
        a.sub(edi, 1)?;
        a.jne(top)?;
        a.ret()?;
        a.set_label(&mut callee)?;
        a.mov(eax, dword_ptr(esi))?;
        a.add(eax, 1)?;
        a.mov(dword_ptr(esi), eax)?;
        a.ret()
    })
}

fn bytes_32() -> Result<Vec<u8>> {
    assemble_32(|a| {
        let (mut top, mut other, mut next) = (a.create_label(), a.create_label(), a.create_label());
        a.mov(esi, DATA as u32)?;
        a.xor(ecx, ecx)?;
        a.set_label(&mut top)?;
        a.movzx(eax, byte_ptr(esi + ecx))?;
        a.cmp(eax, 100)?;
        a.jae(other)?;
        a.add(edx, eax)?;
        a.jmp(next)?;
        a.set_label(&mut other)?;
        a.shl(eax, 2)?;
        a.xor(edx, eax)?;
        a.set_label(&mut next)?;
        a.inc(ecx)?;
        a.and(ecx, 0xfff)?;
        a.dec(edi)?;
        a.jne(top)?;
        a.ret()
    })
}

const KERNELS: [Kernel; 14] = [
    Kernel {
        name: "x87",
        bits: 64,
        what: "x87: loads, arithmetic, stores in a loop",
        code: x87::code,
        data: x87::data,
    },
    Kernel {
        name: "call",
        bits: 64,
        what: "call, load, add, store, ret in a loop",
        code: call_loop,
        data: Vec::new,
    },
    Kernel {
        name: "straight",
        bits: 64,
        what: "54 register instructions in a loop",
        code: straight,
        data: Vec::new,
    },
    Kernel {
        name: "chase-l1",
        bits: 64,
        what: "pointer chase in 16 KiB",
        code: chase,
        data: || cycle(2048, 8),
    },
    Kernel {
        name: "chase-4m",
        bits: 64,
        what: "pointer chase over 1024 pages",
        code: chase,
        data: || cycle(1 << 16, 64),
    },
    Kernel {
        name: "spread-1k",
        bits: 64,
        what: "1024 shuffled blocks",
        code: || spread(1024),
        data: Vec::new,
    },
    Kernel {
        name: "spread-4k",
        bits: 64,
        what: "4096 shuffled blocks",
        code: || spread(4096),
        data: Vec::new,
    },
    Kernel {
        name: "spread-16k",
        bits: 64,
        what: "16384 shuffled blocks",
        code: || spread(16384),
        data: Vec::new,
    },
    Kernel {
        name: "spread-32k",
        bits: 64,
        what: "32768 shuffled blocks",
        code: || spread(32768),
        data: Vec::new,
    },
    Kernel {
        name: "bytes",
        bits: 64,
        what: "byte loop with an unpredictable branch",
        code: bytes,
        data: || shuffled(4096).iter().map(|&v| v as u8).collect(),
    },
    Kernel {
        name: "copy",
        bits: 64,
        what: "rep movsb of 256 bytes",
        code: copy,
        data: Vec::new,
    },
    Kernel {
        name: "double",
        bits: 64,
        what: "scalar double arithmetic",
        code: doubles,
        data: || (1..9).flat_map(|i| (f64::from(i) * 1.1).to_le_bytes()).collect(),
    },
    Kernel {
        name: "call-32",
        bits: 32,
        what: "the call loop in 32-bit code",
        code: call_loop_32,
        data: Vec::new,
    },
    Kernel {
        name: "bytes-32",
        bits: 32,
        what: "the byte loop in 32-bit code",
        code: bytes_32,
        data: || shuffled(4096).iter().map(|&v| v as u8).collect(),
    },
];

/// MIPS on each engine, and of the host.
struct Figure {
    interpreter: f64,
    translator: Option<f64>,
    native: Option<f64>,
}

impl Figure {
    fn of(k: &Kernel, code: &[u8], data: &[u8], seconds: f64) -> Figure {
        let Some((interpreter, per_iteration)) = guest(k.bits, code, data, seconds, None) else {
            panic!("the interpreter runs everywhere");
        };
        let translator = guest(k.bits, code, data, seconds, Some(TranslatorOptions::default()));
        let native = (k.bits == 64).then(|| native(code, data, per_iteration, seconds));
        Figure {
            interpreter,
            translator: translator.map(|(mips, _)| mips),
            native: native.flatten(),
        }
    }

    fn line(&self, k: &Kernel) -> String {
        let column = |mips: Option<f64>| mips.map_or("-".into(), |mips| format!("{mips:.0}"));
        let slower = |mips: Option<f64>| match (self.native, mips) {
            (Some(native), Some(mips)) => format!("{:.1}x", native / mips),
            _ => String::new(),
        };
        let own = Some(self.interpreter);
        format!(
            "{:<11} {:>11} {:>6} {:>11} {:>6} {:>11}   {}",
            k.name,
            column(own),
            slower(own),
            column(self.translator),
            slower(self.translator),
            column(self.native),
            k.what
        )
    }

    fn json(&self, k: &Kernel) -> String {
        let or_null = |mips: Option<f64>| mips.map_or("null".into(), |n| format!("{n:.1}"));
        format!(
            "{{\"name\": \"{}\", \"mips\": {:.1}, \"translator_mips\": {}, \"native_mips\": {}}}",
            k.name,
            self.interpreter,
            or_null(self.translator),
            or_null(self.native)
        )
    }
}

/// MIPS of the guest, and its instructions per iteration; `None`: the host has no translator.
fn guest(
    bits: u32,
    code: &[u8],
    data: &[u8],
    seconds: f64,
    translator: Option<TranslatorOptions>,
) -> Option<(f64, f64)> {
    let mut vm = TestVm::new(&[]);
    // On a slow host the time is over before each of many blocks has run often enough to be translated.
    let warm_up = translator.as_ref().map(|t| 2 * u64::from(t.threshold));
    vm.cpu.set_translator(translator).ok()?;
    if bits == 32 {
        vm.cpu.seg.sel = [
            FLAT_KERNEL_SS,
            FLAT_RING3_CS32,
            FLAT_KERNEL_SS,
            FLAT_KERNEL_SS,
            0,
            0,
        ];
    }
    vm.map(CODE, CODE_PAGES, pte::P | pte::US);
    vm.map(DATA, DATA_PAGES, pte::P | pte::US | pte::RW | pte::NX);
    vm.poke_pages(CODE, code);
    vm.poke_pages(DATA, data);
    vm.poke(END, &[0xcc]);
    let mut run = |iterations: u64| {
        vm.poke(STACK_TOP - 8, &END.to_le_bytes());
        vm.cpu.rip = CODE;
        vm.cpu.regs = [0; 16];
        vm.cpu.regs[4] = STACK_TOP - 8;
        vm.cpu.regs[7] = iterations;
        let budget = i64::MAX / 4;
        let start = Instant::now();
        let stop = vm.run(budget);
        let time = start.elapsed();
        assert!(
            matches!(stop, Stop::Trap(_)) && vm.cpu.rip == END + 1,
            "{stop:?} at {:#x}",
            vm.cpu.rip
        );
        ((budget - vm.cpu.budget.left) as f64, time)
    };
    if let Some(iterations) = warm_up {
        run(iterations);
    }
    let (mut iterations, mut best) = (16, (0.0, 0.0));
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    loop {
        let (instructions, time) = run(iterations);
        if time < Duration::from_millis(40) {
            iterations *= 4;
            continue;
        }
        let mips = instructions / time.as_secs_f64() / 1e6;
        if mips > best.0 {
            best = (mips, instructions / iterations as f64);
        }
        if Instant::now() > until {
            return Some(best);
        }
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn native(code: &[u8], data: &[u8], per_iteration: f64, seconds: f64) -> Option<f64> {
    let map = |va: u64, pages: u64| {
        // SAFETY: anonymous memory at addresses of our own choice, which are free.
        let p = unsafe {
            libc::mmap(
                va as *mut libc::c_void,
                (pages * 4096) as usize,
                libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE,
                -1,
                0,
            )
        };
        p as u64 == va
    };
    if !map(CODE, CODE_PAGES) {
        return None;
    }
    let mapped = map(DATA, DATA_PAGES);
    let mut best: f64 = 0.0;
    // SAFETY: the code fits, keeps to the C calling convention, and touches only the data mapped for it.
    unsafe {
        if mapped {
            std::ptr::copy_nonoverlapping(code.as_ptr(), CODE as *mut u8, code.len());
            std::ptr::copy_nonoverlapping(data.as_ptr(), DATA as *mut u8, data.len());
            let call: extern "C" fn(u64) -> u64 = std::mem::transmute(CODE as usize);
            let (mut iterations, until) = (16u64, Instant::now() + Duration::from_secs_f64(seconds));
            while Instant::now() < until {
                let start = Instant::now();
                call(iterations);
                let time = start.elapsed();
                if time < Duration::from_millis(20) {
                    iterations *= 4;
                } else {
                    best = best.max(iterations as f64 * per_iteration / time.as_secs_f64() / 1e6);
                }
            }
            libc::munmap(DATA as *mut libc::c_void, (DATA_PAGES * 4096) as usize);
        }
        libc::munmap(CODE as *mut libc::c_void, (CODE_PAGES * 4096) as usize);
    }
    (best > 0.0).then_some(best)
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
fn native(_code: &[u8], _data: &[u8], _per_iteration: f64, _seconds: f64) -> Option<f64> {
    None
}

fn main() {
    let mut json = false;
    let mut seconds = 0.5;
    let mut names = Vec::new();
    let mut args = std::env::args().skip(1);
    while let Some(a) = args.next() {
        match a.as_str() {
            "--json" => json = true,
            "--seconds" => seconds = args.next().and_then(|s| s.parse().ok()).unwrap_or(seconds),
            _ => names.push(a),
        }
    }
    let mut rows = Vec::new();
    if !json {
        let (kernel, interpreter, translator, native) = ("MIPS", "interpreter", "translator", "native");
        println!(
            "{kernel:<11} {interpreter:>11} {:>6} {translator:>11} {:>6} {native:>11}",
            "", ""
        );
    }
    for k in KERNELS
        .iter()
        .filter(|k| names.is_empty() || names.iter().any(|n| k.name.starts_with(n.as_str())))
    {
        let code = match (k.code)() {
            Ok(c) => c,
            Err(e) => panic!("{}: {e}", k.name),
        };
        let data = (k.data)();
        let figure = Figure::of(k, &code, &data, seconds);
        if !json {
            println!("{}", figure.line(k));
        }
        rows.push(figure.json(k));
    }
    let mut costs = Vec::new();
    if names.is_empty() || names.iter().any(|n| n == "pv") {
        let (ns, instructions) = pv::syscall(seconds);
        let (host, exit) = (pv::native_syscall(), pv::hypercall(seconds));
        if !json {
            println!(
                "syscall     {ns:>7.0} ns     native {host:>6.0}   {:>5.1}x   application to kernel and back, {instructions:.0} instructions",
                ns / host
            );
            println!("hypercall   {exit:>7.0} ns     out of the engine and back");
        }
        costs.push(format!(
            "{{\"name\": \"syscall\", \"ns\": {ns:.1}, \"native_ns\": {host:.1}}}"
        ));
        costs.push(format!(
            "{{\"name\": \"hypercall\", \"ns\": {exit:.1}, \"native_ns\": null}}"
        ));
    }
    if json {
        println!(
            "{{\"engine\": [\n  {}\n], \"pv\": [\n  {}\n]}}",
            rows.join(",\n  "),
            costs.join(",\n  ")
        );
    }
}
