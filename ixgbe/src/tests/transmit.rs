//! The transmit queue: the descriptors that `post` writes, contexts, doorbells, reclaim.

use pagewire_hal::fake::lifecycle;
use pagewire_hal::{ChecksumOffload, FrameError, Nic, Offload, PostError, QueueError, TxQueue};
use std::vec;
use std::vec::Vec;

use super::{fragments, open, open_with, post, post_list, reclaim};
use crate::desc::TxDescriptor;
use crate::fake::{Fake, Play};
use crate::regs::PerQueue;
use crate::{Config, IxgbeTx, regs};

/// Of all data descriptors: DEXT and type data.
const DATA: u64 = 0x2030_0000;
const EOP_RS: u64 = 0x0900_0000;
const IFCS: u64 = 0x0200_0000;
const TSE: u64 = 0x8000_0000;
const IXSM: u64 = 1 << 40;
const TXSM: u64 = 1 << 41;
const IDX_1: u64 = 1 << 36;

fn words(tx: &IxgbeTx<Fake>, index: u32) -> (u64, u64) {
    tx.descriptor(index).words()
}

fn paylen(len: u64) -> u64 {
    len << 46
}

fn offload(checksum: ChecksumOffload, l3_len: u16) -> Offload {
    Offload {
        checksum,
        l2_len: 14,
        l3_len,
        ..Offload::NONE
    }
}

fn segmented(segment_len: u16) -> Offload {
    Offload {
        l4_len: 32,
        segment_len,
        ..offload(ChecksumOffload::TCP_IPV4 | ChecksumOffload::IPV4_HEADER, 20)
    }
}

#[test]
fn one_fragment_is_one_data_descriptor_that_reports() {
    let (fake, _nic, mut tx, _rx) = open();
    assert_eq!(post(&mut tx, 1, Offload::NONE, 7), Ok(()));
    let expected = (0xAA_0000_0000, DATA | IFCS | EOP_RS | paylen(100) | 100);
    assert_eq!(words(&tx, 0), expected);
    assert_eq!(fake.tail(0), 0, "the device has seen nothing");
    tx.doorbell();
    assert_eq!(fake.tail(0), 1);
    assert_eq!(tx.outstanding(), 1);
}

#[test]
fn each_field_is_in_the_descriptor_where_it_is_valid() {
    let (_fake, _nic, mut tx, _rx) = open();
    assert_eq!(post(&mut tx, 3, Offload::NONE, 0), Ok(()));
    let first = DATA | IFCS | paylen(300) | 100;
    assert_eq!(words(&tx, 0), (0xAA_0000_0000, first));
    assert_eq!(words(&tx, 1), (0xAA_0000_1000, DATA | 100));
    assert_eq!(words(&tx, 2), (0xAA_0000_2000, DATA | EOP_RS | 100));
}

#[test]
fn each_checksum_has_its_context_and_options() {
    use ChecksumOffload as C;
    let lens = |l3: u64| 14 << 9 | l3;
    let context = 0x2020_0000;
    let (ipv4, tcp) = (1 << 10, 1 << 11);
    let cases: [(C, u16, u64, u64); 6] = [
        (C::IPV4_HEADER, 20, context | ipv4, IXSM),
        (C::TCP_IPV4, 20, context | ipv4 | tcp, TXSM),
        (C::UDP_IPV4, 24, context | ipv4, TXSM),
        (
            C::TCP_IPV4 | C::IPV4_HEADER,
            60,
            context | ipv4 | tcp,
            IXSM | TXSM,
        ),
        (C::TCP_IPV6, 40, context | tcp, TXSM),
        (C::UDP_IPV6, 48, context, TXSM),
    ];
    for (checksum, l3_len, high, options) in cases {
        let (_fake, nic, mut tx, _rx) = open();
        assert!(nic.capabilities().tx_checksum.contains(checksum));
        assert_eq!(post(&mut tx, 2, offload(checksum, l3_len), 0), Ok(()));
        // The first free slot is 1, as 0 counts as used last.
        let written = (lens(u64::from(l3_len)), high | IDX_1);
        assert_eq!(words(&tx, 0), written, "{checksum:?}");
        let first = DATA | IFCS | IDX_1 | options | paylen(200) | 100;
        assert_eq!(words(&tx, 1).1, first, "{checksum:?}");
        assert_eq!(words(&tx, 2).1, DATA | EOP_RS | 100, "{checksum:?}");
    }
}

