//! What the user chooses when a device is opened.

use pagewire_hal::driver::{ETHERNET_HEADER, VLAN_TAG};
use pagewire_hal::{MacAddress, NicError};

use crate::Features;

/// The largest MTU that receive buffers are made for, in bytes.
pub(crate) const MAX_MTU: u16 = 9000;
/// The smallest: what every IPv4 host takes (RFC 791).
pub(crate) const MIN_MTU: u16 = 576;

/// Queue pairs that a device can have here. The control part holds those that were not taken, and
/// is moved by value: eight make it some 10 KiB long. With pages that are not copied one pair
/// fills a fast wire; more serve to keep processors apart.
pub(crate) const MAX_PAIRS: u16 = 8;

/// How a device is opened.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Descriptors in the transmit ring: a power of two from 1 to 32768. The device may have
    /// fewer: then it is the largest power of two that it has. One frame takes as many as it has
    /// fragments, or one if they are in an indirect table.
    pub tx_descriptors: u16,
    /// Descriptors in the receive ring: a power of two from 1 to 32768, or fewer, as above. Each
    /// has a buffer, for the longest frame or with `MRG_RXBUF` for 2 KiB of it. The buffers are
    /// one piece of memory.
    pub rx_descriptors: u16,
    /// Pairs of queues, from 1 to 8, or as many as the device has if those are fewer. Each has
    /// rings and buffers as above. More than one takes MQ and the control queue.
    pub queue_pairs: u16,
    /// Longest network-layer packet in bytes, from 576 to 9000, or what the device says if that
    /// is less; a frame is 14 bytes longer.
    pub mtu: u16,
    /// An upper bound to the fragments of one frame, at least 1, where the device's own is too
    /// high for some reason.
    pub max_fragments: Option<u16>,
    /// What may be negotiated, if the device offers it. `VERSION_1`, `ACCESS_PLATFORM` and
    /// `ORDER_PLATFORM` are not a matter of choice: they are accepted in any case.
    ///
    /// By default all but `RING_PACKED`, `GUEST_TSO4` and `GUEST_TSO6`. With the latter two
    /// ([`GUEST_CSUM`](Features::GUEST_CSUM) and [`MRG_RXBUF`](Features::MRG_RXBUF) are needed,
    /// too) the program receives frames of up to 65549 bytes
    /// ([`max_receive_len`](pagewire_hal::Capabilities::max_receive_len)). Of packed rings,
    /// DPDK's driver was measured to post a frame of two pieces in 12.7 ns on a split ring with
    /// tables, and in 17.8 ns on a packed ring. Hardware devices may prefer packed rings; no
    /// measurement of one is at hand.
    pub features: Features,
    /// The station address, for a device that has none of its own.
    pub mac_address: Option<MacAddress>,
    /// Hands over all multicast frames, as IPv6 needs some of them. The driver drops the others,
    /// the device filters nothing.
    pub all_multicast: bool,
    /// Hands over all unicast frames, whomever they are for.
    pub promiscuous: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            tx_descriptors: 256,
            rx_descriptors: 256,
            queue_pairs: 1,
            mtu: 1500,
            max_fragments: None,
            features: Features::all()
                .difference(Features::RING_PACKED)
                .difference(Features::GUEST_TSO4.union(Features::GUEST_TSO6)),
            mac_address: None,
            all_multicast: true,
            promiscuous: false,
        }
    }
}

impl Config {
    pub(crate) fn check(&self) -> Result<(), NicError> {
        let what = if !self.tx_descriptors.is_power_of_two() {
            "tx_descriptors is a power of two from 1 to 32768"
        } else if !self.rx_descriptors.is_power_of_two() {
            "rx_descriptors is a power of two from 1 to 32768"
        } else if !(MIN_MTU..=MAX_MTU).contains(&self.mtu) {
            "mtu is from 576 to 9000"
        } else if !(1..=MAX_PAIRS).contains(&self.queue_pairs) {
            "queue_pairs is from 1 to 8"
        } else if self.max_fragments == Some(0) {
            "max_fragments is at least 1"
        } else if self.mac_address.is_some_and(MacAddress::is_multicast) {
            "mac_address is that of one station"
        } else {
            return Ok(());
        };
        Err(NicError::Config { what })
    }
}

/// Bytes in a receive buffer, at least: a power of two that holds the device's header and a frame
/// of the usual 1514 bytes with a VLAN tag, so that no page is cut into odd parts.
pub(crate) const SMALL_BUFFER: u32 = 2048;

/// Bytes in each of `count` receive buffers for packets of `mtu` bytes, and frames of `joined`
/// bytes: a power of two. With MRG_RXBUF all of them together hold the longest frame, otherwise
/// each does: the device's header, the frame and a VLAN tag. In order one buffer remains: QEMU 11.1
/// never uses the buffers of a frame that takes all of the ring (`virtqueue_ordered_fill` takes
/// their number modulo the ring's length, in either format).
pub(crate) fn buffer_len(features: Features, count: u16, mtu: u16, joined: u32) -> u32 {
    let header = crate::desc::HEADER_LEN + ETHERNET_HEADER + VLAN_TAG;
    let longest = (header + u32::from(mtu)).max(crate::desc::HEADER_LEN + joined);
    let share = if features.contains(Features::MRG_RXBUF) {
        let gap = u16::from(features.contains(Features::IN_ORDER));
        longest.div_ceil(u32::from(count.saturating_sub(gap).max(1)))
    } else {
        longest
    };
    share.next_power_of_two().max(SMALL_BUFFER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_order_no_frame_takes_all_receive_buffers() {
        let joins = Features::MRG_RXBUF | Features::IN_ORDER;
        for count in (1..16).map(|shift| 1u16 << shift) {
            for (mtu, joined) in (MIN_MTU..=MAX_MTU)
                .map(|mtu| (mtu, 0))
                .chain([(1500, 65_549)])
            {
                let len = buffer_len(joins, count, mtu, joined);
                let longest = crate::desc::HEADER_LEN + (u32::from(mtu) + 18).max(joined);
                let used = longest.div_ceil(len);
                assert!(used < u32::from(count), "{used} of {count}, MTU {mtu}");
            }
        }
    }
}
