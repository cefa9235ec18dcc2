// SPDX-License-Identifier: Apache-2.0
//! The loop of one network: takes what the guest sends, as long as there is room for what that brings about, and what the
//! host's sockets have for it. Ends with the guest's wire.

use crate::address::is_source;
use crate::config::{Config, Forward};
use crate::packet::{Body, Packet};
use crate::poller::{number, EventFlags, Kind, Poller};
use crate::tcp::{Connections, Turn};
use crate::wire::{Wire, ROUTER};
use crate::{dhcp, echo, lan, udp};
use domzero_backends::net::Link;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, EthernetFrame, EthernetProtocol};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

/// Bytes of frames that are read of the guest before they are looked at.
const AHEAD: usize = 256 << 10;
/// Frames of the guest's in one turn.
const FRAMES_PER_TURN: usize = 64;
/// Connections that are taken of one port in one turn.
const ACCEPTED_PER_TURN: usize = 16;
/// How often it is looked for flows that are over.
const SWEEP: Duration = Duration::from_secs(5);
/// Time begins here: what is before something can be said, too.
const START: Duration = Duration::from_secs(24 * 3600);

enum Port {
    Tcp(TcpListener, u16),
    Udp(Rc<UdpSocket>, u16),
}

/// A network with one guest.
pub struct Network {
    config: Config,
    wire: Wire,
    poller: Poller,
    connections: Connections,
    datagrams: udp::Flows,
    echoes: echo::Flows,
    ports: Vec<Port>,
    started: std::time::Instant,
    swept: Instant,
    /// What of the wire is waited for.
    awaited: EventFlags,
    found: Vec<(Kind, u64, EventFlags)>,
}

impl Network {
    /// A network of the guest behind `socket`.
    pub fn new(socket: UnixStream, config: Config, forwards: Vec<Forward>) -> io::Result<Network> {
        let mut wire = Wire::new(Link::new(socket, AHEAD)?, config.mtu);
        let poller = Poller::new()?;
        let awaited = EventFlags::IN;
        poller.add(wire.link.fd(), number(Kind::Link, 0), awaited)?;
        let mut ports = Vec::new();
        for (index, forward) in forwards.into_iter().enumerate() {
            let number = number(Kind::Forward, index as u64);
            ports.push(match forward {
                Forward::Tcp(listener, port) => {
                    listener.set_nonblocking(true)?;
                    poller.add(&listener, number, EventFlags::IN)?;
                    Port::Tcp(listener, port)
                }
                Forward::Udp(socket, port) => {
                    socket.set_nonblocking(true)?;
                    poller.add(&socket, number, EventFlags::IN)?;
                    Port::Udp(Rc::new(socket), port)
                }
            });
        }
        let now = Instant::ZERO + START.into();
        Ok(Network {
            connections: Connections::new(&mut wire, now),
            config,
            wire,
            poller,
            datagrams: udp::Flows::new(),
            echoes: echo::Flows::new(),
            ports,
            started: std::time::Instant::now(),
            swept: now,
            awaited,
            found: Vec::new(),
        })
    }

    /// Serves the guest until its wire is closed.
    pub fn run(&mut self) -> io::Result<()> {
        while self.turn(None)? {}
        Ok(())
    }

    /// Waits for something, `longest` at most, and does it. False: the wire has gone.
    pub fn turn(&mut self, longest: Option<Duration>) -> io::Result<bool> {
        self.wait(longest)?;
        if self.found.iter().any(|(kind, ..)| *kind == Kind::Link) {
            self.wire.link.flush();
            self.wire.link.fill();
        }
        let now = self.now();
        self.take_frames(now);
        for (kind, index, flags) in std::mem::take(&mut self.found) {
            self.take_event(kind, index, flags, now);
        }
        let (connections, mut turn) = self.parts(now);
        connections.run(&mut turn);
        self.wire.link.flush();
        if now > self.swept + SWEEP.into() {
            self.swept = now;
            self.datagrams.sweep(&self.config, now);
            self.echoes.sweep(now);
        }
        Ok(!self.wire.link.is_lost())
    }

    fn now(&self) -> Instant {
        Instant::ZERO + (START + self.started.elapsed()).into()
    }

    fn parts(&mut self, now: Instant) -> (&mut Connections, Turn<'_>) {
        let turn = Turn {
            config: &self.config,
            poller: &self.poller,
            wire: &mut self.wire,
            now,
        };
        (&mut self.connections, turn)
    }

    fn wait(&mut self, longest: Option<Duration>) -> io::Result<()> {
        let link = &self.wire.link;
        let mut awaited = EventFlags::empty();
        awaited.set(EventFlags::IN, !link.is_full());
        awaited.set(EventFlags::OUT, link.is_waiting());
        if awaited != self.awaited {
            self.awaited = awaited;
            self.poller.change(link.fd(), number(Kind::Link, 0), awaited)?;
        }
        let is_busy = self.connections.is_busy(&self.wire) || link.has_room() && link.peek().is_some();
        let longest = match is_busy {
            true => Some(Duration::ZERO),
            false => [longest, self.due()].into_iter().flatten().min(),
        };
        self.poller.wait(&mut self.found, longest)
    }

