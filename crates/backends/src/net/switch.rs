// SPDX-License-Identifier: Apache-2.0
//! A switch: learns which station is behind which port. It runs in a process of its own, and waits for all of its ports.

use super::frame::{self, Transport, ETHERNET};
use super::interface::Captures;
use super::link::Link;
use super::switch_control::{Control, Question};
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use std::collections::HashMap;
use std::io;
use std::os::unix::net::UnixListener;
use std::time::Duration;

/// Bytes that wait for a port that does not read; what comes then is dropped.
pub const PORT_QUEUE_MAX: usize = 4 << 20;
/// Stations that are known; frames to others go to all ports.
pub const STATIONS_MAX: usize = 4096;
/// Bytes that are read of a port in a turn.
const AHEAD: usize = 128 << 10;
const PORTS_MAX: usize = 1024;
const FRAMES_PER_TURN: usize = 64;

/// Stations of a port that are shown.
const SHOWN_MAX: usize = 16;
/// A frame to the nearest bridge, as bridges do not pass them on (IEEE 802.1D), of a type for local experiments.
const LABEL: &[u8] = &[1, 0x80, 0xc2, 0, 0, 0x0e, 0, 0, 0, 0, 0, 0, 0x88, 0xb5];
const LABEL_MAX: usize = 1024;

type Mac = [u8; 6];

struct Port {
    link: Link,
    /// Does not change as long as it is connected.
    number: u64,
    about: About,
}

/// What is known of a port.
#[derive(Default)]
pub(super) struct About {
    /// What whoever connected it has said in its first frame.
    label: String,
    /// Frames may come that are not the first.
    has_begun: bool,
    /// The MTU that TCP frames are cut to for who is behind it, if that is no back end of ours.
    cut: Option<usize>,
    /// The only address that it may send from.
    own: Option<Mac>,
    counts: PortCounts,
}

/// Frames and bytes that came from a port, and that went to it; frames that it did not take.
#[derive(Debug, Default, Clone, Copy)]
struct PortCounts {
    sent_frames: u64,
    sent_bytes: u64,
    received_frames: u64,
    received_bytes: u64,
    dropped: u64,
}

/// The ports of one network.
pub struct Switch {
    listener: UnixListener,
    ports: Vec<Port>,
    stations: HashMap<Mac, u64>,
    next: u64,
    control: Option<Control>,
    captures: Captures,
}

impl Switch {
    /// A switch whose ports connect to `listener`, and who has a question to `control`.
    pub fn new(listener: UnixListener, control: Option<UnixListener>) -> io::Result<Switch> {
        listener.set_nonblocking(true)?;
        Ok(Switch {
            control: control.map(Control::new).transpose()?,
            captures: Captures::default(),
            listener,
            ports: Vec::new(),
            stations: HashMap::new(),
            next: 0,
        })
    }

    /// How many are connected.
    pub fn ports(&self) -> usize {
        self.ports.len()
    }

    /// Moves frames until the last port has gone, or none has come in time.
    pub fn run(&mut self, first: Duration) -> io::Result<()> {
        let first = Timespec::try_from(first).ok();
        loop {
            let has_ports = !self.ports.is_empty();
            if !self.turn(if has_ports { None } else { first.as_ref() })?
                || (has_ports && self.ports.is_empty())
            {
                self.captures.finish();
                return Ok(());
            }
        }
    }

