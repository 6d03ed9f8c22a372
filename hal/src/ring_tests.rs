//! Ring arithmetic against counters that never wrap, and rings in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::DomainId;
use crate::test_support::{HeapMemory, World, config, hostile_log, seed};

#[test]
fn counters_need_a_power_of_two_larger_than_the_gap() {
    for (len, gap) in [(0, 0), (3, 0), (4, 4), (8, u32::MAX), (u32::MAX, 1), (1, 1)] {
        assert_eq!(RingCounters::new(len, gap), None, "{len} {gap}");
    }
    let one = RingCounters::new(1, 0).unwrap();
    assert_eq!(
        (one.free(), one.used(), one.tail(), one.head()),
        (1, 0, 0, 0)
    );
    let largest = RingCounters::new(1 << 31, 0).unwrap();
    assert_eq!(largest.free(), 1 << 31);
}

#[test]
fn a_full_ring_without_a_gap_is_not_empty() {
    let mut ring = RingCounters::new(4, 0).unwrap();
    ring.produce(4);
    assert_eq!((ring.tail(), ring.head()), (0, 0));
    assert_eq!((ring.free(), ring.used()), (0, 4));
    ring.produce(1);
    assert_eq!(ring.used(), 4);
    ring.consume(9);
    assert_eq!(ring.used(), 0);
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn counters_agree_with_counters_of_64_bits_across_the_wrap(
        log2 in 0u32..=31, gap in any::<u32>(), before in 0u64..2000,
        steps in prop::collection::vec((any::<bool>(), prop_oneof![0u32..9, any::<u32>()]), 0..80),
    ) {
        let len = 1u32 << log2;
        let gap = gap % len;
        let usable = u64::from(len - gap);
        let mut ring = RingCounters::new(len, gap).unwrap();
        let start = (1u64 << 32) - before;
        let (mut produced, mut consumed) = (start, start);
        (ring.produced, ring.consumed) = (start as u32, start as u32);
        for (step, (produce, count)) in steps.into_iter().enumerate() {
            if produce {
                produced += u64::from(count).min(usable - (produced - consumed));
                ring.produce(count);
            } else {
                consumed += u64::from(count).min(produced - consumed);
                ring.consume(count);
            }
            let index = |n: u64| (n % u64::from(len)) as u32;
            let found = (ring.used(), ring.free(), ring.tail(), ring.head());
            let used = produced - consumed;
            let expected = (used as u32, (usable - used) as u32, index(produced), index(consumed));
            prop_assert_eq!(found, expected, "seed {}, step {}", seed(), step);
            prop_assert_eq!(ring.usable(), usable as u32, "seed {}", seed());
        }
        ring.reset();
        let found = (ring.used(), ring.free(), ring.tail());
        prop_assert_eq!(found, (0, usable as u32, 0), "seed {}", seed());
    }

    #[test]
    fn index_steps_go_around_the_end(
        log2 in 0u32..=31, from in any::<u32>(), to in any::<u32>(),
    ) {
        let ring = RingCounters::new(1 << log2, 0).unwrap();
        let len = 1u64 << log2;
        let (a, b) = (u64::from(from) % len, u64::from(to) % len);
        let distance = ring.distance(from, to);
        prop_assert_eq!(u64::from(distance), (b + len - a) % len, "seed {}", seed());
        prop_assert_eq!(u64::from(ring.next(from)), (a + 1) % len, "seed {}", seed());
    }
}

type Descriptor = [u64; 2];

#[test]
fn no_index_leaves_the_ring() {
    let world = World::new();
    let mut ring = DescriptorRing::<_, Descriptor>::new(world.memory(64, 64), 4).unwrap();
    assert_eq!((ring.len(), ring.bytes()), (4, 64));
    for index in [0, 5, u32::MAX - 1, u32::MAX] {
        ring.write(index, [u64::from(index), 1]);
    }
    let all: Vec<_> = (4..8).map(|i| ring.read(i)[0]).collect();
    assert_eq!(all, [0, 5, u64::from(u32::MAX - 1), u64::from(u32::MAX)]);
    ring.clear();
    assert!((0..4).all(|i| ring.read(i) == [0, 0]));
}

