// SPDX-License-Identifier: Apache-2.0
//! A wire: a Unix stream socket with a frame after the other, each with its length before it (32 bits, big-endian), as QEMU
//! and passt have it; or an interface of the host, which has frames one by one.

use super::frame::FRAME_MAX;
use super::tap::Tap;
use rustix::buffer::spare_capacity;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const LENGTH: usize = 4;
/// Bytes that there is room for when something is read.
const READ: usize = 128 << 10;
/// Bytes that are read before a guest takes them: passt drops what does not fit in the socket, and TCP is slow then.
pub const AHEAD: usize = 4 << 20;
/// Bytes that wait to be written before more is taken from a guest.
const WRITE_MAX: usize = 256 << 10;

enum Wire {
    Socket(UnixStream),
    Tap(Tap),
}

/// One end of a wire. Nothing here waits.
pub struct Link {
    wire: Wire,
    incoming: Vec<u8>,
    /// What of `incoming` was taken.
    taken: usize,
    /// Bytes that may be in `incoming` before no more is read.
    ahead: usize,
    outgoing: Vec<u8>,
    /// What of `outgoing` was written.
    written: usize,
    /// Nothing more comes.
    has_ended: bool,
    is_lost: bool,
}

impl Link {
    /// `ahead`: bytes of whole frames that are read before they are asked for.
    pub fn new(socket: UnixStream, ahead: usize) -> io::Result<Link> {
        socket.set_nonblocking(true)?;
        Ok(Link::of(Wire::Socket(socket), ahead))
    }

    /// A link to an interface of the host: a tap with IFF_NO_PI and IFF_VNET_HDR.
    ///
    /// `mtu`: of the interface.
    pub fn to_tap(tap: OwnedFd, mtu: usize, ahead: usize) -> io::Result<Link> {
        Ok(Link::of(Wire::Tap(Tap::new(tap, mtu)?), ahead))
    }

    fn of(wire: Wire, ahead: usize) -> Link {
        Link {
            wire,
            incoming: Vec::new(),
            taken: 0,
            ahead,
            outgoing: Vec::new(),
            written: 0,
            has_ended: false,
            is_lost: false,
        }
    }

    /// The wire, to be waited for.
    pub fn fd(&self) -> BorrowedFd<'_> {
        match &self.wire {
            Wire::Socket(socket) => socket.as_fd(),
            Wire::Tap(tap) => tap.fd(),
        }
    }

    /// The other end has gone, or has said what cannot be; frames are dropped from here on.
    pub fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// There is room for another frame to be sent.
    pub fn has_room(&self) -> bool {
        self.is_lost || self.outgoing.len() - self.written < WRITE_MAX
    }

    /// Something waits to be written.
    pub fn is_waiting(&self) -> bool {
        !self.is_lost && self.written < self.outgoing.len()
    }

    /// Bytes that wait to be written.
    pub fn backlog(&self) -> usize {
        self.outgoing.len() - self.written
    }

    /// Puts a frame behind those that wait; `flush` writes them.
    pub fn send(&mut self, frame: &[u8]) {
        if !self.is_lost {
            self.outgoing
                .extend_from_slice(&(frame.len() as u32).to_be_bytes());
            self.outgoing.extend_from_slice(frame);
        }
    }

    /// Like `send`, of a frame of `length` zeros that `fill` makes into one.
    pub fn send_filled<R>(&mut self, length: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        let start = self.outgoing.len() + LENGTH;
        self.outgoing.extend_from_slice(&(length as u32).to_be_bytes());
        self.outgoing.resize(start + length, 0);
        let result = fill(self.outgoing.get_mut(start..).unwrap_or(&mut []));
        if self.is_lost {
            self.outgoing.clear();
        }
        result
    }

    /// Writes what can be written now.
    pub fn flush(&mut self) {
        while self.is_waiting() {
            let waiting = self.outgoing.get(self.written..).unwrap_or(&[]);
            let written = match &mut self.wire {
                Wire::Socket(socket) => socket.write(waiting),
                Wire::Tap(tap) => {
                    let (head, rest) = waiting.split_at_checked(LENGTH).unwrap_or_default();
                    let frame = rest.get(..length_of(head)).unwrap_or_default();
                    tap.write(frame).map(|()| LENGTH + frame.len())
                }
            };
            match written {
                Ok(0) => self.lose(),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.lose(),
            }
        }
        if self.written == self.outgoing.len() {
            self.outgoing.clear();
            self.written = 0;
        } else if self.written >= WRITE_MAX {
            self.outgoing.drain(..self.written);
            self.written = 0;
        }
    }

    /// Reads what can be read now: whole frames up to a bound, one at least.
    pub fn fill(&mut self) {
        while !self.is_full() {
            if self.taken >= self.incoming.len() / 2 {
                self.incoming.drain(..self.taken);
                self.taken = 0;
            }
            match self.read() {
                Ok(0) => {
                    self.has_ended = true;
                    self.check();
                }
                Ok(_) => self.check(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.lose(),
            }
        }
    }

    /// Bytes that were read behind those that are here.
    fn read(&mut self) -> io::Result<usize> {
        let incoming = &mut self.incoming;
        match &mut self.wire {
            Wire::Socket(socket) => {
                incoming.reserve(READ);
                Ok(rustix::io::read(&*socket, spare_capacity(incoming))?)
            }
            Wire::Tap(tap) => {
                let frame = tap.read()?;
                incoming.extend_from_slice(&(frame.len() as u32).to_be_bytes());
                incoming.extend_from_slice(frame);
                Ok(LENGTH + frame.len())
            }
        }
    }

    /// The next frame, if it is here; `next` goes on to the one behind.
    pub fn peek(&self) -> Option<&[u8]> {
        let start = self.taken + LENGTH;
        self.incoming.get(start..start + self.length()?)
    }

    /// Goes on to the frame behind the one that `peek` shows.
    pub fn next(&mut self) {
        if let Some(length) = self.length() {
            self.taken += LENGTH + length;
        }
        self.check();
    }

    /// What says an impossible length will never make sense again; after the end only whole frames do.
    fn check(&mut self) {
        let is_nonsense = self.announced().is_some_and(|length| length > FRAME_MAX);
        if is_nonsense || (self.has_ended && self.length().is_none()) {
            self.lose();
        }
    }

    /// Nothing is read now: there is enough, or never will be more.
    pub fn is_full(&self) -> bool {
        let here = self.incoming.len() - self.taken;
        self.is_lost || self.has_ended || (here >= self.ahead && self.length().is_some())
    }

    fn announced(&self) -> Option<usize> {
        self.incoming.get(self.taken..self.taken + LENGTH).map(length_of)
    }

    /// Length of the next frame, if all of it is here.
    fn length(&self) -> Option<usize> {
        let length = self.announced()?;
        (length <= FRAME_MAX && self.incoming.len() - self.taken >= LENGTH + length).then_some(length)
    }

    fn lose(&mut self) {
        self.is_lost = true;
        self.outgoing.clear();
        self.written = 0;
        self.incoming.clear();
        self.taken = 0;
    }
}

