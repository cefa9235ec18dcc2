// SPDX-License-Identifier: Apache-2.0
//! A switch: learns which station is behind which port. It runs in a process of its own, and waits for all of its ports.

use super::interface::Captures;
use super::link::Link;
use super::switch_control::{Control, Question};
use super::switch_port::{Mac, Port, PortCounts};
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use std::collections::HashMap;
use std::io;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

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
        let now = Instant::now();
        // Ports that have sent what they may for now: what they send waits in their sockets.
        let held: Vec<_> = self.ports.iter_mut().map(|port| port.waits_until(now)).collect();
        let has_more = self
            .ports
            .iter()
            .zip(&held)
            .any(|(port, held)| held.is_none() && port.link.peek().is_some());
        let soonest = held.iter().flatten().min();
        let wait = match (has_more, soonest) {
            (true, _) => Some(Duration::ZERO),
            (false, soonest) => soonest.map(|at| at.saturating_duration_since(now)),
        };
        let wait = wait.and_then(|wait| Timespec::try_from(wait).ok());
        let mut asked = vec![PollFd::new(&self.listener, PollFlags::IN)];
        asked.extend(self.ports.iter().zip(&held).map(|(port, held)| {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, held.is_none());
            flags.set(PollFlags::OUT, port.link.is_waiting());
            PollFd::from_borrowed_fd(port.link.fd(), flags)
        }));
        let ports = asked.len();
        if let Some(control) = &self.control {
            asked.extend(
                control
                    .fds()
                    .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)),
            );
        }
        let found = match poll(&mut asked, wait.as_ref().or(timeout)) {
            Err(rustix::io::Errno::INTR) => return Ok(true),
            other => other?,
        };
        let is_called = asked.first().is_some_and(|fd| !fd.revents().is_empty());
        // Nobody will read what the socket of a port that waits has left: whoever is gone is let go at once.
        let gone: Vec<u64> = asked
            .iter()
            .skip(1)
            .zip(self.ports.iter().zip(&held))
            .filter(|(fd, (_, held))| {
                held.is_some() && fd.revents().intersects(PollFlags::HUP | PollFlags::ERR)
            })
            .map(|(_, (port, _))| port.number)
            .collect();
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
        self.ports.retain(|port| {
            let is_lost = port.link.is_lost() || gone.contains(&port.number);
            if is_lost {
                port.about.captures.finish();
            }
            !is_lost
        });
        Ok(found > 0 || has_more || soonest.is_some())
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            match self.listener.accept() {
                Ok((socket, _)) if self.ports.len() < PORTS_MAX => {
                    let link = Link::new(socket, AHEAD)?;
                    self.ports.push(Port::new(link, self.next));
                    self.next += 1;
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Who asks for a port that is not there is cut off.
    fn answer(&mut self, question: Question) {
        match question {
            Question::Show(asker) => asker.say(self.shown()),
            Question::Capture(asker, wanted) => {
                if let Some(capture) = asker.capture("network", wanted) {
                    self.captures.add(capture);
                }
            }
            Question::CapturePort(asker, wanted, number) => {
                let name = format!("port {number}");
                if let Some(port) = self.ports.iter().find(|port| port.number == number) {
                    if let Some(capture) = asker.capture(&name, wanted) {
                        port.about.captures.add(capture);
                    }
                }
            }
            Question::Rate(asker, number, rate) => {
                if let Some(port) = self.ports.iter_mut().find(|port| port.number == number) {
                    port.about.set_rate(rate, Instant::now());
                    asker.say("done\n".into());
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
                spoofed,
            } = port.about.counts;
            text += &format!(
                "{}\t{sent_frames}\t{sent_bytes}\t{received_frames}\t{received_bytes}\t{dropped}\t{spoofed}\t{}\t{}\n",
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
        let now = Instant::now();
        for _ in 0..FRAMES_PER_TURN {
            let Some(port) = self.ports.get_mut(from) else {
                return;
            };
            if port.link.peek().is_none() || port.waits_until(now).is_some() {
                return;
            }
            let number = port.number;
            let Some(frame) = port.take() else { continue };
            if let (Some(to), Some(source)) = (mac(&frame, 0), mac(&frame, 6)) {
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
            } else {
                port.give(frame);
            }
        }
    }
}

fn mac(frame: &[u8], at: usize) -> Option<Mac> {
    frame.get(at..at + 6)?.try_into().ok()
}

fn text_of(mac: &Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Broadcast or multicast.
fn is_group(mac: &Mac) -> bool {
    mac.first().is_some_and(|byte| byte & 1 != 0)
}
