// SPDX-License-Identifier: Apache-2.0
//! UDP: each pair of ports that the guest uses is a socket of the host's, as long as something comes of it. Ports of the
//! host's that lead to the guest share one for all who send to it.

use crate::address::is_outside;
use crate::packet::{port_unreachable, Message};
use crate::poller::{number, EventFlags, Kind};
use crate::tcp::{seen_by_guest, Turn};
use rustix::net::{self, AddressFamily, SocketFlags, SocketType};
use smoltcp::time::{Duration, Instant};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::rc::Rc;

/// Flows at once; the one in which nothing has happened for longest gives way.
pub const FLOWS_MAX: usize = 256;
/// A flow with nothing in it for so long is over; one of name servers, which are asked once, earlier.
const IDLE: Duration = Duration::from_secs(180);
const IDLE_NAMES: Duration = Duration::from_secs(20);
/// After so long without an answer, the next name server is asked.
const NO_ANSWER: Duration = Duration::from_millis(1500);
/// Datagrams that are read before others have their turn.
const BURST: usize = 32;
/// Bytes of a datagram at most.
const DATAGRAM_MAX: usize = 0xffff;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Ends {
    guest: SocketAddr,
    peer: SocketAddr,
}

enum Socket {
    /// Of this flow only, and connected.
    Own(UdpSocket),
    /// Of a port that leads to the guest, and who has sent to it.
    Forward(Rc<UdpSocket>, SocketAddr),
}

struct Flow {
    ends: Ends,
    socket: Socket,
    last: Instant,
    /// A question for a name server waits for an answer since.
    asked: Option<Instant>,
}

/// All flows.
pub struct Flows {
    flows: HashMap<u64, Flow>,
    by_ends: HashMap<Ends, u64>,
    next: u64,
    /// Which name server is asked.
    server: usize,
    buffer: Vec<u8>,
}

impl Flows {
    /// None yet.
    pub fn new() -> Flows {
        Flows {
            flows: HashMap::new(),
            by_ends: HashMap::new(),
            next: 0,
            server: 0,
            buffer: vec![0; DATAGRAM_MAX],
        }
    }

    /// Sends what the guest sends.
    pub fn send(
        &mut self,
        turn: &mut Turn<'_>,
        guest: SocketAddr,
        peer: SocketAddr,
        data: &[u8],
    ) -> Option<()> {
        let ends = Ends { guest, peer };
        let is_name_server = turn.config.is_name_server(peer);
        if is_name_server {
            self.change_server(ends, turn.now);
        }
        let index = match self.by_ends.get(&ends) {
            Some(index) => *index,
            None => self.open(turn, ends)?,
        };
        let flow = self.flows.get_mut(&index)?;
        flow.last = turn.now;
        if is_name_server {
            flow.asked.get_or_insert(turn.now);
        }
        let send = || match &flow.socket {
            Socket::Own(socket) => socket.send(data),
            Socket::Forward(socket, to) => socket.send_to(data, to),
        };
        // The first error may be what an earlier datagram has met; what cannot be sent then is lost.
        let _ = send().or_else(|_| send());
        Some(())
    }

    /// A guest that asks again has had no answer: another name server is asked.
    fn change_server(&mut self, ends: Ends, now: Instant) {
        let waits = |flow: &Flow| flow.asked.is_some_and(|asked| now > asked + NO_ANSWER);
        let silent = self.flows.iter().find(|(_, flow)| {
            flow.ends.peer == ends.peer && matches!(flow.socket, Socket::Own(_)) && waits(flow)
        });
        if let Some((&index, _)) = silent {
            self.server = self.server.wrapping_add(1);
            self.end(index);
        }
    }

    fn open(&mut self, turn: &mut Turn<'_>, ends: Ends) -> Option<u64> {
        let target = match turn.config.is_name_server(ends.peer) {
            true => turn.config.name_server(self.server)?,
            false if turn.config.is_own(ends.peer.ip()) || !is_outside(ends.peer.ip()) => return None,
            false => ends.peer,
        };
        let Ok(socket) = connect(target) else {
            // No address that this host can send to: the next question is for the next one.
            self.server = self.server.wrapping_add(1);
            return None;
        };
        let index = self.next;
        let events = EventFlags::IN;
        turn.poller.add(&socket, number(Kind::Udp, index), events).ok()?;
        Some(self.insert(ends, Socket::Own(socket), turn.now))
    }

