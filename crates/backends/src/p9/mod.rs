// SPDX-License-Identifier: Apache-2.0
//! Shared directories (`io/9pfs.h`, 9P2000.L): `ring` moves bytes, `wire` knows how messages are written, `place` what a
//! name is, `tree` is the only part that touches the host's files, `fids` is what the guest has in its hands, `session`
//! answers messages, `device` has the rings and the thread.

mod device;
mod fids;
mod place;
mod ring;
mod session;
mod tree;
mod wire;

pub use device::{start_thread, Device, Notice, Turn};
pub use fids::{FIDS_MAX, OPEN_MAX, PLACES_MAX};
pub use ring::{Broken, ConnectError, Ring};
pub use session::{Answer, Counts, Data, Session, MSIZE_MAX, MSIZE_MIN};
pub use tree::Tree;
pub use wire::{kind, Reader, Writer, HEADER, VERSION};
