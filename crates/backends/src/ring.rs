// SPDX-License-Identifier: Apache-2.0
//! The back end's side of a ring of requests and responses (`io/ring.h`), in one or more granted pages.

use domzero_machine::abi::ring::{HEAD, REQ_EVENT, REQ_PROD, RSP_EVENT, RSP_PROD};
use domzero_machine::{GrantClient, GrantMapping};
use std::sync::atomic::{fence, Ordering};

const PAGE: usize = 4096;

/// The indices that the front end has written cannot be: the ring is of no use any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{requested} requests are said to wait in a ring of {entries}")]
pub struct RingBroken {
    /// How many requests the indices say.
    pub requested: u32,
    /// How many the ring has room for.
    pub entries: u32,
}

/// No ring can be made of these pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RingRefused {
    /// This number of pages is no power of two.
    #[error("{0} pages are no ring: 1, 2, 4, ... are")]
    Pages(usize),
    /// A back end writes its responses into it.
    #[error("a page of the ring cannot be written to")]
    ReadOnly,
    /// The indices that are in it already cannot be.
    #[error(transparent)]
    Broken(#[from] RingBroken),
}

/// Why a ring could not be connected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The front end has not granted this reference, or not for writing.
    #[error("grant {0} of the ring cannot be mapped")]
    Grant(u32),
    /// The pages are no ring.
    #[error(transparent)]
    Ring(#[from] RingRefused),
}

/// What a turn at a ring leaves to its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Served {
    /// The front end is to be sent its event.
    pub notify: bool,
    /// There may be more to do at once; else the front end sends its event.
    pub more: bool,
}

/// A shared ring, whose entries follow each other across its pages.
pub struct BackRing {
    pages: Vec<GrantMapping>,
    entry: usize,
    entries: u32,
    /// Requests that were taken.
    req_cons: u32,
    /// Responses that were put; the front end sees them once they are pushed.
    rsp_prod_pvt: u32,
}

impl BackRing {
    /// Maps the pages that a front end has granted for a ring, and attaches to it.
    pub fn connect(front: &GrantClient, grefs: &[u32], entry: usize) -> Result<BackRing, ConnectError> {
        let map = |&gref| front.map(gref, true).map_err(|_| ConnectError::Grant(gref));
        let pages = grefs.iter().map(map).collect::<Result<_, _>>()?;
        Ok(BackRing::attach(pages, entry)?)
    }

    /// Attaches to a ring: goes on behind the responses that are in it, which is where an earlier back end was.
    ///
    /// `pages`: mapped writable; `entry`: bytes of the larger of request and response.
    fn attach(pages: Vec<GrantMapping>, entry: usize) -> Result<BackRing, RingRefused> {
        let room = (pages.len() * PAGE).saturating_sub(HEAD) / entry;
        if !pages.len().is_power_of_two() || room == 0 {
            return Err(RingRefused::Pages(pages.len()));
        }
        if !pages.iter().all(GrantMapping::writable) {
            return Err(RingRefused::ReadOnly);
        }
        // The largest power of two that fits.
        let entries = 1 << (usize::BITS - 1 - room.leading_zeros());
        let mut ring = BackRing {
            pages,
            entry,
            entries,
            req_cons: 0,
            rsp_prod_pvt: 0,
        };
        ring.rsp_prod_pvt = ring.index(RSP_PROD);
        ring.req_cons = ring.rsp_prod_pvt;
        ring.waiting()?;
        Ok(ring)
    }

    /// How many requests it has room for: a power of two.
    pub fn entries(&self) -> u32 {
        self.entries
    }

    /// How many requests wait; the front end's index is read once.
    pub fn waiting(&self) -> Result<u32, RingBroken> {
        let requested = self.index(REQ_PROD).wrapping_sub(self.req_cons);
        // Each request is answered, or stands in the ring until then: there is never room for more.
        if requested > self.entries - self.unanswered() {
            return Err(RingBroken {
                requested: requested.wrapping_add(self.unanswered()),
                entries: self.entries,
            });
        }
        Ok(requested)
    }

    /// Copies the next request; only as often as `waiting` has said.
    pub fn take(&mut self, request: &mut [u8]) {
        let length = request.len().min(self.entry);
        self.copy(self.req_cons, length, |page, at, range| {
            if let Some(part) = request.get_mut(range) {
                page.read(at, part).ok();
            }
        });
        self.req_cons = self.req_cons.wrapping_add(1);
    }

    /// Writes a response, which the front end does not see before [`BackRing::push`].
    pub fn put(&mut self, response: &[u8]) {
        let length = response.len().min(self.entry);
        self.copy(self.rsp_prod_pvt, length, |page, at, range| {
            if let Some(part) = response.get(range) {
                page.write(at, part).ok();
            }
        });
        self.rsp_prod_pvt = self.rsp_prod_pvt.wrapping_add(1);
    }

    /// Shows the responses that were put. True: the front end asked to be told (RING_PUSH_RESPONSES_AND_CHECK_NOTIFY).
    #[must_use = "the front end waits for the event"]
    pub fn push(&mut self) -> bool {
        let (old, new) = (self.index(RSP_PROD), self.rsp_prod_pvt);
        self.set_index(RSP_PROD, new);
        fence(Ordering::SeqCst);
        new.wrapping_sub(self.index(RSP_EVENT)) < new.wrapping_sub(old)
    }

    /// Asks to be told of the next request. True: there is one already (RING_FINAL_CHECK_FOR_REQUESTS).
    pub fn wait_for_requests(&mut self) -> Result<bool, RingBroken> {
        self.wait_for(1)
    }

    /// Asks to be told when `count` requests wait. True: they do already.
    pub fn wait_for(&mut self, count: u32) -> Result<bool, RingBroken> {
        if self.waiting()? >= count {
            return Ok(true);
        }
        self.set_index(REQ_EVENT, self.req_cons.wrapping_add(count));
        fence(Ordering::SeqCst);
        Ok(self.waiting()? >= count)
    }

    fn unanswered(&self) -> u32 {
        self.req_cons.wrapping_sub(self.rsp_prod_pvt)
    }

    fn index(&self, at: usize) -> u32 {
        self.pages
            .first()
            .and_then(|page| page.load_u32(at).ok())
            .unwrap_or(0)
    }

    fn set_index(&self, at: usize, value: u32) {
        if let Some(page) = self.pages.first() {
            page.store_u32(at, value).ok();
        }
    }

    /// Calls with each piece of an entry: the page, where in the page, which bytes of the entry.
    fn copy(
        &self,
        index: u32,
        length: usize,
        mut part: impl FnMut(&GrantMapping, usize, std::ops::Range<usize>),
    ) {
        let start = HEAD + (index & (self.entries - 1)) as usize * self.entry;
        let mut done = 0;
        while done < length {
            let (number, at) = ((start + done) / PAGE, (start + done) % PAGE);
            let end = length.min(done + PAGE - at);
            if let Some(page) = self.pages.get(number) {
                part(page, at, done..end);
            }
            done = end;
        }
    }
}
