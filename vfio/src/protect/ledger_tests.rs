//! Memory that is watched, as the region of a ledger, for modelled devices.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pagewire_e1000e::{Config, E1000e};
use pagewire_hal::{
    Granule, Ledger, LendError, Loan, Nic, Offload, PoolLayout, PortPair, Refused, Region, Sharing,
    TxPort,
};
use pagewire_models::e1000e::{E1000e82574, ModelConfig};
use pagewire_models::{Host, HostConfig, Wire};

use super::test_support::{Place, Writer, eventually, protectors, waits};
use super::*;

/// Books with an arena in them.
fn books(arena: &Arena, seed: u64) -> (Ledger, pagewire_hal::RegionId) {
    let host = Host::new(HostConfig {
        seed,
        ..HostConfig::default()
    });
    let region = host.register(arena.clone()).unwrap();
    assert!(matches!(region.sharing(), Sharing::Watched(_)));
    let mut ledger = Ledger::new(host.domain(), 64, host.granule());
    let id = ledger.register(region).unwrap();
    (ledger, id)
}

fn now(ledger: &Ledger, id: pagewire_hal::RegionId, start: usize, len: usize) -> Vec<u8> {
    let mut bytes = vec![0xee; len];
    ledger.copy_now(id, start, &mut bytes).unwrap();
    bytes
}

/// What VFIO maps is a region as well.
const _: fn() = || {
    fn is_region<R: Region>() {}
    is_region::<crate::VfioRegion<Arena>>();
};

#[test]
fn a_writer_sleeps_until_two_ledgers_have_given_back() {
    for protector in protectors() {
        let arena = protector.arena(64 << 10).unwrap();
        let page = arena.page();
        let (mut one, in_one) = books(&arena, 1);
        let (mut two, in_two) = books(&arena, 2);
        let mut buffer = arena.buffer(4 * page).unwrap();
        buffer.bytes_mut(0..4 * page).unwrap().fill(b'o');
        let from = buffer.arena_offset();
        let first = one.lend(in_one, from + 10, page).unwrap();
        let again = one.lend_again(&first, from + page, 3).unwrap();
        let second = two.lend(in_two, from + page, page).unwrap();
        assert_eq!(protector.counters().lent_bytes, 2 * page as u64);
        let writer = Writer::poking(Place(buffer.as_ptr().unwrap()).at(page), b'n');
        waits(&protector, 1);
        let mut told = Vec::new();
        one.wanted(&mut |id, range| told.push((id, range)));
        assert_eq!(told, [(in_one, from + page..from + 2 * page)]);
        one.give_back(first);
        one.give_back(again);
        assert!(writer.sleeps());
        assert!(two.bytes(&second).unwrap().iter().all(|byte| *byte == b'o'));
        assert_eq!(now(&one, in_one, from + page, 2), b"oo");
        two.give_back(second);
        writer.join();
        assert_eq!(now(&one, in_one, from + page, 2), b"no");
        let new = one.lend(in_one, from + page, 2).unwrap();
        assert_eq!(one.bytes(&new).unwrap(), b"no");
        one.give_back(new);
        assert_eq!(protector.counters().lent_bytes, 0);
    }
}

#[test]
fn what_is_away_is_copied_and_old_loans_have_the_old_bytes() {
    for protector in protectors() {
        let arena = protector.arena(1).unwrap();
        let (mut ledger, id) = books(&arena, 1);
        let (mut other, in_other) = books(&arena, 2);
        let mut buffer = arena.buffer(100).unwrap();
        let loan = ledger.lend(id, 0, 100).unwrap();
        let _polls = PollingThread::enter();
        buffer.bytes_mut(0..1).unwrap().fill(b'n');
        assert_eq!(now(&ledger, id, 0, 2), b"n\0");
        assert_eq!(ledger.bytes(&loan).unwrap(), [0; 100]);
        // Of the ledger that has it, a retransmission may lend it once more.
        let again = ledger.lend_again(&loan, 0, 1).unwrap();
        assert_eq!(ledger.bytes(&again).unwrap(), [0]);
        let busy = Some(LendError::Refused(Refused::Busy));
        assert_eq!(other.lend(in_other, 0, 1).err(), busy);
        ledger.give_back(loan);
        assert_eq!(other.lend(in_other, 0, 1).err(), busy);
        ledger.give_back(again);
        let new = other.lend(in_other, 0, 1).unwrap();
        assert_eq!(other.bytes(&new).unwrap(), b"n");
        other.give_back(new);
    }
}

#[test]
fn more_than_the_limit_is_not_lent() {
    for protector in protectors() {
        assert_eq!(protector.limit(), u64::MAX);
        let arena = protector.arena(64 << 10).unwrap();
        let page = arena.page();
        let (mut ledger, id) = books(&arena, 1);
        let buffer = protector.arena(1).unwrap().buffer(1).unwrap();
        protector.set_limit(3 * page as u64);
        let elsewhere = buffer.lend(0..1).unwrap();
        let loan = ledger.lend(id, 0, 2 * page).unwrap();
        let refused = Some(LendError::Refused(Refused::OverLimit));
        assert_eq!(ledger.lend(id, 2 * page, 1).err(), refused);
        assert_eq!(ledger.lend(id, page, page + 1).err(), refused);
        // The same pages once more cost nothing.
        let again = ledger.lend(id, 5, 2 * page - 5).unwrap();
        let other = arena.buffer(1).unwrap();
        assert_eq!(other.lend(0..1).err(), None);
        drop(elsewhere);
        let more = ledger.lend(id, 2 * page, 1).unwrap();
        protector.set_limit(0);
        assert_eq!(ledger.lend(id, 3 * page, 1).err(), refused);
        for loan in [loan, again, more] {
            ledger.give_back(loan);
        }
        assert_eq!(protector.counters().lent_bytes, 0);
        protector.set_limit(u64::MAX);
        let all = ledger.lend(id, 0, arena.len()).unwrap();
        ledger.give_back(all);
    }
}

