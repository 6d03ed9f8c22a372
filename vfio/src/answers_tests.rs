use proptest::prelude::*;

use super::*;

const PAGE: u64 = 4096;

/// A region's description: flags, first capability, length, offset, and what is behind them.
fn description(flags: u32, capability: u32, len: u64, offset: u64, behind: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [0, flags, 0, capability] {
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    bytes.extend_from_slice(&len.to_ne_bytes());
    bytes.extend_from_slice(&offset.to_ne_bytes());
    bytes.extend_from_slice(behind);
    bytes
}

fn capability(id: u16, next: u32, words: &[u64]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&id.to_ne_bytes());
    bytes.extend_from_slice(&1_u16.to_ne_bytes());
    bytes.extend_from_slice(&next.to_ne_bytes());
    bytes.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
    bytes
}

/// A sparse capability with these areas.
fn sparse_of(next: u32, areas: &[(u64, u64)]) -> Vec<u8> {
    let mut words = vec![areas.len() as u64];
    words.extend(areas.iter().flat_map(|(offset, len)| [*offset, *len]));
    capability(1, next, &words)
}

fn mappable(areas: &[(u64, u64)]) -> Vec<Area> {
    let area = |(offset, len): &(u64, u64)| Area {
        offset: *offset,
        len: *len,
    };
    areas.iter().map(area).collect()
}

const MMAP: u32 = VFIO_REGION_INFO_FLAG_MMAP;
const CAPS: u32 = VFIO_REGION_INFO_FLAG_CAPS;

#[test]
fn a_plain_region_is_mapped_wholly_or_not_at_all() {
    let found = region(&description(MMAP | 3, 0, 0x2_0000, 1 << 40, &[]), PAGE).unwrap();
    assert_eq!(found.len, 0x2_0000);
    assert_eq!(found.offset, 1 << 40);
    assert_eq!(found.mappable, mappable(&[(0, 0x2_0000)]));
    let found = region(&description(3, 0, 0x2_0000, 0, &[]), PAGE).unwrap();
    assert_eq!(found.mappable, []);
    // Less than a page has no page of its own.
    let found = region(&description(MMAP, 0, 0x400, 0, &[]), PAGE).unwrap();
    assert_eq!(found.mappable, []);
}

#[test]
fn the_table_of_msix_is_left_out_where_the_kernel_says_so() {
    // Another capability first, then the areas around a table in the third page.
    let mut behind = capability(2, 32 + 16, &[7]);
    behind.extend(sparse_of(0, &[(0x3000, 0x1000), (0, 0x2000)]));
    let found = region(&description(MMAP | CAPS, 32, 0x4000, 0, &behind), PAGE).unwrap();
    assert_eq!(found.mappable, mappable(&[(0, 0x2000), (0x3000, 0x1000)]));
    // The table may be mapped too: a capability without areas.
    let whole = capability(3, 0, &[]);
    let found = region(&description(MMAP | CAPS, 32, 0x4000, 0, &whole), PAGE).unwrap();
    assert_eq!(found.mappable, mappable(&[(0, 0x4000)]));
    // No area at all.
    let none = sparse_of(0, &[]);
    let found = region(&description(MMAP | CAPS, 32, 0x4000, 0, &none), PAGE).unwrap();
    assert_eq!(found.mappable, []);
    // Areas that are not whole pages.
    let ragged = sparse_of(0, &[(0x800, 0x2000), (0x3000, 0x800)]);
    let found = region(&description(MMAP | CAPS, 32, 0x4000, 0, &ragged), PAGE).unwrap();
    assert_eq!(found.mappable, mappable(&[(0x1000, 0x1000)]));
}

#[test]
fn descriptions_that_lead_astray_are_errors() {
    let bad: [(&str, u32, u64, u64, Vec<u8>); 9] = [
        ("no capability there", 4096, 0x4000, 0, Vec::new()),
        ("a capability in the description", 8, 0x4000, 0, Vec::new()),
        ("the chain is a ring", 32, 0x4000, 0, capability(2, 32, &[])),
        (
            "the chain leads outside",
            32,
            0x4000,
            0,
            capability(2, u32::MAX, &[]),
        ),
        (
            "more areas than there are",
            32,
            0x4000,
            0,
            capability(1, 0, &[u64::from(u32::MAX)]),
        ),
        (
            "an area outside",
            32,
            0x4000,
            0,
            sparse_of(0, &[(0x3000, 0x2000)]),
        ),
        (
            "an area around the end",
            32,
            0x4000,
            0,
            sparse_of(0, &[(0x1000, u64::MAX)]),
        ),
        (
            "areas overlap",
            32,
            0x4000,
            0,
            sparse_of(0, &[(0, 0x2000), (0x1000, 0x1000)]),
        ),
        ("the region has no end", 0, u64::MAX, 4096, Vec::new()),
    ];
    for (name, first, len, offset, behind) in bad {
        let found = region(&description(MMAP | CAPS, first, len, offset, &behind), PAGE);
        assert!(found.is_err(), "{name}: {found:?}");
    }
    assert!(region(&[0; 31], PAGE).is_err());
    assert!(region(&[], PAGE).is_err());
}

#[test]
fn who_is_hit_by_a_reset_is_read() {
    let mut bytes = Vec::new();
    for word in [0_u32, 0, 2, 17] {
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    bytes.extend_from_slice(&1_u16.to_ne_bytes());
    bytes.extend_from_slice(&[3, 0x0a]);
    bytes.extend_from_slice(&u32::MAX.to_ne_bytes());
    bytes.extend_from_slice(&[0, 0, 0xff, 0xff]);
    let found = hit_by_reset(&bytes).unwrap();
    let names: Vec<_> = found.iter().map(|hit| hit.address.to_string()).collect();
    assert_eq!(names, ["0001:03:01.2", "0000:ff:1f.7"]);
    assert_eq!(found[0].owner, 17);
    assert_eq!(found[1].owner, u32::MAX);
    assert!(hit_by_reset(&bytes[..27]).is_err());
    bytes[8..12].copy_from_slice(&u32::MAX.to_ne_bytes());
    assert!(hit_by_reset(&bytes).is_err());
}

proptest! {
    /// Whatever the bytes are: no panic, and what is said to be mappable lies in the region, in
    /// whole pages, without overlap.
    #[test]
    fn any_bytes_are_read_or_refused(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        small in any::<bool>(),
        first in 0..100_u32,
    ) {
        let mut bytes = bytes;
        if small && bytes.len() >= 32 {
            // Near enough to the truth to be read on.
            bytes[4..8].copy_from_slice(&(MMAP | CAPS).to_ne_bytes());
            bytes[12..16].copy_from_slice(&first.to_ne_bytes());
            bytes[18..24].fill(0);
            bytes[24..32].fill(0);
        }
        let _ = hit_by_reset(&bytes);
        if let Ok(found) = region(&bytes, PAGE) {
            let mut end = 0;
            for area in &found.mappable {
                prop_assert!(area.len > 0 && area.offset >= end);
                prop_assert!(area.offset % PAGE == 0 && area.len % PAGE == 0);
                end = area.offset + area.len;
            }
            prop_assert!(end <= found.len);
        }
    }
}
