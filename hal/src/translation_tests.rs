//! Translation and gather lists against oracles that look at every byte.

#![allow(clippy::unwrap_used, reason = "for tests only")]

use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::test_support::{config, seed};

fn granule(bytes: usize) -> Granule {
    Granule::from_bytes(bytes).unwrap()
}

/// Pieces as the device sees them, found byte by byte: contiguous bytes are one piece.
fn merge(bytes: impl Iterator<Item = u64>) -> Vec<(u64, usize)> {
    let mut pieces: Vec<(u64, usize)> = Vec::new();
    for byte in bytes {
        match pieces.last_mut() {
            Some((start, len)) if start.checked_add(*len as u64) == Some(byte) => *len += 1,
            _ => pieces.push((byte, 1)),
        }
    }
    pieces
}

fn pairs(runs: Runs<'_>) -> Vec<(u64, usize)> {
    runs.map(|run| (run.address.0, run.len)).collect()
}

#[test]
fn granules_are_powers_of_two() {
    for log2 in 0..usize::BITS {
        let granule = granule(1 << log2);
        assert_eq!((granule.bytes(), granule.log2()), (1 << log2, log2 as u8));
    }
    for bytes in [0, 3, 4095, usize::MAX] {
        assert_eq!(Granule::from_bytes(bytes), None);
    }
    assert_eq!(Granule::CONTIGUOUS.bytes(), usize::MAX / 2 + 1);
}

#[test]
fn a_translation_has_one_address_for_each_granule_touched() {
    let addresses = [DeviceAddress(0); 3];
    for (lead, len, count) in [
        (0, 0, 0),
        (4095, 0, 0),
        (0, 4096, 1),
        (4095, 1, 1),
        (4095, 2, 2),
        (1, 8192, 3),
    ] {
        for given in 0..=3 {
            let made = Translation::new(granule(4096), lead, len, &addresses[..given]);
            assert_eq!(made.is_some(), given == count, "{lead} {len} {given}");
        }
    }
    assert!(Translation::new(granule(4096), 4096, 1, &addresses[..1]).is_none());
    assert!(Translation::new(granule(4096), 1, usize::MAX, &addresses).is_none());
    assert!(Translation::new(Granule::CONTIGUOUS, 5, 100, &addresses[..1]).is_some());
}

#[test]
fn ranges_outside_the_region_have_no_granules_and_no_runs() {
    let addresses = [DeviceAddress(0x1000), DeviceAddress(0x9000)];
    let translation = Translation::new(granule(4096), 4095, 2, &addresses).unwrap();
    let max = usize::MAX;
    for (start, len) in [
        (0, 3),
        (2, 1),
        (3, 0),
        (0, max),
        (1, max),
        (max, 1),
        (max, max),
    ] {
        assert_eq!(translation.runs(start, len).count(), 0, "{start} {len}");
        assert!(translation.granules(start, len).is_empty(), "{start} {len}");
    }
    assert_eq!(translation.granules(0, 2), 0..2);
    assert_eq!(translation.granules(0, 1), 0..1);
    assert_eq!(translation.granules(1, 1), 1..2);
    assert!(translation.granules(2, 0).is_empty());
}

#[test]
fn a_contiguous_translation_ends_where_its_addresses_do() {
    let addresses = [DeviceAddress(0x5000)];
    let half = Granule::CONTIGUOUS.bytes();
    let all = Translation::contiguous(usize::MAX, &addresses);
    assert_eq!(pairs(all.runs(7, 9)), [(0x5007, 9)]);
    assert_eq!(pairs(all.runs(0, usize::MAX)), [(0x5000, half)]);
    assert_eq!(all.runs(half, 1).count(), 0);
    assert_eq!(Translation::contiguous(4, &[]).runs(0, 4).count(), 0);
}

#[test]
fn bytes_on_both_sides_of_the_end_of_addresses_are_no_neighbours() {
    let addresses = [DeviceAddress(u64::MAX - 4095), DeviceAddress(0)];
    let translation = Translation::new(granule(4096), 0, 8192, &addresses).unwrap();
    let expected = [(u64::MAX - 4095, 4096), (0, 4096)];
    assert_eq!(pairs(translation.runs(0, 8192)), expected);
    let mut list = GatherList::new(4, u32::MAX);
    for run in translation.runs(0, 8192) {
        list.push(run).unwrap();
    }
    assert_eq!(list.as_slice().len(), 2);
}

/// The off-by-one of 1997: one crossing makes two pieces, and the header is a third.
#[test]
fn rule_1_count_pieces_of_the_translated_list() {
    let header = Run {
        address: DeviceAddress(0x77_0000),
        len: 54,
    };
    let scattered = [DeviceAddress(0x10_0000), DeviceAddress(0x20_0000)];
    let contiguous = [DeviceAddress(0x10_0000), DeviceAddress(0x10_1000)];
    for (addresses, max_fragments, fits) in [
        (&scattered, 2, false),
        (&scattered, 3, true),
        (&contiguous, 2, true),
        (&contiguous, 1, false),
    ] {
        let translation = Translation::new(granule(4096), 0, 8192, addresses).unwrap();
        let mut list = GatherList::new(max_fragments, 4096);
        let mut result = list.push(header);
        for run in translation.runs(4095, 2) {
            result = result.and(list.push(run));
        }
        assert_eq!(result.is_ok(), fits, "{addresses:?} in {max_fragments}");
    }
}

