// SPDX-License-Identifier: Apache-2.0
//! Event channels seen from the host and from inside: back ends' ends, books that were damaged, several threads at once.
//! What guests see: tests/unit, tests/property.

use super::channel::QueueId;
use super::*;
use crate::clock::Clock;
use crate::mem::PAGE_SIZE;
use crate::random::RandomSource;
use std::sync::atomic::{AtomicU32, Ordering};

/// A domain with ports and two vCPUs.
struct Guest {
    domain: Arc<Domain>,
    events: Arc<DomainEvents>,
    vcpus: Vec<Arc<VcpuShared>>,
}

struct World {
    machine: Arc<Machine>,
    all: Arc<Events>,
}

impl World {
    fn new() -> World {
        World {
            machine: Machine::new(1024, 7, Clock::virtual_at(0)).unwrap(),
            all: Arc::default(),
        }
    }

    fn guest(&self, domid: DomId, is_32bit: bool) -> Guest {
        let domain = Domain::new_with(self.machine.clone(), domid, is_32bit);
        let info = domain.share_hypervisor_frames(1).unwrap()[0];
        let events = self.all.add(&domain, info.maddr(), 131_071, false);
        let vcpus: Vec<_> = (0..2).map(|_| Arc::new(VcpuShared::default())).collect();
        vcpus.iter().for_each(|vcpu| events.add_vcpu(vcpu));
        Guest {
            domain,
            events,
            vcpus,
        }
    }
}

impl Guest {
    /// Changes to the FIFO ABI, with words for 1024 ports: where the control block of vCPU 0 is, and the array.
    fn choose_fifo(&self) -> (Mfn, Mfn) {
        let frames = self.domain.alloc(2).unwrap();
        self.events.init_control(0, frames[0].0, 0).unwrap();
        self.events.init_control(1, frames[0].0, 2048).unwrap();
        assert_eq!(self.events.expand_array(0, frames[1].0, 1024), Ok(true));
        (frames[0], frames[1])
    }

    fn has_upcall(&self, vcpu: u64) -> bool {
        let mut byte = [0];
        let at = self.events.shared_info + vcpu * 64;
        self.domain.machine.mem.read(at, &mut byte);
        self.domain.machine.mem.write(at, &[0]);
        byte != [0]
    }

    #[track_caller]
    fn is_right(&self) {
        assert_eq!(self.events.audit(), Vec::<String>::new());
    }
}

#[derive(Default)]
struct Count(AtomicU32);

