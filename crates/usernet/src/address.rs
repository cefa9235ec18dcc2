// SPDX-License-Identifier: Apache-2.0
//! Which addresses packets of the guest's may come from and go to. What leads to the host's own loopback is not among them,
//! in any of the ways to write it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address that one station can have as its own.
pub fn is_source(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_unicast(v4),
        IpAddr::V6(v6) => !is_special(v6),
    }
}

/// An address beyond the network's router. Addresses of a link are not: the guest's link is none of the host's.
pub fn is_outside(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_unicast(v4) && !v4.is_link_local(),
        IpAddr::V6(v6) => !is_special(v6) && !v6.is_unicast_link_local(),
    }
}

/// Not this network (0/8, which connects to loopback), loopback, multicast, reserved or broadcast.
fn is_unicast(address: Ipv4Addr) -> bool {
    let [first, ..] = address.octets();
    first != 0 && first < 224 && !address.is_loopback()
}

/// Multicast, or of ::/64: unspecified, loopback, and IPv4 addresses in other clothes.
fn is_special(address: Ipv6Addr) -> bool {
    address.segments().starts_with(&[0; 4]) || address.is_multicast()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_leads_to_loopback_is_outside() {
        for text in [
            "127.0.0.1",
            "127.255.255.254",
            "0.0.0.0",
            "0.1.2.3",
            "255.255.255.255",
            "224.0.0.1",
            "240.0.0.1",
            "169.254.169.254",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "ff02::1",
            "fe80::1",
        ] {
            assert!(!is_outside(text.parse().unwrap()), "{text}");
        }
        for text in [
            "10.0.0.1",
            "8.8.8.8",
            "192.168.1.1",
            "fd00::1",
            "64:ff9b::808:808",
        ] {
            let address = text.parse().unwrap();
            assert!(is_outside(address) && is_source(address), "{text}");
        }
        assert!(is_source("fe80::1".parse().unwrap()));
    }
}
