// SPDX-License-Identifier: Apache-2.0
//! `EventChannels`, `EventPort` and `BellQueue`.

use crate::device::lock;
use crate::host::{refused, work};
use domzero_machine::abi::Errno;
use domzero_machine::{Bell, Binding, Channel, DomainEvents, HostPort};
use pyo3::prelude::*;
use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// What back ends in Python are told by: numbers, each once until it is taken.
#[derive(Default)]
struct Queue {
    waiting: Mutex<(VecDeque<u64>, HashSet<u64>)>,
    changed: Condvar,
}

impl Queue {
    fn put(&self, number: u64) {
        let (order, there) = &mut *lock(&self.waiting);
        if there.insert(number) {
            order.push_back(number);
            self.changed.notify_one();
        }
    }

    fn take((order, there): &mut (VecDeque<u64>, HashSet<u64>)) -> Option<u64> {
        order.pop_front().inspect(|number| {
            there.remove(number);
        })
    }
}

#[pyclass(frozen, module = "domzero._machine")]
#[derive(Default)]
pub struct BellQueue(Arc<Queue>);

#[pymethods]
impl BellQueue {
    #[new]
    fn new() -> BellQueue {
        BellQueue::default()
    }

    fn put(&self, number: u64) {
        self.0.put(number);
    }

    fn get(&self, py: Python<'_>) -> u64 {
        py.detach(|| {
            let mut waiting = lock(&self.0.waiting);
            loop {
                if let Some(number) = Queue::take(&mut waiting) {
                    return number;
                }
                waiting = self
                    .0
                    .changed
                    .wait(waiting)
                    .unwrap_or_else(PoisonError::into_inner);
            }
        })
    }

    fn take(&self) -> Vec<u64> {
        let mut waiting = lock(&self.0.waiting);
        std::iter::from_fn(|| Queue::take(&mut waiting)).collect()
    }
}

struct Numbered {
    queue: Arc<Queue>,
    number: u64,
}

impl Bell for Numbered {
    fn ring(&self) {
        self.queue.put(self.number);
    }
}

/// The host's end of a port.
#[pyclass(frozen, module = "domzero._machine")]
pub struct EventPort(pub HostPort);

#[pymethods]
impl EventPort {
    #[getter]
    fn port(&self) -> u32 {
        self.0.port()
    }

    #[getter]
    fn is_open(&self) -> bool {
        self.0.is_open()
    }

    fn notify(&self) {
        self.0.notify();
    }

    fn close(&self) {
        self.0.close();
    }
}

/// The same, as back ends in the machine use them.
pub fn host_ports(ports: &[Py<EventPort>]) -> Vec<HostPort> {
    ports.iter().map(|port| port.get().0.clone()).collect()
}

/// One port, as it was.
#[pyclass(frozen, get_all, module = "domzero._machine")]
pub struct EventChannel {
    port: u32,
    status: u32,
    vcpu: u32,
    remote_domid: u16,
    remote_port: u32,
    virq: u32,
    priority: u32,
    has_host: bool,
}

fn channel_of(port: u32, channel: &Channel) -> EventChannel {
    let (remote_domid, remote_port) = match channel.binding {
        Binding::Unbound(domid) | Binding::Host { domid, .. } => (domid, 0),
        Binding::Interdomain { domid, port } => (domid, port),
        _ => (0, 0),
    };
    EventChannel {
        port,
        status: channel.binding.status(),
        vcpu: channel.vcpu,
        remote_domid,
        remote_port,
        virq: match channel.binding {
            Binding::Virq(virq) => virq,
            _ => 0,
        },
        priority: channel.priority,
        has_host: channel.binding.host().is_some(),
    }
}

fn told<R>(result: Result<R, Errno>) -> PyResult<R> {
    result.map_err(refused)
}

/// (vcpu, virq), port
type VirqRow = ((u32, u32), u32);

#[pyclass(frozen, module = "domzero._machine")]
pub struct EventChannels(pub Arc<DomainEvents>);

impl EventChannels {
    /// Does something that may have to wait for the memory lock, or take longer.
    fn wait<R: Send>(&self, py: Python<'_>, f: impl FnOnce(&DomainEvents) -> R + Send) -> PyResult<R> {
        work(|| py.detach(|| f(&self.0)))
    }

