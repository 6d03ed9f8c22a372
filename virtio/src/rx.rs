//! The receive queue: each buffer is one descriptor and holds the longest frame, so that
//! MRG_RXBUF is not needed.

use core::cell::Cell;
use core::marker::PhantomData;
use core::ptr::NonNull;

use pagewire_hal::{
    Custody, DmaMemory, MacAddress, NicError, Platform, QueueError, RxChecksum, RxCounters,
    RxFrame, RxQueue, Verdict,
};
use zerocopy::IntoBytes;

use crate::config::{Config, ETHERNET_HEADER};
use crate::desc::{HEADER_LEN, NetHeader};
use crate::pairs::QueueId;
use crate::regs::Doorbell;
use crate::ring::{Direction, Parts, Ring, Used};
use crate::{Features, checksum};

/// Which frames are handed over. The device filters nothing: it would take its control queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Filter {
    pub(crate) mac: MacAddress,
    pub(crate) all_multicast: bool,
    pub(crate) promiscuous: bool,
}

impl Filter {
    fn passes(&self, to: MacAddress) -> bool {
        if to.is_multicast() {
            self.all_multicast || to == MacAddress::BROADCAST
        } else {
            self.promiscuous || to == self.mac
        }
    }
}

/// The receive half of a queue pair.
///
/// It may move to another thread, and is used from one at a time. Dropped without
/// [`release`](pagewire_hal::Nic::release), its ring and its buffers are leaked, as the device
/// may still write to them.
pub struct VirtioRx<P: Platform> {
    id: QueueId,
    bell: Option<Doorbell<P::Registers>>,
    ring: Ring<P>,
    buffers: Custody<P::Memory>,
    /// Base-2 logarithm of the bytes in a buffer.
    buffer_shift: u32,
    /// GUEST_CSUM: the header says something of the checksum.
    has_checksum: bool,
    filter: Filter,
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
        (config, mac): (&Config, MacAddress),
    ) -> Result<Self, NicError> {
        let buffer_shift = buffer_len.trailing_zeros();
        let ring = Ring::new(platform, size, features, Direction::Write)?;
        let bytes = usize::from(size) << buffer_shift;
        let mut buffers = Custody::new(platform.allocate(bytes, 4096)?);
        // SAFETY: the device has not been told of this memory.
        unsafe { buffers.set_quiet(true) };
        if buffers.memory().len() < bytes {
            return Err(NicError::Config {
                what: "the platform's memory for receive buffers does not fit them",
            });
        }
        Ok(Self {
            id,
            bell: None,
            ring,
            buffers,
            buffer_shift,
            has_checksum: features.contains(Features::GUEST_CSUM),
            filter: Filter {
                mac,
                all_multicast: config.all_multicast,
                promiscuous: config.promiscuous,
            },
            counters: RxCounters::default(),
            down: true,
            not_sync: PhantomData,
        })
    }

    /// Which queue it is.
    pub(crate) fn id(&self) -> QueueId {
        self.id
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

    /// Stops the queue until it is prepared again.
    pub(crate) fn stop(&mut self) {
        self.down = true;
    }

    /// Lets the memory be freed on drop.
    ///
    /// # Safety
    /// The device is quiet and is not told of the ring again before [`prepare`](Self::prepare).
    pub(crate) unsafe fn set_quiet(&mut self) {
        // SAFETY: the caller's promise.
        unsafe { self.ring.set_quiet(true) };
        // SAFETY: the caller's promise.
        unsafe { self.buffers.set_quiet(true) };
    }

    #[inline(always)]
    fn offset(&self, index: u32) -> usize {
        ((index & (self.ring.size() - 1)) as usize) << self.buffer_shift
    }

    #[inline(always)]
    fn offer(&mut self, index: u32) {
        if !self.ring.has_room(1) {
            return;
        }
        let address = self.buffers.memory().address();
        let address = address.offset(self.offset(index) as u64);
        let piece = (address, 1 << self.buffer_shift);
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

    /// The length of the frame in a buffer, without the device's header, if it is one.
    ///
    /// # Errors
    /// A length beyond the buffer: what else the device wrote is not to be trusted.
    #[inline]
    fn judge(&mut self, used: Used) -> Result<Option<usize>, QueueError> {
        let Some(len) = used.len else {
            // "Used completely" (virtio 1.3, section 2.7.9), which no frame is here.
            self.counters.nonsense += 1;
            return Ok(None);
        };
        if len > 1 << self.buffer_shift {
            self.counters.nonsense += 1;
            return Err(QueueError::BadLength { len });
        }
        if len < HEADER_LEN + ETHERNET_HEADER {
            self.counters.nonsense += 1;
            return Ok(None);
        }
        Ok(Some((len - HEADER_LEN) as usize))
    }

    /// What the header at `buffer` says of the checksum of the frame of `len` bytes at `frame`,
    /// which is complete after this. `None` if that makes no sense.
    ///
    /// # Safety
    /// Header and frame are memory of `self.buffers`, which the device was not given again.
    #[inline]
    unsafe fn checksum(
        &self,
        buffer: NonNull<u8>,
        frame: NonNull<u8>,
        len: usize,
    ) -> Option<RxChecksum> {
        let mut checksum = RxChecksum::default();
        if !self.has_checksum {
            return Some(checksum);
        }
        // SAFETY: the caller's promise.
        let header = unsafe { RxFrame::new(buffer, HEADER_LEN as usize, checksum) };
        let mut copy = NetHeader::default();
        header.copy_to(copy.as_mut_bytes());
        if let Some((start, offset)) = copy.incomplete_checksum() {
            // SAFETY: the caller's promise.
            if !unsafe { checksum::complete(frame, len, start, offset) } {
                return None;
            }
            checksum.transport = Verdict::Good;
        } else if copy.is_verified() {
            checksum.transport = Verdict::Good;
        }
        Some(checksum)
    }

    /// Hands the frame of `len` bytes in buffer `index` to `frame`, if it is one that is wanted.
    #[inline]
    fn deliver(&mut self, index: u32, len: usize, frame: &mut impl FnMut(RxFrame<'_>)) -> bool {
        let offset = self.offset(index);
        // SAFETY: `new` checked that the memory holds as many buffers as the ring has
        // descriptors, and `offset` masks the index.
        let buffer = unsafe { self.buffers.memory().pointer().add(offset) };
        // SAFETY: `judge` checked that the buffer holds more than the header.
        let pointer = unsafe { buffer.add(HEADER_LEN as usize) };
        // SAFETY: `judge` checked that header and `len` bytes are in the buffer, which is ours.
        let Some(checksum) = (unsafe { self.checksum(buffer, pointer, len) }) else {
            self.counters.nonsense += 1;
            return false;
        };
        // SAFETY: as above; `self.buffers` keeps the buffer while `self` is borrowed.
        let received = unsafe { RxFrame::new(pointer, len, checksum) };
        let mut to = [0; 6];
        received.copy_to(&mut to);
        if !self.filter.passes(MacAddress(to)) {
            return false;
        }
        self.counters.delivered += 1;
        frame(received);
        true
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
            let used = match self.ring.take_used() {
                Ok(Some(used)) => used,
                Ok(None) if self.ring.arm() => continue,
                Ok(None) => break,
                Err(error) => {
                    self.counters.nonsense += 1;
                    result = Err(error);
                    break;
                }
            };
            match self.judge(used) {
                Ok(Some(len)) => {
                    // The device does not get the buffer before `notify`, so a frame whose
                    // callback unwinds costs nothing but itself.
                    self.offer(used.token);
                    count += usize::from(self.deliver(used.token, len, frame));
                }
                Ok(None) => self.offer(used.token),
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        if let Err(error) = result {
            self.down = true;
            return Err(error);
        }
        self.notify();
        Ok(count)
    }

    fn counters(&self) -> RxCounters {
        self.counters
    }
}