#[test]
fn a_request_for_segmentation_has_its_payload_length_and_its_segments() {
    let (_fake, _nic, mut tx, _rx) = open();
    let mut list = fragments(5);
    list[0].len = 66;
    list[1..].iter_mut().for_each(|f| f.len = 16 * 1024);
    assert_eq!(post_list(&mut tx, &list, segmented(1448), 3), Ok(()));
    let context = 0x2020_0000 | 1 << 10 | 1 << 11 | 32 << 40 | 1448 << 48 | IDX_1;
    assert_eq!(words(&tx, 0), (14 << 9 | 20, context));
    let first = DATA | IFCS | TSE | IDX_1 | IXSM | TXSM | paylen(65536) | 66;
    assert_eq!(words(&tx, 1).1, first);
    assert_eq!(words(&tx, 2).1, DATA | 16384);
    assert_eq!(words(&tx, 5).1, DATA | EOP_RS | 16384);
}

#[test]
fn a_repeated_offload_costs_no_context_and_two_are_remembered() {
    use ChecksumOffload as C;
    let (fake, _nic, mut tx, _rx) = open();
    let contexts = |tx: &IxgbeTx<Fake>, from: u32, to: u32| {
        let is_context = |index: &u32| words(tx, *index).1 >> 20 & 0xF == 2;
        (from..to).filter(is_context).collect::<Vec<_>>()
    };
    let tcp = offload(C::TCP_IPV4, 20);
    let mut list = fragments(2);
    list[0].len = 66;
    for _ in 0..3 {
        assert_eq!(post(&mut tx, 1, tcp, 0), Ok(()));
        assert_eq!(post(&mut tx, 1, Offload::NONE, 0), Ok(()));
        assert_eq!(post_list(&mut tx, &list, segmented(50), 0), Ok(()));
    }
    assert_eq!(contexts(&tx, 0, 14), [0, 3], "one each");
    assert_eq!(words(&tx, 1).1 & IDX_1, IDX_1);
    assert_eq!(words(&tx, 4).1 & IDX_1, 0, "the other slot");
    assert_eq!(words(&tx, 6).1 & IDX_1, IDX_1, "its own again");
    // A third one takes the place of the one that was not used last.
    assert_eq!(post(&mut tx, 1, offload(C::UDP_IPV4, 20), 0), Ok(()));
    assert_eq!(contexts(&tx, 14, 16), [14]);
    assert_eq!(post_list(&mut tx, &list, segmented(50), 0), Ok(()));
    assert_eq!(post(&mut tx, 1, tcp, 0), Ok(()));
    assert_eq!(contexts(&tx, 16, 20), [18], "only that of TCP was lost");
    tx.doorbell();
    assert_eq!(fake.tail(0), 20);
}

#[test]
fn after_a_reset_the_contexts_are_written_again() {
    let (_fake, mut nic, mut tx, mut rx) = open();
    let tcp = offload(ChecksumOffload::TCP_IPV4, 20);
    assert_eq!(post(&mut tx, 1, tcp, 0), Ok(()));
    lifecycle::make_quiet(&mut nic);
    let (result, tokens) = lifecycle::restart(&mut nic, &mut tx, &mut rx);
    assert_eq!((result, tokens.len()), (Ok(()), 1));
    assert_eq!(post(&mut tx, 1, tcp, 0), Ok(()));
    assert_eq!(words(&tx, 0).1 >> 20 & 0xF, 2);
}