    /// How long nothing has to be done.
    fn due(&self) -> Option<Duration> {
        let now = self.now();
        let has_flows = !self.datagrams.is_empty() || !self.echoes.is_empty();
        // Without room, nothing can be done for connections.
        let due = self.connections.due().filter(|_| self.wire.link.has_room());
        let due = due.map(|due| Duration::from_micros((due.max(now) - now).total_micros()));
        [due, has_flows.then_some(SWEEP)].into_iter().flatten().min()
    }

    fn take_frames(&mut self, now: Instant) {
        for _ in 0..FRAMES_PER_TURN {
            if !self.wire.link.has_room() {
                return;
            }
            let Some(frame) = self.wire.link.peek() else {
                return;
            };
            let frame = frame.to_vec();
            self.wire.link.next();
            self.take_frame(&frame, now);
        }
    }

    /// Takes a frame of the guest's. `None`: it is nothing to us.
    fn take_frame(&mut self, frame: &[u8], now: Instant) -> Option<()> {
        let frame = EthernetFrame::new_checked(frame).ok()?;
        let target = frame.dst_addr();
        if !frame.src_addr().is_unicast() || target.is_unicast() && target != ROUTER {
            return None;
        }
        self.wire.guest = frame.src_addr();
        match frame.ethertype() {
            EthernetProtocol::Arp => lan::answer_arp(&self.config, &mut self.wire, frame.payload()),
            EthernetProtocol::Ipv4 | EthernetProtocol::Ipv6 => self.take_packet(frame.payload(), target, now),
            _ => None,
        }
    }

    fn take_packet(&mut self, bytes: &[u8], link_target: EthernetAddress, now: Instant) -> Option<()> {
        let packet = Packet::parse(bytes)?;
        let (source, target) = (packet.source, packet.target);
        if let (Body::Icmp(message), IpAddr::V6(source), IpAddr::V6(target)) = (packet.body, source, target) {
            let hops = packet.hops;
            if lan::answer_ndisc(&self.config, &mut self.wire, source, target, hops, message).is_some() {
                return Some(());
            }
        }
        if let Body::Udp {
            target: dhcp::SERVER,
            data,
            ..
        } = packet.body
        {
            return self.answer_dhcp(source, target, data);
        }
        if !is_source(source) || !link_target.is_unicast() {
            return None;
        }
        if let IpAddr::V4(address) = source {
            self.wire.guest_ipv4 = Some(address);
        }
        let mut turn = Turn {
            config: &self.config,
            poller: &self.poller,
            wire: &mut self.wire,
            now,
        };
        match packet.body {
            Body::Tcp {
                source: from,
                target: to,
                opens,
            } => {
                let (guest, peer) = (SocketAddr::new(source, from), SocketAddr::new(target, to));
                self.connections.take(&mut turn, guest, peer, opens, bytes);
                Some(())
            }
            Body::Udp {
                source: from,
                target: to,
                data,
            } => {
                let (guest, peer) = (SocketAddr::new(source, from), SocketAddr::new(target, to));
                self.datagrams.send(&mut turn, guest, peer, data)
            }
            Body::Icmp(_) if self.config.is_own(target) || target == IpAddr::V6(lan::ROUTER_IPV6) => {
                self.connections.refuse(&mut turn, bytes);
                Some(())
            }
            Body::Icmp(message) => self.echoes.send(&mut turn, source, target, message),
        }
    }

    fn answer_dhcp(&mut self, source: IpAddr, target: IpAddr, message: &[u8]) -> Option<()> {
        let is_for_us = target == IpAddr::V4(Ipv4Addr::BROADCAST) || self.config.is_own(target);
        let (IpAddr::V4(_), true) = (source, is_for_us) else {
            return None;
        };
        let (to, reply) = dhcp::answer(&self.config, message)?;
        let message = crate::packet::Message::Udp {
            source: dhcp::SERVER,
            target: dhcp::CLIENT,
            data: &reply,
        };
        let from = IpAddr::V4(self.config.gateway);
        self.wire.send_message(from, IpAddr::V4(to), &message);
        Some(())
    }

    fn take_event(&mut self, kind: Kind, index: u64, flags: EventFlags, now: Instant) {
        let mut turn = Turn {
            config: &self.config,
            poller: &self.poller,
            wire: &mut self.wire,
            now,
        };
        match kind {
            Kind::Link => {}
            Kind::Tcp => self.connections.notice(index, flags, now),
            Kind::Udp => self.datagrams.receive(&mut turn, index),
            Kind::Echo => self.echoes.receive(&mut turn, index),
            Kind::Forward => match self.ports.get(index as usize) {
                Some(Port::Tcp(listener, port)) => {
                    for _ in 0..ACCEPTED_PER_TURN {
                        let Ok((host, from)) = listener.accept() else {
                            break;
                        };
                        // Without room for it, it is closed.
                        self.connections.accept(&mut turn, host, from, *port);
                    }
                }
                Some(Port::Udp(socket, port)) => {
                    let socket = Rc::clone(socket);
                    self.datagrams.receive_forward(&mut turn, &socket, *port);
                }
                None => {}
            },
        }
    }
}