#[test]
fn a_ring_needs_a_power_of_two_of_aligned_descriptors_in_its_memory() {
    let world = World::new();
    let ring = |len, count| DescriptorRing::<_, Descriptor>::new(world.memory(len, 64), count);
    assert!(ring(63, 4).is_none());
    assert!(ring(64, 3).is_none());
    assert!(ring(64, 0).is_none());
    assert!(ring(64, 1 << 31).is_none());
    assert_eq!(world.freed(), 4, "the device was not told of them");
    let made = Shifted {
        memory: world.memory(128, 64),
        len: 64,
        by: 4,
    };
    assert!(DescriptorRing::<_, Descriptor>::new(made, 4).is_none());
}

#[test]
fn a_ring_that_no_length_register_holds_is_refused() {
    let memory = || Shifted {
        memory: World::new().memory(64, 64),
        len: usize::MAX / 2,
        by: 0,
    };
    // Not one byte of it is touched: the memory is not as long as it says.
    assert!(DescriptorRing::<_, Descriptor>::new(memory(), 1 << 28).is_none());
    let largest = DescriptorRing::<_, Descriptor>::new(memory(), 1 << 27).unwrap();
    assert_eq!(largest.bytes(), 1 << 31);
}

#[test]
fn rule_6_memory_in_custody_is_freed_only_when_the_device_is_quiet() {
    hostile_log::install();
    let world = World::new();
    drop(Custody::new(world.memory(64, 64)));
    assert_eq!(world.freed(), 0);
    let mut quiet = Custody::new(world.memory(64, 64));
    // SAFETY: there is no device.
    unsafe { quiet.set_quiet(true) };
    drop(quiet);
    assert_eq!(world.freed(), 1);
    let mut again = Custody::new(world.memory(64, 64));
    // SAFETY: there is no device.
    unsafe { again.set_quiet(true) };
    // SAFETY: it says the safe thing.
    unsafe { again.set_quiet(false) };
    drop(again);
    assert_eq!(world.freed(), 1);
}

#[test]
fn rule_6_a_log_that_panics_frees_no_memory_in_custody() {
    hostile_log::install();
    let world = World::new();
    let custody = Custody::new(world.memory(64, 64));
    hostile_log::ARMED.set(true);
    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(custody)));
    hostile_log::ARMED.set(false);
    assert!(unwound.is_err());
    assert_eq!(world.freed(), 0);
}

/// Memory that says less, or more, of itself than is true.
struct Shifted {
    memory: HeapMemory,
    len: usize,
    by: usize,
}

// SAFETY: only for tests that touch no byte of it.
unsafe impl DmaMemory for Shifted {
    fn pointer(&self) -> core::ptr::NonNull<u8> {
        // SAFETY: `by` is less than the length of the memory.
        unsafe { self.memory.pointer().add(self.by) }
    }
    fn address(&self) -> DeviceAddress {
        self.memory.address()
    }
    fn len(&self) -> usize {
        self.len
    }
    fn domain(&self) -> DomainId {
        self.memory.domain()
    }
}

#[test]
fn a_ring_may_move_to_another_thread() {
    let world = World::new();
    let seen = Arc::new(AtomicUsize::new(0));
    let mut ring = DescriptorRing::<_, Descriptor>::new(world.memory(64, 64), 4).unwrap();
    let there = seen.clone();
    let thread = std::thread::spawn(move || {
        ring.write(3, [7, 7]);
        there.store(ring.read(3)[1] as usize, Ordering::SeqCst);
    });
    thread.join().unwrap();
    assert_eq!(seen.load(Ordering::SeqCst), 7);
}