#[test]
fn headers_beyond_their_fields_are_refused() {
    use ChecksumOffload as C;
    let config = Config {
        mtu: 9000,
        ..Config::default()
    };
    let (fake, _nic, mut tx, _rx) = open_with(&config);
    let layout = Err(PostError::Refused(FrameError::OffloadLayout));
    let long_link = Offload {
        l2_len: 128,
        ..offload(C::TCP_IPV4, 20)
    };
    assert_eq!(post(&mut tx, 9, long_link, 0), layout);
    assert_eq!(post(&mut tx, 9, offload(C::TCP_IPV6, 512), 0), layout);
    // All headers together are less than 512 bytes.
    assert_eq!(post(&mut tx, 9, offload(C::TCP_IPV6, 498), 0), layout);
    assert_eq!(post(&mut tx, 9, offload(C::TCP_IPV6, 497), 0), Ok(()));
    // The header of 66 bytes lies in four descriptors at most.
    let mut list = fragments(6);
    list[..4].iter_mut().for_each(|f| f.len = 16);
    assert_eq!(post_list(&mut tx, &list, segmented(100), 0), layout);
    list[3].len = 18;
    assert_eq!(post_list(&mut tx, &list, segmented(100), 0), Ok(()));
    let long_transport = Offload {
        l4_len: 65,
        ..segmented(100)
    };
    assert_eq!(post(&mut tx, 3, long_transport, 0), layout);
    // A segment is a frame: at most 9014 bytes with its header.
    let mut list = fragments(2);
    (list[0].len, list[1].len) = (66, 16000);
    assert_eq!(post_list(&mut tx, &list, segmented(8949), 0), layout);
    assert_eq!(post_list(&mut tx, &list, segmented(8948), 0), Ok(()));
    assert_eq!(fake.tail(0), 0);
}

#[test]
fn rule_8_what_is_switched_off_is_not_offered() {
    let plain = Config {
        checksum_offload: false,
        ..Config::default()
    };
    let (_fake, nic, mut tx, _rx) = open_with(&plain);
    assert!(nic.capabilities().tx_checksum.is_empty());
    assert!(nic.capabilities().segmentation.is_none());
    let refused = Err(PostError::Refused(FrameError::OffloadNotOffered));
    let tcp = offload(ChecksumOffload::TCP_IPV4, 20);
    assert_eq!(post(&mut tx, 1, tcp, 0), refused);
    let unsegmented = Config {
        segmentation: false,
        ..Config::default()
    };
    let (_fake, nic, mut tx, _rx) = open_with(&unsegmented);
    assert!(nic.capabilities().segmentation.is_none());
    assert_eq!(post(&mut tx, 9, segmented(100), 0), refused);
    let generic = offload(ChecksumOffload::GENERIC, 20);
    assert_eq!(post(&mut tx, 1, generic, 0), refused);
}

#[test]
fn rule_4_a_frame_that_does_not_fit_leaves_the_ring_as_it_was() {
    let config = Config {
        tx_descriptors: 16,
        ..Config::default()
    };
    let (fake, nic, mut tx, _rx) = open_with(&config);
    assert_eq!(nic.capabilities().max_fragments, 16 - 2 - 1);
    assert_eq!(post(&mut tx, 10, Offload::NONE, 0), Ok(()));
    let before: Vec<_> = (0..16).map(|index| words(&tx, index)).collect();
    let tcp = offload(ChecksumOffload::TCP_IPV4, 20);
    assert_eq!(
        post(&mut tx, 4, tcp, 1),
        Err(PostError::Full),
        "5 of 4 free"
    );
    let after: Vec<_> = (0..16).map(|index| words(&tx, index)).collect();
    assert_eq!(before, after);
    assert!(tx.has_room(3) && !tx.has_room(4));
    assert_eq!(
        post(&mut tx, 3, tcp, 2),
        Ok(()),
        "its context is still missing"
    );
    assert_eq!(words(&tx, 10).1 >> 20 & 0xF, 2);
    assert_eq!(post(&mut tx, 1, Offload::NONE, 3), Err(PostError::Full));
    tx.doorbell();
    assert_eq!(fake.tail(0), 14, "two descriptors stay free");
    assert_eq!(fake.complete(0, 14), 14);
    assert_eq!(reclaim(&mut tx), [0, 2]);
    assert!(tx.has_room(13));
}

