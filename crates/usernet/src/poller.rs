// SPDX-License-Identifier: Apache-2.0
//! Waits for many descriptors.

use rustix::event::{epoll, Timespec};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

pub use epoll::EventFlags;

/// Events that are taken at once.
const EVENTS: usize = 64;
/// Longest wait, where nothing is due.
const LONGEST: Duration = Duration::from_secs(3600);

/// What a descriptor is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The guest's wire.
    Link,
    /// A port of the host's that leads to the guest.
    Forward,
    /// A connection.
    Tcp,
    /// A flow of datagrams.
    Udp,
    /// A flow of echo requests.
    Echo,
}

const KINDS: u64 = 8;

/// The number of a descriptor: what it is, and which.
pub fn number(kind: Kind, index: u64) -> u64 {
    index * KINDS + kind as u64
}

/// What `number` was made of.
fn kind_and_index(number: u64) -> (Kind, u64) {
    let kind = match number % KINDS {
        0 => Kind::Link,
        1 => Kind::Forward,
        2 => Kind::Tcp,
        3 => Kind::Udp,
        _ => Kind::Echo,
    };
    (kind, number / KINDS)
}

/// Descriptors that are waited for, each with a number of whoever waits. One that is closed is not waited for any more.
pub struct Poller(OwnedFd);

impl Poller {
    /// Waits for nothing yet.
    pub fn new() -> io::Result<Poller> {
        Ok(Poller(epoll::create(epoll::CreateFlags::CLOEXEC)?))
    }

    /// Waits for `flags`, from now on.
    pub fn add(&self, fd: impl AsFd, number: u64, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::add(&self.0, fd, epoll::EventData::new_u64(number), flags)?)
    }

    /// Waits for other `flags`.
    pub fn change(&self, fd: impl AsFd, number: u64, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::modify(
            &self.0,
            fd,
            epoll::EventData::new_u64(number),
            flags,
        )?)
    }

    /// Puts what has happened into `found`; waits for it if it has to.
    pub fn wait(
        &self,
        found: &mut Vec<(Kind, u64, EventFlags)>,
        longest: Option<Duration>,
    ) -> io::Result<()> {
        found.clear();
        let mut events = [epoll::Event {
            flags: EventFlags::empty(),
            data: epoll::EventData::new_u64(0),
        }; EVENTS];
        let longest = Timespec::try_from(longest.unwrap_or(LONGEST).min(LONGEST)).ok();
        let count = match epoll::wait(&self.0, events.as_mut_slice(), longest.as_ref()) {
            Err(rustix::io::Errno::INTR) => return Ok(()),
            other => other?,
        };
        for event in events.iter().take(count) {
            let (kind, index) = kind_and_index(event.data.u64());
            found.push((kind, index, event.flags));
        }
        Ok(())
    }
}
