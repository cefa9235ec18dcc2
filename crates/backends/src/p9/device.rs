// SPDX-License-Identifier: Apache-2.0
//! A shared directory's rings, served by one thread: requests of all of them are done one after the other.

use super::ring::{Broken, ConnectError, Ring};
use super::session::{Answer, Counts, Data, Session, WRITE_HEAD};
use super::tree::Tree;
use super::wire::{kind, HEADER};
use crate::piece;
use crate::thread::{RungThread, Until};
use domzero_machine::GrantClient;
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Bytes of a request, but for the data of WRITE, that are looked at. No request of use has more.
const BODY_MAX: usize = 16 << 10;
/// Bytes of READ's answer that are before the data.
const READ_AT: usize = HEADER + 4;

/// What the thread tells the layer above. Called on that thread, with no lock held.
pub trait Notice: Send {
    /// The front end is to be sent this ring's event.
    fn notify(&self, ring: usize);
    /// The rings are of no use any more, and are not served any more.
    fn broken(&self, error: Broken);
}

/// What a turn at a ring did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// A request was answered: the front end is to be sent its event.
    Answered,
    /// A FLUSH waits for all that came before it.
    Flush,
    /// Nothing is to be done before the front end sends its event.
    Idle,
}

/// The rings with the directory behind them.
pub struct Device {
    rings: Vec<Ring>,
    session: Session,
}

struct RingData<'a> {
    ring: &'a Ring,
    /// Bytes behind `WRITE_HEAD`.
    brought: usize,
}

impl Data for RingData<'_> {
    fn brought(&self) -> usize {
        self.brought
    }

    fn read(&self, file: &File, at: u64, bytes: usize) -> io::Result<usize> {
        piece::read_at(file, &self.ring.room_pieces(READ_AT, bytes), at)
    }

    fn write(&self, file: &File, at: u64, bytes: usize) -> io::Result<usize> {
        let from = self.ring.waiting_pieces(HEADER + WRITE_HEAD, bytes);
        piece::write_at(file, &from, at)
    }
}

impl Device {
    /// Connects to the rings that the pages `intf_refs` describe.
    pub fn connect(
        front: &GrantClient,
        intf_refs: &[u32],
        tree: Arc<Tree>,
        writable: bool,
        counts: Arc<Counts>,
    ) -> Result<Device, ConnectError> {
        let connect = |&gref| Ring::connect(front, gref);
        let rings = intf_refs
            .iter()
            .map(connect)
            .collect::<Result<Vec<_>, ConnectError>>()?;
        // Messages may come through each of them.
        let smallest = rings.iter().map(Ring::size).min().unwrap_or(0);
        let msize_max = u32::try_from(smallest).unwrap_or(u32::MAX);
        Ok(Device {
            session: Session::new(tree, writable, msize_max, counts),
            rings,
        })
    }

    /// How many rings the device has.
    pub fn rings(&self) -> usize {
        self.rings.len()
    }

    /// Answers the next request of a ring, if it is there whole and there is room for the answer.
    pub fn turn(&mut self, number: usize, flushes: bool) -> Result<Turn, Broken> {
        let Some(ring) = self.rings.get_mut(number) else {
            return Ok(Turn::Idle);
        };
        let waiting = ring.waiting()?;
        if waiting < HEADER {
            return Ok(Turn::Idle);
        }
        let mut header = [0; HEADER];
        ring.peek(0, &mut header);
        let [a, b, c, d, request, tag_low, tag_high] = header;
        let size = u32::from_le_bytes([a, b, c, d]);
        let most = self.session.msize();
        if size < HEADER as u32 || size > most {
            return Err(Broken::Message { size, most });
        }
        let size = size as usize;
        if waiting < size {
            return Ok(Turn::Idle);
        }
        if request == kind::FLUSH && !flushes {
            return Ok(Turn::Flush);
        }
        let head = match request {
            kind::WRITE => WRITE_HEAD,
            _ => BODY_MAX,
        };
        let mut body = vec![0; head.min(size - HEADER)];
        ring.peek(HEADER, &mut body);
        if ring.room()? < self.session.answer_max(request, &body) {
            return Ok(Turn::Idle);
        }
        let data = RingData {
            ring,
            brought: size.saturating_sub(HEADER + WRITE_HEAD),
        };
        let Answer { kind, body, placed } = self.session.answer(request, &body, &data);
        let bytes = HEADER + body.len() + placed;
        let mut message = (bytes as u32).to_le_bytes().to_vec();
        message.extend([kind, tag_low, tag_high]);
        message.extend(body);
        ring.put(0, &message);
        ring.push(bytes);
        ring.take(size);
        Ok(Turn::Answered)
    }

    /// Serves all rings until there is nothing more to be done, on the calling thread.
    pub fn serve(&mut self, notice: &dyn Notice, stop: &dyn Fn() -> bool) -> Result<(), Broken> {
        let mut flushes = false;
        loop {
            let (mut has_answered, mut has_flush) = (false, false);
            for number in 0..self.rings.len() {
                match self.turn(number, flushes)? {
                    Turn::Answered => {
                        notice.notify(number);
                        has_answered = true;
                    }
                    Turn::Flush => has_flush = true,
                    Turn::Idle => {}
                }
            }
            // What a FLUSH is about may be in another ring: that comes first.
            flushes = has_flush && !has_answered;
            if !(has_answered || has_flush) || stop() {
                return Ok(());
            }
        }
    }
}

/// Serves a device until the thread is dropped. It starts with a look at the rings: requests may have come before; those
/// that wait in the rings when it stops stay there.
pub fn start_thread(
    name: String,
    mut device: Device,
    notice: impl Notice + 'static,
) -> io::Result<RungThread> {
    let serve = move |stop: &dyn Fn() -> bool| match device.serve(&notice, stop) {
        Ok(()) => ControlFlow::Continue(Until::Rung),
        Err(error) => {
            notice.broken(error);
            ControlFlow::Break(())
        }
    };
    RungThread::start(name, serve)
}
