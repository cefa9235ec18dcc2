// SPDX-License-Identifier: Apache-2.0
//! The back ends of Xen's devices: what moves data. Policy (the handshake in xenstore, hot plug, configuration) is the
//! layer above; no Python here.
//!
//! A front end is hostile: indices of rings, grant references, sector numbers and lengths are read once and checked once.
//! A bad request gets an error response, as Linux's back ends give it; a ring whose indices cannot be is [`RingBroken`],
//! and its device is disconnected.

#![deny(missing_docs)]
#![cfg_attr(not(test), warn(unreachable_pub))]

pub mod block;
pub mod net;
pub mod p9;
mod piece;
mod ring;
mod thread;

pub use ring::{BackRing, ConnectError, RingBroken, RingRefused, Served};
pub use thread::RungThread;
