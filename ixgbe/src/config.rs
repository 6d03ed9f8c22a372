//! What the user chooses when a device is opened.

use pagewire_hal::driver::{ETHERNET_HEADER, receive_buffer_len};
use pagewire_hal::{MacAddress, NicError};

use crate::rss::RssKey;

/// The largest MTU that the device receives without
/// [`JUMBOEN`](crate::bits::Hlreg0::JUMBOEN) (Linux sets it for frames above `ETH_FRAME_LEN` and
/// the frame check sequence).
pub(crate) const STANDARD_MTU: u16 = 1500;
/// The largest MTU: Linux ixgbe allows frames of 9728 bytes with header and frame check sequence
/// (`IXGBE_MAX_JUMBO_FRAME_SIZE`). The hardware's own limit is higher (15.5 KiB: the product
/// features in the datasheets of 82599 and X540).
const MAX_MTU: u16 = 9710;
/// The smallest: what every IPv4 host takes (RFC 791).
const MIN_MTU: u16 = 576;
/// The longest time between two interrupts that [`EITR`](crate::regs::EITR) holds, in µs.
const MAX_INTERVAL: u16 = 1000;

/// Queue pairs that a device can have here: as many as an entry of the RSS table of 82599 and X540
/// can name. (They have 128 queues; the others serve virtual machines and traffic classes.)
pub(crate) const MAX_PAIRS: u16 = 16;

/// How a device is opened.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Descriptors in each transmit ring: a power of two from 8 to 4096. One frame takes as many
    /// as it has fragments, and one more if it asks for another offload than the two that were
    /// used last; two always stay free.
    pub tx_descriptors: u16,
    /// Descriptors in each receive ring, each with a buffer for the largest frame: a power of
    /// two from 8 to 4096. The buffers of a ring are one piece of memory.
    pub rx_descriptors: u16,
    /// Pairs of queues, from 1 to 16, each with rings and buffers as above. Received frames are
    /// spread over them by their addresses and TCP ports (RSS).
    pub queue_pairs: u16,
    /// How received frames are spread.
    pub rss_key: RssKey,
    /// Longest network-layer packet in bytes, from 576 to 9710; a frame is 14 bytes longer.
    pub mtu: u16,
    /// An upper bound to the fragments of one frame, at least 1, where the device's own is too
    /// high for some reason.
    pub max_fragments: Option<u16>,
    /// Opens devices that nobody has tried this driver on.
    pub allow_untested: bool,
    /// Offers the device's checksum insertion on transmit. Off, the sender above sums itself, and
    /// there is no segmentation either.
    pub checksum_offload: bool,
    /// Offers TCP segmentation by the device (TSO).
    pub segmentation: bool,
    /// Time in µs that passes at least between two interrupts of one vector, from 0 to 1000.
    /// The device counts in steps of 2 µs or so.
    pub interrupt_interval: u16,
    /// The station address, in the place of the device's own.
    pub mac_address: Option<MacAddress>,
    /// Receives all multicast frames, as IPv6 needs some of them. There is no finer filter yet.
    pub all_multicast: bool,
    /// Receives all unicast frames, whomever they are for.
    pub promiscuous: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            tx_descriptors: 512,
            rx_descriptors: 512,
            queue_pairs: 1,
            rss_key: RssKey::Standard,
            mtu: STANDARD_MTU,
            max_fragments: None,
            allow_untested: false,
            checksum_offload: true,
            segmentation: true,
            interrupt_interval: 50,
            mac_address: None,
            all_multicast: true,
            promiscuous: false,
        }
    }
}

impl Config {
    pub(crate) fn check(&self) -> Result<(), NicError> {
        // A ring is a multiple of 128 bytes long, and "validated" up to 8192 descriptors (82599
        // datasheet 7.2.3.3 and 8.2.3.9.7, as TinyNF quotes them); Linux long offered 4096 at most
        // (`IXGBE_MAX_TXD`), which is kept here.
        let ring = |count: u16| count.is_power_of_two() && (8..=4096).contains(&count);
        let what = if !ring(self.tx_descriptors) {
            "tx_descriptors is a power of two from 8 to 4096"
        } else if !ring(self.rx_descriptors) {
            "rx_descriptors is a power of two from 8 to 4096"
        } else if !(MIN_MTU..=MAX_MTU).contains(&self.mtu) {
            "mtu is from 576 to 9710"
        } else if !(1..=MAX_PAIRS).contains(&self.queue_pairs) {
            "queue_pairs is from 1 to 16"
        } else if self.max_fragments == Some(0) {
            "max_fragments is at least 1"
        } else if self.interrupt_interval > MAX_INTERVAL {
            "interrupt_interval is from 0 to 1000"
        } else if self.mac_address.is_some_and(|mac| !mac.is_station()) {
            "mac_address is that of one station"
        } else {
            return Ok(());
        };
        Err(NicError::Config { what })
    }

    /// Longest frame to transmit, in bytes, without frame check sequence.
    pub(crate) const fn max_frame_len(&self) -> u32 {
        self.mtu as u32 + ETHERNET_HEADER
    }

    /// Bytes in a receive buffer: the smallest power of two from 2 KiB to 16 KiB that holds the
    /// longest frame, with a VLAN tag and the frame check sequence. The device takes whole KiB from
    /// 1 to 16 (82599 datasheet 8.2.3.8.7, as TinyNF quotes it).
    pub(crate) const fn buffer_len(&self) -> u32 {
        receive_buffer_len(self.max_frame_len())
    }
}
