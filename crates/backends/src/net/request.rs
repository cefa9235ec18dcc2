// SPDX-License-Identifier: Apache-2.0
//! What a guest wants to be sent: the slots of one frame.

use super::frame::ETHERNET;
use super::multicast::MulticastChange;
use crate::ring::{BackRing, RingBroken};
use domzero_machine::abi::netif::{self, extra_info, tx_request, tx_response};

const PAGE: usize = 4096;
/// A frame of more slots is dropped.
const SLOTS_MAX: usize = netif::NR_SLOTS_MIN;
/// A frame of more slots ends the device: Linux's netback, too, takes it for hostile.
const SLOTS_HOSTILE: usize = 20;

/// Why an interface is served no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// Its indices cannot be.
    #[error(transparent)]
    Ring(#[from] RingBroken),
    /// The last slot says that more follow, and none does.
    #[error("a frame is not in the ring with all of its slots")]
    MissingSlots,
    /// More than any front end needs.
    #[error("a frame has more than {SLOTS_HOSTILE} slots")]
    TooManySlots,
    /// A piece that does not end in the page in which it begins.
    #[error("a piece of a frame is not inside its page: {size} bytes at {offset}")]
    CrossesPage {
        /// Where it begins, in bytes.
        offset: u16,
        /// How long it is, in bytes.
        size: u16,
    },
    /// The type, which is none of `XEN_NETIF_EXTRA_TYPE_*`.
    #[error("extra information of the unknown type {0}")]
    Extra(u8),
    /// Segmentation that is not TCP's, or has no size.
    #[error("segments of {size} bytes of type {kind} are asked for")]
    Gso {
        /// Bytes of a segment.
        size: u16,
        /// `XEN_NETIF_GSO_TYPE_*`.
        kind: u8,
    },
}

/// A part of a granted page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub gref: u32,
    pub offset: u16,
    pub size: u16,
    id: u16,
}

/// One frame, checked as far as it can be without its contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Packet {
    pub flags: u16,
    pub pieces: Vec<Piece>,
    /// Slots with extra information behind the first one.
    extras: usize,
    /// The size of the segments that the guest wants to be made of it.
    pub gso: Option<u16>,
    /// It is no frame, and tells this.
    pub multicast: Option<MulticastChange>,
    /// It is not to be sent, and answered with an error.
    pub is_bad: bool,
}

struct Slot {
    piece: Piece,
    flags: u16,
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    let found = bytes.get(at..at + 2).and_then(|b| b.try_into().ok());
    found.map_or(0, u16::from_le_bytes)
}

/// Takes the slots of the next frame out of a ring in which `waiting` of them are.
struct Taker<'a> {
    ring: &'a mut BackRing,
    waiting: u32,
}

impl Taker<'_> {
    fn take(&mut self) -> Result<[u8; tx_request::SIZE], Broken> {
        self.waiting = self.waiting.checked_sub(1).ok_or(Broken::MissingSlots)?;
        let mut bytes = [0; tx_request::SIZE];
        self.ring.take(&mut bytes);
        Ok(bytes)
    }

    fn slot(&mut self) -> Result<Slot, Broken> {
        let bytes = self.take()?;
        let gref = bytes
            .get(tx_request::GREF..tx_request::GREF + 4)
            .and_then(|b| b.try_into().ok());
        let piece = Piece {
            gref: gref.map_or(0, u32::from_le_bytes),
            offset: u16_at(&bytes, tx_request::OFFSET),
            size: u16_at(&bytes, tx_request::LENGTH),
            id: u16_at(&bytes, tx_request::ID),
        };
        Ok(Slot {
            piece,
            flags: u16_at(&bytes, tx_request::FLAGS),
        })
    }
}