impl Bell for Count {
    fn ring(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_guests_event_rings_the_bell_and_the_hosts_wakes_a_blocked_vcpu() {
    for is_32bit in [false, true] {
        let guest = World::new().guest(1, is_32bit);
        let port = guest.events.alloc_unbound(0).unwrap();
        assert!(guest.events.bind_host(port, 3, None).is_err());
        let host = guest.events.bind_host(port, 0, None).unwrap();
        assert_eq!(guest.events.send(port), Ok(()));
        let bell = Arc::new(Count::default());
        host.attach(bell.clone());
        assert_eq!(bell.0.load(Ordering::SeqCst), 1, "it looks for what came before");
        guest.events.send(port).unwrap();
        assert_eq!(bell.0.load(Ordering::SeqCst), 2);
        guest.events.block(0).unwrap();
        assert!(guest.vcpus[0].sleep.is_blocked());
        host.notify();
        assert!(!guest.vcpus[0].sleep.is_blocked());
        assert!(guest.has_upcall(0));
        guest.is_right();
        host.close();
        host.close();
        assert!(!host.is_open());
        assert_eq!(guest.events.channel(port).unwrap().binding.status(), 1);
        // Its next user is somebody else.
        let other = guest.events.bind_host(port, 0, Some(bell.clone())).unwrap();
        host.notify();
        host.close();
        assert!(other.is_open());
        guest.events.close_port(port).unwrap();
        assert!(!other.is_open());
        other.notify();
        assert_eq!(guest.events.is_pending(port), Err(Errno::EINVAL));
        guest.is_right();
    }
}

#[test]
fn what_a_domain_sends_when_its_peer_has_ended_or_is_another_one_goes_nowhere() {
    let world = World::new();
    let (one, two) = (world.guest(1, false), world.guest(2, true));
    let port = two.events.alloc_unbound(1).unwrap();
    let local = one.events.bind_interdomain(2, port).unwrap();
    one.events.send(local).unwrap();
    assert_eq!(two.events.is_pending(port), Ok(true));
    two.events.close();
    assert_eq!(two.events.alloc_unbound(1), Err(Errno::EINVAL));
    assert_eq!(one.events.channel(local).unwrap().binding.status(), 1);
    assert_eq!(one.events.bind_interdomain(2, port), Err(Errno::ESRCH));
    one.is_right();
    // A port that says it is connected to one that is not.
    let other = world.guest(3, false);
    let its = other.events.alloc_unbound(0).unwrap();
    one.events.lock().channels[local as usize].binding = Binding::Interdomain { domid: 3, port: its };
    one.events.send(local).unwrap();
    assert_eq!(other.events.is_pending(its), Ok(false));
    assert!(one.events.audit().join("").contains("says something else"));
    assert_eq!(one.events.close_port(local), Ok(()));
    assert_eq!(other.events.channel(its).unwrap().binding.status(), 1);
    one.is_right();
}

#[test]
fn the_audit_finds_every_kind_of_wrong_book() {
    let damage = |word: &str, f: &dyn Fn(&mut State)| {
        let world = World::new();
        let (guest, peer) = (world.guest(1, false), world.guest(2, false));
        guest.choose_fifo();
        guest.events.bind_virq(0, 1).unwrap();
        let ipi = guest.events.bind_ipi(1).unwrap();
        guest.events.send(ipi).unwrap();
        let port = peer.events.alloc_unbound(1).unwrap();
        assert_eq!(guest.events.bind_interdomain(2, port), Ok(3));
        guest.is_right();
        peer.is_right();
        f(&mut guest.events.lock());
        let found = [guest.events.audit(), peer.events.audit()].concat().join("\n");
        assert!(found.contains(word), "{word}: {found}");
    };
    fn fifo(state: &mut State) -> &mut Fifo {
        match &mut state.abi {
            Abi::Fifo(fifo) => fifo,
            Abi::TwoLevel(_) => panic!(),
        }
    }
    damage("peer", &|s| {
        s.channels[3].binding = Binding::Interdomain { domid: 2, port: 9 }
    });
    damage("peer", &|s| {
        s.channels[3].binding = Binding::Interdomain { domid: 7, port: 1 }
    });
    damage("peer", &|s| s.channels[3].binding = Binding::Unbound(2));
    damage("virtual interrupts", &|s| s.virqs.clear());
    damage("listed as free", &|s| assert!(s.free.remove(&20)));
    damage("listed as free", &|s| assert!(s.free.insert(2)));
    damage("tail", &|s| fifo(s).tails.get_mut(&1).unwrap()[7] = 1);
    damage("latched", &|s| s.channels[2].latched = true);
    damage("in use", &|s| s.channels[40].latched = true);
    damage("notifies", &|s| s.channels[2].vcpu = 2);
    damage("control block", &|s| {
        assert!(fifo(s).blocks.insert(5, 0).is_none())
    });
    damage("frame", &|s| fifo(s).array[0] = Mfn(1));
}

#[test]
fn a_reset_and_an_array_of_thousands_are_done_in_rounds_and_give_the_frames_back() {
    let guest = World::new().guest(1, false);
    let frames = guest.domain.alloc(4).unwrap();
    guest.events.init_control(0, frames[0].0, 0).unwrap();
    let ports: Vec<_> = (0..3000).map(|_| guest.events.bind_ipi(0).unwrap()).collect();
    ports.iter().for_each(|port| guest.events.send(*port).unwrap());
    let mut rounds = [0; 3];
    for (round, mfn) in rounds.iter_mut().zip(&frames[1..]) {
        loop {
            *round += 1;
            if guest.events.expand_array(0, mfn.0, 128).unwrap() {
                break;
            }
            guest.is_right();
        }
    }
    assert_eq!(rounds, [8, 8, 8]);
    assert!(ports
        .iter()
        .all(|port| guest.events.is_pending(*port) == Ok(true)));
    assert_eq!(guest.events.reset(1000, true), Err(Errno::EBUSY));
    assert_eq!(guest.events.reset(1000, false), Ok(false));
    assert_eq!(guest.events.reset(1000, false), Err(Errno::EBUSY));
    let rest = (0..10).find(|_| guest.events.reset(1000, true).unwrap());
    assert_eq!(rest, Some(2));
    assert_eq!(guest.domain.outside_refs(), vec![]);
    assert_eq!(guest.events.lock().channels[9].queue, QueueId::default());
    assert_eq!(guest.events.bind_ipi(0), Ok(1));
    guest.is_right();
}

#[test]
fn a_new_port_looks_at_each_port_once_though_the_guest_says_that_all_are_linked() {
    let guest = World::new().guest(1, false);
    let frames = guest.domain.alloc(2).unwrap();
    guest.events.init_control(0, frames[0].0, 0).unwrap();
    for at in (0..PAGE_SIZE).step_by(8) {
        // LINKED in every word.
        guest
            .domain
            .machine
            .mem
            .write_u64(frames[1].maddr() + at, 0x2000_0000_2000_0000);
    }
    for _ in 0..128 {
        while !guest.events.expand_array(0, frames[1].0, 1 << 20).unwrap() {}
    }
    assert_eq!(guest.events.bind_ipi(0), Err(Errno::ENOSPC));
    assert_eq!(guest.events.channels().len(), 131_072);
    guest.is_right();
    // The guest has taken one off its queue.
    guest.domain.machine.mem.write_u32(frames[1].maddr() + 4 * 5, 0);
    assert_eq!(guest.events.bind_ipi(0), Ok(5));
}

/// Random bytes.
struct Dice(u64);

impl Dice {
    fn up_to(&mut self, end: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 32) as u32) % end
    }
}