#[test]
fn rule_1_what_is_too_long_splits_and_is_counted_again() {
    let run = Run {
        address: DeviceAddress(0x10_0000),
        len: 10_000,
    };
    assert_eq!(GatherList::new(2, 4096).push(run), Err(GatherFull));
    let mut list = GatherList::new(3, 4096);
    list.push(run).unwrap();
    let lens: Vec<_> = list.as_slice().iter().map(|f| f.len).collect();
    assert_eq!(lens, [4096, 4096, 10_000 - 8192]);
}

#[test]
fn a_gather_list_keeps_its_bounds_for_hostile_numbers() {
    let run = Run {
        address: DeviceAddress(u64::MAX - 1),
        len: usize::MAX,
    };
    assert_eq!(GatherList::new(usize::MAX, 0).push(run), Err(GatherFull));
    assert_eq!(GatherList::new(0, 1).push(run), Err(GatherFull));
    let mut list = GatherList::new(usize::MAX, u32::MAX);
    assert_eq!(list.push(run), Err(GatherFull));
    assert_eq!(list.as_slice().len(), MAX_GATHER);
    list.clear();
    assert!(list.as_slice().is_empty());
    let none = Run { len: 0, ..run };
    assert_eq!(list.push(none), Ok(()));
    assert!(list.as_slice().is_empty());
}

/// A granule, a lead, a length, and whether each granule follows its predecessor.
fn region() -> impl Strategy<Value = (usize, usize, usize, Vec<bool>)> {
    (0u32..13, 0usize..1 << 13, 0usize..6000, any::<u64>()).prop_map(|(log2, lead, len, joined)| {
        let granule = 1usize << log2;
        let len = len.min(granule * 24);
        let lead = lead % granule;
        let touched = if len == 0 {
            0
        } else {
            (lead + len).div_ceil(granule)
        };
        (
            granule,
            lead,
            len,
            (0..touched).map(|i| joined >> (i % 64) & 1 == 1).collect(),
        )
    })
}

fn addresses(granule: usize, joined: &[bool]) -> Vec<DeviceAddress> {
    let mut next = 0x4000_0000u64;
    let granule = granule as u64;
    joined
        .iter()
        .map(|joined| {
            next += if *joined { granule } else { 3 * granule };
            DeviceAddress(next)
        })
        .collect()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn runs_are_what_an_oracle_finds_byte_by_byte(
        (size, lead, len, joined) in region(), a in 0usize..6100, b in 0usize..6100,
    ) {
        let addresses = addresses(size, &joined);
        let translation = Translation::new(granule(size), lead, len, &addresses).unwrap();
        let (start, count) = (a.min(len), b.min(len - a.min(len)));
        let at = |offset: usize| {
            addresses[(lead + offset) / size].0 + ((lead + offset) % size) as u64
        };
        let expected = merge((start..start + count).map(at));
        prop_assert_eq!(pairs(translation.runs(start, count)), expected, "seed {}", seed());
        let touched: Vec<_> = {
            let mut all: Vec<_> = (start..start + count).map(|o| (lead + o) / size).collect();
            all.dedup();
            all
        };
        let granules: Vec<_> = translation.granules(start, count).collect();
        prop_assert_eq!(granules, touched, "seed {}", seed());
    }

    #[test]
    fn a_contiguous_region_is_one_run(
        len in 0usize..=isize::MAX as usize, a in any::<usize>(), b in any::<usize>(),
        base in 0u64..1 << 47,
    ) {
        let address = [DeviceAddress(base)];
        let translation = Translation::contiguous(len, &address);
        let start = a % (len + 1);
        let count = b % (len - start + 1);
        let expected = if count == 0 { vec![] } else { vec![(base + start as u64, count)] };
        prop_assert_eq!(pairs(translation.runs(start, count)), expected, "seed {}", seed());
    }

    #[test]
    fn a_gather_list_merges_splits_and_counts(
        parts in prop::collection::vec((0usize..200, 0u64..3), 0..12),
        max_len in 1u32..70, max in 0usize..24,
    ) {
        let mut next = 0x1000u64;
        let mut bytes = Vec::new();
        let mut list = GatherList::new(max, max_len);
        let mut full = false;
        for (len, gap) in parts {
            next += gap;
            full = full || list.push(Run { address: DeviceAddress(next), len }).is_err();
            bytes.extend((0..len as u64).map(|i| next + i));
            next += len as u64;
        }
        let max_len = max_len as usize;
        let expected: Vec<(u64, usize)> = merge(bytes.into_iter())
            .into_iter()
            .flat_map(|(start, len)| {
                (0..len.div_ceil(max_len)).map(move |i| {
                    (start + (i * max_len) as u64, max_len.min(len - i * max_len))
                })
            })
            .collect();
        prop_assert_eq!(full, expected.len() > max, "seed {}", seed());
        if !full {
            let found: Vec<_> =
                list.as_slice().iter().map(|f| (f.address.0, f.len as usize)).collect();
            prop_assert_eq!(found, expected, "seed {}", seed());
        }
    }
}
