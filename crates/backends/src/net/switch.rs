// SPDX-License-Identifier: Apache-2.0
//! A switch: learns which station is behind which port. It runs in a process of its own, and waits for all of its ports.

use super::frame::ETHERNET;
use super::link::Link;
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

type Mac = [u8; 6];

struct Port {
    link: Link,
    /// Does not change as long as it is connected.
    number: u64,
}

/// The ports of one network.
pub struct Switch {
    listener: UnixListener,
    ports: Vec<Port>,
    stations: HashMap<Mac, u64>,
    next: u64,
}

impl Switch {
    /// A switch whose ports connect to `listener`.
    pub fn new(listener: UnixListener) -> io::Result<Switch> {
        listener.set_nonblocking(true)?;
        Ok(Switch {
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
        let found = match poll(&mut asked, if has_more { Some(&at_once) } else { timeout }) {
            Err(rustix::io::Errno::INTR) => return Ok(true),
            other => other?,
        };
        let is_called = asked.first().is_some_and(|fd| !fd.revents().is_empty());
        let ready: Vec<bool> = asked.iter().skip(1).map(|fd| !fd.revents().is_empty()).collect();
        drop(asked);
        if is_called {
            self.accept()?;
        }
        for (at, ready) in ready.into_iter().enumerate() {
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
            if let (true, Some(to), Some(source)) = (frame.len() >= ETHERNET, mac(&frame, 0), mac(&frame, 6))
            {
                let number = port.number;
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
            if port.link.backlog() < PORT_QUEUE_MAX {
                port.link.send(frame);
            }
        }
    }
}

fn mac(frame: &[u8], at: usize) -> Option<Mac> {
    frame.get(at..at + 6)?.try_into().ok()
}

/// Broadcast or multicast.
fn is_group(mac: &Mac) -> bool {
    mac.first().is_some_and(|byte| byte & 1 != 0)
}
