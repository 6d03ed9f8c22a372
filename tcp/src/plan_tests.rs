use super::*;
use crate::test_support::{config, seed};
use alloc::vec::Vec;
use pagewire_hal::{DeviceAddress, Granule, Translation};
use proptest::prelude::*;

fn run(address: u64, len: usize) -> Run {
    Run {
        address: DeviceAddress(address),
        len,
    }
}

fn budget(max_fragments: usize) -> Budget {
    Budget {
        max_fragments,
        max_fragment_len: 16384,
        header_len: 54,
        share_min: 1,
    }
}

/// Offset 4095, length 2: one crossing, two pieces, three fragments with the header.
#[test]
fn rule_1_counts_pieces_not_crossings() {
    let page = Granule::from_bytes(4096).unwrap();
    let apart = [DeviceAddress(0x1_0000), DeviceAddress(0x9_0000)];
    let scattered = Translation::new(page, 0, 8192, &apart).unwrap();
    assert_eq!(
        plan(&budget(2), scattered.runs(4095, 2)),
        Plan::Rescue { prefix: 1 },
        "two pieces and a header do not fit two fragments"
    );
    assert_eq!(plan(&budget(3), scattered.runs(4095, 2)), Plan::Share);
    let strict = Budget {
        share_min: 512,
        ..budget(2)
    };
    assert_eq!(
        plan(&strict, scattered.runs(4095, 2)),
        Plan::Copy(Reason::OverBudget)
    );
    let together = [DeviceAddress(0x1_0000), DeviceAddress(0x1_1000)];
    let contiguous = Translation::new(page, 0, 8192, &together).unwrap();
    assert_eq!(plan(&strict, contiguous.runs(4095, 2)), Plan::Share);
}

#[test]
fn neighbours_in_two_slices_are_one_piece() {
    let slices = [run(0x1000, 100), run(0x1064, 100)];
    assert_eq!(plan(&budget(2), slices.into_iter()), Plan::Share);
}

#[test]
fn a_device_that_does_not_gather_copies() {
    let one = [run(0x1000, 100)];
    assert_eq!(
        plan(&budget(1), one.into_iter()),
        Plan::Copy(Reason::NoGather)
    );
}

#[test]
fn a_run_longer_than_a_fragment_is_rescued_inside() {
    let limits = Budget {
        max_fragment_len: 1000,
        ..budget(2)
    };
    assert_eq!(
        plan(&limits, [run(0x1000, 1448)].into_iter()),
        Plan::Rescue { prefix: 448 }
    );
}

/// The same question answered without any cleverness: the address of every byte, and every
/// prefix in turn.
fn oracle(budget: &Budget, runs: &[Run]) -> Plan {
    if budget.max_fragments < 2 {
        return Plan::Copy(Reason::NoGather);
    }
    let bytes: Vec<u64> = runs
        .iter()
        .flat_map(|run| (0..run.len as u64).map(|i| run.address.0 + i))
        .collect();
    for prefix in 0..bytes.len() {
        let mut pieces = 0;
        let mut in_piece = 0;
        let mut last = None;
        for address in &bytes[prefix..] {
            if last.is_none_or(|l: u64| l + 1 != *address) || in_piece == budget.max_fragment_len {
                pieces += 1;
                in_piece = 0;
            }
            in_piece += 1;
            last = Some(*address);
        }
        let header = (budget.header_len + prefix).div_ceil(budget.max_fragment_len);
        if header + pieces <= budget.max_fragments {
            return match prefix {
                0 => Plan::Share,
                _ if bytes.len() - prefix >= budget.share_min => Plan::Rescue { prefix },
                _ => Plan::Copy(Reason::OverBudget),
            };
        }
    }
    Plan::Copy(Reason::OverBudget)
}

/// The longest multiple of the segment length that fits, found by trying all of them.
fn request_oracle(budget: &Budget, segment_len: usize, runs: &[Run]) -> Request {
    let bytes: Vec<u64> = runs
        .iter()
        .flat_map(|run| (0..run.len as u64).map(|i| run.address.0 + i))
        .collect();
    let fits = |len: usize| {
        let mut fragments = budget.header_len.div_ceil(budget.max_fragment_len);
        let mut in_piece = 0;
        let mut last = None;
        for address in &bytes[..len] {
            if last.is_none_or(|l: u64| l + 1 != *address) || in_piece == budget.max_fragment_len {
                fragments += 1;
                in_piece = 0;
            }
            in_piece += 1;
            last = Some(*address);
        }
        fragments <= budget.max_fragments
    };
    if fits(bytes.len()) {
        return Request::Whole;
    }
    let mut longest = 0;
    for len in (0..bytes.len()).step_by(segment_len) {
        if len > 0 && fits(len) {
            longest = len;
        }
    }
    Request::Ended { len: longest }
}

