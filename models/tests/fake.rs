//! The queue without a device: gathering, checksums, completions, violations.

#![allow(clippy::unwrap_used, reason = "helpers of tests are test code")]

use pagewire_hal::{
    Capabilities, ChecksumOffload, DeviceAddress, DmaMemory, Fragment, FrameError, Granule,
    Offload, PoolLayout, PostError, QueueError, Region, Token, TxFrame, TxPort, TxQueue,
};
use pagewire_models::fake::{FakeHandle, FakeTx};
use pagewire_models::host::HostMemory;
use pagewire_models::{Host, HostConfig};

fn host(seed: u64) -> Host {
    let granule = Granule::from_bytes(4096).unwrap();
    Host::new(HostConfig { seed, granule })
}

fn capabilities() -> Capabilities {
    let mut capabilities = Capabilities::minimal();
    capabilities.dma_address_bits = 64;
    capabilities.max_fragments = 8;
    capabilities.max_frame_len = 9000;
    capabilities.max_fragment_len = 9000;
    capabilities.tx_checksum = ChecksumOffload::all();
    capabilities
}

fn fragment(address: DeviceAddress, len: usize) -> Fragment {
    Fragment {
        address,
        len: len as u32,
    }
}

fn fill(memory: &HostMemory, bytes: &[u8]) {
    assert!(bytes.len() <= memory.len());
    // SAFETY: the memory is the test's own and as long as was just checked.
    unsafe {
        memory
            .pointer()
            .copy_from_nonoverlapping(std::ptr::NonNull::from(bytes).cast(), bytes.len());
    }
}

fn post(
    queue: &mut FakeTx,
    fragments: &[Fragment],
    offload: Offload,
    token: u32,
) -> Result<(), PostError> {
    let frame = TxFrame {
        fragments,
        offload,
        first: None,
    };
    // SAFETY: the queue only reads through the IOMMU, which refuses what is not mapped.
    unsafe { queue.post(&frame, Token(token)) }
}

fn reclaim(queue: &mut FakeTx) -> Vec<u32> {
    let mut tokens = Vec::new();
    let count = queue.reclaim(&mut |token| tokens.push(token.0)).unwrap();
    assert_eq!(count, tokens.len());
    tokens
}

/// A queue, and memory that holds a frame of 60 bytes.
fn one_frame(ring_len: usize) -> (Host, FakeTx, FakeHandle, HostMemory) {
    let host = host(1);
    let (queue, handle) = FakeTx::new(&host, capabilities(), ring_len);
    let memory = host.allocate(60, 16).unwrap();
    fill(&memory, &[0x11; 60]);
    (host, queue, handle, memory)
}

#[test]
fn a_frame_is_gathered_from_all_its_fragments() {
    for seed in 0..20 {
        let host = host(seed);
        let (mut queue, handle) = FakeTx::new(&host, capabilities(), 64);
        let header = host.allocate(54, 16).unwrap();
        fill(&header, &[0xee; 54]);
        let payload: Vec<u8> = (0..8000u32).map(|n| (n / 31) as u8).collect();
        let region = host.register(payload.clone()).unwrap();
        let mut fragments = vec![fragment(header.address(), 54)];
        let runs = region.translation().runs(10, 7900);
        fragments.extend(runs.map(|run| fragment(run.address, run.len)));
        post(&mut queue, &fragments, Offload::NONE, 5).unwrap();
        assert!(handle.take_frames().is_empty(), "seed {seed}: sent early");
        queue.doorbell();
        let frames = handle.take_frames();
        assert_eq!(frames.len(), 1, "seed {seed}");
        assert_eq!(frames[0].bytes[..54], [0xee; 54], "seed {seed}");
        assert!(frames[0].bytes[54..] == payload[10..7910], "seed {seed}");
        assert_eq!(frames[0].fragments, fragments.len(), "seed {seed}");
        assert_eq!(handle.counters().region_bytes, 7900, "seed {seed}");
        assert_eq!(handle.counters().memory_bytes, 54, "seed {seed}");
        assert_eq!(handle.complete_all(), 1, "seed {seed}");
        assert_eq!(handle.counters().region_bytes, 7900, "seed {seed}");
        assert_eq!(reclaim(&mut queue), [5], "seed {seed}");
        assert_eq!(handle.violations(), Vec::<String>::new(), "seed {seed}");
    }
}

