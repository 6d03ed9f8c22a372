//! What a frame must be to be posted, limit by limit.

use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::Segmentation;
use crate::test_support::{config, seed};

fn fragments(lens: &[u32]) -> Vec<Fragment> {
    let address = DeviceAddress(0x1_0000);
    lens.iter()
        .map(|len| Fragment { address, len: *len })
        .collect()
}

fn capabilities() -> Capabilities {
    let mut capabilities = Capabilities::minimal();
    capabilities.max_fragments = 4;
    capabilities.max_fragment_len = 1000;
    capabilities.tx_checksum = ChecksumOffload::all();
    capabilities
}

fn check(lens: &[u32], offload: Offload, capabilities: &Capabilities) -> Result<u32, FrameError> {
    let fragments = fragments(lens);
    let frame = TxFrame {
        fragments: &fragments,
        offload,
        first: None,
    };
    frame.check(capabilities)
}

/// The same for a frame that asks for what was asked for before.
fn again(lens: &[u32], offload: Offload, capabilities: &Capabilities) -> Option<u32> {
    let fragments = fragments(lens);
    let frame = TxFrame {
        fragments: &fragments,
        offload,
        first: None,
    };
    let lengths = Lengths::of(offload, capabilities).ok()?;
    assert_eq!(frame.check_again(&Lengths::NONE, capabilities), None);
    let has_room = capabilities.head_room == 0;
    frame
        .check_again(&lengths, capabilities)
        .filter(|_| has_room)
}

#[test]
fn each_part_of_a_request_tells_it_from_another() {
    let one = Offload {
        checksum: ChecksumOffload::GENERIC,
        l2_len: 14,
        l3_len: 20,
        l4_len: 20,
        checksum_offset: 6,
        segment_len: 0,
    };
    let others = [
        Offload {
            checksum: ChecksumOffload::UDP_IPV4,
            ..one
        },
        Offload { l2_len: 18, ..one },
        Offload { l3_len: 24, ..one },
        Offload {
            l3_len: 20 + 256,
            ..one
        },
        Offload { l4_len: 32, ..one },
        Offload {
            checksum_offset: 16,
            ..one
        },
        Offload {
            segment_len: 1,
            ..one
        },
        Offload {
            segment_len: 256,
            ..one
        },
        Offload::NONE,
    ];
    let capabilities = capabilities();
    let fragments = fragments(&[500]);
    let asking = |offload| TxFrame {
        fragments: &fragments,
        offload,
        first: None,
    };
    let lengths = Lengths::of(one, &capabilities).unwrap();
    assert_eq!(asking(one).check_again(&lengths, &capabilities), Some(500));
    for other in others {
        let frame = asking(other);
        assert_eq!(
            frame.check_again(&lengths, &capabilities),
            None,
            "{other:?}"
        );
    }
}

fn asks(checksum: ChecksumOffload, l3_len: u16) -> Offload {
    Offload {
        checksum,
        l2_len: 14,
        l3_len,
        ..Offload::NONE
    }
}

#[test]
fn rule_4_a_frame_is_refused_for_what_the_device_does_not_take() {
    let none = |lens: &[u32]| check(lens, Offload::NONE, &capabilities());
    assert_eq!(none(&[]), Err(FrameError::NoFragment));
    let many = FrameError::TooManyFragments { count: 5, max: 4 };
    assert_eq!(none(&[20; 5]), Err(many));
    assert_eq!(none(&[0]), Err(FrameError::EmptyFragment { index: 0 }));
    assert_eq!(
        none(&[60, 0, 9]),
        Err(FrameError::EmptyFragment { index: 1 })
    );
    assert_eq!(none(&[60, 0]), Err(FrameError::EmptyFragment { index: 1 }));
    let long = FrameError::FragmentTooLong {
        index: 1,
        len: 1001,
    };
    assert_eq!(none(&[1000, 1001]), Err(long));
    assert_eq!(none(&[7, 6]), Err(FrameError::FrameTooShort { len: 13 }));
    assert_eq!(
        none(&[1000, 515]),
        Err(FrameError::FrameTooLong { len: 1515 })
    );
    assert_eq!(none(&[7, 7]), Ok(14));
    assert_eq!(none(&[1000, 512, 1, 1]), Ok(1514));
}