fn length_of(head: &[u8]) -> usize {
    head.try_into().map_or(0, u32::from_be_bytes) as usize
}

/// A link that outlives the thread that uses it: the next front end goes on with it.
#[derive(Clone)]
pub struct SharedLink(Arc<Mutex<Link>>);

impl SharedLink {
    /// A link that several may hold.
    pub fn new(link: Link) -> SharedLink {
        SharedLink(Arc::new(Mutex::new(link)))
    }

    /// Held for a turn of the device's thread, which is alone with it, as a rule.
    pub fn lock(&self) -> MutexGuard<'_, Link> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn pair() -> (Link, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Link::new(ours, 10_000).unwrap(), theirs)
    }

    #[test]
    fn frames_arrive_whole_however_the_bytes_come() {
        let (mut link, mut other) = pair();
        let frames: Vec<Vec<u8>> = (0..50).map(|n| vec![n as u8; n * n * 25]).collect();
        let mut bytes = Vec::new();
        for frame in &frames {
            bytes.extend((frame.len() as u32).to_be_bytes());
            bytes.extend(frame);
        }
        let mut got = Vec::new();
        for part in bytes.chunks(777) {
            other.write_all(part).unwrap();
            loop {
                link.fill();
                let Some(frame) = link.peek() else { break };
                got.push(frame.to_vec());
                link.next();
            }
        }
        assert_eq!(got, frames);
        assert!(!link.is_lost());
        drop(other);
        link.fill();
        assert!(link.is_lost());
    }

    #[test]
    fn what_the_other_end_does_not_read_waits_up_to_a_bound() {
        let (mut link, mut other) = pair();
        let mut sent = 0;
        while link.has_room() {
            link.send(&[7; 5000]);
            link.flush();
            sent += 1;
        }
        assert!(link.is_waiting());
        let mut header = [0; 4];
        let mut frame = [0; 5000];
        for _ in 0..sent {
            other.read_exact(&mut header).unwrap();
            other.read_exact(&mut frame).unwrap();
            assert_eq!((u32::from_be_bytes(header), frame[4999]), (5000, 7));
            link.flush();
        }
        assert!(!link.is_waiting() && link.has_room());
        drop(other);
        link.send(&[1]);
        link.flush();
        assert!(link.is_lost());
    }

    #[test]
    fn a_length_that_cannot_be_ends_the_link() {
        let (mut link, mut other) = pair();
        other.write_all(&0x10000u32.to_be_bytes()).unwrap();
        link.fill();
        assert!(link.is_lost());
        let (mut link, mut other) = pair();
        other.write_all(&[0, 0, 0, 1, 9, 0xff, 0xff, 0xff, 0xff]).unwrap();
        link.fill();
        assert_eq!(link.peek(), Some(&[9u8][..]));
        link.next();
        assert!(link.is_lost());
    }
}
