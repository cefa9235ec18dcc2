// SPDX-License-Identifier: Apache-2.0
//! What may be asked of a switch, over a socket of its own: a line each: `show`, `capture SNAPLEN FRAMES` of
//! all that passes, `capture SNAPLEN FRAMES PORT`, or `rate PORT BYTES MICROSECONDS` (0: no bound).

use super::capture::{Capture, Wanted};
use super::rate::Rate;
use super::switch_port::rate_of;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

const ASKERS_MAX: usize = 32;
const LINE_MAX: usize = 256;
/// How long an answer may wait for who has asked.
const PATIENCE: Duration = Duration::from_secs(10);

/// The listener, and those who have not asked yet.
pub(super) struct Control {
    listener: UnixListener,
    askers: Vec<Asker>,
}

/// Somebody who is connected.
pub(super) struct Asker {
    socket: UnixStream,
    line: Vec<u8>,
}

/// What is asked.
pub(super) enum Question {
    /// Who is connected.
    Show(Asker),
    /// The frames that pass.
    Capture(Asker, Wanted),
    /// Those of one port.
    CapturePort(Asker, Wanted, u64),
    /// A port sends no more than this from now on.
    Rate(Asker, u64, Option<Rate>),
}

/// What has come of a line.
enum Heard {
    Part,
    Line(String),
    Nonsense,
}

impl Control {
    pub(super) fn new(listener: UnixListener) -> io::Result<Control> {
        listener.set_nonblocking(true)?;
        let askers = Vec::new();
        Ok(Control { listener, askers })
    }

    /// What is to be waited for.
    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::once(self.listener.as_fd()).chain(self.askers.iter().map(|asker| asker.socket.as_fd()))
    }

    /// Lets new ones in, and hears what they ask; who asks nothing that is known is cut off.
    pub(super) fn questions(&mut self) -> Vec<Question> {
        while let Ok((socket, _)) = self.listener.accept() {
            if self.askers.len() < ASKERS_MAX && socket.set_nonblocking(true).is_ok() {
                let line = Vec::new();
                self.askers.push(Asker { socket, line });
            }
        }
        let mut questions = Vec::new();
        for mut asker in std::mem::take(&mut self.askers) {
            match asker.hear() {
                Heard::Part => self.askers.push(asker),
                Heard::Line(line) => questions.extend(question(asker, &line)),
                Heard::Nonsense => {}
            }
        }
        questions
    }
}

fn question(asker: Asker, line: &str) -> Option<Question> {
    match *line.split(' ').collect::<Vec<_>>() {
        ["show"] => Some(Question::Show(asker)),
        ["capture", snaplen, frames] => {
            let (snaplen, frames) = (snaplen.parse().ok()?, frames.parse().ok()?);
            Some(Question::Capture(asker, Wanted { snaplen, frames }))
        }
        ["capture", snaplen, frames, port] => {
            let (snaplen, frames) = (snaplen.parse().ok()?, frames.parse().ok()?);
            let wanted = Wanted { snaplen, frames };
            Some(Question::CapturePort(asker, wanted, port.parse().ok()?))
        }
        ["rate", port, bytes, interval] => Some(Question::Rate(
            asker,
            port.parse().ok()?,
            rate_of(bytes, interval),
        )),
        _ => None,
    }
}

impl Asker {
    fn hear(&mut self) -> Heard {
        let mut bytes = [0; LINE_MAX];
        loop {
            match self.socket.read(&mut bytes) {
                Ok(count) if count > 0 => self.line.extend_from_slice(bytes.get(..count).unwrap_or(&[])),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Heard::Part,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                _ => return Heard::Nonsense,
            }
            if let Some(end) = self.line.iter().position(|byte| *byte == b'\n') {
                let line = self.line.get(..end).unwrap_or(&[]).to_vec();
                return String::from_utf8(line).map_or(Heard::Nonsense, Heard::Line);
            }
            if self.line.len() >= LINE_MAX {
                return Heard::Nonsense;
            }
        }
    }

    /// Answers, on a thread of its own: nobody waits for who does not read.
    pub(super) fn say(self, text: String) {
        let mut socket = self.socket;
        let write = move || {
            let ready = socket
                .set_nonblocking(false)
                .and(socket.set_write_timeout(Some(PATIENCE)));
            ready.and_then(|()| socket.write_all(text.as_bytes())).ok();
        };
        // Without a thread there is no answer.
        std::thread::Builder::new()
            .name("answer".into())
            .spawn(write)
            .ok();
    }

    /// Takes the connection for a capture.
    pub(super) fn capture(self, name: &str, wanted: Wanted) -> Option<Capture> {
        Capture::start(self.socket, name, wanted).ok()
    }
}
