// SPDX-License-Identifier: Apache-2.0
//! Disks in images of other formats, by a program that has opened them and talks NBD: the transmission phase with simple
//! replies, of the protocol at <https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md>.

use super::disk::Disk;
use crate::piece::{gather, scatter, Piece};
use domzero_machine::abi::blkif::SECTOR;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};

const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;
const REPLY: usize = 16;
const HAS_FLUSH: u16 = 1 << 2;
const HAS_TRIM: u16 = 1 << 5;
/// How much one request discards at most: its length has 32 bits.
const TRIM_MAX: u64 = 1 << 30;

#[derive(Clone, Copy)]
#[repr(u16)]
enum Command {
    Read = 0,
    Write = 1,
    Flush = 3,
    Trim = 4,
}

/// A disk at the other end of a connection, one request at a time.
pub struct NbdDisk {
    /// `None`: it has failed, and nothing is known of what comes out of it.
    connection: Mutex<Option<Connection>>,
    sectors: u64,
    flags: u16,
}

struct Connection {
    stream: UnixStream,
    /// Of the next request, repeated in its reply.
    cookie: u64,
}

impl NbdDisk {
    /// Takes a connection on which an export of so many bytes has been agreed to.
    ///
    /// `flags`: of transmission, as the other end has sent them. How long it may take for an answer is the socket's own
    /// (`SO_RCVTIMEO`).
    pub fn new(stream: UnixStream, bytes: u64, flags: u16) -> NbdDisk {
        NbdDisk {
            connection: Mutex::new(Some(Connection { stream, cookie: 0 })),
            sectors: bytes / SECTOR,
            flags,
        }
    }

    fn ask(&self, command: Command, at: u64, bytes: u64, sent: &[u8], answer: &mut [u8]) -> io::Result<()> {
        let length = u32::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = || io::Error::from(io::ErrorKind::NotConnected);
        let mut open = connection.take().ok_or_else(gone)?;
        // It is put back when its next bytes are those of the next reply.
        let status = open.exchange(command, at, length, sent, answer)?;
        *connection = Some(open);
        match status {
            0 => Ok(()),
            number => Err(io::Error::from_raw_os_error(
                i32::try_from(number).unwrap_or(libc::EIO),
            )),
        }
    }
}

impl Connection {
    /// The other end's error, 0 for none. `Err`: the connection is of no use any more.
    fn exchange(
        &mut self,
        command: Command,
        at: u64,
        bytes: u32,
        sent: &[u8],
        answer: &mut [u8],
    ) -> io::Result<u32> {
        self.cookie = self.cookie.wrapping_add(1);
        let mut request = Vec::with_capacity(28 + sent.len());
        request.extend(REQUEST_MAGIC.to_be_bytes());
        request.extend(0u16.to_be_bytes());
        request.extend((command as u16).to_be_bytes());
        request.extend(self.cookie.to_be_bytes());
        request.extend(at.to_be_bytes());
        request.extend(bytes.to_be_bytes());
        request.extend(sent);
        self.stream.write_all(&request)?;
        let mut reply = [0; REPLY];
        self.stream.read_exact(&mut reply)?;
        let [a, b, c, d, e, f, g, h, cookie @ ..] = reply;
        if u32::from_be_bytes([a, b, c, d]) != REPLY_MAGIC || u64::from_be_bytes(cookie) != self.cookie {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let status = u32::from_be_bytes([e, f, g, h]);
        if status == 0 {
            self.stream.read_exact(answer)?;
        }
        Ok(status)
    }
}

impl Disk for NbdDisk {
    fn sectors(&self) -> u64 {
        self.sectors
    }

    fn read(&self, to: &[Piece], at: u64) -> io::Result<()> {
        let mut buffer = vec![0; to.iter().map(Piece::bytes).sum()];
        self.ask(Command::Read, at, buffer.len() as u64, &[], &mut buffer)?;
        scatter(&buffer, to);
        Ok(())
    }

    fn write(&self, from: &[Piece], at: u64) -> io::Result<()> {
        let buffer = gather(from);
        self.ask(Command::Write, at, buffer.len() as u64, &buffer, &mut [])
    }

    fn flush(&self) -> io::Result<()> {
        // One that cannot flush has nothing that is not on stable storage.
        match self.flags & HAS_FLUSH {
            0 => Ok(()),
            _ => self.ask(Command::Flush, 0, 0, &[], &mut []),
        }
    }

