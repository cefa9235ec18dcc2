// SPDX-License-Identifier: Apache-2.0
//! What back ends have to know of a frame's contents: where TCP and UDP are in it, their checksums, and how a large TCP
//! frame is cut into segments. A guest may have written anything; what is not understood is `None`.

/// Bytes of an Ethernet header.
pub const ETHERNET: usize = 14;
/// Bytes of the largest frame: `XEN_NETIF_MAX_TX_SIZE`, and what fits in 16 bits on a wire.
pub const FRAME_MAX: usize = 0xffff;

pub(super) const ETHERTYPE_IPV4: u16 = 0x0800;
pub(super) const ETHERTYPE_IPV6: u16 = 0x86dd;
const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const IPV4_HEADER: usize = 20;
pub(super) const IPV6_HEADER: usize = 40;
const TCP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
pub(super) const IPV4_FRAGMENT: u16 = 0x3fff;
const FIN_PSH: u8 = 0x09;
const CWR: u8 = 0x80;
/// Headers of IPv6 that may stand before TCP and UDP: hop by hop, routing, destination.
const SKIPPED: [u8; 3] = [0, 43, 60];
const SKIPPED_MOST: usize = 8;

/// Where TCP or UDP is in a frame that is not a fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transport {
    /// IPv6, as against IPv4.
    pub is_ipv6: bool,
    /// TCP, as against UDP.
    pub is_tcp: bool,
    /// Where its header begins.
    pub start: usize,
    /// Where the packet ends; a short frame may be padded behind.
    pub end: usize,
}

pub(super) fn byte(frame: &[u8], at: usize) -> Option<u8> {
    frame.get(at).copied()
}

pub(super) fn word(frame: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?))
}

fn set_word(frame: &mut [u8], at: usize, value: u16) {
    if let Some(bytes) = frame.get_mut(at..at + 2) {
        bytes.copy_from_slice(&value.to_be_bytes());
    }
}

impl Transport {
    /// Finds TCP or UDP.
    pub fn find(frame: &[u8]) -> Option<Transport> {
        let (is_ipv6, protocol, start, end) = match word(frame, 12)? {
            ETHERTYPE_IPV4 => Transport::ipv4(frame)?,
            ETHERTYPE_IPV6 => Transport::ipv6(frame)?,
            _ => return None,
        };
        let header = match protocol {
            TCP => TCP_HEADER,
            UDP => UDP_HEADER,
            _ => return None,
        };
        (start + header <= end && end <= frame.len()).then_some(Transport {
            is_ipv6,
            is_tcp: protocol == TCP,
            start,
            end,
        })
    }

    fn ipv4(frame: &[u8]) -> Option<(bool, u8, usize, usize)> {
        let first = byte(frame, ETHERNET)?;
        let header = usize::from(first & 15) * 4;
        if first >> 4 != 4 || header < IPV4_HEADER || word(frame, ETHERNET + 6)? & IPV4_FRAGMENT != 0 {
            return None;
        }
        let end = ETHERNET + usize::from(word(frame, ETHERNET + 2)?);
        Some((false, byte(frame, ETHERNET + 9)?, ETHERNET + header, end))
    }

    fn ipv6(frame: &[u8]) -> Option<(bool, u8, usize, usize)> {
        if byte(frame, ETHERNET)? >> 4 != 6 {
            return None;
        }
        let end = ETHERNET + IPV6_HEADER + usize::from(word(frame, ETHERNET + 4)?);
        let (mut next, mut at) = (byte(frame, ETHERNET + 6)?, ETHERNET + IPV6_HEADER);
        for _ in 0..SKIPPED_MOST {
            if !SKIPPED.contains(&next) {
                break;
            }
            next = byte(frame, at)?;
            at += 8 + usize::from(byte(frame, at + 1)?) * 8;
        }
        Some((true, next, at, end))
    }

    pub(super) fn checksum_at(&self) -> usize {
        self.start + if self.is_tcp { 16 } else { 6 }
    }

    /// Sum of the addresses, the protocol and a length.
    fn pseudo(&self, frame: &[u8], length: usize) -> u64 {
        let addresses = match self.is_ipv6 {
            true => ETHERNET + 8..ETHERNET + 40,
            false => ETHERNET + 12..ETHERNET + 20,
        };
        let protocol = if self.is_tcp { TCP } else { UDP };
        sum(frame.get(addresses).unwrap_or(&[])) + u64::from(protocol) + length as u64
    }

    /// Bytes of TCP's header. `None`: it is not all there.
    pub(super) fn tcp_header(&self, frame: &[u8]) -> Option<usize> {
        let header = usize::from(byte(frame, self.start + 12)? >> 4) * 4;
        (self.is_tcp && header >= TCP_HEADER && self.start + header <= self.end).then_some(header)
    }

    /// Bytes of all headers behind Ethernet's: what an MTU leaves less room for.
    fn headers(&self, frame: &[u8]) -> Option<usize> {
        Some(self.start + self.tcp_header(frame)? - ETHERNET)
    }
}

