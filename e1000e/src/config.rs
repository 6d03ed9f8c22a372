//! What the user chooses when a device is opened.

use pagewire_hal::NicError;
use pagewire_hal::driver::{ETHERNET_HEADER, receive_buffer_len};

/// The largest MTU that the device receives without [`LPE`](crate::regs::Rctl::LPE).
pub(crate) const STANDARD_MTU: u16 = 1500;

/// How a device is opened.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Descriptors in the transmit ring: a power of two from 8 to 4096. One frame takes as many
    /// as it has fragments, and one more if a checksum is asked for; two always stay free.
    pub tx_descriptors: u16,
    /// Descriptors in the receive ring, each with a buffer for the largest frame: a power of
    /// two from 8 to 4096. The buffers are one piece of memory.
    pub rx_descriptors: u16,
    /// Longest network-layer packet in bytes, from 68 to 9000; a frame is 14 bytes longer.
    /// The transmit FIFO must hold the whole frame, or `open` refuses.
    pub mtu: u16,
    /// An upper bound to the fragments of one frame, at least 1, where the device's own is too
    /// high for some reason.
    pub max_fragments: Option<u16>,
    /// Opens devices that nobody has tried this driver on.
    pub allow_untested: bool,
    /// Offers the device's checksum insertion on transmit. Off, the sender above sums itself.
    pub checksum_offload: bool,
    /// Offers [`ChecksumOffload::GENERIC`](pagewire_hal::ChecksumOffload::GENERIC), within the
    /// first 256 bytes of a frame. The 82574 does it; QEMU's model of it does not: it finds the
    /// place by the protocol of the packet, whatever was asked for (QEMU `net_tx_pkt.c`).
    /// The two cannot be told apart, so it is off unless the user knows.
    pub generic_checksum: bool,
    /// Receives all multicast frames, as IPv6 needs some of them. There is no finer filter yet.
    pub all_multicast: bool,
    /// Receives all unicast frames, whomever they are for.
    pub promiscuous: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            tx_descriptors: 256,
            rx_descriptors: 256,
            mtu: STANDARD_MTU,
            max_fragments: None,
            allow_untested: false,
            checksum_offload: true,
            generic_checksum: false,
            all_multicast: true,
            promiscuous: false,
        }
    }
}

impl Config {
    pub(crate) fn check(&self) -> Result<(), NicError> {
        let ring = |count: u16| count.is_power_of_two() && (8..=4096).contains(&count);
        let what = if !ring(self.tx_descriptors) {
            "tx_descriptors is a power of two from 8 to 4096"
        } else if !ring(self.rx_descriptors) {
            "rx_descriptors is a power of two from 8 to 4096"
        } else if !(68..=9000).contains(&self.mtu) {
            "mtu is from 68 to 9000"
        } else if self.max_fragments == Some(0) {
            "max_fragments is at least 1"
        } else {
            return Ok(());
        };
        Err(NicError::Config { what })
    }

    /// Longest frame to transmit, in bytes, without frame check sequence.
    pub(crate) const fn max_frame_len(&self) -> u32 {
        self.mtu as u32 + ETHERNET_HEADER
    }

    /// Bytes in a receive buffer: the smallest that the device knows and that holds the longest
    /// frame, with a VLAN tag and the frame check sequence.
    pub(crate) const fn buffer_len(&self) -> u32 {
        receive_buffer_len(self.max_frame_len())
    }
}
