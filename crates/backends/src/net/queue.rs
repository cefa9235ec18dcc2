// SPDX-License-Identifier: Apache-2.0
//! The two rings of a queue: what the guest sends, and what it receives.

use super::frame::{self, Transport, FRAME_MAX};
use super::interface::{add, Interface};
use super::link::Link;
use super::multicast::Multicast;
use super::pcapng::Direction;
use super::request::{Broken, Packet};
use super::source::Source;
use crate::ring::{BackRing, ConnectError};
use domzero_machine::abi::netif::{self, extra_info, rx_request, rx_response, tx_request};
use domzero_machine::GrantClient;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

const PAGE: usize = 4096;
/// Frames that are moved in one direction before the other has its turn.
pub const FRAMES_PER_TURN: usize = 64;

/// What the front end has agreed to, and what is known of the interface.
#[derive(Debug, Clone)]
pub struct Agreed {
    /// `feature-sg`: it takes frames of several slots.
    pub scatter: bool,
    /// `feature-gso-tcpv4`, `feature-gso-tcpv6`: it takes TCP frames that are larger than its MTU.
    pub gso_v4: bool,
    /// The same for IPv6.
    pub gso_v6: bool,
    /// Not `feature-no-csum-offload`; `feature-ipv6-csum-offload`: checksums may be left for it to fill in.
    pub checksum_v4: bool,
    /// The same for IPv6.
    pub checksum_v6: bool,
    /// `feature-rx-notify`: it sends an event when it has put pages into the ring.
    pub rx_notify: bool,
    /// The interface's own address.
    pub mac: [u8; 6],
    /// Frames with another source address than `mac` are dropped.
    pub keeps_mac: bool,
    /// Frames of the guest's that come from another address than these, in ARP and IP, are dropped, too. Empty: it may
    /// have any.
    pub addresses: Arc<[IpAddr]>,
    /// Bytes of a frame's payload at most, where it is not cut.
    pub mtu: u16,
    /// Which multicast it wants.
    pub multicast: Arc<Multicast>,
}

/// The pages of a queue's rings.
#[derive(Debug, Clone, Copy)]
pub struct QueueRefs {
    /// `tx-ring-ref`: a grant of the ring of what the guest sends.
    pub tx: u32,
    /// `rx-ring-ref`: a grant of the ring of what it receives.
    pub rx: u32,
}

/// What a turn at the ring of what the guest sends leaves to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transmitted {
    /// The front end is to be sent its event.
    pub notify: bool,
    /// There may be more to do at once; else the front end sends its event.
    pub more: bool,
    /// The rest may be sent then, and not before.
    pub until: Option<Instant>,
}

/// A pair of rings.
pub struct Queue {
    front: GrantClient,
    tx: BackRing,
    rx: BackRing,
    agreed: Agreed,
    interface: Arc<Interface>,
    frame: Vec<u8>,
    /// Something was given to the guest that it has not been shown.
    given: bool,
}

impl Queue {
    /// Maps the rings of a front end.
    pub fn connect(
        front: GrantClient,
        refs: QueueRefs,
        agreed: Agreed,
        interface: Arc<Interface>,
    ) -> Result<Queue, ConnectError> {
        let tx = BackRing::connect(&front, &[refs.tx], tx_request::SIZE)?;
        let rx = BackRing::connect(&front, &[refs.rx], rx_request::SIZE.max(rx_response::SIZE))?;
        Ok(Queue {
            front,
            tx,
            rx,
            agreed,
            interface,
            frame: Vec::with_capacity(FRAME_MAX),
            given: false,
        })
    }