/// The folded sum of big-endian words: written apart from the one that is tested.
fn folded(bytes: &[u8]) -> u32 {
    let mut total = 0u32;
    for (index, byte) in bytes.iter().enumerate() {
        total += u32::from(*byte) << if index % 2 == 0 { 8 } else { 0 };
        total = (total & 0xffff) + (total >> 16);
    }
    total
}

#[test]
fn checksums_are_inserted_so_that_a_receiver_finds_them_correct() {
    let transports = [
        (ChecksumOffload::TCP_IPV4, 16),
        (ChecksumOffload::UDP_IPV4, 6),
        (ChecksumOffload::TCP_IPV6, 16),
        (ChecksumOffload::UDP_IPV6, 6),
        (ChecksumOffload::GENERIC, 2),
    ];
    for seed in 0..50u64 {
        for (transport, offset) in transports {
            let mut rng = fastrand::Rng::with_seed(seed);
            let ipv6 = matches!(
                transport,
                ChecksumOffload::TCP_IPV6 | ChecksumOffload::UDP_IPV6
            );
            let l3_len = if ipv6 { 40 } else { 20 };
            let l4 = 14 + l3_len;
            let len = rng.usize(80..300);
            let mut frame: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(len).collect();
            let pseudo = rng.u16(..);
            if !ipv6 {
                frame[24..26].fill(0);
            }
            frame[l4 + offset..][..2].copy_from_slice(&pseudo.to_be_bytes());
            let host = host(seed);
            let (mut queue, handle) = FakeTx::new(&host, capabilities(), 64);
            let memory = host.allocate(len, 16).unwrap();
            fill(&memory, &frame);
            let mut offload = Offload::NONE;
            offload.checksum = transport;
            if !ipv6 {
                offload.checksum |= ChecksumOffload::IPV4_HEADER;
            }
            offload.l2_len = 14;
            offload.l3_len = l3_len as u16;
            offload.checksum_offset = offset as u8;
            post(&mut queue, &[fragment(memory.address(), len)], offload, 0).unwrap();
            queue.doorbell();
            let sent = handle.take_frames().remove(0).bytes;
            if !ipv6 {
                assert_eq!(folded(&sent[14..34]), 0xffff, "seed {seed}, {transport:?}");
            }
            let whole = folded(&sent[l4..]) + u32::from(pseudo);
            let whole = (whole & 0xffff) + (whole >> 16);
            assert_eq!(whole, 0xffff, "seed {seed}, {transport:?}");
            sent.iter()
                .zip(&frame)
                .enumerate()
                .for_each(|(at, (a, b))| {
                    let field = l4 + offset;
                    let header = !ipv6 && (at == 24 || at == 25);
                    let filled_in = header || at == field || at == field + 1;
                    assert!(filled_in || a == b, "seed {seed}, {transport:?}: byte {at}");
                });
            assert!(handle.violations().is_empty(), "seed {seed}");
        }
    }
}

#[test]
fn a_udp_checksum_of_zero_is_sent_as_all_ones() {
    let (_host, mut queue, handle, memory) = one_frame(8);
    let mut frame = [0u8; 60];
    // The bytes from 34 on sum to all ones, so the complement is zero.
    frame[34..36].copy_from_slice(&[0xff, 0xff]);
    fill(&memory, &frame);
    let mut offload = Offload::NONE;
    offload.checksum = ChecksumOffload::UDP_IPV4;
    offload.l2_len = 14;
    offload.l3_len = 20;
    post(&mut queue, &[fragment(memory.address(), 60)], offload, 0).unwrap();
    queue.doorbell();
    assert_eq!(handle.take_frames()[0].bytes[40..42], [0xff, 0xff]);
}

#[test]
fn a_header_checksum_field_that_is_not_zero_is_a_violation() {
    let (_host, mut queue, handle, memory) = one_frame(8);
    let mut offload = Offload::NONE;
    offload.checksum = ChecksumOffload::IPV4_HEADER;
    offload.l2_len = 14;
    offload.l3_len = 20;
    post(&mut queue, &[fragment(memory.address(), 60)], offload, 0).unwrap();
    queue.doorbell();
    assert_eq!(handle.violations().len(), 1);
}

