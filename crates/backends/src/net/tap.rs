// SPDX-License-Identifier: Apache-2.0
//! An interface of the host as a wire: a tap whose frames come and go one by one, each behind `struct virtio_net_hdr`
//! (linux/virtio_net.h; IFF_VNET_HDR), so that large TCP frames are cut by the host, if they have to be.

use super::frame::{self, Transport, ETHERNET, FRAME_MAX};
use rustix::io::{retry_on_intr, Errno};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// `sizeof(struct virtio_net_hdr)`.
const HEADER: usize = 10;
const FLAGS: usize = 0;
const GSO_TYPE: usize = 1;
const HDR_LEN: usize = 2;
const GSO_SIZE: usize = 4;
const CSUM_START: usize = 6;
const CSUM_OFFSET: usize = 8;
/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`.
const NEEDS_CSUM: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_TCPV4`.
const GSO_TCPV4: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_TCPV6`.
const GSO_TCPV6: u8 = 4;

/// A tap with IFF_NO_PI and IFF_VNET_HDR.
pub(super) struct Tap {
    fd: OwnedFd,
    /// Of the interface: larger TCP frames are said to be cut.
    mtu: usize,
    buffer: Vec<u8>,
}

impl Tap {
    pub(super) fn new(fd: OwnedFd, mtu: usize) -> io::Result<Tap> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        let buffer = vec![0; HEADER + FRAME_MAX];
        Ok(Tap { fd, mtu, buffer })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The next frame, with its checksum. WouldBlock: there is none; other errors: there will be none any more.
    pub(super) fn read(&mut self) -> io::Result<&[u8]> {
        let length = retry_on_intr(|| rustix::io::read(&self.fd, &mut self.buffer))?;
        let (header, frame) = self.buffer.split_at_mut_checked(HEADER).unwrap_or_default();
        let frame = frame.get_mut(..length.saturating_sub(HEADER)).unwrap_or_default();
        if header.get(FLAGS).is_some_and(|flags| flags & NEEDS_CSUM != 0) {
            let start = number(header, CSUM_START);
            frame::fill_sum(frame, start, start + number(header, CSUM_OFFSET));
        }
        Ok(frame)
    }

    /// Sends a frame. An error: the interface is gone. What it does not take, for it is down or full, is lost.
    pub(super) fn write(&mut self, frame: &[u8]) -> io::Result<()> {
        let mut header = [0; HEADER];
        self.buffer.clear();
        self.buffer.extend_from_slice(&header);
        self.buffer.extend_from_slice(frame);
        if let Some(large) = self.large(frame) {
            header = large.0;
            let frame = self.buffer.get_mut(HEADER..).unwrap_or_default();
            frame::set_partial_checksum(frame, large.1);
        }
        self.buffer
            .iter_mut()
            .zip(header)
            .for_each(|(to, from)| *to = from);
        let sent = retry_on_intr(|| rustix::io::write(&self.fd, &self.buffer));
        self.buffer.resize(HEADER + FRAME_MAX, 0);
        match sent {
            Err(error @ (Errno::BADFD | Errno::BADF | Errno::NODEV | Errno::NXIO)) => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// How a TCP frame is to be cut that is larger than the MTU.
    fn large(&self, frame: &[u8]) -> Option<([u8; HEADER], Transport)> {
        if frame.len() <= ETHERNET + self.mtu {
            return None;
        }
        let found = Transport::find(frame)?;
        let size = frame::segment_size(frame, found, self.mtu)?;
        let mut header = [0; HEADER];
        header[FLAGS] = NEEDS_CSUM;
        header[GSO_TYPE] = if found.is_ipv6 { GSO_TCPV6 } else { GSO_TCPV4 };
        let headers = found.start + found.tcp_header(frame)?;
        for (at, value) in [
            (HDR_LEN, headers),
            (GSO_SIZE, size.into()),
            (CSUM_START, found.start),
            (CSUM_OFFSET, found.checksum_at() - found.start),
        ] {
            header[at..at + 2].copy_from_slice(&u16::try_from(value).ok()?.to_le_bytes());
        }
        Some((header, found))
    }
}

fn number(header: &[u8], at: usize) -> usize {
    let bytes = header.get(at..at + 2).and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, u16::from_le_bytes).into()
}
