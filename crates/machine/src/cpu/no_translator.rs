// SPDX-License-Identifier: Apache-2.0
//! In place of the translator, on hosts of another architecture.

use super::block::Op;
use super::engine::{ProvedCode, Translated, TranslatorError, TranslatorOptions};
use super::Cpu;
use std::io::Write;

/// Whether this host's processor can run translated code.
pub fn translator_available() -> Result<(), TranslatorError> {
    Err(TranslatorError::Processor("x86-64 instructions"))
}

/// There is none.
pub(crate) enum Translator {}

impl Translator {
    pub(crate) fn threshold(&self) -> u32 {
        match *self {}
    }

    pub(crate) fn keep_flags(&mut self) {
        match *self {}
    }

    pub(crate) fn clear(&mut self) {
        match *self {}
    }

    pub(crate) fn shrink(&mut self) {
        match *self {}
    }

    pub(crate) fn bytes(&self) -> usize {
        match *self {}
    }

    pub(crate) fn kill(&mut self, _: u32) {
        match *self {}
    }

    pub(crate) fn more(&self, _: u32) -> i64 {
        match *self {}
    }

    pub(crate) fn interpret_once(&mut self) -> bool {
        match *self {}
    }
}

impl Cpu {
    /// Nothing has been translated.
    pub fn translated(&self) -> Translated {
        Translated::default()
    }

    /// There is no translated code.
    pub fn prove_code(&self) -> Result<ProvedCode, String> {
        Ok(ProvedCode::default())
    }

    /// Translates hot blocks from now on, or no more. The CPU is not in `run`.
    pub fn set_translator(&mut self, options: Option<TranslatorOptions>) -> Result<(), TranslatorError> {
        match options {
            Some(_) => translator_available(),
            None => Ok(()),
        }
    }

    /// Nothing is translated.
    pub fn set_code_dump(&mut self, _: Box<dyn Write + Send>) {}

    pub(crate) unsafe fn translate_block(&mut self, _: *mut Op) {}

    pub(crate) unsafe fn enter_code(&mut self, _: u64) {}
}