#[test]
fn what_the_capabilities_do_not_allow_is_refused() {
    let (host, _, _, memory) = one_frame(8);
    let mut plain = capabilities();
    plain.tx_checksum = ChecksumOffload::empty();
    plain.head_room = 12;
    let (mut queue, _handle) = FakeTx::new(&host, plain, 3);
    assert_eq!(queue.capabilities().max_fragments, 3);
    let piece = fragment(memory.address(), 20);
    let refused = |error| Err(PostError::Refused(error));
    let none = Offload::NONE;
    assert_eq!(
        post(&mut queue, &[], none, 0),
        refused(FrameError::NoFragment)
    );
    assert_eq!(
        post(&mut queue, &[piece; 4], none, 0),
        refused(FrameError::TooManyFragments { count: 4, max: 3 })
    );
    assert_eq!(
        post(&mut queue, &[piece], none, 0),
        refused(FrameError::NoHeadRoom)
    );
    let mut offload = none;
    offload.checksum = ChecksumOffload::TCP_IPV4;
    assert_eq!(
        post(&mut queue, &[piece], offload, 0),
        refused(FrameError::OffloadNotOffered)
    );
    assert_eq!(queue.outstanding(), 0);
    assert!(queue.has_room(3));
}

#[test]
fn head_room_is_written_before_the_frame() {
    let host = host(1);
    let mut with_head_room = capabilities();
    with_head_room.head_room = 12;
    let (mut queue, handle) = FakeTx::new(&host, with_head_room, 8);
    let memory = host.allocate(100, 16).unwrap();
    fill(&memory, &[1; 100]);
    // SAFETY: byte 20 of 100.
    let first = unsafe { memory.pointer().add(20) };
    let frame = TxFrame {
        fragments: &[fragment(memory.address().offset(20), 60)],
        offload: Offload::NONE,
        first: Some(first),
    };
    // SAFETY: the memory is the test's own and stays until the end.
    unsafe { queue.post(&frame, Token(0)) }.unwrap();
    queue.doorbell();
    assert_eq!(handle.take_frames()[0].bytes, [1; 60]);
    // SAFETY: the memory is alive, and the queue is not used meanwhile.
    let bytes = unsafe { std::slice::from_raw_parts(memory.pointer().as_ptr(), 100) };
    assert_eq!(bytes[..8], [1; 8]);
    assert_eq!(bytes[8..20], [0xa5; 12]);
}

#[test]
fn the_ring_is_full_until_tokens_are_handed_back() {
    let (_host, mut queue, handle, memory) = one_frame(5);
    let frame = [
        fragment(memory.address(), 30),
        fragment(memory.address(), 30),
    ];
    assert_eq!(post(&mut queue, &frame, Offload::NONE, 1), Ok(()));
    assert_eq!(post(&mut queue, &frame, Offload::NONE, 2), Ok(()));
    assert!(queue.has_room(1));
    assert!(!queue.has_room(2));
    assert_eq!(
        post(&mut queue, &frame, Offload::NONE, 3),
        Err(PostError::Full)
    );
    assert_eq!(handle.complete_all(), 0, "completed before the doorbell");
    queue.doorbell();
    queue.doorbell();
    assert_eq!(handle.doorbells(), 1);
    assert_eq!(handle.complete(1), 1);
    assert!(!queue.has_room(2), "room before the reclaim");
    assert_eq!(reclaim(&mut queue), [1]);
    assert_eq!(queue.outstanding(), 1);
    assert_eq!(post(&mut queue, &frame, Offload::NONE, 3), Ok(()));
    queue.doorbell();
    assert_eq!(handle.complete_all(), 2);
    assert_eq!(reclaim(&mut queue), [2, 3]);
    assert_eq!(reclaim(&mut queue), []);
}

#[test]
fn completions_can_be_shuffled_and_are_never_twice() {
    let mut orders = std::collections::BTreeSet::new();
    for seed in 0..20 {
        let (_host, mut queue, handle, memory) = one_frame(100);
        for token in 0..50 {
            post(
                &mut queue,
                &[fragment(memory.address(), 60)],
                Offload::NONE,
                token,
            )
            .unwrap();
        }
        queue.doorbell();
        assert_eq!(handle.complete_some_shuffled(seed, 20), 20);
        let mut tokens = reclaim(&mut queue);
        assert_eq!(tokens.len(), 20, "seed {seed}");
        assert_eq!(handle.complete_shuffled(seed), 30, "seed {seed}");
        tokens.extend(reclaim(&mut queue));
        orders.insert(tokens.clone());
        tokens.sort_unstable();
        assert_eq!(tokens, (0..50).collect::<Vec<_>>(), "seed {seed}");
    }
    assert_eq!(orders.len(), 20, "some seeds gave the same order");
}