    /// Sends what the guest wants to be sent, as far as the wire has room.
    pub fn transmit(&mut self, link: &mut Link) -> Result<Transmitted, Broken> {
        let (mut taken, mut until) = (0, None);
        while link.has_room() {
            let waiting = self.tx.waiting()?;
            if waiting == 0 || taken == FRAMES_PER_TURN {
                break;
            }
            until = self.interface.waits_until();
            if until.is_some() {
                break;
            }
            taken += 1;
            let packet = Packet::take(&mut self.tx, waiting)?;
            let is_up = self.interface.is_up();
            if is_up {
                self.interface.pay(packet.size());
            }
            let is_done = match packet.multicast {
                Some(change) => self.agreed.multicast.change(change),
                None if packet.is_bad || !self.gather(&packet) => false,
                None if is_up => {
                    self.send(&packet, link);
                    true
                }
                None => {
                    add(&self.interface.counts.dropped, 1);
                    true
                }
            };
            let status = match is_done {
                true => netif::RSP_OKAY,
                false => {
                    add(&self.interface.counts.errors, 1);
                    netif::RSP_ERROR
                }
            };
            packet.answer(&mut self.tx, status);
        }
        link.flush();
        Ok(Transmitted {
            notify: taken > 0 && self.tx.push(),
            // Without room the wire says when to go on.
            more: until.is_none() && link.has_room() && self.tx.wait_for_requests()?,
            until,
        })
    }

    /// Copies a frame out of the guest, once.
    fn gather(&mut self, packet: &Packet) -> bool {
        self.frame.clear();
        self.frame.resize(packet.size().min(FRAME_MAX), 0);
        let mut rest = self.frame.as_mut_slice();
        for piece in &packet.pieces {
            let Some((here, behind)) = rest.split_at_mut_checked(usize::from(piece.size)) else {
                return false;
            };
            let copied = self.front.copy_from(piece.gref, usize::from(piece.offset), here);
            if copied.is_err() {
                return false;
            }
            rest = behind;
        }
        true
    }

    /// Whether the frame that was copied is from where it says.
    fn is_own(&self) -> bool {
        let (mac, addresses) = (self.agreed.mac, &*self.agreed.addresses);
        if addresses.is_empty() {
            return !self.agreed.keeps_mac || self.frame.get(6..12) == Some(&mac);
        }
        Source { mac, addresses }.owns(&self.frame).unwrap_or(false)
    }

    fn send(&mut self, packet: &Packet, link: &mut Link) {
        if !self.is_own() {
            add(&self.interface.counts.spoofed, 1);
            return;
        }
        let is_blank = packet.flags & netif::TXF_CSUM_BLANK != 0 || packet.gso.is_some();
        if is_blank && !frame::fill_checksum(&mut self.frame) {
            add(&self.interface.counts.dropped, 1);
            return;
        }
        // A large TCP frame goes as it is: passt takes it, and other guests' back ends cut it if they have to.
        self.interface.record(&self.frame, Direction::Out);
        link.send(&self.frame);
        add(&self.interface.counts.sent_frames, 1);
        add(&self.interface.counts.sent_bytes, self.frame.len());
    }

    /// Gives the guest the frame that has come. False: it has no pages for it yet, and says when it has.
    pub fn receive(&mut self, frame: &[u8]) -> Result<bool, Broken> {
        if !self.interface.is_up() {
            add(&self.interface.counts.dropped, 1);
            return Ok(true);
        }
        if !self.agreed.multicast.lets_in(frame) {
            return Ok(true);
        }
        self.frame.clear();
        self.frame.extend_from_slice(frame);
        let Some(plan) = self.plan() else {
            add(&self.interface.counts.dropped, 1);
            return Ok(true);
        };
        if !self.rx.wait_for(plan.slots)? {
            return Ok(false);
        }
        self.interface.record(frame, Direction::In);
        self.give(&plan);
        self.given = true;
        Ok(true)
    }

    /// Shows the guest what it was given. True: it is to be sent its event.
    pub fn push_received(&mut self) -> bool {
        std::mem::take(&mut self.given) && self.rx.push()
    }

    /// The front end says when there are pages in its ring.
    pub fn tells_of_pages(&self) -> bool {
        self.agreed.rx_notify
    }

