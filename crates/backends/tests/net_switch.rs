// SPDX-License-Identifier: Apache-2.0
//! Switches, with ports that are driven by hand.

mod granter;
mod net_front;

use domzero_backends::net::{Switch, PORT_QUEUE_MAX};
use net_front::{read_frame, write_frame, SOON};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

#[test]
fn a_switch_learns_who_is_where_and_ends_with_its_last_port() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("switch");
    let listener = UnixListener::bind(&path).unwrap();
    let first = UnixStream::connect(&path).unwrap();
    let switch = std::thread::spawn(move || Switch::new(listener, None).unwrap().run(SOON));
    let frame = |to: [u8; 6], from: u8, n: u8| [&to[..], &[0, 0, 0, 0, 0, from], &[8, 6, n]].concat();
    let mut ports = vec![first];
    for at in 1..3 {
        let mut port = UnixStream::connect(&path).unwrap();
        // Whose frame arrives has been let in.
        let hello = frame([0xff; 6], 20 + at, 0);
        write_frame(&mut port, &hello);
        for other in &mut ports {
            other.set_read_timeout(Some(SOON)).unwrap();
            assert_eq!(read_frame(other), hello);
        }
        port.set_read_timeout(Some(SOON)).unwrap();
        ports.push(port);
    }
    // Unknown and broadcast go to all others.
    write_frame(&mut ports[0], &frame([0xff; 6], 10, 1));
    for at in [1, 2] {
        assert_eq!(read_frame(&mut ports[at]), frame([0xff; 6], 10, 1));
    }
    // A known station's frames go to it alone: the next thing that port 2 sees is the broadcast.
    write_frame(&mut ports[1], &frame([0, 0, 0, 0, 0, 10], 11, 2));
    assert_eq!(read_frame(&mut ports[0]), frame([0, 0, 0, 0, 0, 10], 11, 2));
    write_frame(&mut ports[1], &frame([0xff; 6], 11, 3));
    for at in [0, 2] {
        assert_eq!(read_frame(&mut ports[at]), frame([0xff; 6], 11, 3));
    }
    // A station that moves is found again.
    write_frame(&mut ports[2], &frame([0xff; 6], 10, 4));
    for at in [0, 1] {
        assert_eq!(read_frame(&mut ports[at]), frame([0xff; 6], 10, 4));
    }
    write_frame(&mut ports[1], &frame([0, 0, 0, 0, 0, 10], 11, 5));
    assert_eq!(read_frame(&mut ports[2]), frame([0, 0, 0, 0, 0, 10], 11, 5));
    // One that says nonsense loses its port; the others go on.
    ports[0].write_all(&[0xff; 4]).unwrap();
    assert_eq!(ports[0].read(&mut [0]).unwrap(), 0);
    // One that does not read holds nobody up: what is too much for it is dropped.
    let large = [&frame([0xff; 6], 11, 6)[..], &[0; 60_000]].concat();
    for _ in 0..PORT_QUEUE_MAX * 2 / large.len() {
        write_frame(&mut ports[1], &large);
    }
    drop(ports);
    switch.join().unwrap().unwrap();
}

#[test]
fn a_switch_without_ports_ends() {
    let directory = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(directory.path().join("switch")).unwrap();
    Switch::new(listener, None)
        .unwrap()
        .run(Duration::from_millis(1))
        .unwrap();
}
