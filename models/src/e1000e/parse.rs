//! A frame as QEMU's e1000e sees it when it sends: headers found by their protocols.
//!
//! For [`QemuDeviations`](super::QemuDeviations). Sources: QEMU `net_tx_pkt.c` and `net/eth.c`.

use super::bits::popts;
use super::checksum::{combine, sum};

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const VLAN: u16 = 0x8100;
const DOUBLE_VLAN: u16 = 0x88a8;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Where the headers of a frame are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Headers {
    /// Offset of the IP header; `None` if there is none.
    ip: Option<usize>,
    is_ipv6: bool,
    /// Offset of what is behind it.
    payload: usize,
    protocol: u8,
}

impl Headers {
    /// Finds them; `None` if one is cut off.
    pub(super) fn parse(frame: &[u8]) -> Option<Self> {
        let mut ip = 14;
        let mut kind = half(frame, 12)?;
        // Two tags at most; of the outer kind alone there may be a second one.
        if kind == VLAN || kind == DOUBLE_VLAN {
            let outer = kind;
            ip = 18;
            kind = half(frame, 16)?;
            if outer == DOUBLE_VLAN && kind == VLAN {
                ip = 22;
                kind = half(frame, 20)?;
            }
        }
        let packet = frame.get(ip..)?;
        let (len, protocol) = match kind {
            IPV4 => ipv4(packet)?,
            IPV6 => ipv6(packet)?,
            _ => {
                return Some(Self {
                    ip: None,
                    is_ipv6: false,
                    payload: ip,
                    protocol: 0,
                });
            }
        };
        Some(Self {
            ip: Some(ip),
            is_ipv6: kind == IPV6,
            payload: ip + len,
            protocol,
        })
    }

    /// Inserts the checksums that `options` (POPTS) asks for; how many they were.
    pub(super) fn insert(&self, options: u8, frame: &mut [u8]) -> u64 {
        let mut inserted = 0;
        if options & popts::TXSM != 0 && self.insert_transport(frame).is_some() {
            inserted += 1;
        }
        if options & popts::IXSM != 0 && self.insert_header(frame).is_some() {
            inserted += 1;
        }
        inserted
    }

    fn insert_transport(&self, frame: &mut [u8]) -> Option<()> {
        let ip = self.ip?;
        let (shortest, place) = match self.protocol {
            TCP => (20, 16),
            UDP => (8, 6),
            _ => return None,
        };
        let addresses = if self.is_ipv6 {
            frame.get(ip + 8..ip + 40)?
        } else {
            frame.get(ip + 12..ip + 20)?
        };
        let addresses = sum(addresses);
        let payload = frame.get_mut(self.payload..)?;
        if payload.len() < shortest {
            return None;
        }
        let len = payload.len() as u16;
        payload.get_mut(place..place + 2)?.fill(0);
        let pseudo = combine(addresses, combine(len, u16::from(self.protocol)));
        let value = match !combine(pseudo, sum(payload)) {
            0 => 0xffff,
            value => value,
        };
        let field = payload.get_mut(place..place + 2)?;
        field.copy_from_slice(&value.to_be_bytes());
        Some(())
    }

    fn insert_header(&self, frame: &mut [u8]) -> Option<()> {
        let ip = self.ip.filter(|_| !self.is_ipv6)?;
        let total = (frame.len() - ip) as u16;
        let header = frame.get_mut(ip..self.payload)?;
        header.get_mut(2..4)?.copy_from_slice(&total.to_be_bytes());
        header.get_mut(10..12)?.fill(0);
        let value = !sum(header);
        header
            .get_mut(10..12)?
            .copy_from_slice(&value.to_be_bytes());
        Some(())
    }
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    let pair = bytes.get(at..)?.first_chunk::<2>()?;
    Some(u16::from_be_bytes(*pair))
}

/// The length of an IPv4 header and the protocol behind it.
fn ipv4(packet: &[u8]) -> Option<(usize, u8)> {
    let [first, _, _, _, _, _, _, _, _, protocol, ..] = *packet.first_chunk::<20>()?;
    let len = usize::from(first & 0xf) * 4;
    (len >= 20 && packet.len() >= len).then_some((len, protocol))
}

/// The length of an IPv6 header with its extensions, and the protocol behind them.
fn ipv6(packet: &[u8]) -> Option<(usize, u8)> {
    let mut next = *packet.first_chunk::<40>()?.get(6)?;
    let mut len = 40;
    // Hop-by-hop, routing, fragment, authentication, destination, mobility.
    while matches!(next, 0 | 43 | 44 | 51 | 60 | 135) {
        let [kind, units] = *packet.get(len..)?.first_chunk::<2>()?;
        next = kind;
        len += (usize::from(units) + 1) * 8;
    }
    (packet.len() >= len).then_some((len, next))
}
