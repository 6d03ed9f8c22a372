//! The receive half: frames are copied out of the device's buffers in batches, judged and handed
//! to smoltcp.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use ::smoltcp::phy;
use pagewire_hal::{QueueError, RxChecksum, RxQueue};

use super::Counters;
use super::checksum::accept;
use super::mapping::Mapping;

/// A VLAN tag, which a frame may have on top. smoltcp does not know what to do with one.
const VLAN_TAG: usize = 4;

/// A frame in the inbox.
#[derive(Clone, Copy)]
struct Entry {
    len: usize,
    checksum: RxChecksum,
}

/// What receives: the queue and the frames taken from it.
pub(super) struct Receive<R> {
    pub(super) queue: R,
    bytes: Box<[u8]>,
    slot_len: usize,
    entries: Vec<Entry>,
    next: usize,
    batch: usize,
}

impl<R: RxQueue> Receive<R> {
    /// A half that takes `batch` frames at once, at least 1.
    pub(super) fn new(queue: R, mapping: &Mapping, batch: usize) -> Self {
        let slot_len = mapping.receive_len + VLAN_TAG;
        Self {
            queue,
            bytes: vec![0; slot_len * batch].into_boxed_slice(),
            slot_len,
            entries: Vec::with_capacity(batch),
            next: 0,
            batch,
        }
    }

    /// The next frame, if there is one. Fetches a batch when none is left.
    pub(super) fn next_frame(
        &mut self,
        counters: &mut Counters,
    ) -> Result<Option<Received<'_>>, QueueError> {
        let fetched = if self.next >= self.entries.len() {
            self.fetch(counters)
        } else {
            Ok(())
        };
        let Some(entry) = self.entries.get(self.next) else {
            return fetched.map(|()| None);
        };
        let start = self.next * self.slot_len;
        self.next += 1;
        let bytes = self.bytes.get(start..start + entry.len);
        Ok(Some(Received {
            bytes: bytes.unwrap_or_default(),
            checksum: entry.checksum,
        }))
    }

    /// Takes a batch from the queue. What was taken before an error is kept.
    fn fetch(&mut self, counters: &mut Counters) -> Result<(), QueueError> {
        let Self {
            queue,
            bytes,
            slot_len,
            entries,
            ..
        } = self;
        self.next = 0;
        entries.clear();
        let mut slots = bytes.chunks_exact_mut(*slot_len);
        let fetched = queue.receive(self.batch, &mut |frame| {
            // A slot is used up by a frame that is kept, and by no other.
            let fits = frame.len() <= *slot_len;
            let Some(slot) = fits.then(|| slots.next()).flatten() else {
                counters.too_long += 1;
                return;
            };
            entries.push(Entry {
                len: frame.copy_to(slot).len(),
                checksum: frame.checksum(),
            });
        });
        fetched.map(drop)
    }
}

/// A frame and what the device says of it.
pub(super) struct Received<'a> {
    bytes: &'a [u8],
    checksum: RxChecksum,
}

impl<'a> Received<'a> {
    /// The token for it. A frame that smoltcp must not see becomes an empty one, which it
    /// passes over: so one call does the work of one frame, whatever the peer sends.
    pub(super) fn judge(self, mapping: &Mapping, counters: &mut Counters) -> RxToken<'a> {
        if accept(self.bytes, self.checksum, mapping, counters) {
            counters.received += 1;
            RxToken { frame: self.bytes }
        } else {
            RxToken { frame: &[] }
        }
    }
}

/// A received frame. Dropped unread, it is gone.
#[must_use = "a token that is not consumed loses its frame"]
pub struct RxToken<'a> {
    frame: &'a [u8],
}

impl phy::RxToken for RxToken<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.frame)
    }
}
