//! The receive queue: delivery, the filter, lengths that lie, refill.

use std::vec;
use std::vec::Vec;

use pagewire_hal::{QueueError, RxQueue, Verdict};

use super::Bench;
use crate::fake::{Fake, MAC, Play, RX};
use crate::fake_ring::PlayRings;
use crate::{Config, Features};

const OTHER: [u8; 6] = [0x52, 0x54, 0, 0, 0, 9];
const GROUP: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];

fn frame(to: [u8; 6], fill: u8, len: usize) -> Vec<u8> {
    let mut frame = vec![fill; len];
    frame[..6].copy_from_slice(&to);
    frame
}

fn deliver(bench: &Bench, frame: &[u8]) {
    assert!(bench.fake.deliver(frame, frame.len() as u32 + 12));
}

fn receive(bench: &mut Bench, budget: usize) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let count = bench.rx.receive(budget, &mut |frame| {
        let mut bytes = vec![0; frame.len()];
        frame.copy_to(&mut bytes);
        frames.push(bytes);
    });
    assert_eq!(count, Ok(frames.len()));
    frames
}

#[test]
fn frames_arrive_whole_and_in_order_as_often_as_one_likes() {
    for (features, size) in [
        (Features::empty(), 1),
        (Features::EVENT_IDX, 2),
        (Features::IN_ORDER, 4),
        (Features::EVENT_IDX | Features::IN_ORDER, 256),
        (Features::RING_PACKED, 1),
        (Features::RING_PACKED, 2),
        (Features::MRG_RXBUF, 2),
        (Features::RING_PACKED | Features::MRG_RXBUF, 1),
        (Features::RING_PACKED | Features::EVENT_IDX, 8),
        (Features::RING_PACKED | Features::IN_ORDER, 32),
    ] {
        let mut bench = Bench::with(features, size);
        let burst = usize::from(size.min(20));
        let mut sent = 0usize;
        // The indices wrap.
        while sent < 66_000 {
            let frames: Vec<_> = (0..burst)
                .map(|n| frame(MAC, (sent + n) as u8, 20 + (sent + n) % 50))
                .collect();
            frames.iter().for_each(|frame| deliver(&bench, frame));
            assert_eq!(receive(&mut bench, usize::MAX), frames, "size {size}");
            sent += burst;
        }
        assert_eq!(bench.rx.counters().delivered, sent as u64);
    }
}

#[test]
fn the_largest_queue_is_filled_to_the_last_buffer() {
    for features in [
        Features::empty(),
        Features::RING_PACKED,
        Features::MRG_RXBUF,
    ] {
        let mut bench = Bench::with(features, 32_768);
        // The second round is after the wrap.
        for round in 0..2 {
            for n in 0..32_768 {
                assert!(bench.fake.deliver(&frame(MAC, n as u8, 60), 72));
            }
            assert!(!bench.fake.deliver(&frame(MAC, 0, 60), 72), "one more");
            let mut expected = 0;
            let count = bench.rx.receive(usize::MAX, &mut |frame| {
                let mut bytes = [0; 60];
                frame.copy_to(&mut bytes);
                assert_eq!(bytes[59], expected as u8, "round {round}");
                expected += 1;
            });
            assert_eq!(count, Ok(32_768), "round {round}");
        }
    }
}

#[test]
fn all_buffers_are_offered_and_each_is_as_long_as_the_longest_frame() {
    let bench = Bench::with(Features::empty(), 8);
    let chains: Vec<_> = core::iter::from_fn(|| bench.fake.fetch(RX)).collect();
    assert_eq!(chains.len(), 8);
    let mut places: Vec<_> = chains.iter().map(|chain| chain.pieces[0].0).collect();
    places.dedup_by(|a, b| a.abs_diff(*b) < 2048);
    assert_eq!(places.len(), 8, "they do not overlap");
    assert!(chains.iter().all(|chain| chain.pieces[0].1 == 2048));
    assert_eq!(bench.fake.device().bells, [(0x40, 0)]);
}

