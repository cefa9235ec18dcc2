// SPDX-License-Identifier: Apache-2.0
//! An interface served by a thread of its own, which waits for its wire and for its front end's events.

use super::link::{Link, SharedLink};
use super::queue::{Queue, Transmitted, FRAMES_PER_TURN};
use super::request::Broken;
use domzero_machine::Bell;
use rustix::event::{eventfd, poll, EventfdFlags, PollFd, PollFlags, Timespec};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often a front end that does not tell of pages in its ring is looked at, when a frame waits for them.
const LOOK: Duration = Duration::from_millis(30);

/// What an interface's thread tells the layer above. Called on that thread, with no lock held but the link's.
pub trait Notice: Send {
    /// The front end is to be sent the event of what it has sent.
    fn transmitted(&self, queue: usize);
    /// The front end is to be sent the event of what it has received.
    fn received(&self, queue: usize);
    /// The rings are of no use any more, and are not served any more.
    fn broken(&self, error: Broken);
    /// The wire's other end has gone.
    fn lost(&self);
}

struct Signal {
    event: OwnedFd,
    stop: AtomicBool,
}

impl Bell for Signal {
    fn ring(&self) {
        // It fails when it was rung 2^64 times, and is readable then, too.
        rustix::io::write(&self.event, &1u64.to_ne_bytes()).ok();
    }
}

/// Serves an interface until it is dropped.
pub struct DeviceThread {
    signal: Arc<Signal>,
    thread: Option<JoinHandle<()>>,
}

impl DeviceThread {
    /// Starts with a look at the rings: requests may have come before.
    pub fn start(
        name: String,
        queues: Vec<Queue>,
        link: SharedLink,
        notice: impl Notice + 'static,
    ) -> std::io::Result<DeviceThread> {
        let signal = Arc::new(Signal {
            event: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            stop: AtomicBool::new(false),
        });
        let mut server = Server {
            queues,
            signal: Arc::clone(&signal),
            notice,
            has_told: false,
            first: 0,
        };
        let serve = move || {
            let mut link = link.lock();
            if let Err(error) = server.serve(&mut link) {
                drop(link);
                server.notice.broken(error);
            }
        };
        let thread = std::thread::Builder::new().name(name).spawn(serve)?;
        Ok(DeviceThread {
            signal,
            thread: Some(thread),
        })
    }

    /// What the front end's events are to ring.
    pub fn bell(&self) -> Arc<dyn Bell> {
        Arc::clone(&self.signal) as Arc<dyn Bell>
    }

    /// Returns when nothing is being moved any more; what waits in the rings stays there.
    pub fn stop(&mut self) {
        self.signal.stop.store(true, Ordering::Release);
        self.signal.ring();
        if let Some(thread) = self.thread.take() {
            // It ended by a panic: nothing is left to be stopped.
            thread.join().ok();
        }
    }
}

impl Drop for DeviceThread {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Server<N> {
    queues: Vec<Queue>,
    signal: Arc<Signal>,
    notice: N,
    /// That the wire is lost.
    has_told: bool,
    /// The queue whose turn is first: where there is not enough for all, all have their share.
    first: usize,
}

/// What the thread waits for when there is nothing to do.
#[derive(Default)]
struct Rest {
    more: bool,
    /// A frame waits for pages of this queue's.
    starved: Option<usize>,
    /// Frames of the guest's may be sent then.
    until: Option<Instant>,
}

impl<N: Notice> Server<N> {
    fn serve(&mut self, link: &mut Link) -> Result<(), Broken> {
        loop {
            let mut rest = Rest::default();
            let queues = self.queues.len();
            for number in (self.first..queues).chain(0..self.first) {
                self.transmit(number, link, &mut rest)?;
            }
            self.first = (self.first + 1) % queues.max(1);
            self.receive(link, &mut rest)?;
            if link.is_lost() && !self.has_told {
                self.has_told = true;
                self.notice.lost();
            }
            self.wait(link, &rest);
            if self.signal.stop.load(Ordering::Acquire) {
                return Ok(());
            }
        }
    }

    fn transmit(&mut self, number: usize, link: &mut Link, rest: &mut Rest) -> Result<(), Broken> {
        let Some(queue) = self.queues.get_mut(number) else {
            return Ok(());
        };
        let Transmitted { notify, more, until } = queue.transmit(link)?;
        rest.more |= more;
        rest.until = rest.until.or(until);
        if notify {
            self.notice.transmitted(number);
        }
        Ok(())
    }

    fn receive(&mut self, link: &mut Link, rest: &mut Rest) -> Result<(), Broken> {
        link.fill();
        for turn in 0.. {
            let Some(frame) = link.peek() else { break };
            if turn == FRAMES_PER_TURN {
                rest.more = true;
                break;
            }
            let number = pick(frame, self.queues.len());
            let Some(queue) = self.queues.get_mut(number) else {
                break;
            };
            if !queue.receive(frame)? {
                rest.starved = Some(number);
                break;
            }
            link.next();
        }
        for (number, queue) in self.queues.iter_mut().enumerate() {
            if queue.push_received() {
                self.notice.received(number);
            }
        }
        Ok(())
    }

    fn wait(&self, link: &Link, rest: &Rest) {
        let mut wanted = PollFlags::empty();
        if !link.is_full() {
            wanted |= PollFlags::IN;
        }
        if link.is_waiting() {
            wanted |= PollFlags::OUT;
        }
        let starved = rest.starved.and_then(|number| self.queues.get(number));
        let look = starved.filter(|queue| !queue.tells_of_pages()).map(|_| LOOK);
        let pause = rest
            .until
            .map(|until| until.saturating_duration_since(Instant::now()));
        let timeout = match rest.more {
            true => Some(Duration::ZERO),
            false => look.into_iter().chain(pause).min(),
        };
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let event = PollFd::new(&self.signal.event, PollFlags::IN);
        let wire = PollFd::from_borrowed_fd(link.fd(), wanted);
        let mut both = [event, wire];
        // A wire that is not asked would say again and again that its other end has gone.
        let asked = if link.is_lost() || wanted.is_empty() { 1 } else { 2 };
        // An interruption is as good as an event: all is looked at again.
        poll(both.get_mut(..asked).unwrap_or(&mut []), timeout.as_ref()).ok();
        rustix::io::read(&self.signal.event, &mut [0; 8]).ok();
    }
}

/// The queue for a frame: the same for all of a flow.
fn pick(frame: &[u8], queues: usize) -> usize {
    if queues <= 1 {
        return 0;
    }
    // Addresses and ports of IPv4, or of IPv6.
    let range = if frame.get(12) == Some(&8) { 26..38 } else { 22..58 };
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for byte in frame.get(range).unwrap_or(&[]) {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    (hash >> 32) as usize % queues
}
