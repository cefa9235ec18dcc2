// SPDX-License-Identifier: Apache-2.0
//! Network interfaces (`io/netif.h`): `link` is the wire, `tap` one that is an interface of the host, `frame` knows what is in a frame, `request` understands what the
//! guest sends, `queue` moves frames between a guest's rings and the wire, `interface` is what is counted and set of it,
//! `rate` how much may be sent, `source` whose a frame is, `multicast` which of it a guest wants, `device` has the thread; `switch` is where wires of several guests end, `switch_port`
//! one of its ports, `switch_control` what may be asked of it; `capture` copies what passes.

mod capture;
mod device;
mod frame;
mod interface;
mod link;
mod multicast;
mod pcapng;
mod queue;
mod rate;
mod request;
mod source;
mod switch;
mod switch_control;
mod switch_port;
mod tap;

pub use capture::{Capture, Wanted, CAPTURE_QUEUE_MAX};
pub use device::{DeviceThread, Notice};
pub use frame::{
    fill_checksum, has_right_checksum, set_partial_checksum, split, Transport, ETHERNET, FRAME_MAX,
};
pub use interface::{Counts, Interface, CAPTURES_MAX};
pub use link::{Link, SharedLink, AHEAD};
pub use multicast::{Multicast, MulticastChange, MULTICAST_MAX};
pub use pcapng::Direction;
pub use queue::{Agreed, Queue, QueueRefs, Transmitted, FRAMES_PER_TURN};
pub use rate::Rate;
pub use request::Broken;
pub use source::Source;
pub use switch::{Switch, PORT_QUEUE_MAX, STATIONS_MAX};
