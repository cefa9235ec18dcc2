// SPDX-License-Identifier: Apache-2.0
//! The guest's side of one connection, by smoltcp: an interface of its own, which sees nothing but this connection's
//! packets, so that one costs the same however many there are.

use crate::wire::{Packets, Wire};
use smoltcp::iface::{Config, Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{HardwareAddress, IpCidr, IpEndpoint};
use std::net::SocketAddr;

/// How long a guest has to answer a connection from outside.
const CONNECT: Duration = Duration::from_secs(30);

/// How long the guest may wait to hear that less than a segment has come: each time costs it time of its processor.
const ACK_DELAY: Duration = Duration::from_millis(2);

/// One end of a connection.
pub struct Stack {
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
}

impl Stack {
    /// An end at `local`, with room for `room` bytes each way.
    fn new(wire: &mut Wire, now: Instant, local: SocketAddr, room: usize) -> Stack {
        let mut interface = interface(wire, now);
        // Everybody is on its link: nothing has to be routed.
        interface.update_ip_addrs(|addresses| {
            let _ = addresses.push(IpCidr::new(local.ip().into(), 0)); // there is room for one
        });
        let buffer = || SocketBuffer::new(vec![0; room]);
        let mut socket = Socket::new(buffer(), buffer());
        // Both ends have their own opinion of what is worth waiting for.
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(Some(ACK_DELAY));
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let handle = sockets.add(socket);
        Stack {
            interface,
            sockets,
            handle,
        }
    }

    /// Takes the connection that the guest asks `local` for, with its first packet.
    pub fn accept(
        wire: &mut Wire,
        now: Instant,
        local: SocketAddr,
        room: usize,
        first: &[u8],
    ) -> Option<Stack> {
        let mut stack = Stack::new(wire, now, local, room);
        stack.socket().listen(IpEndpoint::from(local)).ok()?;
        stack.take(wire, now, first);
        (stack.state() == State::SynReceived).then_some(stack)
    }

    /// Asks the guest for a connection.
    pub fn connect(
        wire: &mut Wire,
        now: Instant,
        local: SocketAddr,
        guest: SocketAddr,
        room: usize,
    ) -> Option<Stack> {
        let mut stack = Stack::new(wire, now, local, room);
        let context = stack.interface.context();
        let socket = stack.sockets.get_mut::<Socket<'_>>(stack.handle);
        socket.set_timeout(Some(CONNECT));
        socket
            .connect(context, IpEndpoint::from(guest), IpEndpoint::from(local))
            .ok()?;
        Some(stack)
    }

    /// The connection.
    pub fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut::<Socket<'_>>(self.handle)
    }

    /// Of the connection.
    pub fn state(&self) -> State {
        self.sockets.get::<Socket<'_>>(self.handle).state()
    }

    /// Takes a packet of the guest's.
    pub fn take(&mut self, wire: &mut Wire, now: Instant, packet: &[u8]) {
        let mut packets = Packets::new(wire, Some(packet));
        self.interface
            .poll_ingress_single(now, &mut packets, &mut self.sockets);
        if self.state() == State::Established && self.socket().timeout().is_some() {
            // A guest that is paused keeps its connections.
            self.socket().set_timeout(None);
        }
    }

    /// Sends what is to be sent. False: there is more, and the link has no room.
    pub fn send(&mut self, wire: &mut Wire, now: Instant) -> bool {
        let mut packets = Packets::new(wire, None);
        while !packets.is_stopped
            && self.interface.poll_egress(now, &mut packets, &mut self.sockets)
                == PollResult::SocketStateChanged
        {}
        !packets.is_stopped
    }

    /// When it has something to do although nothing comes.
    pub fn due(&mut self, now: Instant) -> Option<Instant> {
        self.interface.poll_at(now, &self.sockets)
    }
}

fn interface(wire: &mut Wire, now: Instant) -> Interface {
    let mut config = Config::new(HardwareAddress::Ip);
    config.random_seed = seed();
    Interface::new(config, &mut Packets::new(wire, None), now)
}

/// Sequence numbers begin where nobody can guess.
fn seed() -> u64 {
    let mut bytes = [0; 8];
    // Of eight bytes the kernel gives all or, long before there is a guest, none.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    u64::from_ne_bytes(bytes)
}

/// Has no connection: what it is given is answered with a reset, and an echo request with its echo.
pub struct Nobody {
    interface: Interface,
    sockets: SocketSet<'static>,
}

impl Nobody {
    /// At all addresses.
    pub fn new(wire: &mut Wire, now: Instant) -> Nobody {
        let mut interface = interface(wire, now);
        interface.set_any_ip(true);
        Nobody {
            interface,
            sockets: SocketSet::new(Vec::new()),
        }
    }

    /// Answers a packet of the guest's.
    pub fn answer(&mut self, wire: &mut Wire, now: Instant, packet: &[u8]) {
        if wire.link.has_room() {
            let mut packets = Packets::new(wire, Some(packet));
            self.interface
                .poll_ingress_single(now, &mut packets, &mut self.sockets);
        }
    }
}
