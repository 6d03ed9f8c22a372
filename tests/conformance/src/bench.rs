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
    ///
    /// Several may come before time goes on: up to [`Bench::frames_at_once`] where each of them
    /// must arrive, and 1500 where it is the point that a NIC cannot take them all.
    fn send(&mut self, frame: &[u8]);

    /// The longest frame that it can send, in bytes: a kernel's interface refuses what is longer
    /// than its MTU allows. What must be counted by the NIC has to get there.
    fn longest(&self) -> usize {
        usize::MAX
    }

    /// The next frame that the NIC has sent, in the order of the wire; `None` if there is none
    /// yet. Frames of anyone else do not come up here.
    fn take(&mut self) -> Option<Vec<u8>>;
}

/// A NIC on a bench: how to open it, its wire, its time, and memory for it.
///
/// The methods that have a body are hooks, each with a default that says "the bench cannot" or
/// "unknown". A bench that has not got one leaves it out, and the checks that need it are reported
/// as not run.
///
/// The suite takes its memory from [`Nic::allocate`] in pieces of a power of two, from 512 bytes
/// to the longest frame (or segmentation request) and 64 bytes, and uses each again when its frame
/// has completed: about as many pieces as a ring has descriptors, and 800 of 512 bytes more for a
/// device with two pairs of queues. Beside them one [region](Self::region) of 1 MiB a check.
pub trait Bench {
    /// The driver under test.
    type Nic: Nic<Memory = Self::Memory>;

    /// Its memory.
    type Memory: DmaMemory + 'static;

    /// Opens the device, afresh: the last one has been released, or a check has failed, and was
    /// dropped in either case. `seed` is for what the bench draws at random (the freedoms of a
    /// model, say); hardware ignores it.
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
    /// program: at the granule of its choice, in one run or in many. They may begin anywhere in a
    /// page, and are 1 MiB.
    ///
    /// # Errors
    /// Why they could not be mapped, in words.
    fn region(&mut self, bytes: Vec<u8>) -> Result<Arc<dyn Region>, String>;

    /// Opens another device with the same driver, beside the one that was opened last, which goes
    /// on; [`advance`](Self::advance) is for both. It needs no far end. `None`, the default, if
    /// the bench has one device only.
    ///
    /// # Errors
    /// Why it could not be opened, in words.
    fn open_second(&mut self, seed: u64) -> Option<Result<Self::Nic, String>> {
        let _ = seed;
        None
    }

    /// Bytes of a page of the program, a power of two: fragments are put at the ends of these.
    /// 4096 by default.
    fn page_len(&self) -> usize {
        4096
    }

    /// Whether a frame can be taken at the far end as soon as the device may report it as done.
    /// Where that is so, a completion that comes before its frame is a failure. By default it is
    /// not so.
    fn sees_frames_at_once(&self) -> bool {
        false
    }

    /// Whether the device was opened so that it keeps frames for other stations. By default it
    /// was not.
    fn is_promiscuous(&self) -> bool {
        false
    }

    /// Whether the device was opened so that it keeps the frames for all groups; `None`, the
    /// default, where that is not known: frames for groups are then not judged.
    fn keeps_groups(&self) -> Option<bool> {
        None
    }

    /// The longest frame for which the device was opened, in bytes, Ethernet header included,
    /// frame check sequence excluded (an MTU and 14); `None`, the default, where nobody chose.
    fn longest_frame(&self) -> Option<u32> {
        None
    }

    /// The speed of the link in Mbit/s, both directions at once; `None`, the default, if the
    /// bench does not know.
    fn link_speed(&self) -> Option<u32> {
        None
    }

    /// The key by which the device was opened to hash what it receives
    /// ([`RxFrame::hash`](pagewire_hal::RxFrame::hash)): 40 bytes as a rule; `None`, the default,
    /// where it is not known, and the values are then not judged.
    fn hash_key(&self) -> Option<Vec<u8>> {
        None
    }

    /// Frames that the device takes off the wire, or the far end keeps for it, while nobody looks
    /// for received ones: at least 1; 5 by default, which any ring of 8 buffers takes.
    fn frames_at_once(&self) -> usize {
        5
    }

    /// Takes the carrier away, or gives it back; `false`, the default, if the bench cannot.
    fn set_link(&mut self, up: bool) -> bool {
        let _ = up;
        false
    }

    /// While `hold`, the device reports no transmit completion though it sends; `false`, the
    /// default, if the bench cannot.
    fn hold_completions(&mut self, hold: bool) -> bool {
        let _ = hold;
        false
    }

    /// While `stall`, the device does nothing of itself, transmit above all, though its registers
    /// answer and time goes on; `false`, the default, if the bench cannot.
    fn stall(&mut self, stall: bool) -> bool {
        let _ = stall;
        false
    }

    /// From now on the device says that it needs a reset, until it gets one; `false`, the default,
    /// if it has no way to say so (virtio's has), or the bench cannot make it.
    fn needs_reset(&mut self) -> bool {
        false
    }

    /// From now on the device does not stop reaching for memory, whatever it is told, until it is
    /// opened again; `false`, the default, if the bench cannot.
    fn never_quiet(&mut self) -> bool {
        false
    }

    /// Takes the device out of its slot: from now on its registers read all ones, until it is
    /// opened again; `false`, the default, if the bench cannot.
    fn remove(&mut self) -> bool {
        false
    }

    /// How often the transmit doorbell has been rung since the device was opened; `None`, the
    /// default, if the bench cannot tell.
    fn doorbells(&mut self) -> Option<u64> {
        None
    }

    /// Whether the device may tell its driver that no doorbell is needed (it looks by itself), as
    /// virtio's may. By default every batch needs one.
    fn waives_doorbells(&self) -> bool {
        false
    }

    /// What the device says that its driver has done and must not, since this was last asked.
    /// Nothing by default.
    fn complaints(&mut self) -> Vec<String> {
        Vec::new()
    }
}
