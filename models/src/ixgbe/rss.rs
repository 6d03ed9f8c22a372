//! Receive side scaling: the hash of a packet, and the queue that it chooses.

use super::bits::{mrqc, offset};
use super::registers::RegisterFile;
use crate::intel::packet::{Packet, TCP, UDP};

/// What the hash of a packet is, and over what.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Hash {
    pub(super) value: u32,
    /// The RSS type of the descriptor; 0 if there is no hash.
    pub(super) kind: u32,
}

impl Hash {
    /// The hash of `packet` as MRQC has it; none while RSS is off.
    pub(super) fn new(packet: &Packet<'_>, registers: &RegisterFile) -> Self {
        let control = registers.get(offset::MRQC);
        if control & mrqc::MODE != mrqc::RSS {
            return Self::default();
        }
        let enabled = |bit| control & bit != 0;
        // IPv6 with extension headers has fields of its own, which are not modelled.
        let (tcp, udp, ip) = if packet.is_ipv6 {
            ((mrqc::TCP_IPV6, 3), (mrqc::UDP_IPV6, 8), (mrqc::IPV6, 5))
        } else {
            ((mrqc::TCP_IPV4, 1), (mrqc::UDP_IPV4, 7), (mrqc::IPV4, 2))
        };
        let (kind, ports) = if packet.is_transport(TCP) && enabled(tcp.0) {
            (tcp.1, packet.ports())
        } else if packet.is_transport(UDP) && enabled(udp.0) {
            (udp.1, packet.ports())
        } else if enabled(ip.0) {
            (ip.1, [].as_slice())
        } else {
            return Self::default();
        };
        let input = packet.addresses().iter().chain(ports);
        Self {
            value: toeplitz(input.copied(), |index| key_byte(registers, index)),
            kind,
        }
    }

    /// The queue: RETA, at the seven lowest bits of the hash; queue 0 for what has none.
    pub(super) fn queue(&self, registers: &RegisterFile) -> usize {
        if self.kind == 0 {
            return 0;
        }
        let entry = self.value & 0x7f;
        let word = registers.get(offset::RETA + (entry & !3));
        (word >> ((entry & 3) * 8) & 0xf) as usize
    }
}

/// A byte of the key: RSSRK, the first byte lowest.
fn key_byte(registers: &RegisterFile, index: usize) -> u8 {
    let word = registers.get(offset::RSSRK + (index as u32 & !3));
    if index < 40 {
        (word >> (index % 4 * 8)) as u8
    } else {
        0
    }
}

/// The Toeplitz hash: for every bit of the input that is one, the 32 bits of the key that begin at
/// the same place.
fn toeplitz(input: impl Iterator<Item = u8>, key: impl Fn(usize) -> u8) -> u32 {
    let mut window = u64::from(u32::from_be_bytes([key(0), key(1), key(2), key(3)])) << 32;
    let mut hash = 0;
    for (index, byte) in input.enumerate() {
        window |= u64::from(key(index + 4)) << 24;
        for bit in (0..8).rev() {
            if byte >> bit & 1 != 0 {
                hash ^= (window >> 32) as u32;
            }
            window <<= 1;
        }
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The verification suite of the RSS specification (Microsoft).
    #[test]
    fn the_hash_is_the_published_one() {
        const KEY: [u8; 40] = [
            0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3,
            0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3,
            0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
        ];
        let hash = |input: &[u8]| {
            toeplitz(input.iter().copied(), |index| {
                KEY.get(index).copied().unwrap_or(0)
            })
        };
        // 66.9.149.187:2794 to 161.142.100.80:1766.
        let addresses = [66, 9, 149, 187, 161, 142, 100, 80];
        assert_eq!(hash(&addresses), 0x323e_8fc2);
        let ports = [0x0a, 0xea, 0x06, 0xe6];
        assert_eq!(hash(&[&addresses[..], &ports].concat()), 0x51cc_c178);
    }

    #[test]
    fn the_key_and_the_table_are_read_lowest_byte_first() {
        let mut registers = RegisterFile::new(None);
        registers.set(offset::RSSRK + 36, 0x4433_2211);
        assert_eq!(key_byte(&registers, 36), 0x11);
        assert_eq!(key_byte(&registers, 39), 0x44);
        registers.set(offset::RETA + 4, 0x0403_0201);
        let queue = |value| Hash { value, kind: 1 }.queue(&registers);
        assert_eq!(queue(4), 1);
        assert_eq!(queue(0x1234_5600 | 7), 4);
        assert_eq!(Hash { value: 7, kind: 0 }.queue(&registers), 0);
    }
}
