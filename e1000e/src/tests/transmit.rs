//! The transmit queue: the descriptors that `post` writes, reports, doorbells, reclaim.

use pagewire_hal::fake::lifecycle::{make_quiet, restart};
use pagewire_hal::{ChecksumOffload, FrameError, Nic, Offload, PostError, QueueError, TxQueue};
use std::vec;
use std::vec::Vec;
use zerocopy::IntoBytes;

use super::{fragments, open, open_with, post, post_list, reclaim};
use crate::fake::{Fake, Play};
use crate::{Config, E1000eTx};

const EOP: u8 = 0x01;
const IFCS: u8 = 0x02;
const RS: u8 = 0x08;
const DEXT: u8 = 0x20;
const IXSM: u8 = 0x01;
const TXSM: u8 = 0x02;

/// A descriptor as the device sees it.
fn bytes(tx: &E1000eTx<Fake>, index: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(tx.descriptor(index).as_bytes());
    bytes
}

fn word(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

/// Command byte of a data descriptor, after a look at all that is the same in each of them.
fn command(descriptor: &[u8; 16], address: u64, len: u16, options: u8) -> u8 {
    assert_eq!(word(descriptor, 0), address, "address");
    assert_eq!(word(descriptor, 8) & 0xF_FFFF, u64::from(len), "DTALEN");
    assert_eq!(descriptor[10] >> 4, 1, "DTYP is data");
    assert_eq!(descriptor[12], 0, "status and reserved are zero");
    assert_eq!(descriptor[13], options, "POPTS");
    assert_eq!(descriptor[14..], [0, 0], "no VLAN tag");
    descriptor[11]
}

fn offload(checksum: ChecksumOffload, l3_len: u16) -> Offload {
    Offload {
        checksum,
        l2_len: 14,
        l3_len,
        ..Offload::NONE
    }
}

#[test]
fn one_fragment_without_offload_is_one_data_descriptor() {
    let (fake, _nic, mut tx, _rx) = open();
    assert_eq!(post(&mut tx, 1, Offload::NONE, 7), Ok(()));
    let command_before = command(&bytes(&tx, 0), 0xAA_0000_0000, 100, 0);
    assert_eq!(
        command_before,
        EOP | IFCS | DEXT,
        "no report before the doorbell"
    );
    assert_eq!(fake.tail(), 0, "the device has seen nothing");
    tx.doorbell();
    let command_after = command(&bytes(&tx, 0), 0xAA_0000_0000, 100, 0);
    assert_eq!(command_after, EOP | IFCS | RS | DEXT);
    assert_eq!(fake.tail(), 1);
    assert_eq!(tx.outstanding(), 1);
}

#[test]
fn a_gather_frame_ends_and_reports_in_its_last_descriptor_only() {
    let (fake, _nic, mut tx, _rx) = open();
    assert_eq!(post(&mut tx, 5, Offload::NONE, 0), Ok(()));
    tx.doorbell();
    for index in 0..5 {
        let address = 0xAA_0000_0000 + 0x1000 * u64::from(index);
        let expected = if index == 4 { EOP | RS } else { 0 } | IFCS | DEXT;
        assert_eq!(
            command(&bytes(&tx, index), address, 100, 0),
            expected,
            "descriptor {index}"
        );
    }
    assert_eq!(fake.tail(), 5);
}

#[test]
fn each_checksum_has_its_context_and_options() {
    use ChecksumOffload as C;
    // Request, l3_len, then as the context descriptor has them: IPCSS, IPCSO, IPCSE low, IPCSE
    // high, TUCSS, TUCSO, TUCSE, TUCSE; TUCMD; and POPTS of the data descriptors.
    let cases: [(C, u16, [u8; 8], u8, u8); 7] = [
        (C::IPV4_HEADER, 20, [14, 24, 33, 0, 34, 0, 0, 0], 0x22, IXSM),
        (C::TCP_IPV4, 20, [14, 24, 0, 0, 34, 50, 0, 0], 0x23, TXSM),
        (C::UDP_IPV4, 20, [14, 24, 0, 0, 34, 40, 0, 0], 0x22, TXSM),
        (
            C::TCP_IPV4 | C::IPV4_HEADER,
            24,
            [14, 24, 37, 0, 38, 54, 0, 0],
            0x23,
            IXSM | TXSM,
        ),
        (C::TCP_IPV6, 40, [14, 0, 0, 0, 54, 70, 0, 0], 0x21, TXSM),
        (C::UDP_IPV6, 40, [14, 0, 0, 0, 54, 60, 0, 0], 0x20, TXSM),
        (C::GENERIC, 20, [14, 0, 0, 0, 34, 38, 0, 0], 0x20, TXSM),
    ];
    let config = Config {
        generic_checksum: true,
        ..Config::default()
    };
    for (checksum, l3_len, context, command_byte, options) in cases {
        let (_fake, nic, mut tx, _rx) = open_with(&config);
        assert!(nic.capabilities().tx_checksum.contains(checksum));
        let mut request = offload(checksum, l3_len);
        request.checksum_offset = 4;
        assert_eq!(post(&mut tx, 2, request, 0), Ok(()), "{checksum:?}");
        tx.doorbell();
        let found = bytes(&tx, 0);
        assert_eq!(found[..8], context, "{checksum:?}");
        assert_eq!(found[8..11], [0; 3], "PAYLEN and DTYP are zero");
        assert_eq!(found[11], command_byte, "TUCMD of {checksum:?}");
        assert_eq!(found[12..], [0; 4], "no segmentation");
        let first = command(&bytes(&tx, 1), 0xAA_0000_0000, 100, options);
        assert_eq!(first, IFCS | DEXT, "{checksum:?}");
        let last = command(&bytes(&tx, 2), 0xAA_0000_1000, 100, options);
        assert_eq!(last, EOP | IFCS | RS | DEXT, "{checksum:?}");
    }
}

#[test]
fn rule_8_generic_is_not_offered_unless_asked_for() {
    let (_fake, nic, mut tx, _rx) = open();
    let offered = nic.capabilities().tx_checksum;
    assert!(!offered.contains(ChecksumOffload::GENERIC));
    assert!(nic.capabilities().segmentation.is_none());
    assert_eq!(
        post(&mut tx, 1, offload(ChecksumOffload::GENERIC, 20), 0),
        Err(PostError::Refused(FrameError::OffloadNotOffered))
    );
}

#[test]
fn a_checksum_beyond_byte_255_is_refused() {
    let (fake, _nic, mut tx, _rx) = open();
    // The checksum of TCP lies at 14 + l3_len + 16.
    let far = offload(ChecksumOffload::TCP_IPV6, 226);
    let refused = Err(PostError::Refused(FrameError::OffloadLayout));
    assert_eq!(post(&mut tx, 4, far, 0), refused);
    assert_eq!(tx.outstanding(), 0);
    tx.doorbell();
    assert_eq!(fake.tail(), 0);
    let near = offload(ChecksumOffload::TCP_IPV6, 225);
    assert_eq!(post(&mut tx, 4, near, 0), Ok(()));
    assert_eq!(bytes(&tx, 0)[5], 255);
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
    let before: Vec<_> = (0..16).map(|index| bytes(&tx, index)).collect();
    let tcp = offload(ChecksumOffload::TCP_IPV4, 20);
    assert_eq!(
        post(&mut tx, 4, tcp, 1),
        Err(PostError::Full),
        "5 descriptors, 4 free"
    );
    let after: Vec<_> = (0..16).map(|index| bytes(&tx, index)).collect();
    assert_eq!(before, after);
    assert!(tx.has_room(3));
    assert!(!tx.has_room(4));
    assert_eq!(post(&mut tx, 3, tcp, 2), Ok(()));
    assert_eq!(post(&mut tx, 1, Offload::NONE, 3), Err(PostError::Full));
    tx.doorbell();
    assert_eq!(fake.tail(), 14, "two descriptors stay free");
    assert_eq!(fake.complete(14), 14);
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
        assert_eq!(most, usize::from(tx_descriptors - 3).min(64));
        // Each needs a context of its own.
        let tcp = offload(ChecksumOffload::TCP_IPV4, 20);
        let udp = offload(ChecksumOffload::UDP_IPV4, 20);
        // 64 fragments of 100 bytes are more than a frame: 20 each will do.
        let mut list = fragments(most);
        list.iter_mut().for_each(|fragment| fragment.len = 20);
        for round in 0..40 {
            let asked = if round % 2 == 0 { tcp } else { udp };
            let posted = post_list(&mut tx, &list, asked, round);
            assert_eq!(posted, Ok(()), "round {round}");
            tx.doorbell();
            assert_eq!(fake.complete(u32::MAX), most as u32 + 1);
            assert_eq!(reclaim(&mut tx), [round]);
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
        fake.complete(2);
        assert_eq!(reclaim(&mut tx), [token]);
    }
    assert_eq!(post(&mut tx, 4, Offload::NONE, 3), Ok(()));
    tx.doorbell();
    assert_eq!(fake.tail(), 2);
    for (position, index) in [6, 7, 0, 1].into_iter().enumerate() {
        let address = 0xAA_0000_0000 + 0x1000 * position as u64;
        let end = if position == 3 { EOP | RS } else { 0 };
        assert_eq!(
            command(&bytes(&tx, index), address, 100, 0),
            end | IFCS | DEXT
        );
    }
    fake.complete(3);
    assert!(
        reclaim(&mut tx).is_empty(),
        "not done before its last descriptor"
    );
    fake.complete(1);
    assert_eq!(reclaim(&mut tx), [3]);
}

#[test]
fn rule_2_the_last_frame_before_a_doorbell_reports_and_long_bursts_report_in_between() {
    let (fake, _nic, mut tx, _rx) = open();
    for token in 0..70 {
        assert_eq!(post(&mut tx, 1, Offload::NONE, token), Ok(()));
    }
    tx.doorbell();
    let reporting: Vec<u32> = (0..70)
        .filter(|index| bytes(&tx, *index)[11] & RS != 0)
        .collect();
    assert_eq!(reporting, [31, 63, 69]);
    fake.complete(40);
    assert_eq!(reclaim(&mut tx), (0..32).collect::<Vec<_>>());
    fake.complete(100);
    assert_eq!(reclaim(&mut tx), (32..70).collect::<Vec<_>>());
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
fn done_without_a_report_is_not_looked_at() {
    let (_fake, _nic, mut tx, _rx) = open();
    for token in 0..2 {
        assert_eq!(post(&mut tx, 1, Offload::NONE, token), Ok(()));
    }
    tx.doorbell();
    // QEMU marks every descriptor; a frame is done when the one that reports is.
    let first = tx.descriptor(0);
    let mut done = first;
    done.as_mut_bytes()[12] = 1;
    tx.overwrite(0, done);
    assert!(reclaim(&mut tx).is_empty());
}

#[test]
fn rule_7_done_before_the_doorbell_is_an_error_and_releases_nothing() {
    let (_fake, _nic, mut tx, _rx) = open();
    // Two groups, so that the first report lies well before the tail.
    for token in 0..64 {
        assert_eq!(post(&mut tx, 1, Offload::NONE, token), Ok(()));
    }
    let mut forged = tx.descriptor(31);
    forged.as_mut_bytes()[12] = 1;
    tx.overwrite(31, forged);
    let mut released = 0;
    let result = tx.reclaim(&mut |_| released += 1);
    assert_eq!(result, Err(QueueError::BadIndex { index: 31 }));
    assert_eq!(released, 0);
    assert_eq!(post(&mut tx, 1, Offload::NONE, 99), Err(PostError::Down));
    assert!(!tx.has_room(1));
    assert_eq!(tx.reclaim(&mut |_| released += 1), Err(QueueError::Down));
    assert_eq!(tx.outstanding(), 64);
}

#[test]
fn rule_7_garbage_in_the_ring_costs_neither_memory_nor_tokens() {
    let (_fake, _nic, mut tx, _rx) = open();
    for token in 0..3 {
        assert_eq!(post(&mut tx, 2, Offload::NONE, token), Ok(()));
    }
    tx.doorbell();
    // All of every descriptor overwritten, DD included: the tokens are ours, not the device's.
    for index in 0..256 {
        let mut garbage = tx.descriptor(index);
        garbage.as_mut_bytes().fill(0xFF);
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
    fake.complete(5);
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
    assert_eq!(nic.capabilities().max_fragments, 64);
    assert_eq!(nic.capabilities().max_frame_len, 1514);
    assert_eq!(nic.capabilities().max_fragment_len, 20 * 1024 - 96);
    let refused = |result: Result<(), PostError>| match result {
        Err(PostError::Refused(error)) => error,
        other => panic!("{other:?} instead of a refusal"),
    };
    let error = refused(post(&mut tx, 65, Offload::NONE, 0));
    assert_eq!(error, FrameError::TooManyFragments { count: 65, max: 64 });
    let error = refused(post(&mut tx, 16, Offload::NONE, 0));
    assert_eq!(error, FrameError::FrameTooLong { len: 1600 });
    let mut short = fragments(1);
    short[0].len = 16;
    let error = refused(post_list(&mut tx, &short, Offload::NONE, 0));
    assert_eq!(error, FrameError::FrameTooShort { len: 16 });
    assert_eq!(tx.outstanding(), 0);
}

#[test]
fn a_context_is_written_where_another_frame_came_before_and_after_a_reset() {
    let (_fake, mut nic, mut tx, mut rx) = open();
    let tcp = offload(ChecksumOffload::TCP_IPV4, 20);
    let longer = offload(ChecksumOffload::TCP_IPV4, 24);
    // A descriptor with the extension bit whose type is not that of data.
    let is_context = |tx: &E1000eTx<Fake>, index| {
        let high = word(&bytes(tx, index), 8);
        high >> 29 & 1 == 1 && high >> 20 & 0xF == 0
    };
    let asked = [tcp, tcp, Offload::NONE, tcp, longer, longer, tcp];
    for (token, offload) in asked.into_iter().enumerate() {
        assert_eq!(post(&mut tx, 1, offload, token as u32), Ok(()));
    }
    let written: Vec<_> = (0..11).map(|index| is_context(&tx, index)).collect();
    let (context, data) = (true, false);
    let expected = [
        context, data, data, data, context, data, context, data, data, context, data,
    ];
    assert_eq!(written, expected);
    make_quiet(&mut nic);
    assert_eq!(restart(&mut nic, &mut tx, &mut rx).0, Ok(()));
    assert_eq!(post(&mut tx, 1, tcp, 9), Ok(()));
    assert!(is_context(&tx, 0), "the device has forgotten it");
}

#[test]
fn a_frame_like_the_one_before_is_refused_by_the_same_limits() {
    let (_fake, nic, mut tx, _rx) = open();
    let most = nic.capabilities().max_frame_len;
    let tcp = offload(ChecksumOffload::TCP_IPV4, 20);
    for asked in [Offload::NONE, tcp] {
        assert_eq!(post(&mut tx, 2, asked, 0), Ok(()));
        let mut list = fragments(2);
        for (lens, error) in [
            ([most - 10, 11], FrameError::FrameTooLong { len: most + 1 }),
            ([60, 0], FrameError::EmptyFragment { index: 1 }),
            ([7, 6], FrameError::FrameTooShort { len: 13 }),
        ] {
            list.iter_mut()
                .zip(lens)
                .for_each(|(one, len)| one.len = len);
            let refused = post_list(&mut tx, &list, asked, 1);
            assert_eq!(refused, Err(PostError::Refused(error)), "{lens:?}");
        }
        let none = post_list(&mut tx, &[], asked, 1);
        assert_eq!(none, Err(PostError::Refused(FrameError::NoFragment)));
    }
    // Long enough for a frame, too short for a checksum at byte 50.
    let mut list = fragments(1);
    list[0].len = 51;
    let refused = post_list(&mut tx, &list, tcp, 1);
    assert_eq!(refused, Err(PostError::Refused(FrameError::OffloadLayout)));
    list[0].len = 52;
    assert_eq!(post_list(&mut tx, &list, tcp, 1), Ok(()));
}
