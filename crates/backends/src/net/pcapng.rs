// SPDX-License-Identifier: Apache-2.0
//! Blocks of a pcapng file (draft-ietf-opsawg-pcapng): one section, one Ethernet interface, times in nanoseconds.

const SECTION: u32 = 0x0a0d_0d0a;
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
const INTERFACE: u32 = 1;
const STATISTICS: u32 = 5;
const PACKET: u32 = 6;
const ETHERNET: u16 = 1;

const IF_NAME: u16 = 2;
const IF_TSRESOL: u16 = 9;
const NANOSECONDS: u8 = 9;
const EPB_FLAGS: u16 = 2;
const EPB_DROPCOUNT: u16 = 4;
const ISB_IFRECV: u16 = 4;
const ISB_IFDROP: u16 = 5;

/// Bytes of a block beside its frame, at most.
pub(super) const PACKET_EXTRA: usize = 64;

/// Which way a frame goes, seen from the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The guest receives it.
    In = 1,
    /// The guest sends it.
    Out = 2,
}

fn block(out: &mut Vec<u8>, kind: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend(kind.to_le_bytes());
    out.extend([0; 4]);
    body(out);
    let length = (out.len() - start + 4) as u32;
    out.extend(length.to_le_bytes());
    if let Some(place) = out.get_mut(start + 4..start + 8) {
        place.copy_from_slice(&length.to_le_bytes());
    }
}

fn padded(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend(bytes);
    out.resize(out.len() + bytes.len().wrapping_neg() % 4, 0);
}

fn option(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    out.extend(code.to_le_bytes());
    out.extend((value.len() as u16).to_le_bytes());
    padded(out, value);
}

fn time(out: &mut Vec<u8>, ns: u64) {
    out.extend(((ns >> 32) as u32).to_le_bytes());
    out.extend((ns as u32).to_le_bytes());
}

/// What a file begins with.
pub(super) fn head(out: &mut Vec<u8>, name: &str, snaplen: u32) {
    block(out, SECTION, |out| {
        out.extend(BYTE_ORDER.to_le_bytes());
        out.extend([1, 0, 0, 0]); // version 1.0
        out.extend([0xff; 8]); // no length is known
    });
    block(out, INTERFACE, |out| {
        out.extend(ETHERNET.to_le_bytes());
        out.extend([0; 2]);
        out.extend(snaplen.to_le_bytes());
        option(
            out,
            IF_NAME,
            name.get(..name.len().min(255)).unwrap_or("").as_bytes(),
        );
        option(out, IF_TSRESOL, &[NANOSECONDS]);
        option(out, 0, &[]);
    });
}

/// One frame, of which `kept` are the bytes that are kept.
pub(super) fn packet(
    out: &mut Vec<u8>,
    ns: u64,
    kept: &[u8],
    length: usize,
    direction: Option<Direction>,
    dropped: u64,
) {
    block(out, PACKET, |out| {
        out.extend([0; 4]);
        time(out, ns);
        out.extend((kept.len() as u32).to_le_bytes());
        out.extend((length as u32).to_le_bytes());
        padded(out, kept);
        if let Some(direction) = direction {
            option(out, EPB_FLAGS, &(direction as u32).to_le_bytes());
        }
        if dropped > 0 {
            option(out, EPB_DROPCOUNT, &dropped.to_le_bytes());
        }
        if direction.is_some() || dropped > 0 {
            option(out, 0, &[]);
        }
    });
}

/// How many frames there were, and how many of them are not in the file.
pub(super) fn statistics(out: &mut Vec<u8>, ns: u64, frames: u64, dropped: u64) {
    block(out, STATISTICS, |out| {
        out.extend([0; 4]);
        time(out, ns);
        option(out, ISB_IFRECV, &frames.to_le_bytes());
        option(out, ISB_IFDROP, &dropped.to_le_bytes());
        option(out, 0, &[]);
    });
}
