// SPDX-License-Identifier: Apache-2.0
//! What the network is like.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

/// Port of name servers.
pub const DNS: u16 = 53;

/// A port of the host that leads to one of the guest's.
pub enum Forward {
    /// Its connections go to this port.
    Tcp(TcpListener, u16),
    /// Its datagrams go to this port.
    Udp(UdpSocket, u16),
}

/// IPv6, for hosts that have it.
#[derive(Debug, Clone, Copy)]
pub struct Ipv6 {
    /// The first 64 bits of the guest's addresses; the others are zero.
    pub prefix: Ipv6Addr,
}

/// The addresses of the network, and what it knows of the host.
#[derive(Debug, Clone)]
pub struct Config {
    /// Bytes of an IP packet at most, 68 to 65516.
    pub mtu: usize,
    /// The address that the guest is given.
    pub guest: Ipv4Addr,
    /// Bits of it that name the network.
    pub prefix_length: u8,
    /// The router.
    pub gateway: Ipv4Addr,
    /// The name server that the guest is told, behind which `name_servers` are.
    pub dns: Ipv4Addr,
    /// Name servers of the host's; they may be on its loopback.
    pub name_servers: Vec<SocketAddr>,
    /// The guest's name; empty: none.
    pub host_name: String,
    /// None: the host has no IPv6.
    pub ipv6: Option<Ipv6>,
}

impl Config {
    /// The network's own addresses, which are nobody else's.
    pub fn is_own(&self, address: IpAddr) -> bool {
        address == IpAddr::V4(self.gateway) || address == IpAddr::V4(self.dns)
    }

    /// Whether it is the name server that the guest was told.
    pub fn is_name_server(&self, address: SocketAddr) -> bool {
        address.ip() == IpAddr::V4(self.dns) && address.port() == DNS
    }

    /// A name server of the host's; those behind the first for who asks again.
    pub fn name_server(&self, attempt: usize) -> Option<SocketAddr> {
        let count = self.name_servers.len();
        self.name_servers.get(attempt.checked_rem(count)?).copied()
    }
}
