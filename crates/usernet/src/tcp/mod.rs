// SPDX-License-Identifier: Apache-2.0
//! TCP: a connection of the guest's (`stack`) and one of the host's, and what moves between them (`flow`). The guest is told
//! that a connection is open when the host's is, that it is refused when the host's was, and that nobody is reached when the
//! host says so.

mod flow;
mod stack;

use crate::address::is_outside;
use crate::config::Config;
use crate::host;
use crate::lan::ROUTER_IPV6;
use crate::packet::{quoted, Unreachable};
use crate::poller::{number, EventFlags, Kind, Poller};
use crate::wire::Wire;
use flow::{Ends, Flow, Next};
use rustix::net::{sockopt, SocketType};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::IpProtocol;
use stack::{Nobody, Stack};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;

/// Connections at once.
pub const CONNECTIONS_MAX: usize = 512;
/// Bytes of memory for data on the way, of all connections.
const MEMORY: usize = 192 << 20;
/// Bytes for data on the way, of one connection in one direction.
const ROOM_MAX: usize = 512 << 10;
const ROOM_MIN: usize = 16 << 10;
/// One connection has this part of what is left at most.
const SHARE: usize = 32;
/// A connection in which nothing has happened for so long gives way to a new one.
const GIVES_WAY: Duration = Duration::from_secs(60);
/// All that the host can say of a connection; once each time that it changes.
const EVENTS: EventFlags = EventFlags::IN
    .union(EventFlags::OUT)
    .union(EventFlags::RDHUP)
    .union(EventFlags::ET);

/// What a turn of the loop has at hand.
pub struct Turn<'a> {
    pub config: &'a Config,
    pub poller: &'a Poller,
    pub wire: &'a mut Wire,
    pub now: Instant,
}

impl Turn<'_> {
    /// Tells the guest that nobody gets what it has sent, by a message of who knows that: the peer's of its port, else the
    /// router's.
    pub fn unreachable(
        &mut self,
        why: Unreachable,
        protocol: IpProtocol,
        (guest, peer): (IpAddr, IpAddr),
        quoted: &[u8; 8],
    ) {
        let from = match (why, peer) {
            (Unreachable::Port, peer) => peer,
            (_, IpAddr::V4(_)) => IpAddr::V4(self.config.gateway),
            (_, IpAddr::V6(_)) => IpAddr::V6(ROUTER_IPV6),
        };
        if let Some(message) = why.message(protocol, guest, peer, quoted) {
            self.wire.send_message(from, guest, &message);
        }
    }
}

/// All connections.
pub struct Connections {
    flows: HashMap<u64, Flow>,
    by_ends: HashMap<Ends, u64>,
    /// Those that have something to do.
    queue: VecDeque<u64>,
    timers: BTreeSet<(Instant, u64)>,
    next: u64,
    /// Bytes of memory that nobody was given, and how many were given some.
    left: usize,
    given: usize,
    nobody: Nobody,
}

impl Connections {
    /// None yet.
    pub fn new(wire: &mut Wire, now: Instant) -> Connections {
        Connections {
            flows: HashMap::new(),
            by_ends: HashMap::new(),
            queue: VecDeque::new(),
            timers: BTreeSet::new(),
            next: 0,
            left: MEMORY,
            given: 0,
            nobody: Nobody::new(wire, now),
        }
    }

    /// Answers a packet for an address of the network's own, or that nobody has asked for.
    pub fn refuse(&mut self, turn: &mut Turn<'_>, packet: &[u8]) {
        self.nobody.answer(turn.wire, turn.now, packet);
    }

    /// Takes a segment of the guest's.
    pub fn take(
        &mut self,
        turn: &mut Turn<'_>,
        guest: SocketAddr,
        peer: SocketAddr,
        opens: bool,
        packet: &[u8],
    ) {
        let ends = Ends { guest, peer };
        match self.by_ends.get(&ends) {
            Some(&index) => {
                if let Some(flow) = self.flows.get_mut(&index) {
                    flow.take(turn.wire, turn.now, packet);
                }
                self.enqueue(index);
            }
            None if opens => {
                if let Err(why) = self.open(turn, ends, packet) {
                    refuse(&mut self.nobody, turn, ends, packet, why);
                }
            }
            None => self.refuse(turn, packet),
        }
    }

