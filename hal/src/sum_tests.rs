use std::format;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::portable::COPY_BLOCK;
use super::*;

/// RFC 1071 section 1, byte by byte, in native order.
fn plain(data: &[u8]) -> u16 {
    let mut sum = 0u32;
    for (index, &byte) in data.iter().enumerate() {
        let word = if index % 2 == 0 { [byte, 0] } else { [0, byte] };
        sum += u32::from(u16::from_ne_bytes(word));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 167 + i / 255 + 91) as u8).collect()
}

/// All ways agree on bytes, and copies are copies.
fn check(data: &[u8], target: &mut [u8], what: &str) {
    let wanted = plain(data);
    assert_eq!(fold(portable::sum(data)), wanted, "{what}");
    assert_eq!(sum(data), wanted, "{what}");
    target.fill(0xa5);
    assert_eq!(fold(portable::copy(data, target)), wanted, "{what}");
    assert_eq!(target, data, "{what}");
    target.fill(0x5a);
    assert_eq!(copy(data, target), wanted, "{what}");
    assert_eq!(target, data, "{what}");
    #[cfg(all(feature = "std", target_arch = "x86_64"))]
    if avx2::is_there() {
        // SAFETY: it is there.
        assert_eq!(fold(unsafe { avx2::sum(data) }), wanted, "{what}");
        target.fill(0xa5);
        // SAFETY: it is there.
        let copied = unsafe { avx2::copy(data, target) };
        assert_eq!(fold(copied), wanted, "{what}");
        assert_eq!(target, data, "{what}");
    }
}

#[test]
fn all_ways_agree_for_every_alignment_and_length() {
    let source = bytes(640);
    let mut target = vec![0; 640];
    for start in 0..64 {
        for len in 0..=330 {
            let data = &source[start..start + len];
            // Another alignment of the target each time.
            let at = (start * 7 + len) % 64;
            check(
                data,
                &mut target[at..at + len],
                &format!("start {start} length {len} target {at}"),
            );
        }
    }
}

#[test]
fn no_carry_is_lost_in_a_long_run_of_ones() {
    // The longest is more than accumulators of vectors hold at a time.
    for len in [127, 128, 129, 4096, (1 << 20) + 7, (5 << 20) + 33] {
        for byte in [0xff, 0, 0x80, 0x7f] {
            let data = vec![byte; len];
            check(&data, &mut vec![0; len], &format!("length {len} of {byte}"));
        }
    }
}

#[test]
fn copies_across_blocks_keep_the_sum() {
    for len in [
        COPY_BLOCK - 1,
        COPY_BLOCK,
        COPY_BLOCK + 1,
        5 * COPY_BLOCK + 3,
    ] {
        check(&bytes(len), &mut vec![0; len], &format!("length {len}"));
    }
}

#[test]
fn a_copy_ends_with_the_shorter_one() {
    for len in [3, 200] {
        let source = bytes(len);
        let mut longer = vec![9; len + 5];
        assert_eq!(copy(&source, &mut longer), plain(&source));
        assert_eq!((&longer[..len], &longer[len..]), (&source[..], &[9; 5][..]));
        let mut shorter = vec![9; len - 1];
        assert_eq!(copy(&source, &mut shorter), plain(&source[..len - 1]));
        assert_eq!(shorter, source[..len - 1]);
    }
}

#[test]
fn the_sum_is_0_only_for_zeros() {
    assert_eq!(sum(&[0; 300]), 0);
    assert_eq!(sum(&[0xff; 300]), 0xffff);
    assert_eq!(sum(&[]), 0);
    let mut data = [0; 300];
    (data[7], data[6]) = (0xff, 0xff);
    assert_eq!(sum(&data), 0xffff);
}

proptest! {
    #[test]
    fn all_ways_agree(data in prop::collection::vec(any::<u8>(), 0..5000), at in 0usize..40) {
        let mut target = vec![0; data.len() + at];
        check(&data, &mut target[at..], "drawn");
    }
}
