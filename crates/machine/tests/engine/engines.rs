// SPDX-License-Identifier: Apache-2.0
//! The engines that instructions run on, and which of them comparisons have.

use domzero_machine::Cpu;

/// A way to run instructions; what it is must make no difference to what they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// The interpreter with its general handlers only.
    Slow,
    /// The interpreter as it is.
    Fast,
}

impl Engine {
    /// The ones that are compared with [`ORACLE`].
    pub const COMPARED: &'static [Engine] = &[Engine::Fast];

    /// Makes a CPU that has not run yet one of this engine.
    pub fn choose(self, cpu: &mut Cpu) {
        cpu.set_slow_only(self == Engine::Slow);
    }
}

/// The simplest engine: each instruction's general handler, and each alone.
pub const ORACLE: Engine = Engine::Slow;