    /// The host connects for the guest. An error: it cannot, and why if it is a matter of the way there.
    fn open(&mut self, turn: &mut Turn<'_>, ends: Ends, packet: &[u8]) -> Result<(), Option<Unreachable>> {
        let target = match turn.config.is_name_server(ends.peer) {
            true => turn.config.name_server(self.next as usize).ok_or(None)?,
            false => ends.peer,
        };
        let is_allowed = target != ends.peer || (is_outside(target.ip()) && !turn.config.is_own(target.ip()));
        if !is_allowed || !self.make_room(turn) {
            return Err(None);
        }
        let host = connect(target).map_err(|error| Unreachable::of(&error))?;
        self.insert(turn, Flow::connecting(ends, host, packet, turn.now))
            .ok_or(None)
    }

    /// Connects to the guest's port, for one from outside.
    pub fn accept(
        &mut self,
        turn: &mut Turn<'_>,
        host: TcpStream,
        from: SocketAddr,
        port: u16,
    ) -> Option<()> {
        let guest = SocketAddr::new(
            IpAddr::V4(turn.wire.guest_ipv4.unwrap_or(turn.config.guest)),
            port,
        );
        let peer = seen_by_guest(turn.config, from);
        let ends = Ends { guest, peer };
        host.set_nonblocking(true).ok()?;
        sockopt::set_tcp_nodelay(&host, true).ok()?;
        if self.by_ends.contains_key(&ends) || !self.make_room(turn) {
            return None;
        }
        let room = self.room();
        let stack = Stack::connect(turn.wire, turn.now, peer, guest, room)?;
        let mut flow = Flow::accepted(ends, host, stack, turn.now);
        flow.memory = 2 * room;
        self.left = self.left.saturating_sub(flow.memory);
        self.given += 1;
        self.insert(turn, flow)
    }

    fn insert(&mut self, turn: &mut Turn<'_>, flow: Flow) -> Option<()> {
        let index = self.next;
        self.next += 1;
        if turn
            .poller
            .add(flow.host(), number(Kind::Tcp, index), EVENTS)
            .is_err()
        {
            self.take_back(&flow);
            return None;
        }
        self.by_ends.insert(flow.ends, index);
        self.flows.insert(index, flow);
        self.enqueue(index);
        Some(())
    }

    /// Bytes for each direction of a new connection; there is some left for all others that may come.
    fn room(&self) -> usize {
        let others = CONNECTIONS_MAX.saturating_sub(self.given);
        let spare = self.left.saturating_sub(others * 2 * ROOM_MIN);
        (spare / SHARE).clamp(ROOM_MIN, ROOM_MAX)
    }

    fn take_back(&mut self, flow: &Flow) {
        if flow.memory > 0 {
            self.left += flow.memory;
            self.given -= 1;
        }
    }

    /// Makes room for one more. False: all are in use.
    fn make_room(&mut self, turn: &mut Turn<'_>) -> bool {
        if self.flows.len() < CONNECTIONS_MAX {
            return true;
        }
        let oldest = self.flows.iter().min_by_key(|(_, flow)| flow.last());
        let Some((&index, flow)) = oldest else {
            return false;
        };
        let gives_way = turn.now > flow.last() + GIVES_WAY;
        if gives_way {
            self.end(turn, index);
        }
        gives_way
    }

    fn end(&mut self, turn: &mut Turn<'_>, index: u64) {
        if let Some(mut flow) = self.flows.remove(&index) {
            flow.abort(turn.wire, turn.now);
            self.by_ends.remove(&flow.ends);
            self.take_back(&flow);
            if let Some(due) = flow.due {
                self.timers.remove(&(due, index));
            }
        }
    }

