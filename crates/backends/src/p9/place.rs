// SPDX-License-Identifier: Apache-2.0
//! Names that a guest gives, and where something is below the shared directory.

use rustix::io::Errno;

/// Bytes of a name at most, on all of Linux's file systems.
const NAME_MAX: usize = 255;
/// Bytes of a path at most (`PATH_MAX` with its terminator).
pub(super) const PATH_MAX: usize = 4095;

/// One name: neither empty, `.` nor `..`, without `/` and NUL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name<'a>(&'a [u8]);

impl<'a> Name<'a> {
    /// `dots`: the error for `.` and `..`, which mean something else in each request.
    pub fn new(name: &'a [u8], dots: Errno) -> Result<Name<'a>, Errno> {
        match name {
            b"." | b".." => Err(dots),
            b"" => Err(Errno::NOENT),
            _ if name.contains(&b'/') || name.contains(&0) => Err(Errno::NOENT),
            _ if name.len() > NAME_MAX => Err(Errno::NAMETOOLONG),
            _ => Ok(Name(name)),
        }
    }

    pub fn bytes(&self) -> &'a [u8] {
        self.0
    }
}

/// Names with `/` between them; none is the shared directory itself. Never has a `..`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place(Vec<u8>);

impl Place {
    pub fn root() -> Place {
        Place::default()
    }

    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes of its names.
    pub fn bytes(&self) -> usize {
        self.0.len()
    }

    /// As a path from the shared directory.
    pub fn path(&self) -> &[u8] {
        match self.is_root() {
            true => b".",
            false => &self.0,
        }
    }

    pub fn child(&self, name: Name) -> Result<Place, Errno> {
        let mut path = self.0.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend(name.bytes());
        match path.len() <= PATH_MAX {
            true => Ok(Place(path)),
            false => Err(Errno::NAMETOOLONG),
        }
    }

    /// Where it is, and its name there. `None`: it is the shared directory.
    pub fn split(&self) -> Option<(Place, Name<'_>)> {
        if self.is_root() {
            return None;
        }
        let at = self.0.iter().rposition(|byte| *byte == b'/');
        let (parent, name) = match at {
            Some(at) => (self.0.get(..at)?, self.0.get(at + 1..)?),
            None => (&b""[..], self.0.as_slice()),
        };
        Some((Place(parent.to_vec()), Name(name)))
    }

    /// The directory that it is in; the shared directory is in itself.
    pub fn parent(&self) -> Place {
        self.split().map_or_else(Place::root, |(parent, _)| parent)
    }

    /// Where it is when `from` has become `to`. `None`: it is not in there.
    pub fn moved(&self, from: &Place, to: &Place) -> Option<Place> {
        let rest = self.0.strip_prefix(from.0.as_slice())?;
        match rest.first() {
            None | Some(b'/') => Some(Place([&to.0, rest].concat())),
            Some(_) => None,
        }
    }
}
