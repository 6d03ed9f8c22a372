//! The receive queue.
//!
//! Without MRG_RXBUF each buffer holds the longest frame. With it a buffer has 2 KiB, which holds
//! a frame of the usual 1514 bytes, and longer frames lie in several: then all but the last are
//! full, and the device says in the header of the first how many there are (virtio 1.3, "Processing
//! of Incoming Packets"). It makes them used together, so none is waited for.

use core::cell::Cell;
use core::marker::PhantomData;
use core::ptr::NonNull;

use pagewire_hal::driver::{Buffers, ETHERNET_HEADER, QueueId, ReceiveHalf};
use pagewire_hal::{
    MacAddress, NicError, Platform, QueueError, RxChecksum, RxCounters, RxFrame, RxPiece, RxQueue,
};

use crate::Features;
use crate::arrival::{Arrival, Dropped, Reception};
use crate::config::SMALL_BUFFER;
use crate::desc::{HEADER_LEN, NetHeader};
use crate::regs::Doorbell;
use crate::ring::{Direction, Parts, Ring, Used};

/// Buffers beyond the first that a frame can lie in: the longest that is joined from segments has
/// 65535 bytes of IP behind an Ethernet header.
const MAX_REST: usize = (HEADER_LEN + ETHERNET_HEADER + 65_535) as usize / SMALL_BUFFER as usize;

/// The receive half of a queue pair.
///
/// It may move to another thread, and is used from one at a time. Dropped without
/// [`release`](pagewire_hal::Nic::release), its ring and its buffers are leaked, as the device
/// may still write to them.
pub struct VirtioRx<P: Platform> {
    id: QueueId,
    bell: Option<Doorbell<P::Registers>>,
    ring: Ring<P>,
    buffers: Buffers<P::Memory>,
    reception: Reception,
    counters: RxCounters,
    down: bool,
    /// `Cell` is not `Sync`: a queue has one user at a time.
    not_sync: PhantomData<Cell<()>>,
}

impl<P: Platform> core::fmt::Debug for VirtioRx<P> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("VirtioRx")
            .field("counters", &self.counters)
            .field("down", &self.down)
            .finish_non_exhaustive()
    }
}

impl<P: Platform> VirtioRx<P> {
    /// A queue of `size` buffers of `buffer_len` bytes, both powers of two, that the device has
    /// not been told of.
    pub(crate) fn new(
        platform: &mut P,
        id: QueueId,
        features: Features,
        size: u16,
        buffer_len: u32,
        reception: Reception,
    ) -> Result<Self, NicError> {
        let ring = Ring::new(platform, size, features, Direction::Write)?;
        let buffers = Buffers::new(platform, u32::from(size), buffer_len)?;
        Ok(Self {
            id,
            bell: None,
            ring,
            buffers,
            reception,
            counters: RxCounters::default(),
            down: true,
            not_sync: PhantomData,
        })
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
        // SAFETY: saying "not quiet" only keeps memory longer.
        unsafe { self.buffers.set_quiet(false) };
        self.down = false;
        self.ring.prepare()
    }

    /// Gives the device all buffers; to be called when it runs.
    pub(crate) fn offer_all(&mut self) {
        for index in 0..self.ring.size() {
            self.offer(index);
        }
        self.notify();
    }

    #[inline(always)]
    fn offer(&mut self, index: u32) {
        if !self.ring.has_room(1) {
            return;
        }
        let piece = (self.buffers.address(index), self.buffers.len());
        self.ring.add(core::iter::once(piece), index);
    }

    fn notify(&mut self) {
        if self.ring.publish()
            && let Some(bell) = &self.bell
        {
            // SAFETY: the ring and the buffers are in custody as not quiet: only `set_quiet`
            // changes that, after `stop`, and then this is not reached.
            unsafe { bell.ring() };
        }
    }

    /// Takes a used buffer, and returns where it is and what length the device wrote. It goes back
    /// to the ring at once, but the device does not get it before [`notify`](Self::notify): so
    /// each goes back once, whatever becomes of its frame, also if a callback unwinds.
    ///
    /// # Errors
    /// A length beyond the buffer: what else the device wrote is not to be trusted.
    #[inline]
    fn take(&mut self, used: Used) -> Result<(NonNull<u8>, usize), QueueError> {
        let room = self.buffers.len();
        let len = match used.len {
            Some(len) if len > room => return Err(QueueError::BadLength { len }),
            Some(len) => len,
            // "Used completely" (virtio 1.3, section 2.7.9), which no frame is that has to fit one
            // buffer.
            None if self.reception.merges() => room,
            None => 0,
        };
        self.offer(used.token);
        Ok((self.buffers.pointer(used.token), len as usize))
    }

