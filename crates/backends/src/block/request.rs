// SPDX-License-Identifier: Apache-2.0
//! What a request in the ring asks for.

use domzero_machine::abi::blkif::{self, segment, Layout};

/// Segments of an indirect request at most: what the node `feature-max-indirect-segments` says.
pub const MAX_INDIRECT_SEGMENTS: usize = 256;
const SEGMENTS_PER_PAGE: usize = 4096 / segment::SIZE;

/// A part of a granted page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// `grant_ref_t` of the page.
    pub gref: u32,
    first_sect: u8,
    last_sect: u8,
}

impl Segment {
    /// Reads `struct blkif_request_segment`. `None`: it ends before it begins, or outside the page.
    pub fn parse(bytes: &[u8]) -> Option<Segment> {
        let found = Segment {
            gref: u32::from_le_bytes(bytes.get(segment::GREF..segment::GREF + 4)?.try_into().ok()?),
            first_sect: *bytes.get(segment::FIRST_SECT)?,
            last_sect: *bytes.get(segment::LAST_SECT)?,
        };
        (found.first_sect <= found.last_sect && found.last_sect < blkif::SECTORS_PER_PAGE).then_some(found)
    }

    /// Offset in the page, in bytes.
    pub fn offset(&self) -> usize {
        usize::from(self.first_sect) * blkif::SECTOR as usize
    }

    /// Length in bytes.
    pub fn bytes(&self) -> usize {
        usize::from(self.last_sect - self.first_sect + 1) * blkif::SECTOR as usize
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// From the disk into the segments.
    Read,
    /// From the segments to the disk.
    Write,
    /// What came before is on stable storage before this is written, and this before the answer; may have no segments.
    Barrier,
    /// What came before is on stable storage before this is written, if it has segments.
    Flush,
    /// What is in the sectors is needed no more.
    Discard {
        /// How many, from the request's first on.
        sectors: u64,
        /// Nothing of it may be left on the disk.
        secure: bool,
    },
    /// Answered with this status.
    Refuse(i16),
}

/// One request, checked as far as it can be without the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The front end's, repeated in the response.
    pub id: u64,
    /// The operation, as it is to be repeated in the response.
    pub operation: u8,
    /// Where on the disk, in units of 512 bytes.
    pub sector: u64,
    /// What is to be done, as far as the operation tells.
    pub action: Action,
    /// Where the data are in the guest's memory, in order.
    pub segments: Vec<Segment>,
}

/// Where the pages with an indirect request's segments are read.
pub trait IndirectPages {
    /// Copies from the beginning of a granted page. False: it cannot be had.
    fn read(&mut self, gref: u32, to: &mut [u8]) -> bool;
}

impl Request {
    /// Understands the entry of a ring, copied already.
    pub fn parse(entry: &[u8], layout: Layout, pages: &mut impl IndirectPages) -> Request {
        let reader = Reader { entry, layout };
        let mut request = Request {
            id: reader.u64(layout.id),
            operation: reader.u8(blkif::OPERATION),
            sector: reader.u64(layout.sector_number),
            action: Action::Refuse(blkif::RSP_ERROR),
            segments: Vec::new(),
        };
        let second = reader.u8(blkif::SECOND_BYTE);
        let (action, segments) = match request.operation {
            blkif::OP_READ => (Action::Read, reader.direct(second, 1)),
            blkif::OP_WRITE => (Action::Write, reader.direct(second, 1)),
            blkif::OP_WRITE_BARRIER => (Action::Barrier, reader.direct(second, 0)),
            blkif::OP_FLUSH_DISKCACHE => (Action::Flush, reader.direct(second, 0)),
            blkif::OP_DISCARD => {
                let discard = Action::Discard {
                    sectors: reader.u64(layout.nr_sectors),
                    secure: second & blkif::DISCARD_SECURE != 0,
                };
                (discard, Some(Vec::new()))
            }
            blkif::OP_INDIRECT => {
                // The response names what was really done.
                request.operation = second;
                match second {
                    blkif::OP_READ => (Action::Read, reader.indirect(pages)),
                    blkif::OP_WRITE => (Action::Write, reader.indirect(pages)),
                    _ => (Action::Refuse(blkif::RSP_ERROR), None),
                }
            }
            _ => (Action::Refuse(blkif::RSP_EOPNOTSUPP), Some(Vec::new())),
        };
        if let Some(segments) = segments {
            request.action = action;
            request.segments = segments;
        }
        request
    }

    /// Bytes that are moved.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|s| s.bytes() as u64).sum()
    }

    /// Writes `struct blkif_response`.
    pub fn response(&self, status: i16, layout: Layout) -> ([u8; 16], usize) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.id.to_le_bytes());
        bytes[blkif::RESPONSE_OPERATION] = self.operation;
        bytes[blkif::RESPONSE_STATUS..blkif::RESPONSE_STATUS + 2].copy_from_slice(&status.to_le_bytes());
        (bytes, layout.response)
    }
}

struct Reader<'a> {
    entry: &'a [u8],
    layout: Layout,
}

impl Reader<'_> {
    fn u8(&self, at: usize) -> u8 {
        self.entry.get(at).copied().unwrap_or(0)
    }

    fn u32(&self, at: usize) -> u32 {
        let bytes = self.entry.get(at..at + 4).and_then(|b| b.try_into().ok());
        bytes.map_or(0, u32::from_le_bytes)
    }

    fn u64(&self, at: usize) -> u64 {
        let bytes = self.entry.get(at..at + 8).and_then(|b| b.try_into().ok());
        bytes.map_or(0, u64::from_le_bytes)
    }

    /// `None`: a number of segments that cannot be, or a bad one among them.
    fn direct(&self, count: u8, least: usize) -> Option<Vec<Segment>> {
        let count = usize::from(count);
        if !(least..=blkif::MAX_SEGMENTS_PER_REQUEST).contains(&count) {
            return None;
        }
        let bytes = self
            .entry
            .get(self.layout.seg..self.layout.seg + count * segment::SIZE)?;
        bytes.chunks_exact(segment::SIZE).map(Segment::parse).collect()
    }

    fn indirect(&self, pages: &mut impl IndirectPages) -> Option<Vec<Segment>> {
        let at = blkif::INDIRECT_NR_SEGMENTS;
        let count = usize::from(u16::from_le_bytes([self.u8(at), self.u8(at + 1)]));
        if !(1..=MAX_INDIRECT_SEGMENTS).contains(&count) {
            return None;
        }
        let mut segments = Vec::with_capacity(count);
        let mut left = count;
        for page in 0..count.div_ceil(SEGMENTS_PER_PAGE) {
            let here = left.min(SEGMENTS_PER_PAGE);
            let mut bytes = vec![0; here * segment::SIZE];
            if !pages.read(self.u32(self.layout.indirect_grefs + page * 4), &mut bytes) {
                return None;
            }
            for piece in bytes.chunks_exact(segment::SIZE) {
                segments.push(Segment::parse(piece)?);
            }
            left -= here;
        }
        Some(segments)
    }
}
