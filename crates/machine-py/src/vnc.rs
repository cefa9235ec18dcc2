// SPDX-License-Identifier: Apache-2.0
//! VNC's password (RFC 6143, 7.2.2).

use des::cipher::{Block, BlockCipherEncrypt, KeyInit};
use des::Des;
use pyo3::prelude::*;

const BLOCK: usize = 8;

/// What a viewer with this password answers: the challenge, encrypted by the password with the bits of each byte
/// turned round.
#[pyfunction]
pub fn vnc_response(password: &[u8], challenge: [u8; 2 * BLOCK]) -> [u8; 2 * BLOCK] {
    let mut key = [0; BLOCK];
    for (to, from) in key.iter_mut().zip(password) {
        *to = from.reverse_bits();
    }
    let cipher = Des::new(&key.into());
    let mut answer = challenge;
    for part in answer.chunks_exact_mut(BLOCK) {
        let mut block = Block::<Des>::default();
        block.copy_from_slice(part);
        cipher.encrypt_block(&mut block);
        part.copy_from_slice(&block);
    }
    answer
}