    /// Hands the frame that begins in a used buffer to `frame`, if it is one that is wanted.
    ///
    /// # Errors
    /// The device wrote what leaves it unclear where the next frame begins.
    #[inline]
    fn receive_one(
        &mut self,
        used: Used,
        frame: &mut impl FnMut(RxFrame<'_>),
    ) -> Result<bool, QueueError> {
        let (buffer, len) = self.take(used)?;
        let Some(len) = len
            .checked_sub(HEADER_LEN as usize)
            .filter(|len| *len >= ETHERNET_HEADER as usize)
        else {
            self.counters.nonsense += 1;
            return Ok(false);
        };
        // SAFETY: a buffer holds a header.
        let header = unsafe { self.reception.header(buffer) };
        // SAFETY: `take` checked that the buffer holds more than the header.
        let start = unsafe { buffer.add(HEADER_LEN as usize) };
        // SAFETY: `take` checked that header and `len` bytes are in the buffer, which is ours:
        // the device gets it when `notify` is called, after the last use of the piece.
        let first = unsafe { RxPiece::new(start, len) };
        let mut to = [0; 6];
        RxFrame::scattered(first, &[], RxChecksum::default()).copy_to(&mut to);
        let mut arrival = self.reception.judge(&header, MacAddress(to));
        if let Ok(arrival) = &mut arrival {
            // SAFETY: as above.
            unsafe { arrival.add(start, len) };
        }
        if self.reception.merges() && header.buffers() != 1 {
            return self.gather(&header, arrival, first, frame);
        }
        Ok(self.deliver(arrival, first, &[], frame))
    }

    /// Goes on with a frame of which there is more than `first`.
    fn gather(
        &mut self,
        header: &NetHeader,
        mut arrival: Result<Arrival, Dropped>,
        first: RxPiece,
        frame: &mut impl FnMut(RxFrame<'_>),
    ) -> Result<bool, QueueError> {
        let room = self.buffers.len() as usize;
        let index = u32::from(header.buffers());
        // All but the last are full.
        let mut is_full = first.len() == room - HEADER_LEN as usize;
        let mut rest = [first; MAX_REST];
        let mut count = 0;
        for _ in 1..index {
            // There are at most as many rounds as buffers that are out.
            let Some(used) = self.ring.take_used()? else {
                return Err(QueueError::BadIndex { index });
            };
            let (start, len) = self.take(used)?;
            if !is_full || len == 0 {
                arrival = arrival.and(Err(Dropped::Nonsense));
            }
            is_full = len == room;
            if let Ok(arrival) = &mut arrival {
                // SAFETY: `take` checked that the bytes are in the buffer, which is ours.
                unsafe { arrival.add(start, len) };
            }
            match rest.get_mut(count) {
                // SAFETY: as above, until `notify`.
                Some(piece) => *piece = unsafe { RxPiece::new(start, len) },
                None => arrival = arrival.and(Err(Dropped::TooLong)),
            }
            count += 1;
        }
        if count == 0 {
            // A frame in no buffer.
            arrival = Err(Dropped::Nonsense);
        }
        let rest = rest.get(..count).unwrap_or_default();
        Ok(self.deliver(arrival, first, rest, frame))
    }

    /// Hands over a frame that is complete, or counts why it does not.
    #[inline]
    fn deliver(
        &mut self,
        arrival: Result<Arrival, Dropped>,
        first: RxPiece,
        rest: &[RxPiece],
        frame: &mut impl FnMut(RxFrame<'_>),
    ) -> bool {
        // SAFETY: the pieces are in buffers that the device was not given again.
        let finished = arrival.and_then(|arrival| unsafe { arrival.finish() });
        match finished {
            Ok(checksum) => {
                self.counters.delivered += 1;
                frame(RxFrame::scattered(first, rest, checksum));
                return true;
            }
            Err(Dropped::Filtered) => {}
            Err(Dropped::TooLong) => self.counters.too_long += 1,
            Err(Dropped::Nonsense) => self.counters.nonsense += 1,
        }
        false
    }
}

impl<P: Platform> ReceiveHalf for VirtioRx<P> {
    fn id(&self) -> QueueId {
        self.id
    }

    fn stop(&mut self) {
        self.down = true;
    }

    unsafe fn set_quiet(&mut self) {
        // SAFETY: the caller's promise.
        unsafe { self.ring.set_quiet(true) };
        // SAFETY: the caller's promise.
        unsafe { self.buffers.set_quiet(true) };
    }
}

impl<P: Platform> RxQueue for VirtioRx<P> {
    #[inline]
    fn receive(
        &mut self,
        budget: usize,
        frame: &mut impl FnMut(RxFrame<'_>),
    ) -> Result<usize, QueueError> {
        if self.down {
            return Err(QueueError::Down);
        }
        let mut count = 0;
        let mut result = Ok(());
        // Buffers come back to the device at the end only, so even with frames that are not
        // wanted there are no more rounds than buffers.
        while count < budget {
            let used = match self.ring.take_used_or_arm() {
                Ok(Some(used)) => used,
                Ok(None) => break,
                Err(error) => {
                    result = Err(error);
                    break;
                }
            };
            match self.receive_one(used, frame) {
                Ok(delivered) => count += usize::from(delivered),
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        if let Err(error) = result {
            self.down = true;
            self.counters.nonsense += 1;
            return Err(error);
        }
        self.notify();
        Ok(count)
    }

    fn counters(&self) -> RxCounters {
        self.counters
    }
}
