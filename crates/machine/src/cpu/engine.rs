// SPDX-License-Identifier: Apache-2.0
//! The choice of the translator, on hosts that have one and on others.

use std::time::Duration;

/// How the translator works. The defaults suit everything but tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TranslatorOptions {
    /// Runs of a block before it is translated.
    pub threshold: u32,
    /// Size of the code cache in bytes; when it is full, all is forgotten.
    pub code_bytes: usize,
    /// Flags that the manuals leave undefined are the interpreter's on any host, for runs that must not depend on the
    /// engine: where the host's processor has others, their instructions are left to their handlers.
    pub exact: bool,
    /// Arithmetic flags are what the interpreter has in them also where no later instruction can look at them: in what
    /// a fault or an interrupt saves. For runs that are to be the same on both engines.
    pub exact_flags: bool,
    /// Blocks are the interpreter's, and are left where it leaves them: when the run loop looks at the time must not depend on
    /// the engine in such runs.
    pub same_blocks: bool,
    /// What is emitted is decoded again and proved before it runs (`translate/proof`): translation takes several times as long.
    pub prove: bool,
}

impl Default for TranslatorOptions {
    fn default() -> TranslatorOptions {
        TranslatorOptions {
            threshold: 50,
            code_bytes: 64 << 20,
            exact: false,
            exact_flags: false,
            same_blocks: false,
            prove: cfg!(debug_assertions),
        }
    }
}

/// What a CPU's translator has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Translated {
    /// Blocks that have become host code, also if they are forgotten since.
    pub blocks: u64,
    /// Those of them that are the rest of another one, made once more without checks that fail for good.
    pub rests: u64,
    /// Time that this took.
    pub time: Duration,
    /// Bytes of host code that are kept.
    pub bytes: usize,
}

/// What has been proved of all translated code of a CPU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProvedCode {
    /// Blocks that are not forgotten.
    pub blocks: usize,
    /// Instructions of the host's.
    pub instructions: usize,
    /// Those of them that access guest memory.
    pub accesses: usize,
}

/// Why there can be no translator.
#[derive(Debug, thiserror::Error)]
pub enum TranslatorError {
    /// The host's processor lacks an instruction that translated code is made of, or is of another kind altogether.
    #[error("the translator needs a processor with {0}")]
    Processor(&'static str),
    /// Memory that can be run was refused.
    #[error("no memory for translated code: {0}")]
    Memory(std::io::Error),
}
