// SPDX-License-Identifier: Apache-2.0
//! The FIFO ABI: a word per port in pages of the guest, and 16 queues per vCPU that link these words.
//!
//! Everything but the tails of the queues is in memory that the guest changes at the same time, also against the rules:
//! a word is changed with one atomic operation, what is read from it is never used as an index, and retries are bounded.
//! A guest that breaks the protocol loses events, nothing else.

use super::channel::{Channel, QueueId};
use super::vcpus::EventVcpu;
use crate::abi::evtchn::fifo::{self, control_block};
use crate::frames::Machine;
use crate::mem::{Mfn, PAGE_SIZE};
use std::collections::BTreeMap;

const WORD: u64 = 4;
pub(crate) const WORDS_PER_PAGE: u32 = (PAGE_SIZE / WORD) as u32;
pub(crate) const MAX_PAGES: usize = (fifo::NR_CHANNELS / WORDS_PER_PAGE) as usize;
/// Where in its page a control block may begin at the latest.
pub(crate) const MAX_OFFSET: u32 = (PAGE_SIZE - control_block::SIZE) as u32;
const LINK_TRIES: u32 = 8;
const LINK_MASK: u32 = (1 << fifo::LINK_BITS) - 1;

/// Last port of each queue of a vCPU, 0 for none. The queue is empty if that word is not LINKED any more.
type Tails = [u32; fifo::MAX_QUEUES as usize];

/// Where a domain sees its events once it has called EVTCHNOP_init_control.
#[derive(Debug, Default)]
pub(crate) struct Fifo {
    /// Frames with the words of 1024 ports each, in the guest's hands.
    pub(crate) array: Vec<Mfn>,
    /// Machine address of each vCPU's control block.
    pub(crate) blocks: BTreeMap<u32, u64>,
    /// Ports below this have a word, and what was latched for want of one has been raised.
    pub(crate) raised: u32,
    pub(crate) tails: BTreeMap<u32, Tails>,
    /// vCPUs in a long EVTCHNOP_expand_array, and the frame that they have given.
    pub(crate) expanding: BTreeMap<u32, Mfn>,
}

fn test(machine: &Machine, word: u64, bit: u32) -> bool {
    machine.test_bit(word, bit.into())
}

fn set(machine: &Machine, word: u64, bit: u32) -> bool {
    machine.change_bit(word, bit.into(), true).unwrap_or(false)
}

fn clear(machine: &Machine, word: u64, bit: u32) -> bool {
    machine.change_bit(word, bit.into(), false).unwrap_or(false)
}

impl Fifo {
    /// Frames of the guest that are written, once for each use.
    pub(crate) fn frames(&self) -> Vec<Mfn> {
        let blocks = self.blocks.values().map(|maddr| Mfn(maddr / PAGE_SIZE));
        self.array.iter().copied().chain(blocks).collect()
    }

    /// Machine address of a port's event word; `None` while the guest has given no page for it.
    fn word(&self, port: u32) -> Option<u64> {
        let page = self.array.get((port / WORDS_PER_PAGE) as usize)?;
        Some(page.maddr() + u64::from(port % WORDS_PER_PAGE) * WORD)
    }

    fn tail(&mut self, queue: QueueId) -> Option<&mut u32> {
        let tails = self.tails.entry(queue.vcpu).or_default();
        tails.get_mut(queue.priority as usize)
    }

    /// Makes an event pending and, unless masked or linked, puts it at the end of its queue. True if it was not pending
    /// before.
    pub(crate) fn set_pending(
        &mut self,
        machine: &Machine,
        port: u32,
        channel: &mut Channel,
        vcpu: Option<&EventVcpu>,
    ) -> bool {
        let Some(word) = self.word(port) else {
            channel.latched = true;
            return false;
        };
        // Lost otherwise: the guest must not unmask a port before its vCPU has a control block.
        let Some(block) = self.blocks.get(&channel.vcpu).copied() else {
            return false;
        };
        let was_pending = set(machine, word, fifo::PENDING);
        if !test(machine, word, fifo::MASKED) && !set(machine, word, fifo::LINKED) {
            self.link(machine, port, channel, block, vcpu);
        }
        !was_pending
    }

    fn link(
        &mut self,
        machine: &Machine,
        port: u32,
        channel: &mut Channel,
        block: u64,
        vcpu: Option<&EventVcpu>,
    ) {
        let queue = QueueId {
            vcpu: channel.vcpu,
            priority: channel.priority,
        };
        // The port may be the tail of the queue it was in last: that queue is empty now, although the word is LINKED.
        match self.tail(channel.queue) {
            Some(last) if *last == port => *last = 0,
            _ => {}
        }
        channel.queue = queue;
        let tail = self.tail(queue).map_or(0, |last| std::mem::replace(last, port));
        if tail != 0 && self.append(machine, tail, port) {
            return;
        }
        let head = block + control_block::HEAD + u64::from(queue.priority) * WORD;
        machine.mem.write_u32(head, port);
        if !set(machine, block + control_block::READY, queue.priority) {
            if let Some(vcpu) = vcpu {
                vcpu.mark(machine);
            }
        }
    }

