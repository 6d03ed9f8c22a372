//! The Internet checksum (RFC 1071): summing, and copying and summing in one pass.

use core::net::Ipv4Addr;

/// A ones' complement sum of 16-bit words in network byte order.
///
/// Pieces may be added in any lengths: after an odd number of bytes the next piece is summed as
/// the second half of a word, so the sum is that of all bytes in a row.
///
/// The sum is kept in the byte order of the machine and swapped once at the end (RFC 1071
/// section 2 (B)): ones' complement addition does not care which byte of a word comes first, as
/// long as it is the same one everywhere. That is also how a piece at an odd offset is added,
/// its own sum swapped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// The bytes so far, in native byte order, folded.
    native: u16,
    /// Whether an odd number of bytes has been summed.
    odd: bool,
}

impl Sum {
    /// Adds `data`.
    #[inline]
    pub fn add(&mut self, data: &[u8]) {
        self.join(sum_native(data), data.len());
    }

    /// Adds the word `value`, given in host byte order, as its two bytes in network byte order.
    /// It continues the bytes before it like any others: for a word of a header that is only
    /// meaningful at even parity, after an even number of bytes.
    #[inline]
    pub fn add_u16(&mut self, value: u16) {
        self.join(value.to_be(), 2);
    }

    /// Copies bytes from `source` to `target` and adds them, in one pass. Returns how many: the
    /// length of the shorter of the two.
    #[inline]
    pub fn copy(&mut self, source: &[u8], target: &mut [u8]) -> usize {
        let len = source.len().min(target.len());
        if let (Some(source), Some(target)) = (source.get(..len), target.get_mut(..len)) {
            self.join(copy_native(source, target), len);
        }
        len
    }

    /// The sum, not complemented, in host byte order. It is 0 only if every byte was 0;
    /// the other zero of ones' complement is 0xffff.
    #[must_use]
    #[inline]
    pub const fn fold(&self) -> u16 {
        u16::from_be(self.native)
    }

    /// The checksum: the complement of the sum, in host byte order.
    #[must_use]
    #[inline]
    pub const fn finish(&self) -> u16 {
        !self.fold()
    }

    /// Adds a piece of `len` bytes whose native sum is `native`.
    #[inline]
    fn join(&mut self, native: u16, len: usize) {
        let native = if self.odd {
            native.swap_bytes()
        } else {
            native
        };
        self.native = fold(u64::from(self.native) + u64::from(native));
        self.odd ^= len % 2 == 1;
    }
}

/// The sum of the TCP or UDP pseudo-header (RFC 9293 section 3.1): addresses, protocol and `len`,
/// the bytes of transport header and payload.
#[must_use]
#[inline]
pub fn pseudo_header(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, len: u16) -> Sum {
    let mut sum = Sum::default();
    sum.add(&source.octets());
    sum.add(&destination.octets());
    sum.add_u16(u16::from(protocol));
    sum.add_u16(len);
    sum
}

/// Ones' complement fold of a 64-bit sum to 16 bits.
#[inline]
const fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

fn sum_native(data: &[u8]) -> u16 {
    let mut sum = 0u64;
    let mut words = data.chunks_exact(2);
    for word in &mut words {
        if let &[a, b] = word {
            sum += u64::from(u16::from_ne_bytes([a, b]));
        }
    }
    if let &[last] = words.remainder() {
        sum += u64::from(u16::from_ne_bytes([last, 0]));
    }
    fold(sum)
}

fn copy_native(source: &[u8], target: &mut [u8]) -> u16 {
    target.copy_from_slice(source);
    sum_native(target)
}
