// SPDX-License-Identifier: Apache-2.0
//! UDP: each pair of ports that the guest uses is a socket of the host's, as long as something comes of it. Ports of the
//! host's that lead to the guest share one for all who send to it.

use crate::address::is_outside;
use crate::flows;
use crate::host;
use crate::packet::{Message, Unreachable};
use crate::poller::{number, EventFlags, Kind};
use crate::tcp::{seen_by_guest, Turn};
use rustix::net::SocketType;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::IpProtocol;
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

/// What the host has for a flow.
struct Host {
    socket: Socket,
    /// A question for a name server waits for an answer since.
    asked: Option<Instant>,
}

impl Host {
    fn new(socket: Socket) -> Host {
        Host { socket, asked: None }
    }
}

/// All flows.
pub struct Flows {
    flows: flows::Flows<Ends, Host>,
    /// Which name server is asked.
    server: usize,
    buffer: Vec<u8>,
}

impl Flows {
    /// None yet.
    pub fn new() -> Flows {
        Flows {
            flows: flows::Flows::new(FLOWS_MAX),
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
        let index = match self.flows.between(&ends) {
            Some(index) => index,
            None => self.open(turn, ends)?,
        };
        let flow = self.flows.get_mut(index)?;
        flow.last = turn.now;
        if is_name_server {
            flow.host.asked.get_or_insert(turn.now);
        }
        let send = || match &flow.host.socket {
            Socket::Own(socket) => socket.send(data),
            Socket::Forward(socket, to) => socket.send_to(data, to),
        };
        // The first error may be what an earlier datagram has met; what cannot be sent then is lost.
        let _ = send().or_else(|_| send());
        Some(())
    }

    /// A guest that asks again has had no answer: another name server is asked.
    fn change_server(&mut self, ends: Ends, now: Instant) {
        let waits = |host: &Host| host.asked.is_some_and(|asked| now > asked + NO_ANSWER);
        let silent = self.flows.find(|flow| {
            flow.ends.peer == ends.peer && matches!(flow.host.socket, Socket::Own(_)) && waits(&flow.host)
        });
        if let Some(index) = silent {
            self.server = self.server.wrapping_add(1);
            self.flows.end(index);
        }
    }

    fn open(&mut self, turn: &mut Turn<'_>, ends: Ends) -> Option<u64> {
        let target = match turn.config.is_name_server(ends.peer) {
            true => turn.config.name_server(self.server)?,
            false if turn.config.is_own(ends.peer.ip()) || !is_outside(ends.peer.ip()) => return None,
            false => ends.peer,
        };
        let socket = match connect(target) {
            Ok(socket) => socket,
            Err(error) => {
                // No address that this host can send to: the next question is for the next one.
                self.server = self.server.wrapping_add(1);
                tell(turn, ends, Unreachable::of(&error)?);
                return None;
            }
        };
        let number = number(Kind::Udp, self.flows.next());
        turn.poller.add(&socket, number, EventFlags::IN).ok()?;
        let host = Host::new(Socket::Own(socket));
        Some(self.flows.insert(ends, host, turn.now))
    }

    /// Gives the guest what has come for a flow.
    pub fn receive(&mut self, turn: &mut Turn<'_>, index: u64) {
        for _ in 0..BURST {
            let Some(flow) = self.flows.get_mut(index) else {
                return;
            };
            let Socket::Own(socket) = &flow.host.socket else {
                return;
            };
            let ends = flow.ends;
            match socket.recv(&mut self.buffer) {
                Ok(length) => {
                    flow.last = turn.now;
                    flow.host.asked = None;
                    let data = self.buffer.get(..length).unwrap_or(&[]);
                    give(turn, ends.peer, ends.guest, data);
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    tell(turn, ends, Unreachable::Port);
                    if flow.host.asked.is_some() {
                        self.server = self.server.wrapping_add(1);
                    }
                    self.flows.end(index);
                    return;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => match Unreachable::of(&error) {
                    Some(why) => tell(turn, ends, why), // an earlier datagram
                    None => return,
                },
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
            let index = self.flows.between(&ends).unwrap_or_else(|| {
                let host = Host::new(Socket::Forward(Rc::clone(socket), from));
                self.flows.insert(ends, host, turn.now)
            });
            if let Some(flow) = self.flows.get_mut(index) {
                flow.last = turn.now;
                if let Socket::Forward(_, to) = &mut flow.host.socket {
                    *to = from;
                }
            }
            give(turn, peer, guest, self.buffer.get(..length).unwrap_or(&[]));
        }
    }

    /// Ends flows with nothing in them.
    pub fn sweep(&mut self, config: &crate::config::Config, now: Instant) {
        self.flows.retain(|flow| {
            let idle = match config.is_name_server(flow.ends.peer) {
                true => IDLE_NAMES,
                false => IDLE,
            };
            now <= flow.last + idle
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

/// Tells the guest that nobody gets its datagrams: with the header of one, of which only the ports matter.
fn tell(turn: &mut Turn<'_>, ends: Ends, why: Unreachable) {
    let Ends { guest, peer } = ends;
    let ([a, b], [c, d]) = (guest.port().to_be_bytes(), peer.port().to_be_bytes());
    let quoted = [a, b, c, d, 0, 8, 0, 0];
    turn.unreachable(why, IpProtocol::Udp, (guest.ip(), peer.ip()), &quoted);
}

fn connect(target: SocketAddr) -> io::Result<UdpSocket> {
    host::connect(target, SocketType::DGRAM, None, |_| Ok(())).map(UdpSocket::from)
}
