// SPDX-License-Identifier: Apache-2.0
//! A network for one guest out of the host's sockets.

use crate::device::{os_error, owned};
use crate::host::work;
use domzero_usernet::{Config, Forward, Ipv6, Network, DNS};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::RawFd;
use std::os::unix::net::UnixStream;

#[pyfunction]
#[pyo3(signature = (fd, *, mtu, guest, prefix_length, gateway, dns, name_servers, host_name, ipv6_prefix, tcp, udp))]
#[allow(clippy::too_many_arguments)] // Named ones, of a structure.
pub fn run_usernet(
    py: Python<'_>,
    fd: RawFd,
    mtu: u16,
    guest: IpAddr,
    prefix_length: u8,
    gateway: IpAddr,
    dns: IpAddr,
    name_servers: Vec<IpAddr>,
    host_name: String,
    ipv6_prefix: Option<IpAddr>,
    tcp: Vec<(RawFd, u16)>,
    udp: Vec<(RawFd, u16)>,
) -> PyResult<()> {
    let config = Config {
        mtu: mtu.into(),
        guest: ipv4(guest)?,
        prefix_length,
        gateway: ipv4(gateway)?,
        dns: ipv4(dns)?,
        name_servers: name_servers
            .into_iter()
            .map(|server| SocketAddr::new(server, DNS))
            .collect(),
        host_name,
        ipv6: ipv6_prefix
            .map(|prefix| ipv6(prefix).map(|prefix| Ipv6 { prefix }))
            .transpose()?,
    };
    let socket = UnixStream::from(owned(fd)?);
    let mut forwards = Vec::new();
    for (fd, port) in tcp {
        forwards.push(Forward::Tcp(TcpListener::from(owned(fd)?), port));
    }
    for (fd, port) in udp {
        forwards.push(Forward::Udp(UdpSocket::from(owned(fd)?), port));
    }
    let run = || Network::new(socket, config, forwards)?.run();
    work(|| py.detach(run))?.map_err(os_error)
}

fn ipv4(address: IpAddr) -> PyResult<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Ok(address),
        IpAddr::V6(_) => Err(PyValueError::new_err(format!("no IPv4 address: {address}"))),
    }
}

fn ipv6(address: IpAddr) -> PyResult<Ipv6Addr> {
    match address {
        IpAddr::V6(address) => Ok(address),
        IpAddr::V4(_) => Err(PyValueError::new_err(format!("no IPv6 address: {address}"))),
    }
}
