// SPDX-License-Identifier: Apache-2.0
//! A connection: a stream of the host's on one side, the guest's packets on the other.

use super::stack::Stack;
use crate::packet::Unreachable;
use crate::poller::EventFlags;
use crate::wire::Wire;
use rustix::net::sockopt;
use smoltcp::socket::tcp::State;
use smoltcp::time::{Duration, Instant};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

/// How long nothing may happen: what RFC 5382 asks of those between two ends, and some.
const IDLE: Duration = Duration::from_secs(2 * 3600 + 240);
/// When a connection that always has something to do is looked at again.
const SOON: Duration = Duration::from_millis(10);

/// The two ends, as the guest sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ends {
    pub guest: SocketAddr,
    pub peer: SocketAddr,
}

enum Stage {
    /// The host connects; the guest's request waits for what comes of it.
    Connecting(Vec<u8>),
    Open(Box<Stack>),
}

/// What comes after a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing until then, or until something comes.
    At(Instant),
    /// More, when the link has room.
    Room,
    /// It is over.
    End,
    /// The host could not connect: the guest has to be told, and why if it is a matter of the way there.
    Refuse(Option<Unreachable>),
    /// The host has connected: the guest's end can be made.
    Open,
}

/// One connection.
pub struct Flow {
    pub ends: Ends,
    host: TcpStream,
    stage: Stage,
    /// The host's stream may have something to read, or room to write.
    is_readable: bool,
    is_writable: bool,
    /// The host's end has sent all of its data; the guest has.
    host_ended: bool,
    guest_ended: bool,
    last: Instant,
    /// It waits in the queue of those that have something to do.
    pub is_queued: bool,
    /// When it is looked at again.
    pub due: Option<Instant>,
    /// Bytes of memory that it was given.
    pub memory: usize,
}

impl Flow {
    /// One that the guest asks for with `first`, for which the host connects.
    pub fn connecting(ends: Ends, host: TcpStream, first: &[u8], now: Instant) -> Flow {
        Flow::new(ends, host, Stage::Connecting(first.to_vec()), now)
    }

    /// One from outside, for which the guest is asked.
    pub fn accepted(ends: Ends, host: TcpStream, stack: Stack, now: Instant) -> Flow {
        Flow::new(ends, host, Stage::Open(Box::new(stack)), now)
    }

    fn new(ends: Ends, host: TcpStream, stage: Stage, now: Instant) -> Flow {
        Flow {
            ends,
            host,
            stage,
            is_readable: false,
            is_writable: false,
            host_ended: false,
            guest_ended: false,
            last: now,
            is_queued: false,
            due: None,
            memory: 0,
        }
    }

    /// The host's end.
    pub fn host(&self) -> &TcpStream {
        &self.host
    }

    /// When something last happened.
    pub fn last(&self) -> Instant {
        self.last
    }

    /// The guest's request, while the host connects.
    pub fn request(&self) -> Option<&[u8]> {
        match &self.stage {
            Stage::Connecting(first) => Some(first),
            Stage::Open(_) => None,
        }
    }

    /// The guest's end, with `room` bytes each way. False: its request was none.
    pub fn open(&mut self, wire: &mut Wire, now: Instant, room: usize) -> bool {
        let Stage::Connecting(first) = &self.stage else {
            return false;
        };
        let Some(stack) = Stack::accept(wire, now, self.ends.peer, room, first) else {
            return false;
        };
        self.stage = Stage::Open(Box::new(stack));
        true
    }

    /// Takes a packet of the guest's.
    pub fn take(&mut self, wire: &mut Wire, now: Instant, packet: &[u8]) {
        self.last = now;
        if let Stage::Open(stack) = &mut self.stage {
            stack.take(wire, now, packet);
        }
    }

    /// Something has happened to the host's end.
    pub fn notice(&mut self, flags: EventFlags, now: Instant) {
        self.last = now;
        let ends = EventFlags::HUP | EventFlags::ERR;
        self.is_readable |= flags.intersects(EventFlags::IN | EventFlags::RDHUP | ends);
        self.is_writable |= flags.intersects(EventFlags::OUT | ends);
    }

