// SPDX-License-Identifier: Apache-2.0
//! A ring served by a thread of its own.

use super::queue::Queue;
use crate::ring::{RingBroken, Served};
use crate::thread::RungThread;
use std::ops::ControlFlow;

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
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            notice.broken(error);
            ControlFlow::Break(())
        }
    };
    RungThread::start(name, serve)
}

/// Serves a queue until its front end has nothing more, on the calling thread.
pub fn serve_all(queue: &mut Queue, notice: &impl Notice, stop: impl Fn() -> bool) -> Result<(), RingBroken> {
    loop {
        let Served { notify, more } = queue.serve()?;
        if notify {
            notice.notify();
        }
        if !more || stop() {
            return Ok(());
        }
    }
}