    /// Links the word of `tail` to `port`. False when the guest has taken the tail off: the queue is empty.
    fn append(&self, machine: &Machine, tail: u32, port: u32) -> bool {
        match self.word(tail) {
            Some(word) => link_word(
                port,
                || machine.mem.read_u32(word).unwrap_or(0),
                |seen, new| machine.compare_exchange_u32(word, seen, new) == Some(seen),
                |busy| {
                    machine.change_bit(word, fifo::BUSY.into(), busy);
                },
            ),
            None => false,
        }
    }

    /// Nobody who gets the port next must see an old event. A linked port stays linked: the guest takes it off.
    pub(crate) fn clear_pending(&self, machine: &Machine, port: u32) {
        if let Some(word) = self.word(port) {
            clear(machine, word, fifo::PENDING);
        }
    }

    /// Clears the mask bit. True: the event is pending, and is to be raised again.
    pub(crate) fn unmask(&self, machine: &Machine, port: u32) -> bool {
        let Some(word) = self.word(port) else {
            return false;
        };
        clear(machine, word, fifo::MASKED);
        test(machine, word, fifo::PENDING)
    }

    pub(crate) fn is_pending(&self, machine: &Machine, port: u32) -> bool {
        self.word(port)
            .is_some_and(|word| test(machine, word, fifo::PENDING))
    }

    /// Whether a closed port is still in a queue: it must not be used for anything else yet.
    pub(crate) fn is_busy(&self, machine: &Machine, port: u32) -> bool {
        self.word(port)
            .is_some_and(|word| test(machine, word, fifo::LINKED))
    }

    /// Where the books are wrong. The words themselves are the guest's, and may be anything.
    pub(crate) fn audit(&self, channels: &[Channel], vcpus: usize) -> Vec<String> {
        let mut out = Vec::new();
        for (vcpu, tails) in &self.tails {
            for (priority, port) in (0..).zip(tails).filter(|(_, port)| **port != 0) {
                let queue = QueueId {
                    vcpu: *vcpu,
                    priority,
                };
                if channels.get(*port as usize).is_none_or(|c| c.queue != queue) {
                    out.push(format!("queue {queue:?}: its tail {port} was put elsewhere"));
                }
            }
        }
        for (vcpu, maddr) in &self.blocks {
            if *vcpu as usize >= vcpus || maddr % PAGE_SIZE > MAX_OFFSET.into() {
                out.push(format!("control block of vcpu {vcpu} at {maddr:#x}"));
            }
        }
        for (port, channel) in (0..self.raised).zip(channels) {
            if channel.latched {
                out.push(format!("port {port}: latched although it has a word"));
            }
        }
        out
    }
}

/// Links a word that the guest changes meanwhile to `port`. False: it is not LINKED (any more), or does not hold still.
fn link_word(
    port: u32,
    read: impl Fn() -> u32,
    exchange: impl Fn(u32, u32) -> bool,
    busy: impl Fn(bool),
) -> bool {
    for _ in 0..LINK_TRIES {
        let seen = read();
        if seen & 1 << fifo::LINKED == 0 {
            break;
        }
        if exchange(seen, seen & !(1 << fifo::BUSY | LINK_MASK) | port) {
            return true;
        }
        // BUSY asks the guest not to unmask, so that one of the next tries succeeds.
        busy(true);
    }
    busy(false);
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn a_guest_that_never_lets_a_link_succeed_costs_a_bounded_time() {
        let (tries, is_busy) = (Cell::new(0), Cell::new(false));
        let linked = link_word(
            7,
            || 1 << fifo::LINKED,
            |_, _| {
                tries.set(tries.get() + 1);
                false
            },
            |busy| is_busy.set(busy),
        );
        assert!(!linked && tries.get() == LINK_TRIES && !is_busy.get());
    }

    #[test]
    fn a_link_keeps_what_else_the_word_says_and_takes_busy_away() {
        let word = Cell::new(!LINK_MASK | 3);
        let change = |seen: u32, new: u32| {
            let same = word.get() == seen;
            word.set(if same { new } else { word.get() });
            same
        };
        assert!(link_word(5, || word.get(), change, |_| {}));
        assert_eq!(word.get(), !(LINK_MASK | 1 << fifo::BUSY) | 5);
    }
}
