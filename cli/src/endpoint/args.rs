//! The options that say by which NIC, and how, this program is on the network.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::device::DeviceName;
use crate::error::Failure;
use crate::wire::WireName;

/// The NIC and the network.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Link {
    /// The NIC: model:ixgbe, model:e1000e or model:virtio, a software model in this process, which
    /// wants a --wire; or 0000:03:00.0, a NIC of this machine that was given to user space with
    /// `pagewire bind`
    #[arg(long, value_name = "DEVICE", default_value = "model:ixgbe")]
    pub(crate) device: DeviceName,
    /// What a NIC in software is plugged into: tap:NAME (an interface of this machine, made if it is
    /// not there), pair:DIRECTORY (other programs with the same directory)
    #[arg(long, value_name = "WIRE")]
    pub(crate) wire: Option<WireName>,
    /// Bits of the own address that name the network
    #[arg(long, value_name = "BITS", default_value_t = 24,
          value_parser = clap::value_parser!(u8).range(0..=32))]
    pub(crate) prefix_len: u8,
    /// Where packets to other networks go
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) gateway: Option<Ipv4Addr>,
    /// Bytes of an IP packet
    #[arg(long, value_name = "N", default_value_t = 1500,
          value_parser = clap::value_parser!(u16).range(576..=9000))]
    pub(crate) mtu: u16,
    /// The device does no checksums. The CPU then copies and sums what it sends of a file, as that
    /// may change in between
    #[arg(long)]
    pub(crate) no_checksum: bool,
    /// The own address: set by the command, which has an option of its own for it.
    #[arg(skip = Ipv4Addr::UNSPECIFIED)]
    pub(crate) address: Ipv4Addr,
}

impl Link {
    /// The same with the own address.
    pub(crate) fn at(&self, address: Ipv4Addr) -> Result<Self, Failure> {
        if address.is_unspecified() || address.is_multicast() || address.is_broadcast() {
            return Err(Failure::usage(format!(
                "{address} is the address of no host: this program has one of its own, which no \
                 interface of this machine has"
            )));
        }
        Ok(Self {
            address,
            ..self.clone()
        })
    }

    /// How a user reaches us by a TAP interface.
    pub(crate) fn hint(&self) -> Option<String> {
        let Some(WireName::Tap(name)) = &self.wire else {
            return None;
        };
        let own = self.address.to_bits();
        let prefix_len = self.prefix_len;
        let shift = 32 - u32::from(prefix_len);
        let network = own
            .checked_shr(shift)
            .unwrap_or(0)
            .checked_shl(shift)
            .unwrap_or(0);
        let first = Ipv4Addr::from(network.wrapping_add(1));
        let second = Ipv4Addr::from(network.wrapping_add(2));
        let other = if first == self.address { second } else { first };
        Some(format!(
            "if {name} has no address yet: sudo ip addr add {other}/{prefix_len} dev {name} && sudo \
             ip link set {name} up"
        ))
    }
}

/// Bytes: k, M, G are powers of 1024.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(['k', 'K', 'M', 'G']);
    let shift = match text.get(digits.len()..) {
        Some("") => 0,
        Some("k" | "K") => 10,
        Some("M") => 20,
        Some("G") => 30,
        _ => return Err("a number of bytes is 65536, 64k, 16M or 1G".into()),
    };
    let number: u64 = digits.parse().map_err(|error| format!("{error}"))?;
    number
        .checked_mul(1 << shift)
        .filter(|bytes| *bytes >= 4096)
        .ok_or_else(|| "from 4k on".into())
}

/// Seconds, from a tenth on.
pub(crate) fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if !(0.1..=86400.0).contains(&seconds) {
        return Err("from 0.1 to 86400".into());
    }
    Ok(Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read() {
        assert_eq!(parse_bytes("4096"), Ok(4096));
        assert_eq!(parse_bytes("64k"), Ok(65536));
        assert_eq!(parse_bytes("1G"), Ok(1 << 30));
        for bad in ["", "4095", "1Q", "MM", "99999999999G", "-1", "1.5M"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_seconds("0.5"), Ok(Duration::from_millis(500)));
        for bad in ["", "0", "nan", "inf", "-1", "1e9"] {
            assert!(parse_seconds(bad).is_err(), "{bad}");
        }
    }
}
