//! What the user chooses.

use pagewire_hal::NicError;

/// How a NIC is put under smoltcp.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Buffers for frames to transmit, at least 1, each for the longest frame that is not
    /// segmented.
    pub transmit_buffers: u16,
    /// Buffers of up to 64 KiB for frames that the device segments; 0 to let smoltcp segment.
    /// They are allocated only where the device does segment TCP over IPv4.
    pub segmentation_buffers: u16,
    /// Frames that are taken from the device at once, at least 1. They wait in ordinary memory.
    pub receive_batch: u16,
    /// Whether IP fragments are let through.
    ///
    /// No device sees a fragmented datagram whole, and smoltcp has one switch per protocol. So
    /// with `true` smoltcp sums UDP itself on transmit, and verifies TCP and UDP itself on
    /// receive. With `false` the device does all that it offers, and fragments are dropped and
    /// counted, both ways. Set it if smoltcp has `proto-ipv4-fragmentation` and datagrams longer
    /// than a frame are wanted.
    pub fragments: bool,
    /// Tells smoltcp how many frames the device can receive in a burst. It then offers a TCP
    /// window of so many segments at most. `None`: no limit.
    pub max_burst: Option<usize>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            transmit_buffers: 256,
            segmentation_buffers: 16,
            receive_batch: 32,
            fragments: false,
            max_burst: None,
        }
    }
}

impl Config {
    pub(super) fn check(&self) -> Result<(), NicError> {
        let what = if self.transmit_buffers == 0 {
            "transmit_buffers is at least 1"
        } else if self.receive_batch == 0 {
            "receive_batch is at least 1"
        } else if self.max_burst == Some(0) {
            "max_burst is at least 1"
        } else {
            return Ok(());
        };
        Err(NicError::Config { what })
    }
}
