//! What the author of a driver supplies: the NIC, and the other end of its wire.

use std::sync::Arc;
use std::time::Duration;

use pagewire_hal::{DmaMemory, Instant, Nic, Region};

/// The other end of the wire.
///
/// Frames run from the Ethernet destination address to the last byte before the frame check
/// sequence.
pub trait FarEnd {
    /// Sends a frame towards the NIC: of any length, also one that no wire would carry. What
    /// cannot be sent is lost.
    fn send(&mut self, frame: &[u8]);

    /// The next frame that the NIC has sent, in the order of the wire; `None` if there is none
    /// yet. Frames of anyone else do not come up here.
    fn take(&mut self) -> Option<Vec<u8>>;
}

/// A NIC on a bench: how to open it, its wire, its time, and memory for it.
///
/// The methods that have a body are hooks. A bench that has not got one leaves it out, and the
/// checks that need it are reported as not run.
pub trait Bench {
    /// The driver under test.
    type Nic: Nic<Memory = Self::Memory>;

    /// Its memory.
    type Memory: DmaMemory + 'static;

    /// Opens the device, afresh: one check has released the last one, or has failed. `seed` is
    /// for what the bench draws at random (the freedoms of a model, say); hardware ignores it.
    ///
    /// # Errors
    /// Why it could not be opened, in words.
    fn open(&mut self, seed: u64) -> Result<Self::Nic, String>;

    /// The other end of the wire of the device that was opened last.
    fn far_end(&mut self) -> &mut dyn FarEnd;

    /// Lets the device and time go on: steps a model, sleeps on hardware.
    fn advance(&mut self, duration: Duration);

    /// The time, as [`Nic::poll`] and [`Nic::begin_reset`] take it.
    fn now(&self) -> Instant;

    /// Maps `bytes` for the device that was opened last, as the platform maps the pages of a
    /// program: at the granule of its choice.
    ///
    /// # Errors
    /// Why they could not be mapped, in words.
    fn region(&mut self, bytes: Vec<u8>) -> Result<Arc<dyn Region>, String>;

    /// Bytes of a page of the program, a power of two: fragments are put at the ends of these.
    fn page_len(&self) -> usize {
        4096
    }

    /// Whether a frame can be taken at the far end as soon as the device may report it as done.
    /// Where that is so, a completion that comes before its frame is a failure.
    fn sees_frames_at_once(&self) -> bool {
        false
    }

    /// Whether the device was opened so that it keeps frames for other stations.
    fn is_promiscuous(&self) -> bool {
        false
    }

    /// Takes the carrier away, or gives it back; `false` if the bench cannot.
    fn set_link(&mut self, up: bool) -> bool {
        let _ = up;
        false
    }

    /// While `hold`, the device reports no transmit completion though it sends; `false` if the
    /// bench cannot.
    fn hold_completions(&mut self, hold: bool) -> bool {
        let _ = hold;
        false
    }

    /// How often the transmit doorbell has been rung since the device was opened; `None` if the
    /// bench cannot tell.
    fn doorbells(&mut self) -> Option<u64> {
        None
    }

    /// What the device says that its driver has done and must not, since this was last asked.
    fn complaints(&mut self) -> Vec<String> {
        Vec::new()
    }
}
