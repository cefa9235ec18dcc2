// SPDX-License-Identifier: Apache-2.0
//! Network interfaces: wires, interfaces with threads that serve them, and switches.

use crate::device::{call, lock, os_error, owned, BACKEND};
use crate::events::{host_ports, EventPort};
use crate::grants::GrantTable;
use crate::host::{work, MachineError};
use domzero_backends::net::{self, Broken, DeviceThread, Notice, QueueRefs, SharedLink, Switch};
use domzero_machine::HostPort;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::net::IpAddr;
use std::os::fd::RawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

#[pyclass(frozen, module = "domzero._machine")]
pub struct NetLink {
    /// Until it is closed.
    link: Mutex<Option<SharedLink>>,
    interface: Arc<net::Interface>,
}

#[pymethods]
impl NetLink {
    #[new]
    #[pyo3(signature = (fd, tap_mtu = None))]
    fn new(fd: RawFd, tap_mtu: Option<u16>) -> PyResult<NetLink> {
        let fd = owned(fd)?;
        let link = match tap_mtu {
            None => net::Link::new(UnixStream::from(fd), net::AHEAD),
            Some(mtu) => net::Link::to_tap(fd, mtu.into(), net::AHEAD),
        };
        let link = link.map_err(os_error)?;
        Ok(NetLink {
            link: Mutex::new(Some(SharedLink::new(link))),
            interface: Arc::default(),
        })
    }

    #[getter]
    fn counts(&self) -> NetCounts {
        let now = |count: &AtomicU64| count.load(Ordering::Relaxed);
        NetCounts {
            sent_frames: now(&self.interface.counts.sent_frames),
            sent_bytes: now(&self.interface.counts.sent_bytes),
            received_frames: now(&self.interface.counts.received_frames),
            received_bytes: now(&self.interface.counts.received_bytes),
            errors: now(&self.interface.counts.errors),
            spoofed: now(&self.interface.counts.spoofed),
            dropped: now(&self.interface.counts.dropped),
        }
    }

    #[pyo3(signature = (bytes, interval_us))]
    fn set_rate(&self, bytes: u64, interval_us: u32) {
        let rate = (bytes > 0 && interval_us > 0).then_some(net::Rate { bytes, interval_us });
        self.interface.set_rate(rate, Instant::now());
    }

    fn set_up(&self, up: bool) {
        self.interface.set_up(up);
    }

    fn capture(&self, fd: RawFd, name: &str, snaplen: u32, frames: u64) -> PyResult<bool> {
        let socket = UnixStream::from(owned(fd)?);
        let capture = net::Capture::start(socket, name, net::Wanted { snaplen, frames }).map_err(os_error)?;
        Ok(self.interface.capture(capture))
    }

    fn close(&self, py: Python<'_>) {
        lock(&self.link).take();
        py.detach(|| self.interface.end_captures());
    }
}

#[pyclass(frozen, get_all, module = "domzero._machine")]
pub struct NetCounts {
    sent_frames: u64,
    sent_bytes: u64,
    received_frames: u64,
    received_bytes: u64,
    errors: u64,
    spoofed: u64,
    dropped: u64,
}

/// What both ends of an interface have agreed to.
#[pyclass(frozen, module = "domzero._machine")]
pub struct NetAgreed(net::Agreed);

#[pymethods]
impl NetAgreed {
    #[new]
    #[pyo3(signature = (*, mac, keeps_mac, addresses, mtu, scatter, gso_v4, gso_v6, checksum_v4, checksum_v6, rx_notify, multicast_control))]
    #[allow(clippy::too_many_arguments)] // Named ones, of a structure.
    fn new(
        mac: [u8; 6],
        keeps_mac: bool,
        addresses: Vec<IpAddr>,
        mtu: u16,
        scatter: bool,
        gso_v4: bool,
        gso_v6: bool,
        checksum_v4: bool,
        checksum_v6: bool,
        rx_notify: bool,
        multicast_control: bool,
    ) -> NetAgreed {
        NetAgreed(net::Agreed {
            scatter,
            gso_v4,
            gso_v6,
            checksum_v4,
            checksum_v6,
            rx_notify,
            mac,
            keeps_mac,
            addresses: addresses.into(),
            mtu,
            multicast: Arc::new(net::Multicast::new(multicast_control)),
        })
    }
}

/// The guest's events, and functions of Python's that the interface's thread calls.
struct Callbacks {
    transmitted: Vec<HostPort>,
    received: Vec<HostPort>,
    broken: Py<PyAny>,
    lost: Py<PyAny>,
}

impl Notice for Callbacks {
    fn transmitted(&self, queue: usize) {
        if let Some(port) = self.transmitted.get(queue) {
            port.notify();
        }
    }

    fn received(&self, queue: usize) {
        if let Some(port) = self.received.get(queue) {
            port.notify();
        }
    }

    fn broken(&self, error: Broken) {
        call(&self.broken, (error.to_string(),));
    }

    fn lost(&self) {
        call(&self.lost, ());
    }
}

#[pyclass(frozen, module = "domzero._machine")]
pub struct NetRings(Mutex<Option<DeviceThread>>);

#[pymethods]
impl NetRings {
    #[new]
    #[pyo3(signature = (grants, link, ring_refs, agreed, *, transmitted, received, broken, lost, thread))]
    #[allow(clippy::too_many_arguments)] // Named ones.
    fn new(
        grants: &GrantTable,
        link: &NetLink,
        ring_refs: Vec<(u32, u32)>,
        agreed: &NetAgreed,
        transmitted: Vec<Py<EventPort>>,
        received: Vec<Py<EventPort>>,
        broken: Py<PyAny>,
        lost: Py<PyAny>,
        thread: String,
    ) -> PyResult<NetRings> {
        let wire = lock(&link.link).clone();
        let wire = wire.ok_or_else(|| PyValueError::new_err("the link is closed"))?;
        let queues = ring_refs.into_iter().map(|(tx, rx)| {
            let (front, interface) = (grants.0.client(BACKEND), Arc::clone(&link.interface));
            net::Queue::connect(front, QueueRefs { tx, rx }, agreed.0.clone(), interface)
        });
        let queues = work(|| queues.collect::<Result<Vec<_>, _>>())?
            .map_err(|error| MachineError::new_err(error.to_string()))?;
        let (transmitted, received) = (host_ports(&transmitted), host_ports(&received));
        let all = transmitted.iter().chain(&received).cloned();
        let all = all.collect::<Vec<_>>();
        let callbacks = Callbacks {
            transmitted,
            received,
            broken,
            lost,
        };
        let device = DeviceThread::start(thread, queues, wire, callbacks).map_err(os_error)?;
        for port in all {
            port.attach(device.bell());
        }
        Ok(NetRings(Mutex::new(Some(device))))
    }

    fn wake(&self) {
        if let Some(device) = lock(&self.0).as_ref() {
            device.bell().ring();
        }
    }

    fn close(&self, py: Python<'_>) {
        let device = lock(&self.0).take();
        // Its thread may be waiting for the interpreter.
        py.detach(|| drop(device));
    }
}

#[pyfunction]
pub fn run_switch(py: Python<'_>, fd: RawFd, control: RawFd, first_s: u64) -> PyResult<()> {
    let (listener, control) = (
        UnixListener::from(owned(fd)?),
        UnixListener::from(owned(control)?),
    );
    let run = || Switch::new(listener, Some(control))?.run(Duration::from_secs(first_s));
    work(|| py.detach(run))?.map_err(os_error)
}