    fn discard(&self, at: u64, bytes: u64) -> io::Result<()> {
        if self.flags & HAS_TRIM == 0 {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let (mut at, mut left) = (at, bytes);
        while left > 0 {
            let now = left.min(TRIM_MAX);
            self.ask(Command::Trim, at, now, &[], &mut [])?;
            at += now;
            left -= now;
        }
        Ok(())
    }

    fn grow(&self, bytes: Option<u64>) -> io::Result<()> {
        match bytes {
            Some(bytes) if bytes != self.sectors * SECTOR => {
                let what = "an image of this format has the size that it was made with";
                Err(io::Error::new(io::ErrorKind::Unsupported, what))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread::JoinHandle;

    type Header = [u8; 28];
    type Answer = fn(&Header) -> Vec<u8>;

    /// Another end that answers each request by what `answer` makes of its header, until that is nothing.
    fn served_by(
        mut answer: impl FnMut(&Header) -> Option<Vec<u8>> + Send + 'static,
    ) -> (NbdDisk, JoinHandle<()>) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let serve = move || {
            let mut header = [0; 28];
            while theirs.read_exact(&mut header).is_ok() {
                match answer(&header) {
                    Some(reply) => theirs.write_all(&reply).unwrap_or(()),
                    None => return,
                }
            }
        };
        (
            NbdDisk::new(ours, 1 << 20, HAS_FLUSH | HAS_TRIM),
            std::thread::spawn(serve),
        )
    }

    fn reply(header: &Header, status: u32) -> Vec<u8> {
        let mut reply = REPLY_MAGIC.to_be_bytes().to_vec();
        reply.extend(status.to_be_bytes());
        reply.extend(&header[8..16]);
        reply
    }

    #[test]
    fn an_error_of_the_other_end_is_one_of_the_request_and_others_go_on() {
        let mut count = 0;
        let (disk, served) = served_by(move |header| {
            count += 1;
            Some(reply(header, if count == 1 { 28 } else { 0 }))
        });
        assert_eq!(disk.flush().unwrap_err().raw_os_error(), Some(libc::ENOSPC));
        disk.flush().unwrap();
        drop(disk);
        served.join().unwrap();
    }

    #[test]
    fn a_large_discard_is_several_requests() {
        let (tell, told) = std::sync::mpsc::channel();
        let (disk, served) = served_by(move |header| {
            tell.send(u64::from(u32::from_be_bytes(header[24..].try_into().unwrap())))
                .unwrap();
            Some(reply(header, 0))
        });
        disk.discard(0, 5 << 30).unwrap();
        drop(disk);
        served.join().unwrap();
        assert_eq!(told.iter().collect::<Vec<_>>(), [1 << 30; 5]);
    }

    #[test]
    fn a_reply_that_is_none_is_the_end_of_the_connection() {
        fn changed(header: &Header, at: usize) -> Vec<u8> {
            let mut answer = reply(header, 0);
            answer[at] ^= 1;
            answer
        }
        let wrong: [Answer; 5] = [
            |_| Vec::new(),
            |_| vec![0; 16],
            |_| vec![0xff; 64],
            |header| changed(header, 15),
            |header| changed(header, 0),
        ];
        for answer in wrong {
            let (disk, served) = served_by(move |header| Some(answer(header)).filter(|a| !a.is_empty()));
            assert!(disk.flush().is_err());
            let after = disk.discard(0, 512).unwrap_err();
            assert_eq!(after.kind(), io::ErrorKind::NotConnected);
            drop(disk);
            served.join().unwrap();
        }
    }

    #[test]
    fn whatever_comes_back_harms_nobody() {
        let mut seed = 0x9e37_79b9_7f4a_7c15u64;
        for _ in 0..300 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            let (mut state, mut left) = (seed, seed % 5);
            let (disk, served) = served_by(move |header| {
                let mut answer = reply(header, (state % 3) as u32);
                let at = (state >> 8) as usize % 20;
                answer.resize(16 + (state >> 16) as usize % 3, 7);
                if let Some(byte) = answer.get_mut(at) {
                    *byte ^= (state >> 32) as u8;
                }
                state = state.rotate_left(11);
                left = left.checked_sub(1)?;
                Some(answer)
            });
            for _ in 0..6 {
                disk.flush().ok();
            }
            drop(disk);
            served.join().unwrap();
        }
    }
}
