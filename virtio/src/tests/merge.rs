//! Frames that lie in several buffers (MRG_RXBUF), and frames joined from segments (GUEST_TSO).

use std::vec;
use std::vec::Vec;

use pagewire_hal::{Nic, QueueError, RxQueue, Verdict};

use super::Bench;
use crate::fake::{Fake, MAC, Play, RX};
use crate::fake_ring::PlayRings;
use crate::{Config, Features};

const MERGE: Features = Features::MRG_RXBUF;
const JOIN: Features = MERGE
    .union(Features::GUEST_CSUM)
    .union(Features::GUEST_TSO4)
    .union(Features::GUEST_TSO6);
/// NEEDS_CSUM and TCP over IPv4; the sum begins at 34 and belongs 16 bytes on.
const JOINED: [u8; 12] = [1, 1, 54, 0, 0xB4, 5, 34, 0, 16, 0, 0, 0];

fn bench(features: Features, size: u16, mtu: u16) -> Bench {
    let fake = Fake::new();
    fake.offer(features | Features::VERSION_1 | Features::MAC | Features::MTU);
    fake.device().net[10..].copy_from_slice(&mtu.to_le_bytes());
    let config = Config {
        rx_descriptors: size,
        mtu,
        features: Features::all(),
        ..Config::default()
    };
    Bench::of(fake, &config)
}

fn frame(len: usize) -> Vec<u8> {
    let mut frame: Vec<_> = (0..len).map(|at| (at * 31 + len) as u8).collect();
    frame[..6].copy_from_slice(&MAC);
    frame
}

fn deliver(bench: &Bench, header: &[u8; 12], frame: &[u8]) -> bool {
    bench
        .fake
        .deliver_with(header, frame, frame.len() as u32 + 12)
}

/// Frames and what is said of their checksum.
fn receive(bench: &mut Bench) -> Vec<(Vec<u8>, Verdict)> {
    let mut frames = Vec::new();
    let count = bench.rx.receive(usize::MAX, &mut |frame| {
        let mut bytes = vec![0; frame.len()];
        frame.copy_to(&mut bytes);
        frames.push((bytes, frame.checksum().transport));
    });
    assert_eq!(count, Ok(frames.len()));
    frames
}

/// All buffers are with the device, each once.
fn check_buffers(bench: &Bench, size: usize) {
    let chains: Vec<_> = core::iter::from_fn(|| bench.fake.fetch(RX)).collect();
    let mut places: Vec<_> = chains.iter().map(|chain| chain.pieces[0].0).collect();
    places.sort_unstable();
    places.dedup();
    assert_eq!((chains.len(), places.len()), (size, size));
}

#[test]
fn frames_lie_in_as_many_buffers_as_they_take() {
    for features in [
        MERGE,
        MERGE | Features::RING_PACKED,
        MERGE | Features::IN_ORDER,
    ] {
        let mut bench = bench(features, 16, 9000);
        for round in 0..500 {
            let lens = [60, 2036, 2037, 4084, 4085, 9014, 1514];
            let len = lens[round % lens.len()];
            assert!(deliver(&bench, &[0; 12], &frame(len)), "round {round}");
            let got = receive(&mut bench);
            assert_eq!(got, [(frame(len), Verdict::Unknown)], "round {round}");
        }
        assert_eq!(bench.rx.counters().delivered, 500);
        check_buffers(&bench, 16);
    }
}

#[test]
fn in_order_buffers_of_one_frame_may_be_used_at_once() {
    for features in [MERGE, MERGE | Features::RING_PACKED] {
        let mut bench = bench(features | Features::IN_ORDER, 8, 9000);
        let sent = frame(4096 + 100);
        let mut bytes = [0u8; 12].to_vec();
        bytes[10] = 3;
        bytes.extend(&sent);
        let mut last = 0;
        for part in bytes.chunks(2048) {
            let chain = bench.fake.fetch(RX).expect("a buffer");
            for (at, byte) in (chain.pieces[0].0..).zip(part) {
                bench.fake.device().store(at, *byte);
            }
            last = chain.head;
        }
        bench.fake.complete_many(RX, u32::from(last), 112, 3);
        assert_eq!(receive(&mut bench), [(sent, Verdict::Unknown)]);
        check_buffers(&bench, 8);
    }
}

