// SPDX-License-Identifier: Apache-2.0
//! `io/ring.h`: the head of every ring that a front end and a back end share, `struct *_sring`. Offsets in bytes.

/// `req_prod`: requests that the front end has written, ever.
pub const REQ_PROD: usize = 0;
/// `req_event`: the request at which the back end wants an event.
pub const REQ_EVENT: usize = 4;
/// `rsp_prod`: responses that the back end has written, ever.
pub const RSP_PROD: usize = 8;
/// `rsp_event`: the response at which the front end wants an event.
pub const RSP_EVENT: usize = 12;
/// The entries follow.
pub const HEAD: usize = 64;