#[test]
fn a_sum_of_lengths_that_overflows_is_too_long_and_not_short() {
    let mut capabilities = capabilities();
    capabilities.max_fragment_len = u32::MAX;
    capabilities.max_frame_len = u32::MAX;
    let most = check(&[u32::MAX - 1, 1], Offload::NONE, &capabilities);
    assert_eq!(most, Ok(u32::MAX));
    let over = check(&[u32::MAX, 1, 1], Offload::NONE, &capabilities);
    assert_eq!(over, Err(FrameError::FrameTooLong { len: u32::MAX }));
}

#[test]
fn a_device_that_needs_head_room_gets_none_without_a_pointer() {
    let mut capabilities = capabilities();
    capabilities.head_room = 12;
    let refused = check(&[60], Offload::NONE, &capabilities);
    assert_eq!(refused, Err(FrameError::NoHeadRoom));
    let fragments = fragments(&[60]);
    let frame = TxFrame {
        fragments: &fragments,
        offload: Offload::NONE,
        first: Some(NonNull::dangling()),
    };
    assert_eq!(frame.check(&capabilities), Ok(60));
}

#[test]
fn only_offered_checksums_are_taken() {
    for flag in ChecksumOffload::all().iter() {
        let mut capabilities = capabilities();
        let offload = asks(flag, 40);
        assert_eq!(check(&[100], offload, &capabilities), Ok(100), "{flag:?}");
        capabilities.tx_checksum.remove(flag);
        let refused = check(&[100], offload, &capabilities);
        assert_eq!(refused, Err(FrameError::OffloadNotOffered), "{flag:?}");
    }
    let unknown = asks(ChecksumOffload::from_bits_retain(0x80), 40);
    let refused = check(&[100], unknown, &capabilities());
    assert_eq!(refused, Err(FrameError::OffloadNotOffered));
}

#[test]
fn checksums_that_contradict_each_other_are_refused() {
    use ChecksumOffload as C;
    let refused = |checksum| {
        let result = check(&[100], asks(checksum, 40), &capabilities());
        assert_eq!(result, Err(FrameError::OffloadLayout), "{checksum:?}");
    };
    let each: Vec<_> = C::TRANSPORT.iter().collect();
    for (i, a) in each.iter().enumerate() {
        for b in &each[i + 1..] {
            refused(*a | *b);
        }
    }
    refused(C::IPV4_HEADER | C::TCP_IPV6);
    refused(C::IPV4_HEADER | C::UDP_IPV6);
    for checksum in [C::TCP_IPV4, C::UDP_IPV4, C::GENERIC] {
        let both = asks(checksum | C::IPV4_HEADER, 20);
        assert_eq!(check(&[100], both, &capabilities()), Ok(100));
    }
}

#[test]
fn headers_must_lie_in_the_frame_and_be_as_long_as_their_protocol() {
    use ChecksumOffload as C;
    for (checksum, l3_len, field) in [
        (C::TCP_IPV4, 20, 18),
        (C::UDP_IPV4, 20, 8),
        (C::TCP_IPV6, 40, 18),
        (C::UDP_IPV6, 40, 8),
        (C::IPV4_HEADER, 20, 0),
        (C::IPV4_HEADER, 60, 0),
    ] {
        let offload = asks(checksum, l3_len);
        let needed = 14 + u32::from(l3_len) + field;
        let check = |len, offload| check(&[len], offload, &capabilities());
        assert_eq!(check(needed, offload), Ok(needed), "{checksum:?}");
        let layout = Err(FrameError::OffloadLayout);
        assert_eq!(check(needed - 1, offload), layout, "{checksum:?}");
        let link = Offload {
            l2_len: 13,
            ..offload
        };
        assert_eq!(check(200, link), layout, "{checksum:?}");
        if l3_len != 60 {
            let network = Offload {
                l3_len: l3_len - 1,
                ..offload
            };
            assert_eq!(check(200, network), layout, "{checksum:?}");
        }
    }
    let mut generic = asks(C::GENERIC, 0);
    generic.checksum_offset = 84;
    assert_eq!(check(&[100], generic, &capabilities()), Ok(100));
    generic.checksum_offset = 85;
    assert_eq!(
        check(&[100], generic, &capabilities()),
        Err(FrameError::OffloadLayout)
    );
}

