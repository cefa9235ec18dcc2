// SPDX-License-Identifier: Apache-2.0
//! A vCPU's timers, in system time: single-shot, periodic, the end of SCHEDOP_poll. Any thread may set them; its own
//! does what is due.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// 146 years: no host runs so long, and virtual time, which jumps to the next timer, stays countable in 63 bits.
pub const LAST_DEADLINE_NS: u64 = 1 << 62;

/// Old Linux computes times that have overflowed, and wants to be woken soon: Xen does so for what is too far away.
const WORKAROUND_NS: u64 = 100_000_000;
const TOO_FAR_BITS: u32 = 50;

/// No time: later than every other.
const NEVER: u64 = u64::MAX;

/// What has come due.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// VIRQ_TIMER is to be raised.
    pub timer: bool,
    /// SCHEDOP_poll is over.
    pub poll: bool,
}

#[derive(Debug)]
struct State {
    singleshot: u64,
    periodic: u64,
    /// 0: there is none.
    period: u64,
    periodic_last: u64,
    poll: u64,
}

/// The timers of one vCPU.
#[derive(Debug)]
pub struct Timers {
    state: Mutex<State>,
    /// When the next one expires. Written with the lock held.
    next: AtomicU64,
}

impl Default for Timers {
    fn default() -> Timers {
        Timers {
            state: Mutex::new(State {
                singleshot: NEVER,
                periodic: NEVER,
                period: 0,
                periodic_last: 0,
                poll: NEVER,
            }),
            next: AtomicU64::new(NEVER),
        }
    }
}

/// When a timer expires, from the system time that a guest has asked for: a `uint64_t`, which is an s_time_t to Xen's
/// timers, so that the upper half has passed already. `None`: never.
fn deadline(when_ns: u64) -> Option<u64> {
    match when_ns {
        _ if when_ns >> 63 != 0 => Some(0),
        LAST_DEADLINE_NS.. => None,
        _ => Some(when_ns),
    }
}

fn or_never(when_ns: Option<u64>) -> u64 {
    when_ns.and_then(deadline).unwrap_or(NEVER)
}

impl Timers {
    // Nothing that can panic runs under this lock.
    fn change<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        let mut state: MutexGuard<'_, State> = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let result = f(&mut state);
        let next = state.singleshot.min(state.periodic).min(state.poll);
        self.next.store(next, Ordering::Release);
        result
    }

    /// VCPUOP_set_singleshot_timer; `None` stops it.
    pub fn set_singleshot(&self, when_ns: Option<u64>) {
        self.change(|state| state.singleshot = or_never(when_ns));
    }

    /// set_timer_op: an absolute system time; 0 stops it, and what is absurd means soon.
    pub fn set_timer(&self, when_ns: u64, now_ns: u64) {
        let too_far = when_ns >> 63 != 0 || when_ns.saturating_sub(now_ns) >> TOO_FAR_BITS != 0;
        self.set_singleshot(match when_ns {
            0 => None,
            _ if too_far => Some(now_ns.saturating_add(WORKAROUND_NS)),
            _ => Some(when_ns),
        });
    }

    /// VCPUOP_set_periodic_timer; 0 stops it. The first event is due at once if the last one is a period ago.
    pub fn set_periodic(&self, period_ns: u64) {
        self.change(|state| {
            state.period = period_ns;
            state.periodic = match period_ns {
                0 => NEVER,
                _ => or_never(Some(state.periodic_last.saturating_add(period_ns))),
            };
        });
    }

    /// The end of SCHEDOP_poll; `None`: it ends with an event only.
    pub fn set_poll(&self, when_ns: Option<u64>) {
        self.change(|state| state.poll = or_never(when_ns));
    }

    /// Whether there is an end of SCHEDOP_poll.
    pub fn has_poll(&self) -> bool {
        self.change(|state| state.poll != NEVER)
    }

    /// When the next one expires.
    pub fn next_ns(&self) -> Option<u64> {
        Some(self.next.load(Ordering::Acquire)).filter(|&next| next != NEVER)
    }

    /// Whether one has expired.
    pub fn is_due(&self, now_ns: u64) -> bool {
        self.next.load(Ordering::Acquire) <= now_ns
    }

    /// What is due is taken away; a periodic timer comes again, once for all the periods that have passed.
    pub fn take_due(&self, now_ns: u64) -> Due {
        self.change(|state| {
            let mut due = Due::default();
            if state.singleshot <= now_ns {
                state.singleshot = NEVER;
                due.timer = true;
            }
            if state.periodic <= now_ns {
                state.periodic_last = now_ns;
                state.periodic = or_never(Some(now_ns.saturating_add(state.period)));
                due.timer = true;
            }
            if state.poll <= now_ns {
                state.poll = NEVER;
                due.poll = true;
            }
            due
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMER: Due = Due {
        timer: true,
        poll: false,
    };

    #[test]
    fn each_expires_once_at_its_time() {
        let timers = Timers::default();
        assert_eq!(timers.next_ns(), None);
        timers.set_singleshot(Some(50));
        timers.set_poll(Some(70));
        assert_eq!(timers.next_ns(), Some(50));
        assert_eq!(timers.take_due(49), Due::default());
        assert_eq!(timers.take_due(50), TIMER);
        assert!(timers.has_poll() && timers.is_due(70) && !timers.is_due(69));
        assert!(timers.take_due(70).poll);
        assert!(!timers.has_poll());
        assert_eq!(timers.next_ns(), None);
    }

    #[test]
    fn a_periodic_one_comes_again_without_piling_up() {
        let timers = Timers::default();
        timers.set_periodic(10);
        assert_eq!(timers.take_due(35), TIMER);
        assert_eq!(timers.next_ns(), Some(45));
        timers.set_periodic(30); // from the last one on
        assert_eq!(timers.next_ns(), Some(65));
        timers.set_periodic(0);
        assert_eq!(timers.next_ns(), None);
    }

    #[test]
    fn times_beyond_the_clock_never_come_and_negative_ones_have_passed() {
        let timers = Timers::default();
        for (when, expires) in [
            (LAST_DEADLINE_NS - 1, Some(LAST_DEADLINE_NS - 1)),
            (LAST_DEADLINE_NS, None),
            (i64::MAX as u64, None),
            (1 << 63, Some(0)),
            (u64::MAX, Some(0)),
        ] {
            timers.set_singleshot(Some(when));
            assert_eq!(timers.next_ns(), expires, "{when:#x}");
            timers.set_singleshot(None);
            timers.set_poll(Some(when));
            assert_eq!(timers.next_ns(), expires, "{when:#x}");
            timers.set_poll(None);
        }
        timers.set_periodic(u64::MAX);
        assert_eq!(timers.next_ns(), Some(0));
        timers.take_due(LAST_DEADLINE_NS);
    }

    #[test]
    fn set_timer_op_stops_with_zero_and_takes_nonsense_for_soon() {
        let timers = Timers::default();
        let now = 1000;
        for (when, expires) in [
            (5, Some(5)),
            (0, None),
            (now + (1 << 50) - 1, Some(now + (1 << 50) - 1)),
            (now + (1 << 50), Some(now + WORKAROUND_NS)),
            (u64::MAX, Some(now + WORKAROUND_NS)),
        ] {
            timers.set_timer(when, now);
            assert_eq!(timers.next_ns(), expires, "{when:#x}");
        }
    }
}
