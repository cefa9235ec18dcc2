// SPDX-License-Identifier: Apache-2.0
//! Block devices: disks, and rings with threads that serve them.

use crate::device::{call, lock, os_error, owned, BACKEND};
use crate::events::EventPort;
use crate::grants::GrantTable;
use crate::host::{work, MachineError};
use domzero_backends::block::{
    self, serve_all, start_thread, Agreed, Drive, Limits, NbdDisk, Notice, Qcow2Disk, Rate, RawDisk, Throttle,
};
use domzero_backends::RingBroken;
use domzero_backends::RungThread;
use domzero_machine::abi::blkif;
use domzero_machine::HostPort;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::fs::File;
use std::os::fd::RawFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

#[pyfunction]
pub fn keep_image_unused(fd: RawFd) -> PyResult<()> {
    block::keep_unused(&fd).map_err(os_error)
}

#[pyclass(frozen, module = "domzero._machine")]
pub struct BlockDisk {
    /// Until it is closed.
    disk: Mutex<Option<Arc<dyn block::Disk>>>,
    /// The same, if its medium can be changed.
    drive: Option<Arc<Drive>>,
    counts: Arc<block::Counts>,
    throttle: Arc<Throttle>,
    writable: bool,
}

impl BlockDisk {
    fn of(disk: impl block::Disk + 'static, writable: bool) -> BlockDisk {
        BlockDisk {
            disk: Mutex::new(Some(Arc::new(disk))),
            drive: None,
            counts: Arc::default(),
            throttle: Arc::default(),
            writable,
        }
    }

    fn open(&self) -> PyResult<Arc<dyn block::Disk>> {
        let disk = lock(&self.disk).clone();
        disk.ok_or_else(|| PyValueError::new_err("the disk is closed"))
    }
}

#[pymethods]
impl BlockDisk {
    #[staticmethod]
    fn raw(fd: RawFd, writable: bool) -> PyResult<BlockDisk> {
        let file = File::from(owned(fd)?);
        work(|| RawDisk::new(file, writable))?
            .map(|disk| BlockDisk::of(disk, writable))
            .map_err(os_error)
    }

    #[staticmethod]
    fn qcow2(py: Python<'_>, fds: Vec<RawFd>, raw_base: bool, writable: bool) -> PyResult<BlockDisk> {
        let files = fds.into_iter().map(|fd| owned(fd).map(File::from));
        let files = files.collect::<PyResult<Vec<File>>>()?;
        let open = || py.detach(|| Qcow2Disk::open(files, raw_base, writable));
        work(open)?
            .map(|disk| BlockDisk::of(disk, writable))
            .map_err(os_error)
    }

    #[staticmethod]
    fn nbd(fd: RawFd, bytes: u64, flags: u16, writable: bool) -> PyResult<BlockDisk> {
        let disk = NbdDisk::new(UnixStream::from(owned(fd)?), bytes, flags);
        Ok(BlockDisk::of(disk, writable))
    }

    #[staticmethod]
    fn empty_drive() -> BlockDisk {
        let drive = Arc::new(Drive::default());
        BlockDisk {
            disk: Mutex::new(Some(Arc::clone(&drive) as Arc<dyn block::Disk>)),
            drive: Some(drive),
            counts: Arc::default(),
            throttle: Arc::default(),
            writable: false,
        }
    }

    #[pyo3(signature = (medium))]
    fn change(&self, py: Python<'_>, medium: Option<&BlockDisk>) -> PyResult<()> {
        let drive = self.drive.as_ref();
        let drive = drive.ok_or_else(|| PyValueError::new_err("the disk is no drive"))?;
        let medium = medium.map(BlockDisk::open).transpose()?;
        py.detach(|| drive.change(medium));
        Ok(())
    }

    #[pyo3(signature = (bytes))]
    fn grow(&self, py: Python<'_>, bytes: Option<u64>) -> PyResult<()> {
        let disk = self.open()?;
        work(|| py.detach(|| disk.grow(bytes)))?.map_err(os_error)
    }

    #[getter]
    fn sectors(&self) -> PyResult<u64> {
        Ok(self.open()?.sectors())
    }

