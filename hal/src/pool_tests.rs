//! The buffers of a port: layouts that cannot be, and bytes that nobody else has.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::fake_nic::{FakeNic, FakeQueue, layout, port};
use crate::test_support::{World, config, seed};
use crate::{LendError, Offload, PortError, TxPort};

#[test]
fn a_layout_that_no_memory_can_hold_is_refused() {
    let max = usize::MAX;
    for (small_len, small_count, head_room) in [
        (max, 1, 0),
        (max - 5, 1, 12),
        (max - 62, 1, 0),
        (64, max, 0),
        (max / 2, 3, 0),
        (max / 2 + 2, 1, 0),
    ] {
        let world = World::new();
        for large in [false, true] {
            let mut layout = layout();
            if large {
                (layout.large_len, layout.large_count) = (small_len, small_count);
            } else {
                (layout.small_len, layout.small_count) = (small_len, small_count);
            }
            let queue = || {
                let mut queue = FakeQueue::new(&world, 4);
                queue.capabilities.head_room = head_room;
                queue
            };
            let made = TxPort::new(&mut FakeNic::new(&world, 1), queue(), &layout);
            assert!(made.is_err(), "{small_len} {small_count}");
            let memory = || world.memory(4096, 64);
            let made = TxPort::with_memory(queue(), &layout, memory(), memory());
            // As many buffers as fit the memory: none, unless the length itself is impossible.
            let buffer = made.ok().and_then(|mut port| {
                let len = if large { 2000 } else { 14 };
                let mut buffer = port.buffer(len)?;
                Some(port.bytes_mut(&mut buffer).len())
            });
            assert!(
                buffer.is_none_or(|len| len <= 4096),
                "{small_len} {small_count}"
            );
        }
    }
}

#[test]
fn a_layout_without_buffers_makes_a_port_without_buffers() {
    let world = World::new();
    for (len, count) in [(0, 0), (0, 5), (5, 0)] {
        let layout = PoolLayout {
            small_len: len,
            small_count: count,
            large_len: len,
            large_count: count,
            page: Granule::CONTIGUOUS,
        };
        let queue = FakeQueue::new(&world, 4);
        let mut port = TxPort::new(&mut FakeNic::new(&world, 1), queue, &layout).unwrap();
        assert!(port.buffer(0).is_none(), "{len} {count}");
        let empty = || world.memory(0, 64);
        let queue = FakeQueue::new(&world, 4);
        let port = TxPort::with_memory(queue, &layout, empty(), empty()).unwrap();
        assert_eq!(port.vacant_buffers(), (0, 0));
    }
}

#[test]
fn buffers_of_another_port_are_of_no_use() {
    let world = World::new();
    let (mut mine, _mine) = port(&world, 4);
    let (mut other, _ring) = port(&world, 4);
    let mut buffer = other.buffer(14).unwrap();
    assert!(mine.bytes_mut(&mut buffer).is_empty());
    assert!(mine.bytes_and_ledger(&mut buffer).0.is_empty());
    let posted = mine.frame(buffer, 14).post(Offload::NONE);
    assert_eq!(posted, Err(PortError::Lend(LendError::OutOfRange)));
    mine.put_buffer(other.buffer(2000).unwrap());
    assert_eq!(mine.vacant_buffers(), (8, 4));
    assert_eq!(other.vacant_buffers(), (7, 3));
}

#[test]
fn a_long_buffer_serves_where_the_short_ones_are_out() {
    let world = World::new();
    let (mut port, _ring) = port(&world, 4);
    let small: Vec<_> = (0..8).map(|_| port.buffer(128).unwrap()).collect();
    let mut large = port.buffer(1).unwrap();
    assert_eq!(port.bytes_mut(&mut large).len(), 2048);
    assert_eq!(port.vacant_buffers(), (0, 3));
    assert!(port.buffer(2049).is_none());
    small.into_iter().for_each(|buffer| port.put_buffer(buffer));
    assert_eq!(port.vacant_buffers(), (8, 3));
}

proptest! {
    #![proptest_config(config())]

    /// Each buffer and its head room is its own, and inside the memory.
    #[test]
    fn no_byte_belongs_to_two_buffers(
        head_room in 0usize..200, len in 0usize..300, memory_len in 0usize..5000,
    ) {
        let world = World::new();
        let layout = PoolLayout {
            small_len: len, small_count: 1, large_len: len, large_count: 1,
            page: Granule::CONTIGUOUS,
        };
        let memory = world.memory(memory_len, 64);
        let (start, address) = (memory.pointer(), memory.address());
        let (other, id) = (world.memory(0, 64), crate::address::unique());
        let mut pool = Pool::new(id, &layout, head_room, memory, other).unwrap();
        let mut taken = BTreeSet::new();
        while let Some(mut buffer) = pool.take(len) {
            let (run, first) = pool.run(&buffer, len).unwrap();
            prop_assert!(pool.run(&buffer, len + 1).is_none(), "seed {}", seed());
            let bytes = pool.bytes_mut(&mut buffer);
            prop_assert_eq!(bytes.len(), len, "seed {}", seed());
            prop_assert_eq!(bytes.as_ptr(), first.as_ptr().cast_const(), "seed {}", seed());
            let offset = first.addr().get() - start.addr().get();
            prop_assert_eq!(run.address, address.offset(offset as u64), "seed {}", seed());
            prop_assert!(offset >= head_room && offset + len <= memory_len, "seed {}", seed());
            for byte in offset - head_room..offset + len {
                prop_assert!(taken.insert(byte), "seed {}: byte {} twice", seed(), byte);
            }
        }
        let each = (head_room + len).next_multiple_of(64);
        let expected = if len == 0 { 0 } else { memory_len / each * (head_room + len) };
        prop_assert_eq!(taken.len(), expected, "seed {}", seed());
    }
}