#[test]
fn a_budget_is_kept_and_the_rest_comes_later() {
    let mut bench = Bench::with(Features::EVENT_IDX, 8);
    for n in 0..5 {
        deliver(&bench, &frame(MAC, n, 60));
    }
    assert_eq!(receive(&mut bench, 3).len(), 3);
    assert_eq!(receive(&mut bench, 3).len(), 2);
    assert_eq!(bench.fake.used_event(RX), 5);
    assert!(receive(&mut bench, 0).is_empty());
}

#[test]
fn the_driver_filters_as_the_device_does_not() {
    let all = [MAC, [0xFF; 6], OTHER, GROUP];
    for (promiscuous, all_multicast, expected) in [
        (false, true, vec![MAC, [0xFF; 6], GROUP]),
        (false, false, vec![MAC, [0xFF; 6]]),
        (true, false, vec![MAC, [0xFF; 6], OTHER]),
        (true, true, all.to_vec()),
    ] {
        let config = Config {
            promiscuous,
            all_multicast,
            ..Config::default()
        };
        let mut bench = Bench::of(Fake::new(), &config);
        for to in all {
            deliver(&bench, &frame(to, 7, 60));
        }
        let frames = receive(&mut bench, 10);
        let seen: Vec<_> = frames.iter().map(|frame| frame[..6].to_vec()).collect();
        assert_eq!(seen, expected);
    }
}

#[test]
fn rule_7_lengths_that_lie() {
    let mut bench = Bench::with(Features::empty(), 8);
    for len in [0, 11, 12, 25] {
        assert!(bench.fake.deliver(&frame(MAC, 1, 60), len));
    }
    assert!(receive(&mut bench, 10).is_empty());
    assert_eq!(bench.rx.counters().nonsense, 4);
    assert!(bench.fake.deliver(&frame(MAC, 1, 60), 2048));
    assert!(receive(&mut bench, 10).is_empty());
    assert_eq!(bench.rx.counters().too_long, 1);
    assert!(bench.fake.deliver(&frame(MAC, 1, 60), 2049));
    let result = bench.rx.receive(10, &mut |_| panic!("a frame"));
    assert_eq!(result, Err(QueueError::BadLength { len: 2049 }));
    let result = bench.rx.receive(10, &mut |_| panic!("a frame"));
    assert_eq!(result, Err(QueueError::Down));
}

#[test]
fn rule_7_buffers_that_the_device_does_not_have() {
    for id in [8, 0xFFFF_FFFF] {
        let mut bench = Bench::with(Features::empty(), 8);
        bench.fake.complete(RX, id, 100);
        let result = bench.rx.receive(10, &mut |_| panic!("a frame"));
        assert_eq!(result, Err(QueueError::BadIndex { index: id }));
    }
    // The same buffer twice before it was given back.
    let mut bench = Bench::with(Features::empty(), 8);
    deliver(&bench, &frame(MAC, 1, 60));
    bench.fake.complete(RX, 0, 72);
    let mut count = 0;
    let result = bench.rx.receive(10, &mut |_| count += 1);
    assert_eq!(result, Err(QueueError::BadIndex { index: 0 }));
    assert_eq!(count, 1);
}

#[test]
fn in_order_buffers_that_are_skipped_are_no_frames() {
    for features in [Features::empty(), Features::RING_PACKED] {
        let mut bench = Bench::with(Features::IN_ORDER | features, 8);
        for _ in 0..3 {
            assert!(bench.fake.fetch(RX).is_some());
        }
        bench.fake.complete_many(RX, 2, 72, 3);
        // Its bytes are zeros: not for this station.
        assert!(receive(&mut bench, 10).is_empty());
        assert_eq!(bench.rx.counters().nonsense, 2);
        deliver(&bench, &frame(MAC, 1, 60));
        assert_eq!(receive(&mut bench, 10).len(), 1);
    }
}

#[test]
fn a_panic_in_the_callback_costs_one_frame_and_no_buffer() {
    let mut bench = Bench::with(Features::empty(), 2);
    for _ in 0..20 {
        deliver(&bench, &frame(MAC, 1, 60));
        deliver(&bench, &frame(MAC, 2, 60));
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _ = bench
                .rx
                .receive(2, &mut |_| panic!("this is the panic of the test"));
        }));
        assert!(panicked.is_err());
        let rest = receive(&mut bench, 2);
        assert_eq!(rest, [frame(MAC, 2, 60)]);
    }
}