    /// How the frame is to be given to the guest. `None`: it cannot take it.
    fn plan(&mut self) -> Option<Plan> {
        if self.frame.len() < frame::ETHERNET {
            return None;
        }
        let found = Transport::find(&self.frame);
        let mut plan = Plan {
            parts: Vec::new(),
            gso: None,
            flags: 0,
            slots: 0,
        };
        let large =
            found.and_then(|t| Some((t, frame::segment_size(&self.frame, t, self.agreed.mtu.into())?)));
        if let Some((transport, size)) = large {
            let agreed = &self.agreed;
            let takes = if transport.is_ipv6 {
                agreed.gso_v6
            } else {
                agreed.gso_v4
            };
            if !takes || !agreed.scatter {
                frame::split(&self.frame, size, |part| plan.parts.push(part))?;
                plan.flags = netif::RXF_DATA_VALIDATED;
            } else {
                if !frame::has_right_checksum(&self.frame) {
                    return None;
                }
                frame::set_partial_checksum(&mut self.frame, transport);
                plan.gso = Some((
                    size,
                    if transport.is_ipv6 {
                        netif::GSO_TYPE_TCPV6
                    } else {
                        netif::GSO_TYPE_TCPV4
                    },
                ));
                plan.flags = netif::RXF_DATA_VALIDATED | netif::RXF_CSUM_BLANK | netif::RXF_EXTRA_INFO;
            }
        } else if let Some(transport) = found {
            let takes = match transport.is_ipv6 {
                true => self.agreed.checksum_v6,
                false => self.agreed.checksum_v4,
            };
            // Saves the guest the sum.
            if takes && frame::has_right_checksum(&self.frame) {
                plan.flags = netif::RXF_DATA_VALIDATED;
            }
        }
        let slots = |bytes: usize| bytes.div_ceil(PAGE).max(1);
        let largest = match plan.parts.is_empty() {
            true => slots(self.frame.len()),
            false => plan.parts.iter().map(|part| slots(part.len())).max()?,
        };
        if largest
            > if self.agreed.scatter {
                netif::NR_SLOTS_MIN
            } else {
                1
            }
        {
            return None;
        }
        let all = match plan.parts.is_empty() {
            true => largest + usize::from(plan.gso.is_some()),
            false => plan.parts.iter().map(|part| slots(part.len())).sum(),
        };
        plan.slots = u32::try_from(all).ok().filter(|n| *n <= self.rx.entries())?;
        Some(plan)
    }

    fn give(&mut self, plan: &Plan) {
        let frame = std::mem::take(&mut self.frame);
        if plan.parts.is_empty() {
            self.put(&frame, plan);
        }
        for part in &plan.parts {
            self.put(part, plan);
        }
        self.frame = frame;
    }

    fn put(&mut self, frame: &[u8], plan: &Plan) {
        let last = frame.len().div_ceil(PAGE).max(1) - 1;
        for (number, part) in frame.chunks(PAGE).enumerate() {
            let mut request = [0; rx_request::SIZE];
            self.rx.take(&mut request);
            let id = request.get(rx_request::ID..rx_request::ID + 2);
            let gref = request.get(rx_request::GREF..).and_then(|b| b.try_into().ok());
            let copied = self.front.copy_to(gref.map_or(0, u32::from_le_bytes), 0, part);
            let status = match copied {
                Ok(_) => part.len() as i16,
                Err(_) => netif::RSP_ERROR,
            };
            let mut flags = if number < last { netif::RXF_MORE_DATA } else { 0 };
            if number == 0 {
                flags |= plan.flags;
            }
            let mut response = [0; rx_response::SIZE];
            for (at, bytes) in [
                (rx_response::ID, id.unwrap_or(&[0; 2])),
                (rx_response::FLAGS, &flags.to_le_bytes()),
                (rx_response::STATUS, &status.to_le_bytes()),
            ] {
                response[at..at + 2].copy_from_slice(bytes);
            }
            self.rx.put(&response);
            if let (0, Some((size, kind))) = (number, plan.gso) {
                // It takes a page of the guest's out of the ring, which the guest keeps.
                self.rx.take(&mut request);
                let mut extra = [0; extra_info::SIZE];
                extra[extra_info::TYPE] = netif::EXTRA_TYPE_GSO;
                extra[extra_info::GSO_SIZE..extra_info::GSO_SIZE + 2].copy_from_slice(&size.to_le_bytes());
                extra[extra_info::GSO_TYPE] = kind;
                self.rx.put(&extra);
            }
        }
        add(&self.interface.counts.received_frames, 1);
        add(&self.interface.counts.received_bytes, frame.len());
    }
}

/// How a frame is given to the guest.
struct Plan {
    /// Its segments, if it has to be cut.
    parts: Vec<Vec<u8>>,
    gso: Option<(u16, u8)>,
    /// Of the first slot.
    flags: u16,
    slots: u32,
}
