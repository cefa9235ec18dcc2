// SPDX-License-Identifier: Apache-2.0
//! One ring: a stream of bytes each way, in pages that one more page names.

use crate::piece::Piece;
use domzero_machine::abi::p9::{data_intf, ring_size, MAX_RING_ORDER};
use domzero_machine::{GrantClient, GrantMapping};

const PAGE: usize = 4096;

/// What the front end has written cannot be: the rings are of no use any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// More is said to wait than fits.
    #[error("{waiting} bytes are said to wait in a ring of {size}")]
    Waiting {
        /// What the indices say.
        waiting: u32,
        /// Bytes of one direction.
        size: usize,
    },
    /// More is said to be unread than fits.
    #[error("{unread} bytes are said to be unread in a ring of {size}")]
    Unread {
        /// What the indices say.
        unread: u32,
        /// Bytes of one direction.
        size: usize,
    },
    /// A message of an impossible size.
    #[error("a message says that it has {size} bytes: 7 to {most} are possible")]
    Message {
        /// What the message says.
        size: u32,
        /// What was agreed on.
        most: u32,
    },
}

/// Why a ring could not be connected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// A grant that is none of the ring's.
    #[error("grant {0} of the ring cannot be mapped")]
    Grant(u32),
    /// A ring that is too large.
    #[error("the ring's order {0} is more than {MAX_RING_ORDER}")]
    Order(u32),
    /// Its indices cannot be.
    #[error(transparent)]
    Broken(#[from] Broken),
}

/// A ring. The indices of the front end are read once in each question, and checked; ours are kept here.
pub struct Ring {
    intf: GrantMapping,
    pages: Vec<GrantMapping>,
    /// Bytes of each direction, a power of two.
    size: usize,
    /// What was taken of the front end's requests.
    out_cons: u32,
    /// What was put of our answers.
    in_prod: u32,
}

impl Ring {
    /// Maps the page `gref` and all that it names. Goes on where an earlier back end was.
    pub fn connect(front: &GrantClient, gref: u32) -> Result<Ring, ConnectError> {
        let map = |gref| front.map(gref, true).map_err(|_| ConnectError::Grant(gref));
        let intf = map(gref)?;
        let word = |at| intf.load_u32(at).unwrap_or(0);
        let order = word(data_intf::RING_ORDER);
        if order > MAX_RING_ORDER {
            return Err(ConnectError::Order(order));
        }
        let pages = (0..1 << order).map(|n| map(word(data_intf::REF + n * 4)));
        let ring = Ring {
            pages: pages.collect::<Result<_, _>>()?,
            size: ring_size(order),
            out_cons: word(data_intf::OUT_CONS),
            in_prod: word(data_intf::IN_PROD),
            intf,
        };
        ring.waiting()?;
        ring.room()?;
        Ok(ring)
    }

    /// Bytes that fit into each direction.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Bytes that the front end has put and we have not taken.
    pub fn waiting(&self) -> Result<usize, Broken> {
        let waiting = self.index(data_intf::OUT_PROD).wrapping_sub(self.out_cons);
        match waiting as usize <= self.size {
            true => Ok(waiting as usize),
            false => Err(Broken::Waiting {
                waiting,
                size: self.size,
            }),
        }
    }

    /// Bytes that can be put.
    pub fn room(&self) -> Result<usize, Broken> {
        let unread = self.in_prod.wrapping_sub(self.index(data_intf::IN_CONS));
        match self.size.checked_sub(unread as usize) {
            Some(room) => Ok(room),
            None => Err(Broken::Unread {
                unread,
                size: self.size,
            }),
        }
    }

    /// Copies of what waits, `at` bytes behind its beginning.
    pub fn peek(&self, at: usize, mut to: &mut [u8]) {
        for piece in self.waiting_pieces(at, to.len()) {
            let (part, rest) = std::mem::take(&mut to).split_at_mut(piece.bytes());
            piece.copy_to(part);
            to = rest;
        }
    }

    /// Copies to where there is room, `at` bytes behind its beginning. The front end does not see it before `push`.
    pub fn put(&self, at: usize, mut from: &[u8]) {
        for piece in self.room_pieces(at, from.len()) {
            let (part, rest) = from.split_at(piece.bytes());
            piece.copy_from(part);
            from = rest;
        }
    }

    /// The memory of `bytes` bytes that wait.
    pub fn waiting_pieces(&self, at: usize, bytes: usize) -> Vec<Piece<'_>> {
        self.pieces(self.size, self.out_cons.wrapping_add(at as u32), bytes)
    }

    /// The memory of `bytes` bytes of the room.
    pub fn room_pieces(&self, at: usize, bytes: usize) -> Vec<Piece<'_>> {
        self.pieces(0, self.in_prod.wrapping_add(at as u32), bytes)
    }

    /// Lets go of what waited.
    pub fn take(&mut self, bytes: usize) {
        self.out_cons = self.out_cons.wrapping_add(bytes as u32);
        self.intf.store_u32(data_intf::OUT_CONS, self.out_cons).ok();
    }

    /// Shows what was put.
    pub fn push(&mut self, bytes: usize) {
        self.in_prod = self.in_prod.wrapping_add(bytes as u32);
        self.intf.store_u32(data_intf::IN_PROD, self.in_prod).ok();
    }

    fn index(&self, at: usize) -> u32 {
        self.intf.load_u32(at).unwrap_or(0)
    }

    /// `base`: where the direction begins in the pages.
    fn pieces(&self, base: usize, index: u32, bytes: usize) -> Vec<Piece<'_>> {
        let bytes = bytes.min(self.size);
        let mut pieces = Vec::with_capacity(bytes / PAGE + 2);
        let mut done = 0;
        while done < bytes {
            let offset = (index as usize + done) & (self.size - 1);
            let at = base + offset;
            let length = (bytes - done).min(self.size - offset).min(PAGE - at % PAGE);
            if let Some(page) = self.pages.get(at / PAGE) {
                pieces.extend(Piece::of(page, at % PAGE, length).ok());
            }
            done += length;
        }
        pieces
    }
}