    #[pyo3(signature = (*, bps, bps_max, iops, iops_max))]
    fn limit(&self, bps: u64, bps_max: u64, iops: u64, iops_max: u64) {
        let rate = |per_second, burst| Rate { per_second, burst };
        self.throttle.set(Limits {
            bytes: rate(bps, bps_max),
            operations: rate(iops, iops_max),
        });
    }

    fn close(&self, py: Python<'_>) {
        let disk = lock(&self.disk).take();
        py.detach(|| drop(disk));
    }

    #[getter]
    fn counts(&self) -> BlockCounts {
        let now = |count: &AtomicU64| count.load(Ordering::Relaxed);
        BlockCounts {
            reads: now(&self.counts.reads),
            writes: now(&self.counts.writes),
            read_bytes: now(&self.counts.read_bytes),
            written_bytes: now(&self.counts.written_bytes),
            flushes: now(&self.counts.flushes),
            discards: now(&self.counts.discards),
            errors: now(&self.counts.errors),
            held: now(&self.counts.held),
        }
    }
}

#[pyclass(frozen, get_all, module = "domzero._machine")]
pub struct BlockCounts {
    reads: u64,
    writes: u64,
    read_bytes: u64,
    written_bytes: u64,
    flushes: u64,
    discards: u64,
    errors: u64,
    held: u64,
}

/// The guest's event, and a function of Python's that the ring's thread calls.
struct Callbacks {
    port: HostPort,
    broken: Py<PyAny>,
}

impl Notice for Callbacks {
    fn notify(&self) {
        self.port.notify();
    }

    fn broken(&self, error: RingBroken) {
        call(&self.broken, (error.to_string(),));
    }
}

enum Server {
    Thread(RungThread),
    /// Served by whoever says that an event came: deterministic runs.
    Inline(Box<block::Queue>, Callbacks),
    Closed,
}

#[pyclass(frozen, module = "domzero._machine")]
pub struct BlockRing(Mutex<Server>);

#[pymethods]
impl BlockRing {
    #[new]
    #[pyo3(signature = (grants, disk, ring_refs, *, is_32bit, persistent, sector_bytes, port, broken, thread))]
    fn new(
        grants: &GrantTable,
        disk: &BlockDisk,
        ring_refs: Vec<u32>,
        is_32bit: bool,
        persistent: bool,
        sector_bytes: u32,
        port: &EventPort,
        broken: Py<PyAny>,
        thread: Option<String>,
    ) -> PyResult<BlockRing> {
        let agreed = Agreed {
            layout: if is_32bit { blkif::X86_32 } else { blkif::X86_64 },
            persistent,
            sector_bytes,
            writable: disk.writable,
        };
        let (front, counts) = (grants.0.client(BACKEND), Arc::clone(&disk.counts));
        let (opened, throttle) = (disk.open()?, Arc::clone(&disk.throttle));
        let connect = || block::Queue::connect(front, &ring_refs, opened, counts, throttle, agreed);
        let queue = work(connect)?.map_err(|e| MachineError::new_err(e.to_string()))?;
        let port = port.0.clone();
        let callbacks = Callbacks {
            port: port.clone(),
            broken,
        };
        let server = match thread {
            Some(name) => {
                let thread = start_thread(name, queue, callbacks).map_err(os_error)?;
                port.attach(thread.bell());
                Server::Thread(thread)
            }
            None => Server::Inline(Box::new(queue), callbacks),
        };
        Ok(BlockRing(Mutex::new(server)))
    }

    fn ring(&self) -> PyResult<()> {
        let mut server = lock(&self.0);
        let (queue, callbacks) = match &mut *server {
            Server::Inline(queue, callbacks) => (queue, callbacks),
            Server::Thread(thread) => {
                thread.bell().ring();
                return Ok(());
            }
            Server::Closed => return Ok(()),
        };
        if let Err(error) = work(|| serve_all(queue, callbacks, || false))? {
            callbacks.broken(error);
            *server = Server::Closed;
        }
        Ok(())
    }

    fn close(&self, py: Python<'_>) {
        let server = std::mem::replace(&mut *lock(&self.0), Server::Closed);
        // Its thread may be waiting for the interpreter.
        py.detach(|| {
            if let Server::Thread(mut thread) = server {
                thread.stop();
            }
        });
    }
}
