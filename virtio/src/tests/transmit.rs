//! The transmit queue: chains and tables, headers, doorbells, completions in any order.

use std::vec::Vec;

use pagewire_hal::{ChecksumOffload, FrameError, Nic, Offload, PostError, TxQueue};

use super::Bench;
use crate::Features;
use crate::fake::{Play, TX};
use crate::fake_ring::PlayRings;

const NOTHING: Features = Features::empty();
const PACKED: Features = Features::RING_PACKED;

/// The header of the next frame, as the device sees it.
fn header(bench: &Bench) -> Vec<u8> {
    let chain = bench.fake.fetch(TX).expect("a frame");
    bench.fake.bytes(chain.pieces[0].0, 12)
}

#[test]
fn a_chain_is_the_header_with_the_first_fragment_and_then_the_others() {
    for (features, indirect) in [
        (NOTHING, false),
        (Features::INDIRECT_DESC, true),
        (PACKED, false),
        (PACKED | Features::INDIRECT_DESC, true),
    ] {
        let mut bench = Bench::with(features, 8);
        for count in 1..=8 {
            assert_eq!(bench.post(count, 7), Ok(()), "{count} pieces");
            assert_eq!(bench.fake.fetch(TX), None, "no doorbell yet");
            bench.tx.doorbell();
            let chain = bench.fake.fetch(TX).expect("a frame");
            let mut expected: Vec<_> = bench
                .fragments(count)
                .iter()
                .map(|fragment| (fragment.address.0, fragment.len, false))
                .collect();
            expected[0].0 -= 12;
            expected[0].1 += 12;
            assert_eq!(chain.pieces, expected);
            assert_eq!(chain.indirect, indirect && count > 1);
            bench.fake.complete(TX, u32::from(chain.head), 0);
            assert_eq!(bench.reclaim(), [7]);
        }
        let refused = bench.post(9, 0);
        let error = FrameError::TooManyFragments { count: 9, max: 8 };
        assert_eq!(refused, Err(PostError::Refused(error)));
    }
}

#[test]
fn a_list_longer_than_a_table_is_a_chain() {
    let mut bench = Bench::with(Features::INDIRECT_DESC | Features::MTU, 64);
    bench.fake.device().net[10..].copy_from_slice(&9000u16.to_le_bytes());
    for (count, indirect) in [(32, true), (33, false), (64, false)] {
        let mut fragments = bench.fragments(count);
        for fragment in &mut fragments {
            fragment.len = 20;
        }
        assert_eq!(bench.post_list(&fragments, Offload::NONE, 1), Ok(()));
        bench.tx.doorbell();
        let chain = bench.fake.fetch(TX).expect("a frame");
        assert_eq!((chain.pieces.len(), chain.indirect), (count, indirect));
        bench.fake.complete(TX, u32::from(chain.head), 0);
        assert_eq!(bench.reclaim(), [1]);
    }
}

#[test]
fn rule_4_a_frame_fits_or_leaves_the_ring_as_it_was() {
    let mut bench = Bench::with(NOTHING, 8);
    assert_eq!(bench.post(3, 0), Ok(()));
    assert_eq!(bench.post(3, 1), Ok(()));
    assert!(bench.tx.has_room(2) && !bench.tx.has_room(3));
    assert_eq!(bench.post(3, 2), Err(PostError::Full));
    assert_eq!(bench.post(2, 3), Ok(()));
    assert_eq!(bench.post(1, 4), Err(PostError::Full));
    assert_eq!(bench.tx.outstanding(), 3);
    bench.tx.doorbell();
    let lens: Vec<_> = bench
        .fake
        .transmit()
        .iter()
        .map(|c| c.pieces.len())
        .collect();
    assert_eq!(lens, [3, 3, 2]);
    assert_eq!(bench.reclaim(), [0, 1, 3]);
    assert!(bench.tx.has_room(8));
}