    fn insert(&mut self, ends: Ends, socket: Socket, now: Instant) -> u64 {
        if self.flows.len() >= FLOWS_MAX {
            let oldest = self.flows.iter().min_by_key(|(_, flow)| flow.last);
            if let Some((&index, _)) = oldest {
                self.end(index);
            }
        }
        let index = self.next;
        self.next += 1;
        self.by_ends.insert(ends, index);
        let flow = Flow {
            ends,
            socket,
            last: now,
            asked: None,
        };
        self.flows.insert(index, flow);
        index
    }

    fn end(&mut self, index: u64) {
        if let Some(flow) = self.flows.remove(&index) {
            self.by_ends.remove(&flow.ends);
        }
    }

    /// Gives the guest what has come for a flow.
    pub fn receive(&mut self, turn: &mut Turn<'_>, index: u64) {
        for _ in 0..BURST {
            let Some(flow) = self.flows.get_mut(&index) else {
                return;
            };
            let Socket::Own(socket) = &flow.socket else { return };
            let Ends { guest, peer } = flow.ends;
            match socket.recv(&mut self.buffer) {
                Ok(length) => {
                    flow.last = turn.now;
                    flow.asked = None;
                    give(turn, peer, guest, self.buffer.get(..length).unwrap_or(&[]));
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    refuse(turn, guest, peer);
                    if flow.asked.is_some() {
                        self.server = self.server.wrapping_add(1);
                    }
                    self.end(index);
                    return;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return, // nothing, or what some router says of an earlier datagram
            }
        }
    }

    /// Gives the guest what has come to a port that leads to it.
    pub fn receive_forward(&mut self, turn: &mut Turn<'_>, socket: &Rc<UdpSocket>, port: u16) {
        for _ in 0..BURST {
            let (length, from) = match socket.recv_from(&mut self.buffer) {
                Ok(found) => found,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => continue, // of an earlier datagram
            };
            let address = turn.wire.guest_ipv4.unwrap_or(turn.config.guest);
            let guest = SocketAddr::new(IpAddr::V4(address), port);
            let peer = seen_by_guest(turn.config, from);
            let ends = Ends { guest, peer };
            let known = self.by_ends.get(&ends).copied();
            let index = known
                .unwrap_or_else(|| self.insert(ends, Socket::Forward(Rc::clone(socket), from), turn.now));
            if let Some(flow) = self.flows.get_mut(&index) {
                flow.last = turn.now;
                if let Socket::Forward(_, to) = &mut flow.socket {
                    *to = from;
                }
            }
            give(turn, peer, guest, self.buffer.get(..length).unwrap_or(&[]));
        }
    }

    /// Ends flows with nothing in them.
    pub fn sweep(&mut self, config: &crate::config::Config, now: Instant) {
        self.flows.retain(|_, flow| {
            let idle = match config.is_name_server(flow.ends.peer) {
                true => IDLE_NAMES,
                false => IDLE,
            };
            let stays = now <= flow.last + idle;
            if !stays {
                self.by_ends.remove(&flow.ends);
            }
            stays
        });
    }

    /// Whether there are any.
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }
}

fn give(turn: &mut Turn<'_>, peer: SocketAddr, guest: SocketAddr, data: &[u8]) {
    let message = Message::Udp {
        source: peer.port(),
        target: guest.port(),
        data,
    };
    turn.wire.send_message(peer.ip(), guest.ip(), &message);
}

/// Tells the guest that nobody has the port: with the header of its datagram, of which only the ports matter.
fn refuse(turn: &mut Turn<'_>, guest: SocketAddr, peer: SocketAddr) {
    let ([a, b], [c, d]) = (guest.port().to_be_bytes(), peer.port().to_be_bytes());
    let quoted = [a, b, c, d, 0, 8, 0, 0];
    let message = port_unreachable(guest, peer, &quoted);
    turn.wire.send_message(peer.ip(), guest.ip(), &message);
}

fn connect(target: SocketAddr) -> io::Result<UdpSocket> {
    let family = match target {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = net::socket_with(family, SocketType::DGRAM, flags, None)?;
    net::connect(&socket, &target)?;
    Ok(UdpSocket::from(socket))
}