/// 64 KiB that begin in the middle of a page make 17 pieces, and the header is one more.
#[test]
fn rule_1_a_request_is_ended_where_the_budget_ends() {
    let pages: Vec<Run> = (0..17u64)
        .map(|n| match n {
            0 => run(0x10_0800, 2048),
            16 => run(0x30_0000, 2048),
            _ => run(0x10_0000 + n * 0x2000, 4096),
        })
        .collect();
    let runs = || pages.iter().copied();
    assert_eq!(request(&budget(18), 1460, runs()), Request::Whole);
    assert_eq!(
        request(&budget(17), 1460, runs()),
        Request::Ended { len: 43 * 1460 },
        "16 pieces hold 63,488 bytes"
    );
    assert_eq!(
        request(&budget(2), 1460, runs()),
        Request::Ended { len: 1460 }
    );
    assert_eq!(
        request(&budget(2), 2049, runs()),
        Request::Ended { len: 0 },
        "not even one segment"
    );
    assert_eq!(
        request(&budget(1), 1460, runs()),
        Request::Ended { len: 0 },
        "the header alone"
    );
}

#[test]
fn a_request_of_neighbours_is_one_piece() {
    let slices = (0..94).map(|n| run(0x1000 + n * 700, 700));
    let limits = Budget {
        max_fragment_len: 1 << 16,
        ..budget(3)
    };
    assert_eq!(
        request(&limits, 1448, slices),
        Request::Whole,
        "65,800 bytes in a row are two fragments"
    );
}

fn slices_of_a_region() -> impl Strategy<Value = Vec<Run>> {
    let granule = prop_oneof![0u32..=6, 6u32..=12];
    let slices = prop::collection::vec((0usize..600, 1usize..300), 1..=8);
    (granule, any::<bool>(), any::<u64>(), slices).prop_map(|(log2, scattered, seed, slices)| {
        let granule = Granule::from_bytes(1 << log2).unwrap();
        let len = 1024;
        let count = len >> log2 | usize::from(len < 1 << log2);
        let addresses: Vec<_> = (0..count as u64)
            .map(|i| {
                // Some neighbours contiguous, some not: a hash of the place decides.
                let far = seed.rotate_left(i as u32 * 7) & 3;
                let place = if scattered { i * 4 + far } else { i };
                DeviceAddress(0x10_0000 + (place << log2))
            })
            .collect();
        let translation = Translation::new(granule, 0, len, &addresses).unwrap();
        slices
            .iter()
            .flat_map(|&(start, len)| translation.runs(start, len))
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..config() })]
    /// The choice is that of the brute-force oracle.
    #[test]
    fn agrees_with_brute_force(
        runs in slices_of_a_region(),
        max_fragments in prop_oneof![1usize..=8, 1usize..=64],
        max_fragment_len in prop_oneof![1usize..=64, 16usize..=512, Just(16384)],
        header_len in 54usize..=94,
        share_min in prop_oneof![Just(1usize), 1usize..=700],
    ) {
        let budget = Budget { max_fragments, max_fragment_len, header_len, share_min };
        prop_assert_eq!(
            plan(&budget, runs.iter().copied()),
            oracle(&budget, &runs),
            "seed {}",
            seed()
        );
    }

    /// What is left of a request is that of the brute-force oracle.
    #[test]
    fn requests_agree_with_brute_force(
        runs in slices_of_a_region(),
        max_fragments in prop_oneof![1usize..=8, 1usize..=64],
        max_fragment_len in prop_oneof![1usize..=64, 16usize..=512, Just(16384)],
        header_len in 54usize..=94,
        segment_len in prop_oneof![1usize..=40, 1usize..=700],
    ) {
        let budget = Budget { max_fragments, max_fragment_len, header_len, share_min: 1 };
        prop_assert_eq!(
            request(&budget, segment_len, runs.iter().copied()),
            request_oracle(&budget, segment_len, &runs),
            "seed {}",
            seed()
        );
    }
}