#[test]
fn huge_pages_are_counted_alike_in_both_books() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let protector = Protector::open(Choice::Best).unwrap();
    let arena = protector.huge_arena(8 << 20).unwrap();
    let (mut ledger, id) = books(&arena, seed);
    let mut loans: Vec<Loan> = Vec::new();
    for _ in 0..300 {
        if random.bool() {
            let start = random.usize(..arena.len());
            let len = random.usize(1..=arena.len() - start);
            loans.push(ledger.lend(id, start, len).unwrap());
        } else if !loans.is_empty() {
            let mut loan = loans.swap_remove(random.usize(..loans.len()));
            let half = loan.len() / 2;
            ledger.trim_front(&mut loan, half);
            ledger.give_back(loan);
        }
        let touched = |page: usize| {
            let page = page * arena.page()..(page + 1) * arena.page();
            let touches = |loan: &Loan| {
                let range = loan.range();
                range.start < page.end && page.start < range.end
            };
            loans.iter().any(touches)
        };
        let pages = (0..arena.len() / arena.page()).filter(|page| touched(*page));
        let lent = (pages.count() * arena.page()) as u64;
        assert_eq!(protector.counters().lent_bytes, lent, "seed {seed}");
    }
    for loan in loans {
        ledger.give_back(loan);
    }
    assert_eq!(protector.counters().lent_bytes, 0);
}

#[test]
fn a_nic_sends_what_was_lent_while_somebody_scribbles() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    for protector in protectors() {
        send(&protector, seed);
    }
}

/// A 1000-byte frame behind a header, again and again, from a buffer that two threads write all the
/// time: this one, which polls the NIC, and another.
fn send(protector: &Protector, seed: u64) {
    const HEADER: usize = 14;
    let mut random = fastrand::Rng::with_seed(seed);
    let host = Host::new(HostConfig {
        seed,
        ..HostConfig::default()
    });
    let (ours, mut theirs) = pagewire_models::wire::pair();
    let config = ModelConfig {
        seed,
        ..ModelConfig::default()
    };
    let attached = host.attach(E1000e82574::new(config, Box::new(ours)));
    let mut nic = E1000e::open(attached.platform, &Config::default()).unwrap();
    let (queue, mut receives) = nic.take_queues(0).unwrap();
    let layout = PoolLayout {
        small_len: 64,
        small_count: 8,
        large_len: 2048,
        large_count: 2,
        page: Granule::from_bytes(rustix::param::page_size()).unwrap(),
    };
    let mut port = TxPort::new(&mut nic, queue, &layout).unwrap();
    let arena = protector.arena(64 << 10).unwrap();
    let region = host.register(arena.clone()).unwrap();
    let id = port.ledger_mut().register(region).unwrap();
    let buffer = arena.buffer(8192).unwrap();
    let place = Place(buffer.as_ptr().unwrap());

    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, memory, mut scribbles) = (Arc::clone(&stop), arena.clone(), random.fork());
    let writer = Writer::doing(move || {
        let (_memory, place) = (memory, place);
        while !stopped.load(Ordering::Relaxed) {
            // SAFETY: the arena is there, and no slice of this buffer is in use.
            unsafe {
                let at = place.at(scribbles.usize(..8192));
                at.0.write_volatile(scribbles.u8(..));
            };
        }
    });
    let _polls = PollingThread::enter();
    let mut sent = 0;
    while sent < 200 {
        let start = random.usize(..7192);
        let loan = port.ledger_mut().lend(id, start, 1000).unwrap();
        let wanted = port.ledger().bytes(&loan).unwrap().to_vec();
        let mut header = port.buffer(HEADER).unwrap();
        port.bytes_mut(&mut header)[..HEADER].fill(0xff);
        let mut frame = port.frame(header, HEADER);
        frame.attach(&loan, start, 1000);
        let frame = frame.post(Offload::default()).unwrap();
        // Posted, and not read yet; so that it surely is, there was no doorbell.
        for _ in 0..3 {
            let at = place.at(random.usize(start..start + 1000));
            // SAFETY: as above.
            unsafe { at.0.write_volatile(random.u8(..)) };
        }
        port.doorbell();
        let mut got = Vec::new();
        assert!(eventually(|| {
            attached.handle.step();
            host.advance(Duration::from_micros(50));
            port.reclaim(&mut |_| {}).unwrap();
            if got.is_empty() {
                theirs.receive(&mut got, host.now());
            }
            !port.in_flight(frame) && !got.is_empty()
        }));
        assert!(got[HEADER..] == wanted, "seed {seed}");
        assert!(port.ledger().bytes(&loan).unwrap() == wanted, "seed {seed}");
        port.ledger_mut().give_back(loan);
        sent += 1;
    }
    stop.store(true, Ordering::Relaxed);
    writer.join();
    let counters = protector.counters();
    println!("{}: {counters:?}", protector.way());
    assert!(counters.departures > 0);
    assert_eq!(counters.departures, counters.returns);
    assert_eq!((counters.lent_bytes, counters.away_bytes), (0, 0));
    let pair = PortPair {
        tx: &mut port,
        rx: &mut receives,
    };
    let down = pagewire_hal::shut_down(&mut nic, &mut [pair], || {
        attached.handle.step();
        host.advance(Duration::from_micros(10));
        Some(host.now())
    });
    down.unwrap();
}