/// Sum of 16-bit numbers, to be folded with others.
fn sum(bytes: &[u8]) -> u64 {
    // Sums of 32-bit numbers fold to the same: 2^16 is 1 there. In the other order of bytes, the sum is in the other order,
    // too (RFC 1071): numbers as the processor has them are summed several at a time.
    let words = bytes.chunks_exact(4);
    let rest = words.remainder();
    let mut total: u64 = words
        .map(|w| u64::from(u32::from_le_bytes(w.try_into().unwrap_or([0; 4]))))
        .sum();
    let mut padded = [0; 4];
    padded[..rest.len()].copy_from_slice(rest);
    total += u64::from(u32::from_le_bytes(padded));
    fold(total).swap_bytes().into()
}

fn fold(mut total: u64) -> u16 {
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

/// Writes TCP's or UDP's checksum. False: there is none in this frame.
pub fn fill_checksum(frame: &mut [u8]) -> bool {
    let Some(found) = Transport::find(frame) else {
        return false;
    };
    set_word(frame, found.checksum_at(), 0);
    let total =
        found.pseudo(frame, found.end - found.start) + sum(frame.get(found.start..found.end).unwrap_or(&[]));
    let value = !fold(total);
    // UDP says with 0 that there is none.
    let value = if value == 0 && !found.is_tcp {
        0xffff
    } else {
        value
    };
    set_word(frame, found.checksum_at(), value);
    true
}

/// Sums up what is behind `start`, a partial sum at `at` included, and leaves the checksum there.
pub(super) fn fill_sum(frame: &mut [u8], start: usize, at: usize) {
    let value = !fold(sum(frame.get(start..).unwrap_or(&[])));
    // For UDP 0 is none, and for the others it is the same.
    set_word(frame, at, if value == 0 { 0xffff } else { value });
}

/// Whether there is a checksum, and it is right.
pub fn has_right_checksum(frame: &[u8]) -> bool {
    let Some(found) = Transport::find(frame) else {
        return false;
    };
    if !found.is_tcp && word(frame, found.checksum_at()) == Some(0) {
        return false;
    }
    let total =
        found.pseudo(frame, found.end - found.start) + sum(frame.get(found.start..found.end).unwrap_or(&[]));
    fold(total) == 0xffff
}

/// Leaves in the checksum's place what a network card expects that fills it in: the sum of the pseudo header.
pub fn set_partial_checksum(frame: &mut [u8], found: Transport) {
    let value = fold(found.pseudo(frame, found.end - found.start));
    set_word(frame, found.checksum_at(), value);
}

/// The size of TCP segments that fit an MTU. `None`: it is no TCP frame, or one that fits.
pub(super) fn segment_size(frame: &[u8], found: Transport, mtu: usize) -> Option<u16> {
    if frame.len() <= ETHERNET + mtu {
        return None;
    }
    let room = mtu.checked_sub(found.headers(frame)?)?;
    u16::try_from(room).ok().filter(|size| *size > 0)
}

/// Cuts a large TCP frame into segments of `size` bytes of data, each with right checksums.
pub fn split(frame: &[u8], size: u16, mut each: impl FnMut(Vec<u8>)) -> Option<()> {
    let found = Transport::find(frame)?;
    let headers = found.start + found.tcp_header(frame)?;
    let head = frame.get(..headers)?;
    let data = frame.get(headers..found.end)?;
    let sequence = u32::from_be_bytes(frame.get(found.start + 4..found.start + 8)?.try_into().ok()?);
    let identification = word(frame, ETHERNET + 4)?;
    let parts = data.chunks(usize::from(size.max(1)));
    let last = parts.len().saturating_sub(1);
    for (number, part) in parts.enumerate() {
        let mut segment = Vec::with_capacity(headers + part.len());
        segment.extend_from_slice(head);
        segment.extend_from_slice(part);
        let offset = number * usize::from(size.max(1));
        let here = sequence.wrapping_add(offset as u32).to_be_bytes();
        segment
            .get_mut(found.start + 4..found.start + 8)?
            .copy_from_slice(&here);
        let flags = segment.get_mut(found.start + 13)?;
        if number < last {
            *flags &= !FIN_PSH;
        }
        if number > 0 {
            *flags &= !CWR;
        }
        let packet = segment.len() - ETHERNET;
        if found.is_ipv6 {
            set_word(&mut segment, ETHERNET + 4, (packet - IPV6_HEADER) as u16);
        } else {
            set_word(&mut segment, ETHERNET + 2, packet as u16);
            set_word(
                &mut segment,
                ETHERNET + 4,
                identification.wrapping_add(number as u16),
            );
            set_word(&mut segment, ETHERNET + 10, 0);
            let value = !fold(sum(segment.get(ETHERNET..found.start)?));
            set_word(&mut segment, ETHERNET + 10, value);
        }
        fill_checksum(&mut segment);
        each(segment);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A TCP frame with `data` bytes of data, and right checksums.
    fn tcp(is_ipv6: bool, data: usize) -> Vec<u8> {
        let mut frame = vec![2; 12];
        let packet = 32 + data;
        if is_ipv6 {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(((packet + 8) as u16).to_be_bytes());
            frame.extend([60, 64]); // destination options come first
            frame.extend(1..=32);
            frame.extend([TCP, 0, 1, 4, 0, 0, 0, 0]);
        } else {
            frame.extend([8, 0, 0x45, 0]);
            frame.extend(((packet + 20) as u16).to_be_bytes());
            frame.extend([0x12, 0x34, 0x40, 0, 64, TCP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        }
        frame.extend([
            1, 2, 0, 80, 0xff, 0xff, 0xff, 0, 0, 0, 0, 1, 0x80, 0x99, 1, 0, 0, 0, 0, 0,
        ]);
        frame.extend([1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8]);
        frame.extend((0..data).map(|n| (n * 7) as u8));
        assert!(fill_checksum(&mut frame));
        frame
    }

    /// RFC 1071, without any of the above.
    fn plain_sum(bytes: &[u8]) -> u16 {
        let mut total = 0u32;
        for pair in bytes.chunks(2) {
            total += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            total = (total & 0xffff) + (total >> 16);
        }
        total as u16
    }

    #[test]
    fn checksums_are_those_of_rfc_1071() {
        for data in [0, 1, 2, 3, 5, 1001] {
            let frame = tcp(false, data);
            let mut covered = frame[26..34].to_vec();
            covered.extend([0, TCP]);
            covered.extend(((frame.len() - 34) as u16).to_be_bytes());
            covered.extend(&frame[34..]);
            assert_eq!(plain_sum(&covered), 0xffff);
            assert!(has_right_checksum(&frame));
            let mut padded = frame.clone();
            padded.extend([0xaa; 9]);
            assert!(has_right_checksum(&padded));
            let mut wrong = frame;
            wrong[40] ^= 1;
            assert!(!has_right_checksum(&wrong));
        }
    }

    #[test]
    fn a_partial_checksum_is_the_sum_of_the_pseudo_header() {
        for is_ipv6 in [false, true] {
            let mut frame = tcp(is_ipv6, 77);
            let found = Transport::find(&frame).unwrap();
            let right = frame.clone();
            set_partial_checksum(&mut frame, found);
            // What Linux does with it: sums from TCP's header on, the partial sum included.
            let value = !plain_sum(&frame[found.start..found.end]);
            set_word(&mut frame, found.checksum_at(), value);
            assert_eq!(frame, right);
        }
    }

    #[test]
    fn a_large_frame_is_cut_into_segments_that_together_are_the_same() {
        for is_ipv6 in [false, true] {
            let frame = tcp(is_ipv6, 5000);
            let found = Transport::find(&frame).unwrap();
            let size = segment_size(&frame, found, 1500).unwrap();
            assert_eq!(usize::from(size), if is_ipv6 { 1500 - 80 } else { 1500 - 52 });
            let mut parts = Vec::new();
            split(&frame, size, |part| parts.push(part)).unwrap();
            assert_eq!(parts.len(), 4);
            let headers = found.start + 32;
            let mut data = Vec::new();
            for (n, part) in parts.iter().enumerate() {
                assert!(part.len() <= ETHERNET + 1500 && has_right_checksum(part));
                assert_eq!(Transport::find(part).unwrap().end, part.len());
                if !is_ipv6 {
                    assert_eq!(plain_sum(&part[14..34]), 0xffff);
                    assert_eq!(part[18..20], (0x1234 + n as u16).to_be_bytes());
                }
                let sequence = 0xffff_ff00u32.wrapping_add(data.len() as u32);
                assert_eq!(part[found.start + 4..found.start + 8], sequence.to_be_bytes());
                let flags = [0x90, 0x10, 0x10, 0x19][n];
                assert_eq!(
                    part[found.start + 13],
                    flags,
                    "CWR in the first, FIN and PSH in the last"
                );
                data.extend_from_slice(&part[headers..]);
            }
            assert_eq!(data, frame[headers..]);
            assert_eq!(segment_size(&frame, found, 6000), None);
        }
    }

    #[test]
    fn frames_that_are_cut_off_or_lie_about_their_lengths_are_not_understood() {
        for is_ipv6 in [false, true] {
            let frame = tcp(is_ipv6, 40);
            for length in 0..frame.len() {
                assert_eq!(Transport::find(&frame[..length]), None);
            }
            for at in 12..frame.len() {
                for value in [0, 1, 0x0f, 0x7f, 0xf0, 0xff] {
                    let mut other = frame.clone();
                    other[at] = value;
                    fill_checksum(&mut other);
                    has_right_checksum(&other);
                    split(&other, 7, |part| assert!(part.len() <= other.len()));
                }
            }
        }
        let mut fragment = tcp(false, 40);
        fragment[20] = 0x20;
        assert_eq!(Transport::find(&fragment), None);
    }
}