/// One random operation; whatever comes of it.
fn act(guest: &Guest, peer: DomId, frames: &[Mfn], dice: &mut Dice) {
    let (events, port) = (&guest.events, dice.up_to(12));
    match dice.up_to(18) {
        0 => drop(events.alloc_unbound(if dice.up_to(2) == 0 { peer } else { DOMID_SELF })),
        1 | 2 => drop(events.bind_interdomain(if dice.up_to(3) > 0 { peer } else { DOMID_SELF }, port)),
        3 => drop(events.bind_virq(dice.up_to(3), dice.up_to(2))),
        4 => drop(events.bind_ipi(dice.up_to(3))),
        5 => drop(events.bind_vcpu(port, dice.up_to(2))),
        6 => drop(events.close_port(port)),
        7 => drop(events.unmask(port)),
        8 => drop(events.set_priority(port, dice.up_to(17))),
        9 => drop(events.status(peer, port)),
        10 if dice.up_to(8) == 0 => drop(events.reset(64, false).and_then(|_| events.reset(1 << 20, true))),
        11 => drop(events.init_control(
            dice.up_to(2),
            frames[dice.up_to(4) as usize].0,
            8 * dice.up_to(600),
        )),
        12 => drop(events.expand_array(0, frames[dice.up_to(4) as usize].0, dice.up_to(64))),
        13 => drop(events.poll(dice.up_to(2), vec![port])),
        14 => {
            // What the guest writes into its own memory.
            let at = frames[dice.up_to(4) as usize].maddr() + u64::from(4 * dice.up_to(1024));
            guest.domain.machine.mem.write_u32(at, dice.up_to(u32::MAX));
        }
        15 => events.send_virq(dice.up_to(2), dice.up_to(3)),
        _ => drop(events.send(port)),
    }
}

#[test]
fn domains_that_do_random_things_to_each_other_from_four_threads_leave_right_books() {
    let world = World::new();
    let guests = [world.guest(1, false), world.guest(2, true)];
    std::thread::scope(|scope| {
        for (number, guest) in [0, 1, 0, 1].into_iter().zip(guests.iter().cycle()) {
            let frames = guest.domain.alloc(4).unwrap();
            let peer = 2 - number as DomId;
            let mut dice = Dice(RandomSource::key_from_seed(number as u64)[0].into());
            dice.0 = dice.0 << 8 | u64::from(frames[0].0 as u8) | 1;
            scope.spawn(move || {
                for _ in 0..20_000 {
                    act(guest, peer, &frames, &mut dice);
                }
            });
        }
    });
    for guest in &guests {
        guest.is_right();
        guest.events.close();
        assert_eq!(guest.domain.outside_refs(), vec![]);
        assert!(guest.events.lock().channels.iter().all(|c| c.binding.is_closed()));
    }
}
