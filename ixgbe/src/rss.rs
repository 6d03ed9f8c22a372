//! Receive side scaling: which queue a received frame goes to.
//!
//! The device hashes the addresses, and with TCP the ports, by Toeplitz' function with a key of
//! 40 bytes; the low seven bits of the hash choose an entry of a table of 128, which holds the
//! number of a queue, four bits wide (Linux ixgbe: "82599/X540: 8 bit wide entries containing 4
//! bit RSS index"). UDP ports are left out, as in Linux' default: of a fragmented datagram only
//! the first fragment has them, and the others would overtake it in another queue.

use core::net::{IpAddr, SocketAddr};

use pagewire_hal::Registers;

use crate::bits::Mrqc;
use crate::regs::{Bar, MRQC, RETA, RETA_WORDS, RSSRK};

/// The key of the hash that spreads received frames over the queues.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RssKey {
    /// The key by which Microsoft verifies the hash, and which most drivers use.
    Standard,
    /// A key for which both directions of a connection have the same hash: the two bytes 6D 5A
    /// again and again. The spread is somewhat worse.
    Symmetric,
    /// Another one. A key of zeros sends everything to queue 0.
    Custom([u8; 40]),
}

/// Microsoft's verification suite of the RSS hash; DPDK ixgbe's default key.
const STANDARD: [u8; 40] = [
    0x6D, 0x5A, 0x56, 0xDA, 0x25, 0x5B, 0x0E, 0xC2, 0x41, 0x67, 0x25, 0x3D, 0x43, 0xA3, 0x8F, 0xB0,
    0xD0, 0xCA, 0x2B, 0xCB, 0xAE, 0x7B, 0x30, 0xB4, 0x77, 0xCB, 0x2D, 0xA3, 0x80, 0x30, 0xF2, 0x0C,
    0x6A, 0x42, 0xB7, 0x3B, 0xBE, 0xAC, 0x01, 0xFA,
];

impl RssKey {
    /// The 40 bytes of the key.
    #[must_use]
    pub fn bytes(&self) -> [u8; 40] {
        match self {
            Self::Standard => STANDARD,
            Self::Symmetric => core::array::from_fn(|i| if i % 2 == 0 { 0x6D } else { 0x5A }),
            Self::Custom(key) => *key,
        }
    }

    /// The hash that the device makes of a TCP segment from `source` to `destination`: Toeplitz'
    /// function of both addresses and both ports, in network order (Microsoft, "RSS hashing
    /// types"). Both addresses are of one family: a segment has no other.
    #[must_use]
    pub fn hash_tcp(&self, source: SocketAddr, destination: SocketAddr) -> u32 {
        let mut hash = Toeplitz::new(self.bytes());
        hash.add_address(source.ip());
        hash.add_address(destination.ip());
        hash.add(&source.port().to_be_bytes());
        hash.add(&destination.port().to_be_bytes());
        hash.value
    }
}

/// Which of `pairs` receive queues a hash chooses, by the table that [`program`] writes.
pub(crate) fn queue(hash: u32, pairs: u16) -> u16 {
    (hash % ENTRIES) as u16 % pairs.max(1)
}

/// Toeplitz' function: for each bit of the input that is one, the 32 bits of the key that begin at
/// the place of that bit.
struct Toeplitz {
    key: [u8; 40],
    /// Bytes of input so far.
    len: usize,
    value: u32,
}

impl Toeplitz {
    const fn new(key: [u8; 40]) -> Self {
        Self {
            key,
            len: 0,
            value: 0,
        }
    }

    fn add_address(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => self.add(&address.octets()),
            IpAddr::V6(address) => self.add(&address.octets()),
        }
    }

    fn add(&mut self, input: &[u8]) {
        for byte in input {
            // The longest input, two IPv6 addresses and ports, ends with the key.
            let key = |i| u64::from(self.key.get(self.len + i).copied().unwrap_or(0));
            let window = key(0) << 32 | key(1) << 24 | key(2) << 16 | key(3) << 8 | key(4);
            for bit in 0..8 {
                if byte & 0x80 >> bit != 0 {
                    self.value ^= (window >> (8 - bit)) as u32;
                }
            }
            self.len += 1;
        }
    }
}

/// Entries of the table that the lowest bits of a hash choose from.
const ENTRIES: u32 = 4 * RETA_WORDS;

/// Spreads received frames over `pairs` queues. With one queue the hash is computed all the same
/// (as in Linux), for whoever wants it of a received frame.
pub(crate) fn program<R: Registers>(registers: &Bar<R>, key: &RssKey, pairs: u16) {
    // The first byte of the key is the lowest of register 0 (DPDK ixgbe).
    for (n, word) in (0..).zip(key.bytes().chunks_exact(4)) {
        let bytes = word.try_into().unwrap_or([0; 4]);
        registers.write(RSSRK.at(n), u32::from_le_bytes(bytes));
    }
    for n in 0..RETA_WORDS {
        let entry = |i: u32| u32::from(queue(4 * n + i, pairs));
        let word = entry(0) | entry(1) << 8 | entry(2) << 16 | entry(3) << 24;
        registers.write(RETA.at(n), word);
    }
    let fields = Mrqc::IPV4 | Mrqc::IPV4_TCP | Mrqc::IPV6 | Mrqc::IPV6_TCP;
    registers.write(MRQC, (Mrqc::RSS | fields).bits());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The verification suite of the RSS hash (Microsoft): source, destination, hash with ports.
    const SUITE: [(&str, &str, u32); 8] = [
        ("66.9.149.187:2794", "161.142.100.80:1766", 0x51cc_c178),
        ("199.92.111.2:14230", "65.69.140.83:4739", 0xc626_b0ea),
        ("24.19.198.95:12898", "12.22.207.184:38024", 0x5c2b_394a),
        ("38.27.205.30:48228", "209.142.163.6:2217", 0xafc7_327f),
        ("153.39.163.191:44251", "202.188.127.2:1303", 0x10e8_28a2),
        (
            "[3ffe:2501:200:1fff::7]:2794",
            "[3ffe:2501:200:3::1]:1766",
            0x4020_7d3d,
        ),
        (
            "[3ffe:501:8::260:97ff:fe40:efab]:14230",
            "[ff02::1]:4739",
            0xdde5_1bbf,
        ),
        (
            "[3ffe:1900:4545:3:200:f8ff:fe21:67cf]:44251",
            "[fe80::200:f8ff:fe21:67cf]:38024",
            0x02d1_feef,
        ),
    ];

    #[test]
    fn the_hash_is_the_published_one() {
        for (source, destination, hash) in SUITE {
            let (from, to) = (source.parse().unwrap(), destination.parse().unwrap());
            assert_eq!(RssKey::Standard.hash_tcp(from, to), hash, "{source}");
            // A key that repeats itself after 16 bits does not see which end is which.
            let there = RssKey::Symmetric.hash_tcp(from, to);
            assert_eq!(RssKey::Symmetric.hash_tcp(to, from), there, "{source}");
            assert_ne!(RssKey::Standard.hash_tcp(to, from), hash, "{source}");
            assert_eq!(RssKey::Custom([0; 40]).hash_tcp(from, to), 0);
        }
    }

    #[test]
    fn the_lowest_seven_bits_choose() {
        assert_eq!(
            [0, 1, 5, 127, 128, 0xffff_ff81].map(|hash| queue(hash, 4)),
            [0, 1, 1, 3, 0, 1]
        );
        assert_eq!(queue(u32::MAX, 1), 0);
        assert_eq!(queue(u32::MAX, 16), 15);
    }
}