#[test]
fn the_largest_frame_always_fits_an_empty_ring() {
    for tx_descriptors in [8, 16, 128] {
        let config = Config {
            tx_descriptors,
            ..Config::default()
        };
        let (fake, nic, mut tx, _rx) = open_with(&config);
        let most = usize::from(nic.capabilities().max_fragments);
        assert_eq!(most, usize::from(tx_descriptors - 3).min(37));
        let mut list = fragments(most);
        list.iter_mut().for_each(|fragment| fragment.len = 20);
        for round in 0..40 {
            // Another context each time.
            let l3_len = 20 + 4 * (round % 3);
            let tcp = offload(ChecksumOffload::TCP_IPV4, l3_len);
            let posted = post_list(&mut tx, &list, tcp, round.into());
            assert_eq!(posted, Ok(()), "round {round}");
            tx.doorbell();
            assert_eq!(fake.complete(0, u32::MAX), most as u32 + 1);
            assert_eq!(reclaim(&mut tx), [u32::from(round)]);
        }
    }
}

#[test]
fn frames_wrap_around_the_end_of_the_ring() {
    let config = Config {
        tx_descriptors: 8,
        ..Config::default()
    };
    let (fake, _nic, mut tx, _rx) = open_with(&config);
    for token in 0..3 {
        assert_eq!(post(&mut tx, 2, Offload::NONE, token), Ok(()));
        tx.doorbell();
        fake.complete(0, 2);
        assert_eq!(reclaim(&mut tx), [token]);
    }
    assert_eq!(post(&mut tx, 4, Offload::NONE, 3), Ok(()));
    tx.doorbell();
    assert_eq!(fake.tail(0), 2);
    for (position, index) in [6, 7, 0, 1].into_iter().enumerate() {
        assert_eq!(
            words(&tx, index).0,
            0xAA_0000_0000 + 0x1000 * position as u64
        );
    }
    fake.complete(0, 3);
    assert!(reclaim(&mut tx).is_empty(), "not done before its last one");
    fake.complete(0, 1);
    assert_eq!(reclaim(&mut tx), [3]);
}

#[test]
fn rule_2_each_frame_reports() {
    let (fake, _nic, mut tx, _rx) = open();
    for token in 0..70 {
        assert_eq!(post(&mut tx, 2, Offload::NONE, token), Ok(()));
    }
    tx.doorbell();
    let reports = (0..140).filter(|index| words(&tx, *index).1 & 0x0800_0000 != 0);
    assert!(reports.eq((0..70).map(|n| 2 * n + 1)));
    fake.complete(0, 41);
    assert_eq!(reclaim(&mut tx), (0..20).collect::<Vec<_>>());
    fake.complete(0, 200);
    assert_eq!(reclaim(&mut tx), (20..70).collect::<Vec<_>>());
    assert_eq!(tx.outstanding(), 0);
}

#[test]
fn a_doorbell_with_nothing_new_writes_no_register() {
    let (fake, _nic, mut tx, _rx) = open();
    let writes = fake.device().log.len();
    tx.doorbell();
    assert_eq!(fake.device().log.len(), writes);
    assert_eq!(post(&mut tx, 1, Offload::NONE, 0), Ok(()));
    tx.doorbell();
    tx.doorbell();
    assert_eq!(fake.device().log.len(), writes + 1);
}

#[test]
fn rule_7_done_before_the_doorbell_is_an_error_and_releases_nothing() {
    let (_fake, _nic, mut tx, _rx) = open();
    for token in 0..3 {
        assert_eq!(post(&mut tx, 2, Offload::NONE, token), Ok(()));
    }
    let forged = tx.descriptor(1).marked_done();
    tx.overwrite(1, forged);
    let mut released = 0;
    let result = tx.reclaim(&mut |_| released += 1);
    assert_eq!(result, Err(QueueError::BadIndex { index: 1 }));
    assert_eq!(released, 0);
    assert_eq!(post(&mut tx, 1, Offload::NONE, 99), Err(PostError::Down));
    assert!(!tx.has_room(1));
    assert_eq!(tx.reclaim(&mut |_| released += 1), Err(QueueError::Down));
    assert_eq!(tx.outstanding(), 3);
}

