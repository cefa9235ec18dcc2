// SPDX-License-Identifier: Apache-2.0
//! `io/ring.h`: the head of every ring that a front end and a back end share, `struct *_sring`. Offsets in bytes.

pub const REQ_PROD: usize = 0;
pub const REQ_EVENT: usize = 4;
pub const RSP_PROD: usize = 8;
pub const RSP_EVENT: usize = 12;
/// The entries follow.
pub const HEAD: usize = 64;
