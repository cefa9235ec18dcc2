// SPDX-License-Identifier: Apache-2.0
//! A ring served by a thread of its own.

use super::queue::{Next, Queue, Turn};
use crate::ring::RingBroken;
use crate::thread::{RungThread, Until};
use std::ops::ControlFlow;
use std::time::Duration;

/// What a ring's thread tells the layer above. Called on that thread, with no lock held.
pub trait Notice: Send {
    /// The front end is to be sent its event.
    fn notify(&self);
    /// The ring is of no use any more, and is not served any more.
    fn broken(&self, error: RingBroken);
}

/// Serves a queue until the thread is dropped. It starts with a look at the ring: requests may have come before; those
/// that wait in the ring when it stops stay there.
pub fn start_thread(
    name: String,
    mut queue: Queue,
    notice: impl Notice + 'static,
) -> std::io::Result<RungThread> {
    let serve = move |stop: &dyn Fn() -> bool| match serve_all(&mut queue, &notice, stop) {
        Ok(None) => ControlFlow::Continue(Until::Rung),
        Ok(Some(time)) => ControlFlow::Continue(Until::RungOrAfter(time)),
        Err(error) => {
            notice.broken(error);
            ControlFlow::Break(())
        }
    };
    RungThread::start(name, serve)
}

/// Serves a queue until its front end has nothing more, on the calling thread. `Some`: what it has waits for the disk's
/// limits, for this time.
pub fn serve_all(
    queue: &mut Queue,
    notice: &impl Notice,
    stop: impl Fn() -> bool,
) -> Result<Option<Duration>, RingBroken> {
    loop {
        let Turn { notify, next } = queue.serve()?;
        if notify {
            notice.notify();
        }
        match next {
            Next::Go if stop() => return Ok(None),
            Next::Go => {}
            Next::Event => return Ok(None),
            Next::After(time) => return Ok(Some(time)),
        }
    }
}