#[test]
fn a_reset_hands_everything_back_once() {
    let (_host, mut queue, handle, memory) = one_frame(100);
    let frame = [fragment(memory.address(), 60)];
    for token in 0..4 {
        post(&mut queue, &frame, Offload::NONE, token).unwrap();
        if token == 2 {
            queue.doorbell();
            handle.complete(1);
        }
    }
    handle.set_down(true);
    assert_eq!(
        post(&mut queue, &frame, Offload::NONE, 9),
        Err(PostError::Down)
    );
    assert_eq!(
        queue.reclaim(&mut |_| panic!("down")),
        Err(QueueError::Down)
    );
    handle.reset_all();
    assert_eq!(reclaim(&mut queue), [0, 1, 2, 3]);
    assert_eq!(queue.outstanding(), 0);
    assert_eq!(handle.take_frames().len(), 3, "one frame was never rung");
    queue.doorbell();
    assert!(handle.take_frames().is_empty());
}

#[test]
fn an_address_that_is_not_mapped_is_a_violation() {
    let (_host, mut queue, handle, memory) = one_frame(8);
    let stray = [fragment(memory.address(), 61)];
    post(&mut queue, &stray, Offload::NONE, 1).unwrap();
    queue.doorbell();
    assert!(handle.take_frames().is_empty());
    assert_eq!(handle.violations().len(), 1);
    assert_eq!(handle.complete_all(), 1);
    assert_eq!(reclaim(&mut queue), [1]);
}

#[test]
fn memory_changed_or_freed_before_the_completion_is_a_violation() {
    let (host, mut queue, handle, memory) = one_frame(8);
    let freed = host.allocate(60, 16).unwrap();
    post(
        &mut queue,
        &[fragment(memory.address(), 60)],
        Offload::NONE,
        1,
    )
    .unwrap();
    post(
        &mut queue,
        &[fragment(freed.address(), 60)],
        Offload::NONE,
        2,
    )
    .unwrap();
    queue.doorbell();
    fill(&memory, &[0x22]);
    drop(freed);
    assert_eq!(handle.complete_all(), 2);
    let said = handle.violations();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].contains("changed"), "{said:?}");
    assert!(said[1].contains("DMA read"), "{said:?}");
}

#[test]
fn a_port_shares_a_region_until_the_device_and_the_sender_are_done_with_it() {
    for seed in 0..20u64 {
        let host = host(seed);
        let (queue, handle) = FakeTx::new(&host, capabilities(), 64);
        let layout = PoolLayout {
            small_len: 64,
            small_count: 32,
            large_len: 2048,
            large_count: 4,
            page: host.granule(),
        };
        let small = host.allocate(32 * 64, 64).unwrap();
        let large = host.allocate(4 * 2048, 64).unwrap();
        let mut port = TxPort::with_memory(queue, &layout, small, large).unwrap();
        let payload: Vec<u8> = (0..14_480u32).map(|n| (n / 7) as u8).collect();
        let region = host.register(payload.clone()).unwrap();
        let id = port.ledger_mut().register(region).unwrap();
        let loan = port.ledger_mut().lend(id, 0, payload.len()).unwrap();
        for n in 0..10 {
            let mut buffer = port.buffer(54).unwrap();
            port.bytes_mut(&mut buffer)[..54].fill(n);
            let mut frame = port.frame(buffer, 54);
            frame.attach(&loan, usize::from(n) * 1448, 1448);
            frame.post(Offload::NONE).unwrap();
        }
        port.doorbell();
        for (n, frame) in (0u8..).zip(handle.take_frames()) {
            assert_eq!(frame.bytes[..54], [n; 54], "seed {seed}, frame {n}");
            let expected = &payload[usize::from(n) * 1448..][..1448];
            assert_eq!(&frame.bytes[54..], expected, "seed {seed}, frame {n}");
        }
        port.ledger_mut().release(id).unwrap();
        port.ledger_mut().give_back(loan);
        for done in 0..10 {
            assert!(
                port.ledger_mut().take_released().is_none(),
                "seed {seed}: {done} done"
            );
            assert_eq!(handle.complete_some_shuffled(seed + done, 1), 1);
            assert_eq!(port.reclaim(&mut |_| {}).unwrap(), 1, "seed {seed}");
        }
        assert!(port.ledger_mut().take_released().is_some(), "seed {seed}");
        assert_eq!(handle.counters().region_bytes, 14_480, "seed {seed}");
        assert_eq!(handle.violations(), Vec::<String>::new(), "seed {seed}");
    }
}