#[test]
fn a_small_ring_has_buffers_that_hold_the_longest_frame_together() {
    for (size, mtu, features) in [
        (1, 1500, MERGE),
        (1, 9000, MERGE),
        (2, 9000, MERGE | Features::RING_PACKED),
        (1, 1500, JOIN),
        (2, 1500, JOIN | Features::RING_PACKED),
        (8, 1500, JOIN),
    ] {
        let mut bench = bench(features, size, mtu);
        let joined = features.contains(JOIN);
        let len = if joined {
            65_549
        } else {
            usize::from(mtu) + 14
        };
        let header = if joined { JOINED } else { [0; 12] };
        assert!(deliver(&bench, &header, &frame(len)), "{size} {mtu}");
        assert_eq!(receive(&mut bench).len(), 1, "{size} {mtu}");
        check_buffers(&bench, usize::from(size));
    }
}

#[test]
fn joined_frames_have_their_checksum_completed_over_all_pieces() {
    let mut bench = bench(JOIN, 64, 1500);
    assert_eq!(bench.nic.capabilities().max_receive_len(), 65_549);
    for len in [60, 1515, 2035, 2036, 2037, 2038, 30_001, 65_549] {
        let sent = frame(len);
        assert!(deliver(&bench, &JOINED, &sent));
        let [(got, Verdict::Good)] = &receive(&mut bench)[..] else {
            panic!("{len} bytes: no good frame");
        };
        // With the seed in the place of the checksum, and both, all sums to ones.
        let mut sum = u64::from(u16::from_be_bytes([sent[50], sent[51]]));
        for pair in got[34..].chunks(2) {
            let low = pair.get(1).copied().unwrap_or(0);
            sum += u64::from(u16::from_be_bytes([pair[0], low]));
        }
        while sum > 0xFFFF {
            sum = (sum & 0xFFFF) + (sum >> 16);
        }
        assert_eq!(sum, 0xFFFF, "{len} bytes");
        assert_eq!((&got[..50], &got[52..]), (&sent[..50], &sent[52..]));
    }
    check_buffers(&bench, 64);
}

#[test]
fn frames_are_joined_only_on_request_and_with_what_that_needs() {
    let fake = Fake::new();
    let bench = Bench::of(fake, &Config::default());
    let joins = Features::GUEST_TSO4 | Features::GUEST_TSO6;
    assert!(!bench.nic.features().intersects(joins), "by default");
    for missing in [Features::MRG_RXBUF, Features::GUEST_CSUM] {
        let bench = super::merge::bench(JOIN - missing, 8, 1500);
        assert!(!bench.nic.features().intersects(joins), "without {missing}");
        assert_eq!(bench.nic.capabilities().max_receive_len(), 1514);
    }
}

#[test]
fn rule_7_frames_that_are_not_what_was_negotiated_are_dropped() {
    let tso6 = |mut header: [u8; 12]| {
        header[1] = 4;
        header
    };
    let mut plain = JOINED;
    plain[0] = 0;
    let mut ecn = JOINED;
    ecn[1] = 0x81;
    let mut udp = JOINED;
    udp[1] = 3;
    let only_tso4 = JOIN - Features::GUEST_TSO6;
    for (features, header) in [
        (JOIN, plain),
        (JOIN, ecn),
        (JOIN, udp),
        (only_tso4, tso6(JOINED)),
        (MERGE | Features::GUEST_CSUM, JOINED),
        (MERGE, JOINED),
    ] {
        let mut bench = bench(features, 16, 1500);
        assert!(deliver(&bench, &header, &frame(5000)));
        assert!(receive(&mut bench).is_empty(), "{header:?}");
        assert_eq!(bench.rx.counters().nonsense, 1, "{header:?}");
        check_buffers(&bench, 16);
    }
}

