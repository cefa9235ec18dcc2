// SPDX-License-Identifier: Apache-2.0
//! Sockets of the host's that lead to who a guest talks to.

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, Protocol, SocketFlags, SocketType};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

/// A socket that never waits and is connected to `target`, or begins to be.
///
/// `prepare`: what is set of it before that.
pub fn connect(
    target: SocketAddr,
    kind: SocketType,
    protocol: Option<Protocol>,
    prepare: impl FnOnce(&OwnedFd) -> rustix::io::Result<()>,
) -> io::Result<OwnedFd> {
    let family = match target {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = net::socket_with(family, kind, flags, protocol)?;
    prepare(&socket)?;
    match net::connect(&socket, &target) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error.into()),
    }
}