    /// Waits for something, and does it. False: nothing came in time.
    pub fn turn(&mut self, timeout: Option<&Timespec>) -> io::Result<bool> {
        let has_more = self.ports.iter().any(|port| port.link.peek().is_some());
        let at_once = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let mut asked = vec![PollFd::new(&self.listener, PollFlags::IN)];
        asked.extend(self.ports.iter().map(|port| {
            let writes = if port.link.is_waiting() {
                PollFlags::OUT
            } else {
                PollFlags::empty()
            };
            PollFd::from_borrowed_fd(port.link.fd(), PollFlags::IN | writes)
        }));
        let ports = asked.len();
        if let Some(control) = &self.control {
            asked.extend(
                control
                    .fds()
                    .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)),
            );
        }
        let found = match poll(&mut asked, if has_more { Some(&at_once) } else { timeout }) {
            Err(rustix::io::Errno::INTR) => return Ok(true),
            other => other?,
        };
        let is_called = asked.first().is_some_and(|fd| !fd.revents().is_empty());
        let ready: Vec<bool> = asked.iter().skip(1).map(|fd| !fd.revents().is_empty()).collect();
        drop(asked);
        let is_asked = ready.iter().skip(ports - 1).any(|ready| *ready);
        if is_asked {
            let questions = self.control.as_mut().map(Control::questions);
            questions
                .into_iter()
                .flatten()
                .for_each(|question| self.answer(question));
        }
        if is_called {
            self.accept()?;
        }
        for (at, ready) in ready.into_iter().take(ports - 1).enumerate() {
            if ready || self.ports.get(at).is_some_and(|port| port.link.peek().is_some()) {
                self.forward(at);
            }
        }
        for port in &mut self.ports {
            port.link.flush();
        }
        self.ports.retain(|port| !port.link.is_lost());
        Ok(found > 0 || has_more)
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            match self.listener.accept() {
                Ok((socket, _)) if self.ports.len() < PORTS_MAX => {
                    let link = Link::new(socket, AHEAD)?;
                    self.ports.push(Port {
                        link,
                        number: self.next,
                        about: About::default(),
                    });
                    self.next += 1;
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn answer(&self, question: Question) {
        match question {
            Question::Show(asker) => asker.say(self.shown()),
            Question::Capture(asker, wanted) => {
                if let Some(capture) = asker.capture(wanted) {
                    self.captures.add(capture);
                }
            }
        }
    }

    /// A line for each port: its counts, the stations behind it, and its label.
    fn shown(&self) -> String {
        let mut text = String::new();
        for port in &self.ports {
            let stations = self.stations.iter().filter(|(_, number)| **number == port.number);
            let mut stations: Vec<_> = stations.map(|(mac, _)| *mac).collect();
            stations.sort_unstable();
            let stations: Vec<_> = stations.iter().take(SHOWN_MAX).map(text_of).collect();
            let PortCounts {
                sent_frames,
                sent_bytes,
                received_frames,
                received_bytes,
                dropped,
            } = port.about.counts;
            text += &format!(
                "{}\t{sent_frames}\t{sent_bytes}\t{received_frames}\t{received_bytes}\t{dropped}\t{}\t{}\n",
                port.number,
                stations.join(","),
                port.about.label,
            );
        }
        text
    }

    fn forward(&mut self, from: usize) {
        if let Some(port) = self.ports.get_mut(from) {
            port.link.fill();
        }
        for _ in 0..FRAMES_PER_TURN {
            let Some(port) = self.ports.get_mut(from) else {
                return;
            };
            let Some(frame) = port.link.peek() else { return };
            let frame = frame.to_vec();
            port.link.next();
            let is_first = !std::mem::replace(&mut port.about.has_begun, true);
            if let Some(label) = label(&frame).filter(|_| is_first) {
                port.about.heed(&label);
                continue;
            }
            if let (true, Some(to), Some(source)) = (frame.len() >= ETHERNET, mac(&frame, 0), mac(&frame, 6))
            {
                port.about.counts.sent_frames += 1;
                port.about.counts.sent_bytes += frame.len() as u64;
                if port.about.own.is_some_and(|own| own != source) {
                    continue;
                }
                let number = port.number;
                self.captures.record(&frame, None);
                self.learn(source, number);
                self.deliver(&frame, to, from);
            }
        }
    }

    fn learn(&mut self, source: Mac, number: u64) {
        if is_group(&source) || self.stations.get(&source) == Some(&number) {
            return;
        }
        if self.stations.len() >= STATIONS_MAX {
            let ports = &self.ports;
            self.stations
                .retain(|_, number| ports.iter().any(|port| port.number == *number));
        }
        if self.stations.len() < STATIONS_MAX || self.stations.contains_key(&source) {
            self.stations.insert(source, number);
        }
    }

    fn deliver(&mut self, frame: &[u8], to: Mac, from: usize) {
        let known = self.stations.get(&to);
        let only = known.and_then(|number| self.ports.iter().position(|port| port.number == *number));
        for (at, port) in self.ports.iter_mut().enumerate() {
            if at == from || only.is_some_and(|only| at != only) {
                continue;
            }
            if port.link.backlog() >= PORT_QUEUE_MAX {
                port.about.counts.dropped += 1;
            } else if port.cut(frame).is_none() {
                port.send(frame);
            }
        }
    }
}

impl Port {
    fn send(&mut self, frame: &[u8]) {
        self.link.send(frame);
        self.about.counts.received_frames += 1;
        self.about.counts.received_bytes += frame.len() as u64;
    }

    /// Sends a large TCP frame in pieces, as this port wants it. `None`: nothing was sent.
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
    /// Takes what a label says: words for the switch (`cut=MTU`, `own=MAC`), and behind them, from the first brace, what is
    /// shown of the port.
    fn heed(&mut self, text: &str) {
        let (words, shown) = text.split_at(text.find('{').unwrap_or(0));
        self.label = shown.to_owned();
        for word in words.split_ascii_whitespace() {
            match word.split_once('=') {
                Some(("cut", mtu)) => self.cut = mtu.parse().ok(),
                Some(("own", mac)) => self.own = mac_of(mac),
                _ => {}
            }
        }
    }
}

/// An address as `text_of` writes it.
fn mac_of(text: &str) -> Option<Mac> {
    let bytes: Option<Vec<u8>> = text
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).ok())
        .collect();
    bytes?.try_into().ok()
}

fn mac(frame: &[u8], at: usize) -> Option<Mac> {
    frame.get(at..at + 6)?.try_into().ok()
}

fn text_of(mac: &Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// What a frame says of its port that is for the switch alone: behind LABEL, printable characters, or nothing.
fn label(frame: &[u8]) -> Option<String> {
    let text = frame.strip_prefix(LABEL)?;
    let is_text = text.len() <= LABEL_MAX && text.iter().all(|byte| (b' '..=b'~').contains(byte));
    let text = String::from_utf8(text.to_vec()).ok().filter(|_| is_text);
    Some(text.unwrap_or_default())
}

/// Broadcast or multicast.
fn is_group(mac: &Mac) -> bool {
    mac.first().is_some_and(|byte| byte & 1 != 0)
}