/// Header flags, start and offset of a checksum.
fn header(flags: u8, start: u16, offset: u16) -> [u8; 12] {
    let mut header = [0; 12];
    header[0] = flags;
    header[6..8].copy_from_slice(&start.to_le_bytes());
    header[8..10].copy_from_slice(&offset.to_le_bytes());
    header
}

/// The ones' complement sum of big-endian words, byte by byte.
fn sum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for (at, byte) in bytes.iter().enumerate() {
        sum += u32::from(*byte) << if at % 2 == 0 { 8 } else { 0 };
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    sum as u16
}

#[test]
fn an_incomplete_checksum_is_completed_and_good() {
    for len in [40, 41, 60, 289, 290, 291, 1000, 1513, 1514] {
        let mut bench = Bench::with(Features::GUEST_CSUM, 4);
        let mut sent = frame(MAC, 0, len);
        for (at, byte) in sent.iter_mut().enumerate().skip(6) {
            *byte = (at * 7 + len) as u8;
        }
        let (start, offset) = (34, 4);
        let pseudo = [sent[38], sent[39]];
        assert!(
            bench
                .fake
                .deliver_with(&header(1, start, offset), &sent, len as u32 + 12)
        );
        let mut verdict = Verdict::Unknown;
        let mut got = vec![0; len];
        let count = bench.rx.receive(1, &mut |frame| {
            verdict = frame.checksum().transport;
            frame.copy_to(&mut got);
        });
        assert_eq!((count, verdict), (Ok(1), Verdict::Good), "{len} bytes");
        // With the pseudo-header, whose sum was in the field, all sums to ones.
        let total = u32::from(sum(&got[34..])) + u32::from(u16::from_be_bytes(pseudo));
        assert_eq!((total & 0xFFFF) + (total >> 16), 0xFFFF, "{len} bytes");
        got[38..40].copy_from_slice(&pseudo);
        assert_eq!(got, sent, "nothing else was touched");
    }
}

#[test]
fn the_checksum_of_udp_is_not_stored_as_zero() {
    let mut bench = Bench::with(Features::GUEST_CSUM, 4);
    let mut sent = frame(MAC, 0, 60);
    sent[34..].fill(0);
    sent[40..42].fill(0xFF);
    assert!(bench.fake.deliver_with(&header(1, 34, 6), &sent, 72));
    assert_eq!(receive(&mut bench, 1)[0][40..42], [0xFF, 0xFF]);
}

#[test]
fn verdicts_are_the_devices_and_only_if_negotiated() {
    for (features, flags, expected) in [
        (Features::GUEST_CSUM, 0, Verdict::Unknown),
        (Features::GUEST_CSUM, 2, Verdict::Good),
        (Features::GUEST_CSUM, 4, Verdict::Unknown),
        (Features::empty(), 2, Verdict::Unknown),
        (Features::empty(), 1, Verdict::Unknown),
    ] {
        let mut bench = Bench::with(features, 4);
        let sent = frame(MAC, 3, 60);
        assert!(bench.fake.deliver_with(&header(flags, 34, 6), &sent, 72));
        let count = bench.rx.receive(1, &mut |frame| {
            assert_eq!(frame.checksum().transport, expected, "{features} {flags}");
            assert_eq!(frame.checksum().ipv4_header, Verdict::Unknown);
            let mut got = [0; 60];
            assert_eq!(frame.copy_to(&mut got), sent, "as it came");
        });
        assert_eq!(count, Ok(1));
    }
}

#[test]
fn rule_7_a_checksum_outside_the_frame_is_no_frame() {
    for (start, offset) in [(59, 0), (60, 0), (0, 59), (0xFFFF, 0xFFFF), (34, 0xFFFF)] {
        let mut bench = Bench::with(Features::GUEST_CSUM, 4);
        let sent = frame(MAC, 3, 60);
        assert!(
            bench
                .fake
                .deliver_with(&header(1, start, offset), &sent, 72)
        );
        assert!(receive(&mut bench, 1).is_empty(), "{start} {offset}");
        assert_eq!(bench.rx.counters().nonsense, 1);
        assert!(bench.fake.deliver_with(&header(1, 58, 0), &sent, 72));
        assert_eq!(receive(&mut bench, 1).len(), 1, "the last place there is");
    }
}