impl Packet {
    /// `waiting` slots are in the ring, at least one.
    pub(super) fn take(ring: &mut BackRing, waiting: u32) -> Result<Packet, Broken> {
        let mut taker = Taker { ring, waiting };
        let first = taker.slot()?;
        let mut packet = Packet {
            flags: first.flags,
            pieces: vec![first.piece],
            extras: 0,
            gso: None,
            multicast: None,
            is_bad: false,
        };
        if first.flags & netif::TXF_EXTRA_INFO != 0 {
            packet.take_extras(&mut taker)?;
        }
        if packet.multicast.is_some() {
            // Whatever its slot says of data: there are none.
            return Ok(packet);
        }
        // The first slot has the size of the whole; what the others have not is its own.
        let mut own = first.piece.size;
        let mut more = first.flags & netif::TXF_MORE_DATA != 0;
        while more {
            let slot = taker.slot()?;
            if packet.pieces.len() >= SLOTS_HOSTILE {
                return Err(Broken::TooManySlots);
            }
            check(&slot.piece)?;
            match own.checked_sub(slot.piece.size) {
                Some(left) => own = left,
                None => packet.is_bad = true,
            }
            packet.pieces.push(slot.piece);
            more = slot.flags & netif::TXF_MORE_DATA != 0;
        }
        packet.is_bad |= packet.pieces.len() > SLOTS_MAX || usize::from(first.piece.size) < ETHERNET;
        if let (Some(piece), false) = (packet.pieces.first_mut(), packet.is_bad) {
            piece.size = own;
            check(piece)?;
        }
        Ok(packet)
    }

    fn take_extras(&mut self, taker: &mut Taker) -> Result<(), Broken> {
        loop {
            let bytes = taker.take()?;
            self.extras += 1;
            let [kind, flags] =
                [extra_info::TYPE, extra_info::FLAGS].map(|at| bytes.get(at).copied().unwrap_or(0));
            match kind {
                netif::EXTRA_TYPE_GSO => {
                    let size = u16_at(&bytes, extra_info::GSO_SIZE);
                    let kind = bytes.get(extra_info::GSO_TYPE).copied().unwrap_or(0);
                    if size == 0 || ![netif::GSO_TYPE_TCPV4, netif::GSO_TYPE_TCPV6].contains(&kind) {
                        return Err(Broken::Gso { size, kind });
                    }
                    self.gso = Some(size);
                }
                netif::EXTRA_TYPE_MCAST_ADD | netif::EXTRA_TYPE_MCAST_DEL => {
                    let address = bytes.get(extra_info::MCAST_ADDR..).and_then(<[u8]>::first_chunk);
                    let address = address.copied().unwrap_or_default();
                    self.multicast.get_or_insert(match kind {
                        netif::EXTRA_TYPE_MCAST_ADD => MulticastChange::Add(address),
                        _ => MulticastChange::Delete(address),
                    });
                }
                netif::EXTRA_TYPE_HASH => {}
                kind => return Err(Broken::Extra(kind)),
            }
            if flags & netif::EXTRA_FLAG_MORE == 0 {
                return Ok(());
            }
        }
    }

    /// Bytes of the frame; of none if it is none.
    pub(super) fn size(&self) -> usize {
        if self.multicast.is_some() {
            return 0;
        }
        self.pieces.iter().map(|piece| usize::from(piece.size)).sum()
    }

    /// Answers all of its slots.
    pub(super) fn answer(&self, ring: &mut BackRing, status: i16) {
        for (number, piece) in self.pieces.iter().enumerate() {
            ring.put(&response(piece.id, status));
            if number == 0 {
                for _ in 0..self.extras {
                    ring.put(&response(0, netif::RSP_NULL));
                }
            }
        }
    }
}

fn check(piece: &Piece) -> Result<(), Broken> {
    let (offset, size) = (piece.offset, piece.size);
    match usize::from(offset) + usize::from(size) <= PAGE {
        true => Ok(()),
        false => Err(Broken::CrossesPage { offset, size }),
    }
}

fn response(id: u16, status: i16) -> [u8; tx_response::SIZE] {
    let mut bytes = [0; tx_response::SIZE];
    bytes[tx_response::ID..tx_response::ID + 2].copy_from_slice(&id.to_le_bytes());
    bytes[tx_response::STATUS..tx_response::STATUS + 2].copy_from_slice(&status.to_le_bytes());
    bytes
}
