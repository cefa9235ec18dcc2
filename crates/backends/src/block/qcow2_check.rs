// SPDX-License-Identifier: Apache-2.0
//! A look at a qcow2 image before it is written to: whether its reference counts cover its own tables.
//!
//! An image where they do not is damaged. `imago` would take the clusters of its header and tables for free ones, write
//! guest data there, and, when the counts are not there at all, look for them without end. (Format: docs/interop/qcow2.txt
//! of QEMU.) It is no check of the whole image: `qemu-img check` is.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const MAGIC: u32 = 0x5146_49fb;
const HEADER: usize = 104;
/// Offsets in tables: the bits that are no flags.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// Bytes of a refcount table that are looked at: enough for images of petabytes.
const TABLE_MAX: u64 = 8 << 20;

struct Header {
    cluster_bits: u32,
    l1_size: u64,
    l1_offset: u64,
    table_offset: u64,
    table_bytes: u64,
    /// log2 of the bits of a count.
    order: u32,
}

fn damaged(what: &str) -> io::Error {
    let advice = "`qemu-img check` tells more";
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("a damaged qcow2 image: {what} ({advice})"),
    )
}

impl Header {
    fn read(file: &File) -> io::Result<Header> {
        let mut bytes = [0; HEADER];
        file.read_exact_at(&mut bytes, 0)
            .map_err(|_| damaged("it is too short"))?;
        let u32_at = |at: usize| {
            bytes
                .get(at..at + 4)
                .map_or(0, |b| b.iter().fold(0, |n, x| n << 8 | u32::from(*x)))
        };
        let u64_at = |at: usize| u64::from(u32_at(at)) << 32 | u64::from(u32_at(at + 4));
        if u32_at(0) != MAGIC {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "no qcow2 image"));
        }
        let header = Header {
            cluster_bits: u32_at(20),
            l1_size: u64::from(u32_at(36)),
            l1_offset: u64_at(40),
            table_offset: u64_at(48),
            table_bytes: u64::from(u32_at(56)),
            order: if u32_at(4) >= 3 { u32_at(96) } else { 4 },
        };
        if !(9..=21).contains(&header.cluster_bits) || header.order > 6 {
            return Err(damaged("its clusters or counts have an impossible size"));
        }
        let table_bytes = header.table_bytes << header.cluster_bits;
        if table_bytes == 0 || table_bytes > TABLE_MAX {
            return Err(damaged("its refcount table has an impossible size"));
        }
        Ok(Header {
            table_bytes,
            ..header
        })
    }

    fn cluster(&self, offset: u64) -> u64 {
        offset >> self.cluster_bits
    }
}

/// `Err`: counts are missing for the header, or for clusters that the image's tables are in.
pub(super) fn counts_cover_the_tables(file: &File) -> io::Result<()> {
    let header = Header::read(file)?;
    let mut table = vec![0; header.table_bytes as usize];
    file.read_exact_at(&mut table, header.table_offset)
        .map_err(|_| damaged("its refcount table is not there"))?;
    let blocks: Vec<u64> = table
        .chunks_exact(8)
        .map(|entry| entry.iter().fold(0, |n, byte| n << 8 | u64::from(*byte)) & OFFSET)
        .collect();
    let is_counted = |cluster: u64| -> io::Result<bool> {
        // As many counts as bits of a cluster allow.
        let per_block_bits = header.cluster_bits + 3 - header.order;
        let block = usize::try_from(cluster >> per_block_bits)
            .ok()
            .and_then(|n| blocks.get(n))
            .copied()
            .unwrap_or(0);
        if block == 0 {
            return Ok(false);
        }
        let bit = (cluster & ((1 << per_block_bits) - 1)) << header.order;
        let bytes = (1usize << header.order).div_ceil(8);
        let mut count = [0; 8];
        let Some(count) = count.get_mut(..bytes) else {
            return Ok(false);
        };
        let at = block
            .checked_add(bit / 8)
            .ok_or_else(|| damaged("an offset is impossible"))?;
        file.read_exact_at(count, at)
            .map_err(|_| damaged("counts are behind its end"))?;
        let in_byte = if header.order < 3 {
            ((1u16 << (1 << header.order)) - 1) << (bit % 8)
        } else {
            0xff
        };
        Ok(count.iter().any(|byte| u16::from(*byte) & in_byte != 0))
    };
    let range = |offset: u64, bytes: u64| {
        header.cluster(offset)..header.cluster(offset.saturating_add(bytes.max(1) - 1)) + 1
    };
    let tables = [
        0..1,
        range(header.table_offset, header.table_bytes),
        range(header.l1_offset, (header.l1_size * 8).min(TABLE_MAX)),
    ];
    for cluster in tables.into_iter().flatten() {
        if !is_counted(cluster)? {
            return Err(damaged("clusters of its header or tables count as free"));
        }
    }
    for block in blocks.iter().filter(|block| **block != 0) {
        if !is_counted(header.cluster(*block))? {
            return Err(damaged("clusters of its refcount blocks count as free"));
        }
    }
    Ok(())
}
