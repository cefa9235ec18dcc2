// SPDX-License-Identifier: Apache-2.0
//! A copy of the frames that pass, written to a socket as a pcapng file by a thread of its own. Who lets frames pass never
//! waits for it: what does not fit in its queue is left out, and counted.

use super::pcapng::{self, Direction, PACKET_EXTRA};
use rustix::event::{eventfd, poll, EventfdFlags, PollFd, PollFlags};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{channel, Receiver};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Bytes that wait for the reader of a capture.
pub const CAPTURE_QUEUE_MAX: usize = 4 << 20;

/// What of the frames is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Bytes of each frame, from its beginning on.
    pub snaplen: u32,
    /// How many frames; 0: until the reader goes.
    pub frames: u64,
}

#[derive(Default)]
struct Queue {
    bytes: Vec<u8>,
    frames: u64,
    dropped: u64,
    /// Of these, those that the file does not say yet.
    untold: u64,
    is_over: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    event: OwnedFd,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self) {
        // It fails when it is readable anyway.
        rustix::io::write(&self.event, &1u64.to_ne_bytes()).ok();
    }
}

/// A capture, until its reader goes, it has what is wanted, or it is dropped.
pub struct Capture {
    shared: Arc<Shared>,
    wanted: Wanted,
    /// Its other end is dropped when all is written.
    written: Receiver<()>,
}

impl Capture {
    /// `name`: of the interface, in the file. The reader may shut its side down, and gets the rest and the counts then.
    pub fn start(socket: UnixStream, name: &str, wanted: Wanted) -> std::io::Result<Capture> {
        socket.set_nonblocking(true)?;
        let mut queue = Queue::default();
        pcapng::head(&mut queue.bytes, name, wanted.snaplen);
        let shared = Arc::new(Shared {
            queue: Mutex::new(queue),
            event: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        });
        let theirs = Arc::clone(&shared);
        let (writes, written) = channel();
        let work = move || {
            write(&theirs, socket);
            drop(writes);
        };
        std::thread::Builder::new().name("capture".into()).spawn(work)?;
        Ok(Capture {
            shared,
            wanted,
            written,
        })
    }

    /// Ends it; returns when its reader has all of it, or is too slow for that.
    pub fn finish(self, patience: Duration) {
        end(&mut self.shared.queue());
        self.shared.ring();
        self.written.recv_timeout(patience).ok();
    }

    /// Nobody reads it any more, or all that is wanted is there.
    pub fn is_over(&self) -> bool {
        self.shared.queue().is_over
    }

    /// A frame passes.
    pub fn record(&self, frame: &[u8], direction: Option<Direction>) {
        let mut queue = self.shared.queue();
        if queue.is_over {
            return;
        }
        queue.frames += 1;
        let kept = frame.get(..self.wanted.snaplen as usize).unwrap_or(frame);
        if queue.bytes.len() + kept.len() + PACKET_EXTRA > CAPTURE_QUEUE_MAX {
            queue.dropped += 1;
            queue.untold += 1;
            return;
        }
        let is_first = queue.bytes.is_empty();
        let untold = std::mem::take(&mut queue.untold);
        pcapng::packet(&mut queue.bytes, now_ns(), kept, frame.len(), direction, untold);
        if self.wanted.frames > 0 && queue.frames - queue.dropped >= self.wanted.frames {
            end(&mut queue);
        }
        if is_first || queue.is_over {
            self.shared.ring();
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        end(&mut self.shared.queue());
        self.shared.ring();
    }
}

fn end(queue: &mut Queue) {
    if !queue.is_over {
        queue.is_over = true;
        let (frames, dropped) = (queue.frames, queue.dropped);
        pcapng::statistics(&mut queue.bytes, now_ns(), frames, dropped);
    }
}

fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Writes what is in the queue until all is written, or the reader is gone.
fn write(shared: &Shared, mut socket: UnixStream) {
    let (mut bytes, mut done, mut reads) = (Vec::new(), 0, true);
    loop {
        if done == bytes.len() {
            bytes.clear();
            done = 0;
            let mut queue = shared.queue();
            std::mem::swap(&mut queue.bytes, &mut bytes);
            if bytes.is_empty() && queue.is_over {
                return;
            }
        }
        let is_idle = bytes.is_empty();
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            match socket.write(rest) {
                Ok(count) if count > 0 => done += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => return give_up(shared),
            }
        }
        let waits = done < bytes.len();
        if !waits && !is_idle {
            continue; // more may have come
        }
        let mut wanted = if waits { PollFlags::OUT } else { PollFlags::empty() };
        if reads {
            wanted |= PollFlags::IN;
        }
        let mut both = [
            PollFd::new(&socket, wanted),
            PollFd::new(&shared.event, PollFlags::IN),
        ];
        poll(&mut both, None).ok();
        let said = both[0].revents();
        let is_gone = said.intersects(PollFlags::ERR | PollFlags::HUP);
        rustix::io::read(&shared.event, &mut [0; 8]).ok();
        if is_gone {
            return give_up(shared);
        }
        // A reader has nothing to say but that it wants no more.
        if reads && said.contains(PollFlags::IN) && !matches!(socket.read(&mut [0; 64]), Ok(1..)) {
            reads = false;
            end(&mut shared.queue());
        }
    }
}

fn give_up(shared: &Shared) {
    let mut queue = shared.queue();
    queue.is_over = true;
    queue.bytes = Vec::new();
}