#[test]
fn what_is_too_long_is_dropped_and_costs_no_buffer() {
    for features in [MERGE, JOIN, MERGE | Features::RING_PACKED] {
        let mut bench = bench(features, 64, 1500);
        for round in 1..200 {
            let giant = frame(if round % 2 == 0 { 1515 } else { 70_000 });
            assert!(deliver(&bench, &[0; 12], &giant));
            assert!(deliver(&bench, &[0; 12], &frame(60)));
            assert_eq!(receive(&mut bench), [(frame(60), Verdict::Unknown)]);
            assert_eq!(bench.rx.counters().too_long, round);
        }
        check_buffers(&bench, 64);
    }
}

/// Makes the next buffers used, each with this length, the first with a header that says `count`.
fn use_buffers(bench: &Bench, count: u16, lens: &[u32]) {
    let mut bytes = [0u8; 18];
    bytes[10..12].copy_from_slice(&count.to_le_bytes());
    bytes[12..].copy_from_slice(&MAC);
    for (at, len) in lens.iter().enumerate() {
        let chain = bench.fake.fetch(RX).expect("a buffer");
        if at == 0 {
            for (at, byte) in (chain.pieces[0].0..).zip(bytes) {
                bench.fake.device().store(at, byte);
            }
        }
        bench.fake.complete(RX, u32::from(chain.head), *len);
    }
}

#[test]
fn rule_7_numbers_of_buffers_that_lie() {
    for features in [MERGE, MERGE | Features::RING_PACKED] {
        // None, and pieces that are not full before the last, or empty: dropped, and on it goes.
        for (count, lens) in [
            (0, &[100][..]),
            (2, &[2047, 10]),
            (3, &[2048, 2047, 10]),
            (2, &[2048, 0]),
        ] {
            let mut bench = bench(features, 8, 9000);
            use_buffers(&bench, count, lens);
            assert!(deliver(&bench, &[0; 12], &frame(3000)));
            assert_eq!(receive(&mut bench), [(frame(3000), Verdict::Unknown)]);
            assert_eq!(bench.rx.counters().nonsense, 1, "{count} {lens:?}");
            check_buffers(&bench, 8);
        }
        // More than are used: nobody knows where the next frame begins.
        for count in [3, 9, 0xFFFF] {
            let mut bench = bench(features, 8, 9000);
            use_buffers(&bench, count, &[2048, 2048]);
            let result = bench.rx.receive(9, &mut |_| panic!("a frame"));
            let index = u32::from(count);
            assert_eq!(result, Err(QueueError::BadIndex { index }));
            let result = bench.rx.receive(9, &mut |_| panic!("a frame"));
            assert_eq!(result, Err(QueueError::Down));
        }
        // Beyond the second buffer.
        let mut bench = bench(features, 8, 9000);
        use_buffers(&bench, 2, &[2048, 2049]);
        let result = bench.rx.receive(9, &mut |_| panic!("a frame"));
        assert_eq!(result, Err(QueueError::BadLength { len: 2049 }));
    }
}

#[test]
fn a_panic_in_the_callback_costs_no_buffer_of_a_scattered_frame() {
    let mut bench = bench(MERGE, 16, 9000);
    for _ in 0..20 {
        assert!(deliver(&bench, &[0; 12], &frame(9014)));
        assert!(deliver(&bench, &[0; 12], &frame(9014)));
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _ = bench
                .rx
                .receive(2, &mut |_| panic!("this is the panic of the test"));
        }));
        assert!(panicked.is_err());
        assert_eq!(receive(&mut bench).len(), 1);
    }
    check_buffers(&bench, 16);
}