fn segmenting() -> (Capabilities, Offload) {
    let mut limits = Segmentation::new(10_000, 100);
    (limits.ipv4, limits.ipv6) = (true, false);
    let mut capabilities = capabilities();
    capabilities.max_fragment_len = 20_000;
    capabilities.segmentation = Some(limits);
    let offload = Offload {
        l4_len: 20,
        segment_len: 1460,
        ..asks(ChecksumOffload::TCP_IPV4, 20)
    };
    (capabilities, offload)
}

#[test]
fn segmentation_keeps_to_its_own_limits() {
    let (capabilities, tso) = segmenting();
    let check = |len: u32, offload| check(&[54, len - 54], offload, &capabilities);
    assert_eq!(check(10_054, tso), Ok(10_054));
    let long = FrameError::FrameTooLong { len: 10_055 };
    assert_eq!(check(10_055, tso), Err(long));
    assert_eq!(check(55, tso), Ok(55));
    let off = Offload {
        segment_len: 0,
        ..tso
    };
    assert_eq!(
        check(1515, off),
        Err(FrameError::FrameTooLong { len: 1515 })
    );

    let layout = Err(FrameError::OffloadLayout);
    for l4_len in [0, 19, 67, 255] {
        assert_eq!(check(1000, Offload { l4_len, ..tso }), layout, "{l4_len}");
    }
    assert_eq!(
        check(
            1000,
            Offload {
                l4_len: 60,
                l3_len: 26,
                ..tso
            }
        ),
        Ok(1000)
    );
    assert_eq!(
        check(
            1000,
            Offload {
                l4_len: 60,
                l3_len: 27,
                ..tso
            }
        ),
        layout
    );
    for checksum in [
        ChecksumOffload::empty(),
        ChecksumOffload::IPV4_HEADER,
        ChecksumOffload::UDP_IPV4,
        ChecksumOffload::GENERIC,
    ] {
        assert_eq!(
            check(1000, Offload { checksum, ..tso }),
            layout,
            "{checksum:?}"
        );
    }
}

#[test]
fn segmentation_needs_a_payload_and_an_offered_family() {
    let (mut capabilities, tso) = segmenting();
    let only_header = check(&[54], tso, &capabilities);
    assert_eq!(only_header, Err(FrameError::OffloadLayout));
    let six = Offload {
        checksum: ChecksumOffload::TCP_IPV6,
        l3_len: 40,
        ..tso
    };
    let not_offered = Err(FrameError::OffloadNotOffered);
    assert_eq!(check(&[1000], six, &capabilities), not_offered);
    let mut limits = Segmentation::new(u32::MAX, u16::MAX);
    limits.ipv6 = true;
    capabilities.segmentation = Some(limits);
    assert_eq!(check(&[1000], six, &capabilities), Ok(1000));
    assert_eq!(check(&[1000], tso, &capabilities), not_offered);
    capabilities.segmentation = None;
    assert_eq!(check(&[1000], six, &capabilities), not_offered);
}

