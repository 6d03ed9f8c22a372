//! The transmit queue.
//!
//! The device's header lies in the head room of the first fragment, so that the two are one
//! descriptor (virtio 1.3, section 2.7.4: framing is independent of descriptors).
//!
//! There is no padding, so frames shorter than 60 bytes are refused.

use core::cell::Cell;
use core::marker::PhantomData;
use core::ptr::NonNull;

use pagewire_hal::driver::{Lengths, QueueId, TransmitHalf};
use pagewire_hal::{
    Capabilities, DeviceAddress, DomainId, Fragment, FrameError, NicError, Platform, PostError,
    QueueError, Token, TxFrame, TxQueue,
};

use crate::Features;
use crate::desc::{HEADER_LEN, NetHeader};
use crate::progress::{Progress, Watch};
use crate::regs::Doorbell;
use crate::ring::{Direction, Parts, Ring};

/// The transmit half of a queue pair.
///
/// It may move to another thread, and is used from one at a time. While the device is being
/// reset the queue does not know of it: it takes frames until it is full, and they come back
/// with all others from [`restart`](pagewire_hal::Nic::restart) or
/// [`release`](pagewire_hal::Nic::release).
///
/// Dropped without `release`, its ring is leaked, as the device may still read it.
pub struct VirtioTx<P: Platform> {
    /// Dropped first.
    progress: Progress,
    id: QueueId,
    bell: Option<Doorbell<P::Registers>>,
    ring: Ring<P>,
    capabilities: Capabilities,
    /// Of frames that ask for the same as the last one that was not to be segmented; none while the
    /// queue is down.
    lengths: Lengths,
    /// Their header.
    header: NetHeader,
    domain: DomainId,
    counters: TxCounters,
    down: bool,
    /// `Cell` is not `Sync`: a queue has one user at a time.
    not_sync: PhantomData<Cell<()>>,
}

/// What a transmit queue has counted since the device was opened; resets go on counting.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct TxCounters {
    /// Frames, or requests for segmentation, that the device has completed.
    pub completed: u64,
    /// Doorbells that the device wanted.
    pub notified: u64,
    /// Doorbells that it did not want.
    pub suppressed: u64,
    /// Times that the device named a descriptor that it did not have.
    pub nonsense: u64,
}

impl<P: Platform> core::fmt::Debug for VirtioTx<P> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("VirtioTx")
            .field("outstanding", &self.ring.outstanding())
            .field("counters", &self.counters)
            .field("down", &self.down)
            .finish_non_exhaustive()
    }
}

impl<P: Platform> VirtioTx<P> {
    /// A queue of `size` descriptors that the device has not been told of.
    pub(crate) fn new(
        platform: &mut P,
        id: QueueId,
        capabilities: Capabilities,
        features: Features,
        size: u16,
    ) -> Result<Self, NicError> {
        let ring = Ring::new(platform, size, features, Direction::Read)?;
        // SAFETY: the word is there as long as the ring, which is dropped later. Besides the
        // device `Ring::prepare` writes it, in `restart` and `open`, while `poll`, which needs the
        // control part as well, cannot be called.
        let progress = unsafe { Progress::new(ring.used_word()) };
        Ok(Self {
            progress,
            id,
            bell: None,
            ring,
            capabilities,
            lengths: Lengths::NONE,
            header: NetHeader::default(),
            domain: platform.domain(),
            counters: TxCounters::default(),
            down: true,
            not_sync: PhantomData,
        })
    }

    /// What was counted.
    #[must_use]
    pub const fn counters(&self) -> TxCounters {
        self.counters
    }

    /// Lets the control part see whether it stands still.
    pub(crate) fn watch(&self) -> Watch {
        self.progress.watch()
    }

    /// Descriptors in the ring.
    pub(crate) fn size(&self) -> u32 {
        self.ring.size()
    }

    pub(crate) fn set_bell(&mut self, bell: Doorbell<P::Registers>) {
        self.bell = Some(bell);
    }

    /// Empties the ring, which the device, reset, is to be told of next.
    pub(crate) fn prepare(&mut self) -> Parts {
        self.down = false;
        let parts = self.ring.prepare();
        self.progress.note_published(0);
        self.progress.note_consumed(0, self.counters.completed);
        parts
    }

    fn put_down(&mut self) {
        self.down = true;
        self.lengths = Lengths::NONE;
    }

    /// The header of a frame that asks for something else than the one before, or is to be segmented.
    #[cold]
    #[inline(never)]
    fn check_other(&mut self, frame: &TxFrame<'_>) -> Result<NetHeader, PostError> {
        if self.down {
            return Err(PostError::Down);
        }
        let refuse = PostError::Refused;
        let len = frame.check(&self.capabilities).map_err(refuse)?;
        let header = NetHeader::of(&frame.offload, len).map_err(refuse)?;
        // What is to be segmented has a header that depends on its length.
        let lengths = match frame.offload.segment_len {
            0 => Lengths::of(frame.offload, &self.capabilities).map_err(refuse)?,
            _ => Lengths::NONE,
        };
        (self.lengths, self.header) = (lengths, header);
        Ok(header)
    }
}