    /// Moves what can be moved.
    pub fn run(&mut self, wire: &mut Wire, now: Instant) -> Next {
        let Stage::Open(stack) = &mut self.stage else {
            if !self.is_writable {
                return Next::At(self.last + IDLE);
            }
            // To ask for the error takes it away: only when there is news.
            return match sockopt::socket_error(&self.host) {
                Ok(Ok(())) => Next::Open,
                Ok(Err(error)) => Next::Refuse(Unreachable::of(&error.into())),
                Err(_) => Next::Refuse(None),
            };
        };
        let moved = to_host(stack, &self.host, &mut self.is_writable)
            .and_then(|()| {
                end_host(stack, &self.host, &mut self.guest_ended)?;
                match self.host_ended {
                    false => from_host(stack, &self.host, &mut self.is_readable),
                    true => Ok(false),
                }
            })
            .map(|ended| self.host_ended |= ended);
        if moved.is_err() || now > self.last + IDLE {
            stack.socket().abort();
        }
        let has_sent = stack.send(wire, now);
        match stack.state() {
            _ if !has_sent => Next::Room,
            State::Closed | State::Listen => Next::End,
            State::TimeWait if self.guest_ended => Next::End,
            _ => {
                let idle = self.last + IDLE;
                let due = stack.due(now).map_or(idle, |due| due.min(idle));
                Next::At(if due <= now { now + SOON } else { due })
            }
        }
    }

    /// Gives the guest a reset, as far as the link has room; the host's end is reset when this is dropped.
    pub fn abort(&mut self, wire: &mut Wire, now: Instant) {
        if let Stage::Open(stack) = &mut self.stage {
            stack.socket().abort();
            stack.send(wire, now);
        }
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        if !(self.host_ended && self.guest_ended) {
            // The host's peer is told that this is no proper end; it is about to be closed in any case.
            let _ = sockopt::set_socket_linger(&self.host, Some(std::time::Duration::ZERO));
        }
    }
}

/// Writes what the guest has sent. Error: nobody reads it.
fn to_host(stack: &mut Stack, mut host: &TcpStream, is_writable: &mut bool) -> io::Result<()> {
    while *is_writable && stack.socket().can_recv() {
        let write = |data: &mut [u8]| match host.write(data) {
            Ok(count) => (count, Ok(())),
            Err(error) => (0, Err(error)),
        };
        match stack.socket().recv(write) {
            Ok(result) => *is_writable = goes_on(result)?,
            Err(_) => return Ok(()), // there is nothing to receive
        }
    }
    Ok(())
}

/// When the guest has sent all, the host's peer is told.
fn end_host(stack: &mut Stack, host: &TcpStream, guest_ended: &mut bool) -> io::Result<()> {
    let has_ended = matches!(
        stack.state(),
        State::CloseWait | State::LastAck | State::Closing | State::TimeWait
    );
    if has_ended && !*guest_ended && stack.socket().recv_queue() == 0 {
        *guest_ended = true;
        host.shutdown(Shutdown::Write)?;
    }
    Ok(())
}

/// Reads for the guest. True: that was all.
fn from_host(stack: &mut Stack, mut host: &TcpStream, is_readable: &mut bool) -> io::Result<bool> {
    while *is_readable && stack.socket().can_send() {
        let mut has_ended = false;
        let read = |room: &mut [u8]| match host.read(room) {
            Ok(count) => {
                has_ended = count == 0 && !room.is_empty();
                (count, Ok(()))
            }
            Err(error) => (0, Err(error)),
        };
        match stack.socket().send(read) {
            Ok(result) => *is_readable = goes_on(result)?,
            Err(_) => return Ok(false), // it does not send any more
        }
        if has_ended {
            stack.socket().close();
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether there may be more at once. Error: there never will be.
fn goes_on(result: io::Result<()>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}