proptest! {
    #![proptest_config(config())]

    /// No panic for any numbers; and what passes keeps to every limit that a driver relies on.
    #[test]
    fn what_passes_is_within_all_limits(
        lens in prop::collection::vec(prop_oneof![0u32..200, any::<u32>()], 0..6),
        bits in any::<u8>(), l2_len in any::<u8>(), l3_len in 0u16..600, l4_len in any::<u8>(),
        checksum_offset in any::<u8>(), segment_len in prop_oneof![Just(0u16), any::<u16>()],
        tso in any::<bool>(), max_payload_len in any::<u32>(), max_header_len in any::<u16>(),
        max_frame_len in prop_oneof![Just(1514u32), any::<u32>()],
    ) {
        let mut capabilities = capabilities();
        capabilities.max_fragment_len = u32::MAX;
        capabilities.max_frame_len = max_frame_len;
        let mut limits = Segmentation::new(max_payload_len, max_header_len);
        (limits.ipv4, limits.ipv6) = (true, true);
        capabilities.segmentation = tso.then_some(limits);
        let checksum = ChecksumOffload::from_bits_retain(bits);
        let offload = Offload {
            checksum, l2_len, l3_len, l4_len, checksum_offset, segment_len,
        };
        let checked = check(&lens, offload, &capabilities);
        prop_assert_eq!(again(&lens, offload, &capabilities), checked.ok(), "seed {}", seed());
        let Ok(len) = checked else { return Ok(()) };
        let sum: u64 = lens.iter().map(|l| u64::from(*l)).sum();
        prop_assert_eq!(u64::from(len), sum, "seed {}", seed());
        prop_assert!(lens.len() <= 4 && !lens.contains(&0), "seed {}", seed());
        let header = u32::from(l2_len) + u32::from(l3_len) + u32::from(l4_len);
        if segment_len != 0 {
            prop_assert!(tso && header < len && l4_len >= 20, "seed {}", seed());
            prop_assert!(len - header <= max_payload_len, "seed {}", seed());
            prop_assert!(header <= u32::from(max_header_len), "seed {}", seed());
        } else {
            prop_assert!(len <= max_frame_len, "seed {}", seed());
        }
        if checksum.intersects(ChecksumOffload::TRANSPORT) {
            let field = u32::from(l2_len) + u32::from(l3_len)
                + u32::from(offload.transport_checksum_offset());
            prop_assert!(field + 2 <= len, "seed {}", seed());
        }
    }

    /// Of a frame like one before no more is known, and no less.
    #[test]
    fn what_is_checked_again_passes_as_it_does_the_first_time(
        lens in prop::collection::vec(1u32..1000, 1..5), checksum in 0usize..6,
        l2_len in 14u8..19, l3_len in 20u16..61, segment_len in prop_oneof![Just(0u16), 1u16..1500],
        max_payload_len in 100u32..3000, max_frame_len in 590u32..3000, min_frame_len in 14u32..61,
        head_room in 0u16..2,
    ) {
        let mut capabilities = capabilities();
        capabilities.max_frame_len = max_frame_len;
        capabilities.min_frame_len = min_frame_len;
        capabilities.head_room = head_room;
        let mut limits = Segmentation::new(max_payload_len, 128);
        (limits.ipv4, limits.ipv6) = (true, true);
        capabilities.segmentation = Some(limits);
        let checksum = [
            ChecksumOffload::empty(), ChecksumOffload::IPV4_HEADER, ChecksumOffload::TCP_IPV4,
            ChecksumOffload::UDP_IPV4, ChecksumOffload::TCP_IPV6, ChecksumOffload::GENERIC,
        ][checksum];
        let mut offload = Offload::NONE;
        if !checksum.is_empty() {
            offload = Offload {
                checksum, l2_len, l3_len, l4_len: 20, checksum_offset: 30, segment_len,
            };
        }
        let checked = check(&lens, offload, &capabilities);
        prop_assert_eq!(again(&lens, offload, &capabilities), checked.ok(), "seed {}", seed());
    }
}
