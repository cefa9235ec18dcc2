// SPDX-License-Identifier: Apache-2.0
//! A structure that a hypercall is about: copied in once, looked at and changed here, copied out in part or whole.

/// Room for the largest of a hypercall's structures; offsets are those of `crate::abi`. What would be outside is zero,
/// and is not stored.
pub(super) struct Argument<const MAX: usize>(pub(super) [u8; MAX]);

impl<const MAX: usize> Argument<MAX> {
    pub(super) fn new() -> Argument<MAX> {
        Argument([0; MAX])
    }

    fn bytes<const N: usize>(&self, at: usize) -> [u8; N] {
        let part = self.0.get(at..at + N).and_then(|part| part.try_into().ok());
        part.unwrap_or([0; N])
    }

    pub(super) fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.bytes(at))
    }

    pub(super) fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes(at))
    }

    pub(super) fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.bytes(at))
    }

    pub(super) fn set(&mut self, at: usize, value: &[u8]) {
        if let Some(part) = self.0.get_mut(at..at + value.len()) {
            part.copy_from_slice(value);
        }
    }
}