#[test]
fn with_tables_a_ring_holds_as_many_frames_as_descriptors() {
    let mut bench = Bench::with(Features::INDIRECT_DESC, 8);
    for token in 0..8 {
        assert_eq!(bench.post(5, token), Ok(()));
    }
    assert_eq!(bench.post(1, 8), Err(PostError::Full));
    assert!(!bench.tx.has_room(1));
    bench.tx.doorbell();
    assert_eq!(bench.fake.transmit().len(), 8);
    assert_eq!(bench.reclaim(), [0, 1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn the_header_asks_for_what_the_offload_says() {
    let mut bench = Bench::new();
    let tcp = |checksum, l3_len| Offload {
        checksum,
        l2_len: 14,
        l3_len,
        ..Offload::NONE
    };
    let generic = Offload {
        checksum_offset: 12,
        ..tcp(ChecksumOffload::GENERIC, 22)
    };
    for (offload, start, offset) in [
        (tcp(ChecksumOffload::TCP_IPV4, 24), 38, 16),
        (tcp(ChecksumOffload::UDP_IPV4, 20), 34, 6),
        (tcp(ChecksumOffload::TCP_IPV6, 40), 54, 16),
        (tcp(ChecksumOffload::UDP_IPV6, 48), 62, 6),
        (generic, 36, 12),
    ] {
        let fragments = bench.fragments(2);
        assert_eq!(bench.post_list(&fragments, offload, 0), Ok(()));
        bench.tx.doorbell();
        let expected = [1, 0, 0, 0, 0, 0, start, 0, offset, 0, 0, 0];
        assert_eq!(header(&bench), expected);
    }
    assert_eq!(bench.post(1, 0), Ok(()));
    bench.tx.doorbell();
    assert_eq!(header(&bench), [0; 12], "what was there before is gone");
    let fragments = bench.fragments(1);
    let ipv4 = tcp(ChecksumOffload::IPV4_HEADER, 20);
    let refused = bench.post_list(&fragments, ipv4, 0);
    let error = FrameError::OffloadNotOffered;
    assert_eq!(refused, Err(PostError::Refused(error)));
}

#[test]
fn the_header_asks_for_segmentation() {
    let mut bench = Bench::new();
    let mut fragments = bench.fragments(3);
    fragments[0].len = 66;
    fragments[1].len = 30_000;
    fragments[2].len = 35_400;
    let offload = Offload {
        checksum: ChecksumOffload::TCP_IPV4,
        l2_len: 14,
        l3_len: 20,
        l4_len: 32,
        segment_len: 0x05A8,
        ..Offload::NONE
    };
    assert_eq!(bench.post_list(&fragments, offload, 0), Ok(()));
    let six = Offload {
        checksum: ChecksumOffload::TCP_IPV6,
        l3_len: 40,
        l4_len: 20,
        ..offload
    };
    bench.tx.doorbell();
    assert_eq!(header(&bench), [1, 1, 66, 0, 0xA8, 5, 34, 0, 16, 0, 0, 0]);
    fragments[0].len = 74;
    assert_eq!(bench.post_list(&fragments, six, 0), Ok(()));
    bench.tx.doorbell();
    assert_eq!(header(&bench), [1, 4, 74, 0, 0xA8, 5, 54, 0, 16, 0, 0, 0]);
    fragments[2].len += 100;
    let refused = bench.post_list(&fragments, offload, 0);
    assert!(matches!(
        refused,
        Err(PostError::Refused(FrameError::FrameTooLong { .. }))
    ));
}

#[test]
fn one_segment_is_asked_for_as_a_checksum() {
    let mut bench = Bench::new();
    let mut fragments = bench.fragments(2);
    fragments[0].len = 66;
    let offload = Offload {
        checksum: ChecksumOffload::TCP_IPV4,
        l2_len: 14,
        l3_len: 20,
        l4_len: 32,
        segment_len: 1448,
        ..Offload::NONE
    };
    for (payload, flags) in [(1448, [1, 0, 0]), (1449, [1, 1, 66]), (1, [1, 0, 0])] {
        fragments[1].len = payload;
        assert_eq!(bench.post_list(&fragments, offload, 0), Ok(()));
        bench.tx.doorbell();
        let header = header(&bench);
        assert_eq!(header[..3], flags, "{payload}: {header:?}");
        assert_eq!(header[6..10], [34, 0, 16, 0], "{payload}: {header:?}");
    }
}

#[test]
fn a_packed_ring_in_order_is_never_filled_by_one_frame() {
    let both = PACKED | Features::IN_ORDER;
    for (features, size, most) in [(both, 8, 7), (PACKED, 8, 8), (both, 1, 1)] {
        let bench = Bench::with(features, size);
        let capabilities = bench.nic.capabilities();
        assert_eq!(capabilities.max_fragments, most, "{features}, {size}");
    }
}

#[test]
fn completions_come_in_any_order() {
    for features in [
        NOTHING,
        Features::INDIRECT_DESC,
        PACKED,
        PACKED | Features::INDIRECT_DESC,
    ] {
        let mut bench = Bench::with(features, 16);
        for token in 0..5 {
            assert_eq!(bench.post(1 + token as usize % 3, token), Ok(()));
        }
        bench.tx.doorbell();
        let heads: Vec<_> = core::iter::from_fn(|| bench.fake.fetch(TX)).collect();
        for place in [3, 0, 4] {
            bench.fake.complete(TX, u32::from(heads[place].head), 0);
        }
        assert_eq!(bench.reclaim(), [3, 0, 4]);
        assert_eq!(bench.tx.outstanding(), 2);
        // The descriptors that came back are used again, those that are out are not.
        for token in 10..13 {
            assert_eq!(bench.post(3, token), Ok(()));
        }
        bench.tx.doorbell();
        assert_eq!(bench.fake.transmit().len(), 3);
        bench.fake.complete(TX, u32::from(heads[2].head), 0);
        bench.fake.complete(TX, u32::from(heads[1].head), 0);
        assert_eq!(bench.reclaim(), [10, 11, 12, 2, 1]);
        assert!(bench.tx.has_room(16));
    }
}

#[test]
fn indices_wrap_at_every_queue_size() {
    // 70,000 frames: the 16-bit indices wrap once, the rings many times.
    for (size, features) in [
        (1, Features::INDIRECT_DESC),
        (2, NOTHING),
        (2, Features::IN_ORDER | Features::EVENT_IDX),
        (1, PACKED),
        (2, PACKED | Features::IN_ORDER),
        (4, PACKED | Features::EVENT_IDX | Features::INDIRECT_DESC),
        (256, Features::EVENT_IDX),
    ] {
        let mut bench = Bench::with(features, size);
        let burst = u32::from(size.min(50));
        let mut posted = 0;
        while posted < 70_000 {
            for _ in 0..burst {
                assert_eq!(bench.post(1, posted), Ok(()), "size {size}");
                posted += 1;
            }
            bench.tx.doorbell();
            let frames = bench.fake.transmit().len();
            assert_eq!(frames, burst as usize);
            let expected: Vec<_> = (posted - burst..posted).collect();
            assert_eq!(bench.reclaim(), expected, "size {size}");
        }
    }
}

#[test]
fn the_largest_queue_is_filled_to_the_last_descriptor() {
    for features in [NOTHING, PACKED] {
        let mut bench = Bench::with(features, 32_768);
        for token in 0..32_768 {
            assert_eq!(bench.post(1, token), Ok(()));
        }
        assert_eq!(bench.post(1, 0), Err(PostError::Full));
        bench.tx.doorbell();
        assert_eq!(bench.fake.transmit().len(), 32_768);
        let mut expected = 0;
        let count = bench.tx.reclaim(&mut |token| {
            assert_eq!(token.0, expected);
            expected += 1;
        });
        assert_eq!(count, Ok(32_768));
    }
}

#[test]
fn in_order_one_entry_stands_for_many_frames() {
    let in_order = Features::IN_ORDER | Features::INDIRECT_DESC;
    for features in [in_order, in_order | PACKED] {
        let mut bench = Bench::with(features, 8);
        for round in 0..20 {
            for token in 0..6 {
                assert_eq!(bench.post(1 + token as usize % 2, token), Ok(()));
            }
            bench.tx.doorbell();
            let heads: Vec<_> = core::iter::from_fn(|| bench.fake.fetch(TX)).collect();
            for (place, chain) in heads.iter().enumerate() {
                let expected = (round * 6 + place) % 8;
                assert_eq!(usize::from(chain.head), expected, "round {round}");
            }
            bench.fake.complete_many(TX, u32::from(heads[3].head), 0, 4);
            assert_eq!(bench.reclaim(), [0, 1, 2, 3]);
            bench.fake.complete_many(TX, u32::from(heads[5].head), 0, 2);
            assert_eq!(bench.reclaim(), [4, 5]);
        }
    }
}

#[test]
fn the_doorbell_rings_as_the_device_wants_it() {
    let mut bench = Bench::with(NOTHING, 8);
    let rings = |bench: &Bench| bench.fake.device().bells.len();
    let before = rings(&bench);
    bench.tx.doorbell();
    assert_eq!(rings(&bench), before, "nothing is new");
    assert_eq!(bench.post(1, 0), Ok(()));
    assert_eq!(bench.post(1, 1), Ok(()));
    bench.tx.doorbell();
    bench.tx.doorbell();
    assert_eq!(rings(&bench), before + 1, "one for both");
    assert_eq!(bench.fake.device().bells.last(), Some(&(0x44, 1)));
    bench.fake.suppress(TX, 0, 1);
    assert_eq!(bench.post(1, 2), Ok(()));
    bench.tx.doorbell();
    assert_eq!(rings(&bench), before + 1, "NO_NOTIFY");
    assert_eq!(bench.fake.transmit().len(), 3, "seen all the same");
    assert_eq!(bench.tx.counters().suppressed, 1);

    let mut bench = Bench::with(Features::EVENT_IDX, 8);
    let before = rings(&bench);
    // The flag means nothing with EVENT_IDX, whose event is at 0.
    bench.fake.suppress(TX, 0, 1);
    for (token, event, expected) in [(0, 0, 1), (1, 0, 1), (2, 5, 1), (3, 3, 2)] {
        bench.fake.suppress(TX, event, 0);
        assert_eq!(bench.post(1, token), Ok(()));
        bench.tx.doorbell();
        assert_eq!(rings(&bench), before + expected, "frame {token}");
    }
}

#[test]
fn the_next_interrupt_is_asked_for_when_nothing_is_left() {
    let mut bench = Bench::with(Features::EVENT_IDX, 8);
    for token in 0..4 {
        assert_eq!(bench.post(1, token), Ok(()));
    }
    bench.tx.doorbell();
    assert_eq!(bench.fake.used_event(TX), 0);
    assert_eq!(bench.fake.transmit().len(), 4);
    assert_eq!(bench.reclaim().len(), 4);
    assert_eq!(bench.fake.used_event(TX), 4);
}

#[test]
fn frames_are_refused_by_their_limits() {
    let mut bench = Bench::with(NOTHING, 64);
    assert_eq!(bench.nic.capabilities().max_fragments, 64);
    let mut fragments = bench.fragments(1);
    fragments[0].len = 1515;
    let refused = bench.post_list(&fragments, Offload::NONE, 0);
    assert!(matches!(refused, Err(PostError::Refused(_))));
    fragments[0].len = 1514;
    assert_eq!(bench.post_list(&fragments, Offload::NONE, 0), Ok(()));
    assert_eq!(bench.tx.outstanding(), 1);
}

#[test]
fn a_packed_ring_rings_the_doorbell_as_the_device_wants_it() {
    let rings = |bench: &Bench| bench.fake.device().bells.len();
    let mut bench = Bench::with(PACKED | Features::EVENT_IDX, 4);
    let before = rings(&bench);
    let (at, wrapped) = (|n: u16| n | 1 << 15, |n: u16| n);
    // Position, flags, doorbells so far. Frame n is at position n.
    for (token, event, flags, expected) in [
        (0, at(0), 2, 1),
        // Behind: the device has passed it without naming a new one, and must be told.
        (1, at(0), 2, 2),
        (2, at(3), 2, 2),
        (3, at(3), 2, 3),
        (4, wrapped(1), 2, 3),
        (5, wrapped(1), 2, 4),
        (6, wrapped(2), 1, 4),
        (7, at(1), 0, 5),
        (8, at(1), 3, 6),
    ] {
        bench.fake.suppress(TX, event, flags);
        assert_eq!(bench.post(1, token), Ok(()));
        bench.tx.doorbell();
        assert_eq!(rings(&bench), before + expected, "frame {token}");
        assert_eq!(bench.fake.transmit().len(), 1);
        assert_eq!(bench.reclaim(), [token]);
        let wrap = u16::from((token + 1) & 4 == 0) << 15;
        let position = (token + 1) as u16 & 3;
        assert_eq!(bench.fake.used_event(TX), position | wrap);
    }
    // A burst passes the place in its middle.
    bench.fake.suppress(TX, at(2), 2);
    for token in 9..12 {
        assert_eq!(bench.post(1, token), Ok(()));
    }
    assert_eq!(bench.fake.fetch(TX), None, "held back until the doorbell");
    bench.tx.doorbell();
    assert_eq!(rings(&bench), before + 7);
    assert_eq!(bench.fake.transmit().len(), 3);
}
