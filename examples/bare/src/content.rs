//! The file that is sent: what is in it, and where its pages lie in the image. `build.rs`, the
//! image and the receiver each take what they need of this.
#![allow(dead_code, reason = "each of the three uses a part")]

/// Bytes of a page of the CPU (x86-64 with 4-level paging, its smallest).
pub(crate) const PAGE: usize = 4096;
/// Pages of the file: a prime, so that any step visits all of them.
pub(crate) const PAGES: usize = 2053;
/// Bytes of the file: 8 MiB and a little, the last page not full.
pub(crate) const LEN: usize = (PAGES - 1) * PAGE + 1234;
/// How far apart in the image two pages are that follow each other in the file.
const STEP: usize = 811;

/// Where page `page` of the file lies, in pages from the start of the file in the image. No two
/// pages that are neighbours in the file are neighbours in memory, as if a file system or a page
/// cache had put each where there was room.
pub(crate) const fn slot(page: usize) -> usize {
    page * STEP % PAGES
}

/// Writes page `page` of the file: numbers that differ from page to page and from word to word
/// (the finaliser of MurmurHash3 over a counter), and zeros behind the end of the file.
pub(crate) fn fill(page: usize, target: &mut [u8]) {
    for (index, word) in target.chunks_mut(8).enumerate() {
        let position = page * PAGE + index * 8;
        let mut number = position as u64;
        number = (number ^ number >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
        number = (number ^ number >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        number ^= number >> 33;
        let left = LEN.saturating_sub(position).min(word.len());
        for (byte, value) in word.iter_mut().zip(number.to_le_bytes()).take(left) {
            *byte = value;
        }
    }
}
