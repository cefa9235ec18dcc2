// SPDX-License-Identifier: Apache-2.0
//! The engines that instructions run on, and which of them comparisons have.
//!
//! DOMZERO_ENGINES=slow,fast: only these are compared.

use domzero_machine::{Cpu, TranslatorError, TranslatorOptions};

/// A way to run instructions; what it is must make no difference to what they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// The interpreter with its general handlers only.
    Slow,
    /// The interpreter as it is.
    Fast,
    /// Blocks become host code when they have run so often; `exact`: undefined flags and boundaries of blocks are the oracle's, too.
    Translated { threshold: u32, exact: bool },
    /// The same without arithmetic flags that no instruction looks at: they may be anything between two steps.
    Flagless { threshold: u32 },
}

/// Of translated code: full now and then.
pub const CODE_BYTES: usize = 1 << 20;

/// The simplest engine, which the others are compared with: the general handler of each instruction.
pub const ORACLE: Engine = Engine::Slow;

impl Engine {
    /// All that there are here.
    pub const ALL: &'static [Engine] = &[
        Engine::Slow,
        Engine::Fast,
        Engine::Translated {
            threshold: 1,
            exact: true,
        },
        Engine::Translated {
            threshold: 3,
            exact: false,
        },
    ];

    /// Makes a CPU one of this engine.
    pub fn choose(self, cpu: &mut Cpu) {
        self.choose_with(cpu, CODE_BYTES, false);
    }

    /// The same with so many bytes for translated code, which is proved before it runs with `prove`.
    pub fn choose_with(self, cpu: &mut Cpu, code_bytes: usize, prove: bool) {
        cpu.set_slow_only(self == Engine::Slow);
        let options = match self {
            Engine::Translated { threshold, .. } | Engine::Flagless { threshold } => {
                Some(TranslatorOptions {
                    threshold,
                    exact: self.is_exact(),
                    code_bytes,
                    exact_flags: self.has_exact_flags(),
                    same_blocks: self.is_exact(),
                    prove,
                })
            }
            _ => None,
        };
        match cpu.set_translator(options) {
            // Another processor: the interpreter runs, as it does for users.
            Err(TranslatorError::Processor(what)) => println!("no translator without {what}"),
            done => done.expect("a translator"),
        }
    }

    /// Whether it has the oracle's flags also where the manuals leave them undefined.
    pub fn is_exact(self) -> bool {
        !matches!(
            self,
            Engine::Translated { exact: false, .. } | Engine::Flagless { .. }
        )
    }

    /// Whether arithmetic flags are right after every instruction.
    pub fn has_exact_flags(self) -> bool {
        !matches!(self, Engine::Flagless { .. })
    }

    fn is_named(self) -> bool {
        let names = std::env::var("DOMZERO_ENGINES").ok();
        names.map_or(self != ORACLE, |n| {
            n.split(',')
                .any(|n| format!("{self:?}").to_lowercase().starts_with(n))
        })
    }

    /// The ones that are compared with the host's processor, and with the oracle.
    pub fn compared() -> Vec<Engine> {
        Engine::ALL.iter().copied().filter(|e| e.is_named()).collect()
    }
}
