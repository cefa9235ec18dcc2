// SPDX-License-Identifier: Apache-2.0
//! A guest on a network: smoltcp on the other end of its wire, or frames made by hand.
#![allow(dead_code)] // each test uses some of it

use domzero_backends::net::Link;
use domzero_usernet::{Config, Forward, Ipv6, Network, ROUTER};
use smoltcp::iface::{Config as InterfaceConfig, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer};
use smoltcp::time::Instant;
use smoltcp::wire::*;
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant as Clock};

pub const MAC: EthernetAddress = EthernetAddress([0x00, 0x16, 0x3e, 1, 2, 3]);
pub const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
pub const DNS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);
/// What nobody waits for longer.
const PATIENCE: Duration = Duration::from_secs(30);
const MTU: usize = 65516;

/// A network with one guest.
pub struct Guest {
    pub network: Network,
    pub link: Link,
    pub frames: VecDeque<Vec<u8>>,
    interface: Interface,
    pub sockets: SocketSet<'static>,
    start: Clock,
    port: u16,
}

pub fn config(name_servers: &[SocketAddr]) -> Config {
    Config {
        mtu: MTU,
        guest: GUEST,
        prefix_length: 24,
        gateway: GATEWAY,
        dns: DNS,
        name_servers: name_servers.to_vec(),
        host_name: "guest".into(),
        ipv6: Some(Ipv6 {
            prefix: "fd00:1::".parse().unwrap(),
        }),
    }
}

impl Guest {
    /// With a name server at this address of the host's, which may be any program on its loopback.
    pub fn new(name_server: SocketAddr) -> Guest {
        Guest::with(config(&[name_server]), Vec::new())
    }

    pub fn with(config: Config, forwards: Vec<Forward>) -> Guest {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let network = Network::new(theirs, config, forwards).unwrap();
        let link = Link::new(ours, 1 << 20).unwrap();
        let mut frames = VecDeque::new();
        let mut interface = Interface::new(
            InterfaceConfig::new(MAC.into()),
            &mut Wire {
                link: None,
                frames: &mut frames,
            },
            Instant::ZERO,
        );
        interface.update_ip_addrs(|all| all.push(IpCidr::new(GUEST.into(), 24)).unwrap());
        interface.routes_mut().add_default_ipv4_route(GATEWAY).unwrap();
        Guest {
            network,
            link,
            frames,
            interface,
            sockets: SocketSet::new(Vec::new()),
            start: Clock::now(),
            port: 40000,
        }
    }

    /// One turn of the network, whose frames are kept.
    pub fn exchange(&mut self) {
        self.link.flush();
        self.network.turn(Some(Duration::from_millis(1))).unwrap();
        self.link.fill();
        while let Some(frame) = self.link.peek() {
            self.frames.push_back(frame.to_vec());
            self.link.next();
        }
    }

    /// One turn of the network, and one of the guest's.
    pub fn turn(&mut self) {
        self.exchange();
        let mut wire = Wire {
            link: Some(&mut self.link),
            frames: &mut self.frames,
        };
        let now = Instant::ZERO + self.start.elapsed().into();
        self.interface.poll(now, &mut wire, &mut self.sockets);
        self.link.flush();
    }

    /// Both go on until `done`.
    pub fn until(&mut self, what: &str, mut done: impl FnMut(&mut Guest) -> bool) {
        let start = Clock::now();
        while !done(self) {
            assert!(start.elapsed() < PATIENCE, "{what}");
            self.turn();
        }
    }

