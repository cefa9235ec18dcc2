// SPDX-License-Identifier: Apache-2.0
//! Panics, which are always bugs of ours: caught where a guest's work is asked for, so that they end one domain and not
//! the process.

use std::any::Any;
use std::panic::{catch_unwind, AssertUnwindSafe};

/// A panic that was caught.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Bug(pub String);

/// Does `work`, and turns a panic in it into a value. Guards that `work` holds are released first (the memory lock,
/// `InGuest`), so nobody else waits for it. What `work` has changed may be half done: a vCPU
/// to which this happens must not run again.
pub fn caught<R>(work: impl FnOnce() -> R) -> Result<R, Bug> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| Bug(message(payload.as_ref())))
}

fn message(payload: &(dyn Any + Send)) -> String {
    match payload.downcast_ref::<&str>() {
        Some(text) => (*text).to_owned(),
        None => payload
            .downcast_ref::<String>()
            .map_or_else(|| "a panic without text".to_owned(), Clone::clone),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_by_its_text() {
        let (limit, index) = (3, 7);
        assert_eq!(caught(|| limit + index), Ok(10));
        assert_eq!(caught(|| panic!("planted")), Err::<(), _>(Bug("planted".into())));
        let formatted = caught(|| panic!("index {index} of {limit}"));
        assert_eq!(formatted, Err::<(), _>(Bug("index 7 of 3".into())));
        let odd = caught(|| std::panic::panic_any(index));
        assert_eq!(odd, Err::<(), _>(Bug("a panic without text".into())));
    }
}
