// SPDX-License-Identifier: Apache-2.0
//! Guest memory that files are read into, and written from.
// The kernel reads and writes guest memory.
#![allow(unsafe_code)]

use domzero_machine::{GrantMapping, GrantMappings, OutsidePage};
use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::os::fd::AsRawFd;

/// A piece of guest memory that data comes from or goes to. The guest may change it at any time.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Piece<'a> {
    vector: libc::iovec,
    mapping: PhantomData<&'a GrantMapping>,
}

impl<'a> Piece<'a> {
    /// `Err`: not inside the page.
    pub fn of(mapping: &'a GrantMapping, offset: usize, bytes: usize) -> Result<Piece<'a>, OutsidePage> {
        Ok(Piece {
            vector: mapping.io_vec(offset, bytes)?,
            mapping: PhantomData,
        })
    }

    /// The same of one of several pages.
    pub fn of_page(
        pages: &'a GrantMappings,
        page: usize,
        offset: usize,
        bytes: usize,
    ) -> Result<Piece<'a>, OutsidePage> {
        Ok(Piece {
            vector: pages.io_vec(page, offset, bytes)?,
            mapping: PhantomData,
        })
    }

    /// Its length.
    pub fn bytes(&self) -> usize {
        self.vector.iov_len
    }

    /// Copies out of the guest's memory, as much as both have room for.
    pub fn copy_to(&self, to: &mut [u8]) {
        let bytes = self.bytes().min(to.len());
        // SAFETY: the mapping gave `iov_len` bytes at `iov_base`, which live as long as it; `to` has room for `bytes`.
        unsafe { std::ptr::copy(self.vector.iov_base.cast(), to.as_mut_ptr(), bytes) }
    }

    /// Copies into the guest's memory, as much as both have room for. Of a writable mapping only.
    pub fn copy_from(&self, from: &[u8]) {
        let bytes = self.bytes().min(from.len());
        // SAFETY: as above; the caller's mapping is writable.
        unsafe { std::ptr::copy(from.as_ptr(), self.vector.iov_base.cast(), bytes) }
    }

    fn skip(&mut self, bytes: usize) {
        // SAFETY: the caller skips no more than there is.
        self.vector.iov_base = unsafe { self.vector.iov_base.cast::<u8>().add(bytes) }.cast();
        self.vector.iov_len -= bytes;
    }
}

/// What is in the pieces, copied once.
pub(crate) fn gather(from: &[Piece]) -> Vec<u8> {
    let mut bytes = vec![0; from.iter().map(Piece::bytes).sum()];
    let mut rest = bytes.as_mut_slice();
    for piece in from {
        let (part, others) = rest.split_at_mut(piece.bytes());
        piece.copy_to(part);
        rest = others;
    }
    bytes
}

/// Copies bytes into the pieces, which are of writable mappings, as far as they go.
pub(crate) fn scatter(bytes: &[u8], to: &[Piece]) {
    let mut rest = bytes;
    for piece in to {
        let (part, others) = rest.split_at(piece.bytes().min(rest.len()));
        piece.copy_from(part);
        rest = others;
    }
}

type Call =
    unsafe extern "C" fn(libc::c_int, *const libc::iovec, libc::c_int, libc::off64_t) -> libc::ssize_t;

/// Reads a file into the pieces, which are of writable mappings. Less than they hold: the file ends there.
pub(crate) fn read_at(file: &File, to: &[Piece], at: u64) -> io::Result<usize> {
    moved_by(libc::preadv64, file, to, at)
}

/// Writes the pieces to a file. Less than they hold: there was no room for more.
pub(crate) fn write_at(file: &File, from: &[Piece], at: u64) -> io::Result<usize> {
    moved_by(libc::pwritev64, file, from, at)
}

/// Moves all of the pieces by `call`, which moves some of them. How much: up to where it moves nothing, or fails.
fn moved_by(call: Call, file: &File, pieces: &[Piece], at: u64) -> io::Result<usize> {
    let mut pieces = pieces.to_vec();
    let mut left = pieces.as_mut_slice();
    let mut done = 0;
    while !left.is_empty() {
        let count = left.len().min(libc::UIO_MAXIOV as usize);
        let offset = i64::try_from(at.saturating_add(done as u64));
        let offset = offset.map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
        // SAFETY: a `Piece` is an iovec of guest memory that lives as long as the borrow of its mapping.
        let moved = unsafe {
            call(
                file.as_raw_fd(),
                left.as_ptr().cast(),
                count as libc::c_int,
                offset,
            )
        };
        let mut moved = match moved {
            n if n > 0 => n as usize,
            0 => break,
            _ => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => continue,
                error if done == 0 => return Err(error),
                _ => break,
            },
        };
        done += moved;
        while let Some(piece) = left.first_mut() {
            if moved < piece.bytes() {
                piece.skip(moved);
                break;
            }
            moved -= piece.bytes();
            left = &mut left[1..];
        }
    }
    Ok(done)
}
