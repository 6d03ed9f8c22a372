//! MSI-X: what is mapped when, fewer vectors than wanted, none at all.

use core::time::Duration;

use pagewire_hal::{Causes, Instant, Nic, NicError, Phase, QueuePair};

use super::Bench;
use crate::Config;
use crate::fake::Fake;

fn vectors(bench: &Bench) -> [u16; 3] {
    let device = bench.fake.device();
    let [receive, transmit] = [device.queues[0].vector, device.queues[1].vector];
    [receive, transmit, device.config_vector]
}

fn restart(bench: &mut Bench) {
    bench.nic.begin_reset(Instant::ZERO);
    let now = Instant::ZERO + Duration::from_millis(1);
    assert_eq!(bench.nic.poll(now), Ok(Phase::Quiet));
    assert_eq!(vectors(bench), [0xFFFF; 3]);
    let (tx, rx) = (&mut bench.tx, &mut bench.rx);
    let restarted = bench
        .nic
        .restart(&mut [QueuePair { tx, rx }], &mut |_, _| {});
    assert_eq!(restarted, Ok(()));
}

/// A device for which the platform grants `granted` vectors, and which has `resources` itself.
fn bench(granted: u16, resources: u16) -> Bench {
    let fake = Fake::new();
    fake.device().vectors = granted;
    fake.device().resources = resources;
    Bench::of(fake, &Config::default())
}

#[test]
fn vectors_are_mapped_before_the_queues_are_enabled_and_turned_on_later() {
    // That they are mapped before, the fake device asserts.
    let mut bench = bench(64, 64);
    assert_eq!(vectors(&bench), [0, 1, 2]);
    assert_eq!(bench.fake.device().enabled_vectors, 0, "off at first");
    bench.fake.device().fired = 0b111;
    assert_eq!(bench.nic.take_interrupts(), Causes::empty());
    assert_eq!(bench.nic.enable_interrupts(), Ok(3));
    assert_eq!(bench.fake.device().enabled_vectors, 3);
    bench.fake.device().fired = 0b101;
    assert_eq!(bench.nic.take_interrupts(), Causes::RECEIVE | Causes::LINK);
    assert_eq!(bench.nic.take_interrupts(), Causes::empty());
}

#[test]
fn interrupts_that_are_enabled_twice_lose_no_message() {
    let mut bench = bench(64, 64);
    assert_eq!(bench.nic.enable_interrupts(), Ok(3));
    bench.fake.device().fired = 0b010;
    assert_eq!(bench.nic.enable_interrupts(), Ok(3));
    assert_eq!(bench.nic.take_interrupts(), Causes::TRANSMIT);
}

#[test]
fn interrupts_survive_a_reset() {
    let mut bench = bench(64, 64);
    assert_eq!(bench.nic.enable_interrupts(), Ok(3));
    restart(&mut bench);
    assert_eq!(vectors(&bench), [0, 1, 2]);
    assert_eq!(bench.fake.device().enabled_vectors, 3);
}

#[test]
fn what_there_is_of_vectors_is_shared() {
    let all = Causes::RECEIVE | Causes::TRANSMIT | Causes::LINK;
    let traffic = Causes::RECEIVE | Causes::TRANSMIT;
    for (granted, resources, count, expected, first) in [
        (2, 64, 2, [0, 0, 1], traffic),
        (1, 64, 1, [0, 0, 0], all),
        // The device has fewer than the platform.
        (3, 2, 3, [0, 0, 1], traffic),
        (64, 1, 3, [0, 0, 0], all),
    ] {
        let mut bench = bench(granted, resources);
        assert_eq!(vectors(&bench), expected);
        assert_eq!(bench.nic.enable_interrupts(), Ok(count));
        bench.fake.device().fired = 0b001;
        assert_eq!(bench.nic.take_interrupts(), first);
    }
}

#[test]
fn without_vectors_everything_works_by_polling() {
    for (granted, resources) in [(0, 64), (64, 0)] {
        let mut bench = bench(granted, resources);
        let refused = bench.nic.enable_interrupts();
        assert!(matches!(refused, Err(NicError::NotOffered { .. })));
        assert_eq!(vectors(&bench), [0xFFFF; 3]);
        assert_eq!(bench.nic.take_interrupts(), Causes::empty());
        assert_eq!(bench.fake.device().enabled_vectors, 0);
        assert_eq!(bench.post(1, 7), Ok(()));
    }
    // No capability, at the end of the list before PCI Express.
    let fake = Fake::new();
    fake.device().config[0xD0 / 4] = 0x01 | 0xE0 << 8;
    let mut bench = Bench::of(fake, &Config::default());
    let refused = bench.nic.enable_interrupts();
    assert_eq!(refused, Err(NicError::NotOffered { what: "MSI-X" }));
}

#[test]
fn vectors_are_never_outside_the_table() {
    // The fake device asserts it; the platform grants more.
    let fake = Fake::new();
    fake.device().config[0xD0 / 4] &= 0xFFFF;
    let mut bench = Bench::of(fake, &Config::default());
    assert_eq!(vectors(&bench), [0; 3]);
    assert_eq!(bench.nic.enable_interrupts(), Ok(1));
}

#[test]
fn vectors_that_have_become_fewer_are_planned_anew_at_the_next_start() {
    let mut bench = bench(3, 64);
    bench.fake.device().vectors = 1;
    let refused = bench.nic.enable_interrupts();
    assert!(matches!(refused, Err(NicError::NotOffered { .. })));
    assert_eq!(bench.fake.device().enabled_vectors, 0);
    // Until then the queues have vectors that are not set up.
    let refused = bench.nic.enable_interrupts();
    assert!(matches!(refused, Err(NicError::NotOffered { .. })));
    assert_eq!(bench.fake.device().enabled_vectors, 0);
    restart(&mut bench);
    assert_eq!(vectors(&bench), [0; 3]);
    assert_eq!(bench.nic.enable_interrupts(), Ok(1));
}
