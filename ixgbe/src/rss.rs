//! Receive side scaling: which queue a received frame goes to.
//!
//! The device hashes the addresses, and with TCP the ports, by Toeplitz' function with a key of
//! 40 bytes; the low seven bits of the hash choose an entry of a table of 128, which holds the
//! number of a queue, four bits wide (Linux ixgbe: "82599/X540: 8 bit wide entries containing 4
//! bit RSS index"). UDP ports are left out, as in Linux' default: of a fragmented datagram only
//! the first fragment has them, and the others would overtake it in another queue.

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
    fn bytes(&self) -> [u8; 40] {
        match self {
            Self::Standard => STANDARD,
            Self::Symmetric => core::array::from_fn(|i| if i % 2 == 0 { 0x6D } else { 0x5A }),
            Self::Custom(key) => *key,
        }
    }
}

/// Spreads received frames over `pairs` queues. With one queue there is no hash.
pub(crate) fn program<R: Registers>(registers: &Bar<R>, key: &RssKey, pairs: u16) {
    if pairs < 2 {
        registers.write(MRQC, 0);
        return;
    }
    // The first byte of the key is the lowest of register 0 (DPDK ixgbe).
    for (n, word) in (0..).zip(key.bytes().chunks_exact(4)) {
        let bytes = word.try_into().unwrap_or([0; 4]);
        registers.write(RSSRK.at(n), u32::from_le_bytes(bytes));
    }
    for n in 0..RETA_WORDS {
        let entry = |i: u32| (4 * n + i) % u32::from(pairs);
        let word = entry(0) | entry(1) << 8 | entry(2) << 16 | entry(3) << 24;
        registers.write(RETA.at(n), word);
    }
    let fields = Mrqc::IPV4 | Mrqc::IPV4_TCP | Mrqc::IPV6 | Mrqc::IPV6_TCP;
    registers.write(MRQC, (Mrqc::RSS | fields).bits());
}