    /// Does something that needs the ports' lock only, which is held for short and never while waiting for Python.
    fn short<R>(&self, f: impl FnOnce(&DomainEvents) -> Result<R, Errno>) -> PyResult<R> {
        told(work(|| f(&self.0))?)
    }
}

#[pymethods]
impl EventChannels {
    fn alloc_unbound(&self, remote_domid: u16) -> PyResult<u32> {
        self.short(|e| e.alloc_unbound(remote_domid))
    }

    fn bind_interdomain(&self, remote_domid: u16, remote_port: u32) -> PyResult<u32> {
        self.short(|e| e.bind_interdomain(remote_domid, remote_port))
    }

    fn bind_virq(&self, virq: u32, vcpu_id: u32) -> PyResult<u32> {
        self.short(|e| e.bind_virq(virq, vcpu_id))
    }

    fn bind_ipi(&self, vcpu_id: u32) -> PyResult<u32> {
        self.short(|e| e.bind_ipi(vcpu_id))
    }

    fn bind_vcpu(&self, port: u32, vcpu_id: u32) -> PyResult<()> {
        self.short(|e| e.bind_vcpu(port, vcpu_id))
    }

    fn bind_host(
        &self,
        port: u32,
        domid: u16,
        queue: Option<&BellQueue>,
        number: u64,
    ) -> PyResult<EventPort> {
        let bell = queue.map(|queue| {
            let queue = Arc::clone(&queue.0);
            Arc::new(Numbered { queue, number }) as Arc<dyn Bell>
        });
        told(work(|| self.0.bind_host(port, domid, bell))?).map(EventPort)
    }

    fn close_port(&self, port: u32) -> PyResult<()> {
        self.short(|e| e.close_port(port))
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.wait(py, DomainEvents::close)
    }

    fn reset(&self, py: Python<'_>, at_once: u32, resume: bool) -> PyResult<bool> {
        told(self.wait(py, |e| e.reset(at_once, resume))?)
    }

    fn init_control(&self, py: Python<'_>, vcpu_id: u32, gfn: u64, offset: u32) -> PyResult<()> {
        told(self.wait(py, |e| e.init_control(vcpu_id, gfn, offset))?)
    }

    fn expand_array(&self, py: Python<'_>, vcpu_id: u32, gfn: u64, at_once: u32) -> PyResult<bool> {
        told(self.wait(py, |e| e.expand_array(vcpu_id, gfn, at_once))?)
    }

    fn set_priority(&self, port: u32, priority: u32) -> PyResult<()> {
        self.short(|e| e.set_priority(port, priority))
    }

    fn send(&self, port: u32) -> PyResult<()> {
        self.short(|e| e.send(port))
    }

    fn send_virq(&self, vcpu_id: u32, virq: u32) -> PyResult<()> {
        work(|| self.0.send_virq(vcpu_id, virq))
    }

    fn set_pending(&self, port: u32) -> PyResult<()> {
        work(|| self.0.raise(port))
    }

    fn unmask(&self, port: u32) -> PyResult<()> {
        self.short(|e| e.unmask(port))
    }

    fn is_pending(&self, port: u32) -> PyResult<bool> {
        self.short(|e| e.is_pending(port))
    }

    fn block(&self, vcpu_id: u32) -> PyResult<()> {
        self.short(|e| e.block(vcpu_id))
    }

    fn poll(&self, vcpu_id: u32, ports: Vec<u32>) -> PyResult<()> {
        self.short(|e| e.poll(vcpu_id, ports))
    }

    fn move_info(&self, vcpu_id: u32, maddr: u64) -> PyResult<()> {
        self.short(|e| e.move_info(vcpu_id, maddr))
    }

    fn channel(&self, port: u32) -> PyResult<EventChannel> {
        let channel = self.short(|e| e.channel(port))?;
        Ok(channel_of(port, &channel))
    }

    #[getter]
    fn channels(&self) -> Vec<EventChannel> {
        let channels = self.0.channels();
        (0..)
            .zip(&channels)
            .map(|(port, c)| channel_of(port, c))
            .collect()
    }

    #[getter]
    fn virqs(&self) -> Vec<VirqRow> {
        self.0.virqs()
    }

    #[getter]
    fn frames(&self) -> Vec<u64> {
        self.0.frames().into_iter().map(|m| m.0).collect()
    }

    fn audit(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        self.wait(py, DomainEvents::audit)
    }
}