/// The gather list as the device sees it: the first fragment begins with the header.
#[inline(always)]
fn pieces(fragments: &[Fragment]) -> impl ExactSizeIterator<Item = (DeviceAddress, u32)> + '_ {
    fragments.iter().enumerate().map(|(index, fragment)| {
        let header = if index == 0 { HEADER_LEN } else { 0 };
        let address = fragment.address.0.wrapping_sub(u64::from(header));
        // A fragment is at most `max_fragment_len` long, which is far from 2^32.
        (DeviceAddress(address), fragment.len + header)
    })
}

/// Writes the header directly before `first`.
///
/// # Safety
/// The [`HEADER_LEN`] bytes before `first` are writable and nobody else's.
#[inline(always)]
unsafe fn write_header(first: NonNull<u8>, header: NetHeader) {
    // SAFETY: the bytes before `first` are in the same allocation.
    let place = unsafe { first.sub(HEADER_LEN as usize) };
    // SAFETY: the caller's promise; a `NetHeader` is bytes, aligned to 1. Volatile, as a device
    // reads it.
    unsafe { place.cast::<NetHeader>().write_volatile(header) };
}

impl<P: Platform> TransmitHalf for VirtioTx<P> {
    fn id(&self) -> QueueId {
        self.id
    }

    unsafe fn drain(&mut self, released: &mut dyn FnMut(Token)) {
        self.put_down();
        // SAFETY: the caller's promise.
        unsafe { self.ring.drain(&mut |token| released(Token(token))) };
    }

    unsafe fn set_quiet(&mut self) {
        // SAFETY: the caller's promise.
        unsafe { self.ring.set_quiet(true) };
    }
}

// SAFETY: a token is handed back when the device has put the head of its chain into the used
// ring (virtio 1.3, section 2.7.8: it is done with the buffer then), of which `Shadow::is_out`
// checks that it is out and was published; in order, the chains before it as well (section 2.7.9).
// Or by `drain`, when the device is quiet. A chain is out of the books before its token is
// handed back, so none comes twice. The device gets the addresses of the fragments, of their head
// room, and of the ring's own memory, no others. The domain never changes.
unsafe impl<P: Platform> TxQueue for VirtioTx<P> {
    #[inline]
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    #[inline]
    fn domain(&self) -> DomainId {
        self.domain
    }

    #[inline(always)]
    unsafe fn post(&mut self, frame: &TxFrame<'_>, token: Token) -> Result<(), PostError> {
        let header = match frame.check_again(&self.lengths, &self.capabilities) {
            Some(_) => self.header,
            None => self.check_other(frame)?,
        };
        let no_room = PostError::Refused(FrameError::NoHeadRoom);
        let first = frame.first.ok_or(no_room)?;
        if !self.ring.has_room(frame.fragments.len()) {
            return Err(PostError::Full);
        }
        // SAFETY: the caller promised that the head room is writable and the driver's alone; it
        // is `HEADER_LEN` bytes, as the capabilities say.
        unsafe { write_header(first, header) };
        self.ring.add(pieces(frame.fragments), token.0);
        Ok(())
    }

    #[inline]
    fn doorbell(&mut self) {
        if self.down || !self.ring.has_unpublished() {
            return;
        }
        let is_wanted = self.ring.publish();
        self.progress.note_published(self.ring.progress().0);
        if !is_wanted {
            self.counters.suppressed += 1;
            return;
        }
        self.counters.notified += 1;
        if let Some(bell) = &self.bell {
            // SAFETY: the ring is in custody. The caller of `post` promised that the fragments
            // and head rooms of all frames in it stay mapped until their tokens are handed back,
            // which is when the device is done with them.
            unsafe { bell.ring() };
        }
    }

    #[inline]
    fn reclaim(&mut self, done: &mut impl FnMut(Token)) -> Result<usize, QueueError> {
        if self.down {
            return Err(QueueError::Down);
        }
        let mut count = 0;
        loop {
            match self.ring.take_used_or_arm() {
                Ok(Some(used)) => {
                    count += 1;
                    self.counters.completed += 1;
                    done(Token(used.token));
                }
                Ok(None) => {
                    if count > 0 {
                        let consumed = self.ring.progress().1;
                        let completed = self.counters.completed;
                        self.progress.note_consumed(consumed, completed);
                    }
                    return Ok(count);
                }
                Err(error) => {
                    self.put_down();
                    self.counters.nonsense += 1;
                    return Err(error);
                }
            }
        }
    }

    #[inline]
    fn has_room(&self, fragments: usize) -> bool {
        !self.down
            && fragments <= usize::from(self.capabilities.max_fragments)
            && self.ring.has_room(fragments)
    }

    #[inline]
    fn outstanding(&self) -> usize {
        self.ring.outstanding()
    }
}
