// SPDX-License-Identifier: Apache-2.0
//! A port of a switch: what is known of who is behind it, and what the switch does for a card that has no back end of ours.

use super::frame::{self, Transport};
use super::interface::Captures;
use super::link::Link;
use super::pcapng::Direction;
use super::rate::{Bucket, Rate};
use super::source::Source;
use std::net::IpAddr;
use std::time::Instant;

/// A frame to the nearest bridge, as bridges do not pass them on (IEEE 802.1D), of a type for local experiments.
const LABEL: &[u8] = &[1, 0x80, 0xc2, 0, 0, 0x0e, 0, 0, 0, 0, 0, 0, 0x88, 0xb5];
const LABEL_MAX: usize = 1024;

pub(super) type Mac = [u8; 6];

pub(super) struct Port {
    pub link: Link,
    /// Does not change as long as it is connected.
    pub number: u64,
    pub about: About,
}

/// What is known of a port.
#[derive(Default)]
pub(super) struct About {
    /// What whoever connected it has said in its first frame.
    pub label: String,
    pub counts: PortCounts,
    /// Of this port alone.
    pub captures: Captures,
    /// Frames may come that are not the first.
    has_begun: bool,
    /// The MTU that TCP frames are cut to for who is behind it, if that is no back end of ours.
    cut: Option<usize>,
    /// The only address that it may send from.
    own: Option<Mac>,
    /// If there are any, the only ones that it may call itself.
    addresses: Vec<IpAddr>,
    /// How much it may send.
    bucket: Option<Bucket>,
}

/// Frames and bytes that came from a port, and that went to it; frames that it did not take, and that were not from it.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct PortCounts {
    pub sent_frames: u64,
    pub sent_bytes: u64,
    pub received_frames: u64,
    pub received_bytes: u64,
    pub dropped: u64,
    pub spoofed: u64,
}

impl Port {
    pub(super) fn new(link: Link, number: u64) -> Port {
        let about = About::default();
        Port { link, number, about }
    }

    /// When it may send again. `None`: now.
    pub(super) fn waits_until(&mut self, now: Instant) -> Option<Instant> {
        self.about.bucket.as_mut()?.waits_until(now)
    }

    /// A frame that it sends is taken; `None` if it goes no further.
    pub(super) fn take(&mut self) -> Option<Vec<u8>> {
        let frame = self.link.peek()?.to_vec();
        self.link.next();
        let about = &mut self.about;
        let is_first = !std::mem::replace(&mut about.has_begun, true);
        if let Some(label) = label(&frame).filter(|_| is_first) {
            about.heed(&label);
            return None;
        }
        if frame.len() < frame::ETHERNET {
            return None;
        }
        if let Some(bucket) = &mut about.bucket {
            bucket.pay(frame.len());
        }
        if !about.owns(&frame) {
            about.counts.spoofed += 1;
            return None;
        }
        about.counts.sent_frames += 1;
        about.counts.sent_bytes += frame.len() as u64;
        about.captures.record(&frame, Some(Direction::Out));
        Some(frame)
    }

    /// Sends a frame to who is behind it, a large TCP frame in pieces if it wants that.
    pub(super) fn give(&mut self, frame: &[u8]) {
        if self.cut(frame).is_none() {
            self.send(frame);
        }
    }

    fn send(&mut self, frame: &[u8]) {
        self.about.captures.record(frame, Some(Direction::In));
        self.link.send(frame);
        self.about.counts.received_frames += 1;
        self.about.counts.received_bytes += frame.len() as u64;
    }

    /// `None`: nothing was sent.
    fn cut(&mut self, frame: &[u8]) -> Option<()> {
        let mtu = self.about.cut?;
        let size = frame::segment_size(frame, Transport::find(frame)?, mtu)?;
        let mut pieces = Vec::new();
        frame::split(frame, size, |piece| pieces.push(piece))?;
        pieces.iter().for_each(|piece| self.send(piece));
        Some(())
    }
}

impl About {
    /// Bounds what it sends from now on. `None`: there is no bound.
    pub(super) fn set_rate(&mut self, rate: Option<Rate>, now: Instant) {
        if self.bucket.as_ref().map(Bucket::rate) != rate {
            self.bucket = rate.map(|rate| Bucket::new(rate, now));
        }
    }

    fn owns(&self, frame: &[u8]) -> bool {
        match self.own {
            None => true,
            Some(mac) if self.addresses.is_empty() => frame.get(6..12) == Some(&mac),
            Some(mac) => {
                let addresses = &self.addresses;
                Source { mac, addresses }.owns(frame).unwrap_or(false)
            }
        }
    }

    /// Takes what a label says: words for the switch (`cut=MTU`, `own=MAC`, `ip=ADDRESS`, `rate=BYTES/MICROSECONDS`), and
    /// behind them, from the first brace, what is shown of the port.
    fn heed(&mut self, text: &str) {
        let (words, shown) = text.split_at(text.find('{').unwrap_or(0));
        self.label = shown.to_owned();
        for word in words.split_ascii_whitespace() {
            match word.split_once('=') {
                Some(("cut", mtu)) => self.cut = mtu.parse().ok(),
                Some(("own", mac)) => self.own = mac_of(mac),
                Some(("ip", address)) => self.addresses.extend(address.parse::<IpAddr>().ok()),
                Some(("rate", rate)) => {
                    let (bytes, interval) = rate.split_once('/').unwrap_or_default();
                    self.set_rate(rate_of(bytes, interval), Instant::now());
                }
                _ => {}
            }
        }
    }
}

/// A rate, of its two numbers. `None`: they are none, or 0.
pub(super) fn rate_of(bytes: &str, interval_us: &str) -> Option<Rate> {
    let (bytes, interval_us) = (bytes.parse().ok()?, interval_us.parse().ok()?);
    (bytes > 0 && interval_us > 0).then_some(Rate { bytes, interval_us })
}

/// An address as labels have it.
fn mac_of(text: &str) -> Option<Mac> {
    let bytes: Option<Vec<u8>> = text
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).ok())
        .collect();
    bytes?.try_into().ok()
}

/// What a frame says of its port that is for the switch alone: behind LABEL, printable characters, or nothing.
fn label(frame: &[u8]) -> Option<String> {
    let text = frame.strip_prefix(LABEL)?;
    let is_text = text.len() <= LABEL_MAX && text.iter().all(|byte| (b' '..=b'~').contains(byte));
    let text = String::from_utf8(text.to_vec()).ok().filter(|_| is_text);
    Some(text.unwrap_or_default())
}
