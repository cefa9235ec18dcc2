// SPDX-License-Identifier: Apache-2.0
//! A network for one guest, made of the host's ordinary sockets: what passt does, for hosts without it.
//!
//! `network` has the loop, one process for each interface; `wire` is the guest's end: frames are taken apart and made there
//! (`packet`). `lan` answers for the link itself: ARP, neighbours and routers of IPv6, `dhcp` addresses. `tcp`, `udp` and
//! `echo` make each of the guest's flows (`flows`) a socket of the host (`host`); `address` says which of the host's addresses a guest may
//! reach.

mod address;
mod config;
mod dhcp;
mod echo;
mod flows;
mod host;
mod lan;
mod network;
mod packet;
mod poller;
mod tcp;
mod udp;
mod wire;

pub use config::{Config, Forward, Ipv6, DNS};
pub use dhcp::{CLIENT as DHCP_CLIENT, SERVER as DHCP_SERVER};
pub use network::Network;
pub use tcp::CONNECTIONS_MAX;
pub use wire::ROUTER;
