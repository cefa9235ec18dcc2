// SPDX-License-Identifier: Apache-2.0
//! Echo requests (ping), through sockets that need no privilege where `net.ipv4.ping_group_range` has the user's group. Where
//! it has not, the guest is told so, as of what else the host cannot send.

use crate::address::is_outside;
use crate::flows;
use crate::host;
use crate::packet::{Message, Unreachable};
use crate::poller::{number, EventFlags, Kind};
use crate::tcp::Turn;
use rustix::net::{self, ipproto, RecvFlags, SendFlags, SocketType};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, IpProtocol};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

/// Flows at once; the one in which nothing has happened for longest gives way.
pub const FLOWS_MAX: usize = 64;
/// A flow with nothing in it for so long is over.
const IDLE: Duration = Duration::from_secs(30);
/// Replies that are read before others have their turn.
const BURST: usize = 16;
/// Bytes of a message before its data: type, code, checksum, identifier, number.
const HEADER: usize = 8;
const MESSAGE_MAX: usize = 0xffff;

/// Whose requests these are: the guest's program says so with `ident`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Ends {
    guest: IpAddr,
    peer: IpAddr,
    ident: u16,
}

/// A flow's socket, and the header of the guest's last request.
struct Host {
    socket: OwnedFd,
    asked: [u8; HEADER],
}

/// All flows.
pub struct Flows {
    flows: flows::Flows<Ends, Host>,
    buffer: Vec<u8>,
}

impl Flows {
    /// None yet.
    pub fn new() -> Flows {
        Flows {
            flows: flows::Flows::new(FLOWS_MAX),
            buffer: vec![0; MESSAGE_MAX],
        }
    }

    /// Sends the guest's request; other messages are dropped.
    pub fn send(&mut self, turn: &mut Turn<'_>, guest: IpAddr, peer: IpAddr, message: &[u8]) -> Option<()> {
        let (ident, number) = request(guest, peer, message)?;
        let asked = *message.first_chunk()?;
        let ends = Ends { guest, peer, ident };
        let index = match self.flows.between(&ends) {
            Some(index) => index,
            None => self.open(turn, ends, asked)?,
        };
        let flow = self.flows.get_mut(index)?;
        flow.last = turn.now;
        flow.host.asked = asked;
        let kind = if peer.is_ipv4() { 8 } else { 128 };
        let [high, low] = number.to_be_bytes();
        // The kernel fills in checksum and identifier.
        let mut sent = vec![kind, 0, 0, 0, 0, 0, high, low];
        sent.extend_from_slice(message.get(HEADER..)?);
        let send = || {
            net::send(
                &flow.host.socket,
                &sent,
                SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
            )
        };
        // The first error may be of an earlier one.
        if let Err(error) = send().or_else(|_| send()) {
            tell(turn, ends, &asked, &error.into());
        }
        Some(())
    }

    fn open(&mut self, turn: &mut Turn<'_>, ends: Ends, asked: [u8; HEADER]) -> Option<u64> {
        if !is_outside(ends.peer) || turn.config.is_own(ends.peer) {
            return None;
        }
        let socket = match connect(ends.peer) {
            Ok(socket) => socket,
            Err(error) => {
                tell(turn, ends, &asked, &error);
                return None;
            }
        };
        let number = number(Kind::Echo, self.flows.next());
        turn.poller.add(&socket, number, EventFlags::IN).ok()?;
        Some(self.flows.insert(ends, Host { socket, asked }, turn.now))
    }

    /// Gives the guest the replies that have come.
    pub fn receive(&mut self, turn: &mut Turn<'_>, index: u64) {
        for _ in 0..BURST {
            let Some(flow) = self.flows.get_mut(index) else {
                return;
            };
            let ends = flow.ends;
            let flags = RecvFlags::DONTWAIT;
            let length = match net::recv(&flow.host.socket, self.buffer.as_mut_slice(), flags) {
                Ok((length, _)) => length,
                Err(error) => {
                    // Nothing, or what some router says of a request.
                    tell(turn, ends, &flow.host.asked, &error.into());
                    return;
                }
            };
            flow.last = turn.now;
            let message = self.buffer.get(..length).unwrap_or(&[]);
            if let Some(message) = reply(ends, message) {
                turn.wire.send_message(ends.peer, ends.guest, &message);
            }
        }
    }

    /// Ends flows with nothing in them.
    pub fn sweep(&mut self, now: Instant) {
        self.flows.retain(|flow| now <= flow.last + IDLE);
    }

    /// Whether there are any.
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }
}

/// Tells the guest that nobody gets its request, if that is what the error means.
fn tell(turn: &mut Turn<'_>, ends: Ends, asked: &[u8; HEADER], error: &io::Error) {
    let protocol = match ends.peer {
        IpAddr::V4(_) => IpProtocol::Icmp,
        IpAddr::V6(_) => IpProtocol::Icmpv6,
    };
    if let Some(why) = Unreachable::of(error) {
        turn.unreachable(why, protocol, (ends.guest, ends.peer), asked);
    }
}

/// Identifier and number of a request.
fn request(guest: IpAddr, peer: IpAddr, message: &[u8]) -> Option<(u16, u16)> {
    let sums = ChecksumCapabilities::default();
    match (guest, peer) {
        (IpAddr::V4(_), IpAddr::V4(_)) => {
            let packet = Icmpv4Packet::new_checked(message).ok()?;
            match Icmpv4Repr::parse(&packet, &sums).ok()? {
                Icmpv4Repr::EchoRequest { ident, seq_no, .. } => Some((ident, seq_no)),
                _ => None,
            }
        }
        (IpAddr::V6(guest), IpAddr::V6(peer)) => {
            let packet = Icmpv6Packet::new_checked(message).ok()?;
            match Icmpv6Repr::parse(&guest, &peer, &packet, &sums).ok()? {
                Icmpv6Repr::EchoRequest { ident, seq_no, .. } => Some((ident, seq_no)),
                _ => None,
            }
        }
        _ => None,
    }
}

/// A reply that the host has got, for the guest's program.
fn reply(ends: Ends, message: &[u8]) -> Option<Message<'_>> {
    let (header, data) = message.split_at_checked(HEADER)?;
    let seq_no = u16::from_be_bytes([*header.get(6)?, *header.get(7)?]);
    let ident = ends.ident;
    match (ends.peer, header.first()?) {
        (IpAddr::V4(_), 0) => Some(Message::Icmp(Icmpv4Repr::EchoReply { ident, seq_no, data })),
        (IpAddr::V6(_), 129) => Some(Message::Icmpv6(Icmpv6Repr::EchoReply { ident, seq_no, data })),
        _ => None,
    }
}

fn connect(peer: IpAddr) -> io::Result<OwnedFd> {
    let protocol = match peer {
        IpAddr::V4(_) => ipproto::ICMP,
        IpAddr::V6(_) => ipproto::ICMPV6,
    };
    let target = SocketAddr::new(peer, 0);
    host::connect(target, SocketType::DGRAM, Some(protocol), |_| Ok(()))
}
