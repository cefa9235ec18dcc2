// SPDX-License-Identifier: Apache-2.0
//! How long a thread looks for what it waits for before it sleeps. A wait of a few microseconds costs less than to be put
//! to sleep and woken, on the thread that wakes it, too; a long one would only take processor time from others.

use std::hint::spin_loop;
use std::thread::yield_now;
use std::time::{Duration, Instant};

/// A thread that looks takes no more than this for nothing.
const LONGEST: Duration = Duration::from_micros(100);
/// A wait shorter than this, with all that sleeping and waking cost, would have been over while the thread looked.
const SHORT: Duration = Duration::from_micros(200);
/// Less is not worth a look.
const LEAST: Duration = Duration::from_micros(10);
/// Looks between two times at which others may have the processor.
const LOOKS: u32 = 64;

/// What a thread has learnt from its waits: it looks only if they are short.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    window: Duration,
}

impl Patience {
    /// Looks until `ready`, or until a wait is not going to be short. Says what `ready` said last.
    pub(crate) fn look(&self, mut ready: impl FnMut() -> bool) -> bool {
        if self.window.is_zero() {
            return ready();
        }
        let start = Instant::now();
        loop {
            for _ in 0..LOOKS {
                if ready() {
                    return true;
                }
                spin_loop();
            }
            if start.elapsed() >= self.window {
                return ready();
            }
            yield_now();
        }
    }

    /// A wait that looking did not end has taken this long, from its beginning on.
    pub(crate) fn waited(&mut self, time: Duration) {
        self.window = match self.window / 2 {
            _ if time < SHORT => LONGEST,
            less if less < LEAST => Duration::ZERO,
            less => less,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_waited_long_does_not_look_again_and_who_has_waited_for_short_does() {
        let looks = |patience: &Patience| {
            let mut count = 0u32;
            assert!(!patience.look(|| {
                count = count.saturating_add(1);
                false
            }));
            count
        };
        let mut patience = Patience::default();
        assert_eq!(looks(&patience), 1);
        patience.waited(SHORT / 2);
        assert!(looks(&patience) > 1);
        for _ in 0..8 {
            patience.waited(SHORT);
        }
        assert_eq!(looks(&patience), 1);
    }

    #[test]
    fn what_is_there_is_seen_at_once() {
        let mut patience = Patience::default();
        assert!(patience.look(|| true));
        patience.waited(Duration::ZERO);
        let mut count = 0;
        assert!(patience.look(|| {
            count += 1;
            count == 3
        }));
        assert_eq!(count, 3);
    }
}
