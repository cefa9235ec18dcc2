// SPDX-License-Identifier: Apache-2.0
//! A disk's limits, against a front end that is driven by hand.

mod front;
mod granter;

use domzero_backends::block::{start_thread, Limits, Next, Rate, Throttle};
use domzero_machine::abi::blkif::{self, X86_64};
use domzero_machine::abi::ring::{RSP_EVENT, RSP_PROD};
use front::{agreed, raw, Front, Told, SOON};
use std::sync::mpsc::channel;
use std::sync::Arc;

/// Limits that let through what is asked for at once, and then nothing for hours.
fn hardly_anything(requests: u64) -> Limits {
    Limits {
        operations: Rate {
            per_second: 1,
            burst: requests,
        },
        bytes: Rate {
            per_second: 1,
            burst: 1 << 20,
        },
    }
}

#[test]
fn requests_beyond_the_limits_wait_in_the_ring_until_the_limits_let_them() {
    let front = Front::new(X86_64, 1);
    let throttle = Arc::new(Throttle::default());
    throttle.set(hardly_anything(3));
    let mut queue = front.connect_limited(raw(64).0, Arc::clone(&throttle), agreed(X86_64));
    let (gref, _) = front.page();
    front.set_head(RSP_EVENT, 1);
    for n in 0..8 {
        front.send(&front.request(blkif::OP_READ, n, n, &[(gref, 0, 0)]));
    }
    let turn = queue.serve().unwrap();
    assert!(turn.notify && matches!(turn.next, Next::After(_)), "{turn:?}");
    assert_eq!(front.head(RSP_PROD), 4);
    let turn = queue.serve().unwrap();
    assert!(!turn.notify && matches!(turn.next, Next::After(_)), "{turn:?}");
    // A request that is larger than what may come at once passes, once what came before is paid for.
    throttle.set(Limits::default());
    throttle.set(Limits {
        bytes: Rate {
            per_second: 1,
            burst: 1,
        },
        operations: Rate::default(),
    });
    queue.serve().unwrap();
    assert_eq!(front.head(RSP_PROD), 5);
    throttle.set(Limits::default());
    assert_eq!(queue.serve().unwrap().next, Next::Event);
    assert_eq!(front.head(RSP_PROD), 8);
}

#[test]
fn a_thread_that_waits_for_the_limits_is_woken_by_other_limits_and_by_its_end() {
    let front = Front::new(X86_64, 1);
    let throttle = Arc::new(Throttle::default());
    throttle.set(hardly_anything(1));
    let queue = front.connect_limited(raw(64).0, Arc::clone(&throttle), agreed(X86_64));
    let (gref, _) = front.page();
    front.set_head(RSP_EVENT, 1);
    for n in 0..20 {
        front.send(&front.request(blkif::OP_READ, n, n, &[(gref, 0, 0)]));
    }
    let (tell, told) = channel();
    let mut thread = start_thread("test".into(), queue, Told(tell)).unwrap();
    assert_eq!(told.recv_timeout(SOON), Ok(None));
    assert_eq!(front.head(RSP_PROD), 2);
    front.set_head(RSP_EVENT, 12);
    throttle.set(Limits::default());
    throttle.set(hardly_anything(10));
    thread.bell().ring();
    assert_eq!(told.recv_timeout(SOON), Ok(None));
    thread.stop();
    assert_eq!(front.head(RSP_PROD), 13);
    assert_eq!(front.grants.audit(), Vec::<String>::new());
}
