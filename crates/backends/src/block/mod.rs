// SPDX-License-Identifier: Apache-2.0
//! Block devices (`io/blkif.h`): `disk` and `qcow2` hold the sectors, `drive` what can be taken out, `lock` keeps others away from them, `request` understands what is asked for, `queue`
//! does it, `limit` bounds how much of it, `device` has the thread.

mod device;
mod disk;
mod drive;
mod limit;
mod lock;
mod nbd;
mod qcow2;
mod qcow2_check;
mod queue;
mod request;

pub use crate::piece::Piece;
pub use device::{serve_all, start_thread, Notice};
pub use disk::{Disk, RawDisk};
pub use drive::Drive;
pub use limit::{Limits, Rate, Throttle, RATE_MAX};
pub use lock::keep_unused;
pub use nbd::NbdDisk;
pub use qcow2::Qcow2Disk;
pub use queue::{Agreed, Counts, Next, Queue, Turn, MAX_PERSISTENT};
pub use request::{Action, IndirectPages, Request, Segment, MAX_INDIRECT_SEGMENTS};