#[test]
fn rule_7_a_frame_behind_the_tail_is_not_believed_after_one_before_it() {
    let (fake, _nic, mut tx, _rx) = open();
    assert_eq!(post(&mut tx, 2, Offload::NONE, 0), Ok(()));
    tx.doorbell();
    assert_eq!(post(&mut tx, 3, Offload::NONE, 1), Ok(()));
    fake.complete(0, 9);
    let forged = tx.descriptor(4).marked_done();
    tx.overwrite(4, forged);
    let mut tokens = vec![];
    let result = tx.reclaim(&mut |token| tokens.push(token.0));
    assert_eq!(result, Err(QueueError::BadIndex { index: 4 }));
    assert_eq!(tokens, [0], "that one was done");
}

#[test]
fn rule_7_garbage_in_the_ring_costs_neither_memory_nor_tokens() {
    use zerocopy::FromBytes;
    let (_fake, _nic, mut tx, _rx) = open();
    for token in 0..3 {
        assert_eq!(post(&mut tx, 2, Offload::NONE, token), Ok(()));
    }
    tx.doorbell();
    // All of every descriptor overwritten, DD included: the tokens are ours, not the device's.
    let garbage = TxDescriptor::read_from_bytes(&[0xFF; 16]).expect("sixteen bytes");
    for index in 0..512 {
        tx.overwrite(index, garbage);
    }
    assert_eq!(reclaim(&mut tx), [0, 1, 2]);
    assert!(reclaim(&mut tx).is_empty());
}

#[test]
fn a_panic_in_the_callback_loses_no_other_token_and_repeats_none() {
    let (fake, _nic, mut tx, _rx) = open();
    for token in 0..5 {
        assert_eq!(post(&mut tx, 1, Offload::NONE, token), Ok(()));
    }
    tx.doorbell();
    fake.complete(0, 5);
    let mut seen = vec![];
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = tx.reclaim(&mut |token| {
            seen.push(token.0);
            assert_ne!(token.0, 2, "this is the panic of the test");
        });
    }));
    assert!(panicked.is_err());
    seen.extend(reclaim(&mut tx));
    assert_eq!(seen, [0, 1, 2, 3, 4]);
}

#[test]
fn frames_are_refused_by_their_limits() {
    let (_fake, nic, mut tx, _rx) = open();
    assert_eq!(nic.capabilities().max_fragments, 37);
    assert_eq!(nic.capabilities().max_frame_len, 1514);
    assert_eq!(nic.capabilities().max_fragment_len, 16 * 1024);
    let refused = |result: Result<(), PostError>| match result {
        Err(PostError::Refused(error)) => error,
        other => panic!("{other:?} instead of a refusal"),
    };
    let error = refused(post(&mut tx, 38, Offload::NONE, 0));
    assert_eq!(error, FrameError::TooManyFragments { count: 38, max: 37 });
    let error = refused(post(&mut tx, 16, Offload::NONE, 0));
    assert_eq!(error, FrameError::FrameTooLong { len: 1600 });
    let mut short = fragments(1);
    short[0].len = 16;
    let error = refused(post_list(&mut tx, &short, Offload::NONE, 0));
    assert_eq!(error, FrameError::FrameTooShort { len: 16 });
    assert_eq!(tx.outstanding(), 0);
}

#[test]
fn two_queues_share_no_cache_line() {
    assert!(core::mem::align_of::<IxgbeTx<Fake>>() >= 128);
    assert!(core::mem::align_of::<crate::IxgbeRx<Fake>>() >= 128);
    // Doorbells are 64 bytes apart, too.
    assert_eq!(regs::TDT.of(1).0 - regs::TDT.of(0).0, 0x40);
}