    /// Something has happened to a connection of the host's.
    pub fn notice(&mut self, index: u64, flags: EventFlags, now: Instant) {
        if let Some(flow) = self.flows.get_mut(&index) {
            flow.notice(flags, now);
            self.enqueue(index);
        }
    }

    fn enqueue(&mut self, index: u64) {
        if let Some(flow) = self.flows.get_mut(&index) {
            if !flow.is_queued {
                flow.is_queued = true;
                self.queue.push_back(index);
            }
        }
    }

    /// Something can be done now.
    pub fn is_busy(&self, wire: &Wire) -> bool {
        !self.queue.is_empty() && wire.link.has_room()
    }

    /// When something is to be done although nothing happens.
    pub fn due(&self) -> Option<Instant> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// Gives each connection that has something to do a turn, as long as the link has room.
    pub fn run(&mut self, turn: &mut Turn<'_>) {
        while let Some(&(due, index)) = self.timers.first() {
            if due > turn.now {
                break;
            }
            self.timers.pop_first();
            if let Some(flow) = self.flows.get_mut(&index) {
                flow.due = None;
            }
            self.enqueue(index);
        }
        for _ in 0..self.queue.len() {
            if !turn.wire.link.has_room() {
                return;
            }
            let Some(index) = self.queue.pop_front() else {
                return;
            };
            self.run_one(turn, index);
        }
    }

    fn run_one(&mut self, turn: &mut Turn<'_>, index: u64) {
        let Some(flow) = self.flows.get_mut(&index) else {
            return;
        };
        flow.is_queued = false;
        match flow.run(turn.wire, turn.now) {
            Next::At(due) => {
                if let Some(old) = flow.due.replace(due) {
                    self.timers.remove(&(old, index));
                }
                self.timers.insert((due, index));
            }
            Next::Room => self.enqueue(index),
            Next::End => self.end(turn, index),
            Next::Refuse(why) => {
                if let Some(request) = flow.request() {
                    refuse(&mut self.nobody, turn, flow.ends, request, why);
                }
                self.end(turn, index);
            }
            Next::Open => self.open_guests_end(turn, index),
        }
    }

    fn open_guests_end(&mut self, turn: &mut Turn<'_>, index: u64) {
        let room = self.room();
        let Some(flow) = self.flows.get_mut(&index) else {
            return;
        };
        if !flow.open(turn.wire, turn.now, room) {
            self.end(turn, index);
            return;
        }
        flow.memory = 2 * room;
        self.left = self.left.saturating_sub(2 * room);
        self.given += 1;
        self.enqueue(index);
    }
}

/// Tells the guest that its request has come to nothing: by a reset, or by a message that says why.
fn refuse(nobody: &mut Nobody, turn: &mut Turn<'_>, ends: Ends, request: &[u8], why: Option<Unreachable>) {
    match (why, quoted(request)) {
        (Some(why), Some(quoted)) => {
            turn.unreachable(why, IpProtocol::Tcp, (ends.guest.ip(), ends.peer.ip()), &quoted);
        }
        _ => nobody.answer(turn.wire, turn.now, request),
    }
}

/// Begins to connect.
fn connect(target: SocketAddr) -> io::Result<TcpStream> {
    let prepare = |socket: &OwnedFd| sockopt::set_tcp_nodelay(socket, true);
    host::connect(target, SocketType::STREAM, None, prepare).map(TcpStream::from)
}

/// Who connects from the host itself, or with another family, is the router to the guest.
pub fn seen_by_guest(config: &Config, from: SocketAddr) -> SocketAddr {
    let ip = from.ip().to_canonical();
    match ip.is_ipv4() && is_outside(ip) && !config.is_own(ip) {
        true => SocketAddr::new(ip, from.port()),
        false => SocketAddr::new(IpAddr::V4(config.gateway), from.port()),
    }
}