    pub fn tcp(&mut self, handle: SocketHandle) -> &mut Socket<'static> {
        self.sockets.get_mut::<Socket<'_>>(handle)
    }

    pub fn socket(&mut self, room: usize) -> SocketHandle {
        let buffer = || SocketBuffer::new(vec![0; room]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.set_ack_delay(None);
        self.sockets.add(socket)
    }

    pub fn connect(&mut self, target: (Ipv4Addr, u16), room: usize) -> SocketHandle {
        let handle = self.socket(room);
        self.port += 1;
        let context = self.interface.context();
        let socket = self.sockets.get_mut::<Socket<'_>>(handle);
        socket.connect(context, target, self.port).unwrap();
        handle
    }

    /// Sends a frame to the router.
    pub fn send(&mut self, protocol: EthernetProtocol, payload: &[u8]) {
        self.send_to(ROUTER, protocol, payload);
    }

    pub fn send_to(&mut self, target: EthernetAddress, protocol: EthernetProtocol, payload: &[u8]) {
        let mut bytes = vec![0; 14 + payload.len()];
        let mut frame = EthernetFrame::new_unchecked(&mut bytes);
        frame.set_src_addr(MAC);
        frame.set_dst_addr(target);
        frame.set_ethertype(protocol);
        frame.payload_mut().copy_from_slice(payload);
        self.link.send(&bytes);
    }

    pub fn send_udp(&mut self, from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), data: &[u8]) {
        let packet = udp(from, to, data);
        let target = if to.0.is_broadcast() {
            EthernetAddress::BROADCAST
        } else {
            ROUTER
        };
        self.send_to(target, EthernetProtocol::Ipv4, &packet);
    }

    /// The next frame's protocol and what is in it. `None`: none has come.
    pub fn next(&mut self) -> Option<(EthernetProtocol, Vec<u8>)> {
        let frame = self.frames.pop_front()?;
        let frame = EthernetFrame::new_checked(&frame[..]).unwrap();
        assert_eq!((frame.src_addr(), frame.dst_addr()), (ROUTER, MAC));
        Some((frame.ethertype(), frame.payload().to_vec()))
    }

    /// Waits for a frame.
    pub fn wait(&mut self) -> (EthernetProtocol, Vec<u8>) {
        let start = Clock::now();
        while self.frames.is_empty() {
            assert!(start.elapsed() < PATIENCE, "no frame");
            self.exchange();
        }
        self.next().unwrap()
    }

    /// Waits for a message that says that nobody is reached.
    pub fn unreachable(&mut self) -> Unreachable {
        let (_, packet) = self.wait();
        let ip = Ipv4Packet::new_checked(&packet[..]).unwrap();
        assert_eq!(ip.next_header(), IpProtocol::Icmp);
        let message = Icmpv4Packet::new_checked(ip.payload()).unwrap();
        let parsed = Icmpv4Repr::parse(&message, &ChecksumCapabilities::default()).unwrap();
        let Icmpv4Repr::DstUnreachable { reason, header, data } = parsed else {
            panic!("{parsed:?}");
        };
        assert_eq!((header.src_addr, ip.dst_addr()), (GUEST, GUEST));
        Unreachable {
            reason,
            from: ip.src_addr(),
            to: header.dst_addr,
            protocol: header.next_header,
            quoted: data.to_vec(),
        }
    }

    /// What the network has to say of all that it was sent: an answer of the router's to a last question comes behind.
    pub fn settle(&mut self) -> Vec<(EthernetProtocol, Vec<u8>)> {
        self.send(EthernetProtocol::Arp, &arp(GUEST, GATEWAY));
        let mut before = Vec::new();
        loop {
            match self.wait() {
                (EthernetProtocol::Arp, _) => return before,
                other => before.push(other),
            }
        }
    }
}

/// A message of ICMP's that somebody is not reached.
pub struct Unreachable {
    pub reason: Icmpv4DstUnreachable,
    pub from: Ipv4Addr,
    /// Where the packet went to that it is about, and how that begins.
    pub to: Ipv4Addr,
    pub protocol: IpProtocol,
    pub quoted: Vec<u8>,
}

pub fn arp(source: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let asked = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: MAC,
        source_protocol_addr: source,
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: target,
    };
    let mut bytes = vec![0; asked.buffer_len()];
    asked.emit(&mut ArpPacket::new_unchecked(&mut bytes));
    bytes
}

pub fn ipv4(from: Ipv4Addr, to: Ipv4Addr, protocol: IpProtocol, payload: &[u8]) -> Vec<u8> {
    let header = Ipv4Repr {
        src_addr: from,
        dst_addr: to,
        next_header: protocol,
        payload_len: payload.len(),
        hop_limit: 64,
    };
    let mut bytes = vec![0; header.buffer_len() + payload.len()];
    header.emit(
        &mut Ipv4Packet::new_unchecked(&mut bytes),
        &ChecksumCapabilities::default(),
    );
    bytes[header.buffer_len()..].copy_from_slice(payload);
    bytes
}

pub fn udp(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), data: &[u8]) -> Vec<u8> {
    let ports = UdpRepr {
        src_port: from.1,
        dst_port: to.1,
    };
    let mut bytes = vec![0; ports.header_len() + data.len()];
    ports.emit(
        &mut UdpPacket::new_unchecked(&mut bytes[..]),
        &from.0.into(),
        &to.0.into(),
        data.len(),
        |room| room.copy_from_slice(data),
        &ChecksumCapabilities::default(),
    );
    ipv4(from.0, to.0, IpProtocol::Udp, &bytes)
}

/// Source, target and data of a packet that is UDP.
pub fn read_udp(packet: &[u8]) -> (SocketAddr, SocketAddr, Vec<u8>) {
    let ip = Ipv4Packet::new_checked(packet).unwrap();
    assert!(ip.verify_checksum() && ip.next_header() == IpProtocol::Udp);
    let (from, to) = (ip.src_addr(), ip.dst_addr());
    let udp = UdpPacket::new_checked(ip.payload()).unwrap();
    assert!(udp.verify_checksum(&from.into(), &to.into()));
    let at = |address, port| SocketAddr::new(IpAddr::V4(address), port);
    (
        at(from, udp.src_port()),
        at(to, udp.dst_port()),
        udp.payload().to_vec(),
    )
}

/// The guest's network card.
struct Wire<'a> {
    link: Option<&'a mut Link>,
    frames: &'a mut VecDeque<Vec<u8>>,
}

struct Received(Vec<u8>);

struct Sender<'a>(Option<&'a mut Link>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Sender<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut frame = vec![0; length];
        let result = f(&mut frame);
        if let Some(link) = self.0 {
            link.send(&frame);
        }
        result
    }
}

impl Device for Wire<'_> {
    type RxToken<'b>
        = Received
    where
        Self: 'b;
    type TxToken<'b>
        = Sender<'b>
    where
        Self: 'b;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sender<'_>)> {
        let frame = self.frames.pop_front()?;
        Some((Received(frame), Sender(self.link.as_deref_mut())))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sender<'_>> {
        Some(Sender(self.link.as_deref_mut()))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = MTU + 14;
        capabilities
    }
}
