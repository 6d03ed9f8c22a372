//! The traits that every driver implements: a control part and pairs of queues.

use core::fmt;

use bitflags::bitflags;

use crate::{
    Capabilities, DmaMemory, DomainId, Instant, NicError, PostError, QueueError, RxFrame, Token,
    TxFrame,
};

/// A network interface: the control part. Its queues are taken out once and may live on other
/// threads; a queue needs nothing of the control part to transmit and receive.
///
/// Opening waits (on [`Platform::wait`](crate::Platform::wait)); nothing here does. A reset is
/// a sequence: [`begin_reset`](Self::begin_reset), [`poll`](Self::poll) until
/// [`Phase::Quiet`], then [`restart`](Self::restart) or, to shut down, [`release`](Self::release).
///
/// # A driver's life
/// - **Open**: reset the device and wait until that is done; allocate the rings, which are in
///   [`Custody`](crate::Custody) from then on; program them and everything else; switch bus
///   mastering on; only then give receive buffers and let it run. The device works before the
///   first queue is taken. If opening fails half-way, what the device may have been told of
///   leaks; what it has not been told of may be freed (`set_quiet(true)`).
/// - **Running**: the queues work, each on a thread of its own if wanted, and hear nothing of the
///   control part. Who notices a removal is `poll`; a queue may as well (a read of all ones).
/// - **From `begin_reset` until `restart` or `release`** a queue may go on taking frames, whose
///   tokens these two then hand back unsent or not, or answer `Down`; it may hand back what has
///   completed. Which, is the driver's choice: a queue on another thread may learn of the reset
///   when the two get hold of it, no earlier. A second `begin_reset`, in any phase but
///   [`Phase::Running`] and [`Phase::Hung`], does nothing.
/// - **After `restart`** everything is as it was configured: addresses, filters, interrupts that
///   were on; what queues and device had counted goes on counting. Pairs that nobody has taken
///   are restarted with the others.
/// - **After `release`** the queues answer `Down`.
/// - **Dropped**, with its queues or before them, stopped or not: never an access to freed memory.
///   What the device could still reach leaks.
///
/// # Safety
/// The safe layer frees memory on the word of the implementation: `restart` and `release` hand
/// back a token only when the device reads no memory any more, each with the position in the
/// slice of the queue to which it was posted, and leave every queue where it was in the slice
/// (no swapping). The queues in the slice may be those of *another* device of the same type,
/// which is running: they are refused before anything is handed back. The domain is always the
/// same, and [`allocate`](Self::allocate) yields memory of it.
pub unsafe trait Nic {
    /// The transmit half of a queue pair.
    type Tx: TxQueue;
    /// The receive half of a queue pair.
    type Rx: RxQueue;
    /// Memory that the device reaches.
    type Memory: DmaMemory;

    /// The driver's name, "e1000e" say, and the device's model after it if known.
    fn name(&self) -> &'static str;

    /// What the device can do.
    fn capabilities(&self) -> &Capabilities;

    /// The station address.
    fn mac_address(&self) -> MacAddress;

    /// The device's address space: regions must be mapped there.
    fn domain(&self) -> DomainId;

    /// `len` zeroed bytes that the device reaches, aligned to `align` (a power of two).
    ///
    /// # Errors
    /// What the platform said.
    fn allocate(&mut self, len: usize, align: usize) -> Result<Self::Memory, NicError>;

    /// Queue pair `index`, from 0 to [`queue_pairs`](Capabilities::queue_pairs) − 1; `None` if
    /// there is none or it was taken already.
    fn take_queues(&mut self, index: u16) -> Option<(Self::Tx, Self::Rx)>;

    /// The link as of now.
    fn link(&mut self) -> LinkState;

    /// Frames and bytes counted by the device since it was opened; zeros where it does not count
    /// ([`Capabilities::statistics`]).
    fn statistics(&mut self) -> Statistics;

    /// Turns interrupts on and returns the number of vectors, at least 1. Called again it returns
    /// the same, and what has interrupted by then is not lost. Interrupts other than MSI-X are
    /// not used.
    ///
    /// # Errors
    /// What the platform said; [`NicError::NotOffered`] if the device has no MSI-X.
    fn enable_interrupts(&mut self) -> Result<u16, NicError>;

    /// What has interrupted since this was last asked; lets it interrupt again. Nothing, if
    /// interrupts are off. A cause may be reported that turns out to be nothing to do, as where
    /// two share a vector; none is lost.
    fn take_interrupts(&mut self) -> Causes;

    /// Watches the device, goes on with a reset. To be called a few times a second, and as
    /// often as one likes.
    ///
    /// # Errors
    /// [`NicError::Removed`] if the device is gone, [`NicError::NotQuiet`] if it does not stop
    /// reading memory: what it was lent is then never given back. The error comes once;
    /// afterwards the answer is [`Phase::Failed`].
    fn poll(&mut self, now: Instant) -> Result<Phase, NicError>;

    /// Begins to stop the device: no new frame is fetched, [`poll`](Self::poll) tells when the
    /// device reads and writes no more memory.
    fn begin_reset(&mut self, now: Instant);

    /// In [`Phase::Quiet`]: gives back the tokens of all frames that had not been handed back,
    /// each exactly once and with the position of its queue in `queues`, and starts the device
    /// again. `queues` are all queue pairs that were taken out, in any order, each half with its
    /// own other half. `released` may unwind: a token counts as handed back once it was called
    /// with it.
    ///
    /// # Errors
    /// [`NicError::WrongPhase`], [`NicError::QueueMissing`], or [`NicError::Config`] for queues
    /// of another device: nothing has been changed. Or what initialisation said: the tokens that
    /// were handed back are back, the others stay out, and this or [`release`](Self::release)
    /// may be called again.
    fn restart(
        &mut self,
        queues: &mut [QueuePair<'_, Self::Tx, Self::Rx>],
        released: &mut dyn FnMut(u16, Token),
    ) -> Result<(), NicError>;

    /// In [`Phase::Quiet`]: gives back the tokens as [`restart`](Self::restart) does and leaves
    /// the device stopped, its queues down. Dropping them then frees their memory; without this
    /// it leaks, as a device might still reach it. As long as they are all there, the device can
    /// be started again: the phase stays [`Phase::Quiet`] until [`restart`](Self::restart).
    ///
    /// # Errors
    /// [`NicError::WrongPhase`], [`NicError::QueueMissing`] and [`NicError::Config`], as there.
    fn release(
        &mut self,
        queues: &mut [QueuePair<'_, Self::Tx, Self::Rx>],
        released: &mut dyn FnMut(u16, Token),
    ) -> Result<(), NicError>;
}

/// One pair of queues, lent for a reset.
#[derive(Debug)]
pub struct QueuePair<'a, T, R> {
    /// The transmit queue.
    pub tx: &'a mut T,
    /// The receive queue.
    pub rx: &'a mut R,
}

/// Where the device is between running and stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Phase {
    /// It works.
    Running(LinkState),
    /// It works, but transmit has had work and made no progress for a time that the driver
    /// chooses, by the `now` that [`poll`](Nic::poll) is given and however often that is called
    /// (half a second, as a rule; frames that wait for a link count as work or not, as the driver
    /// says): call [`begin_reset`](Nic::begin_reset), or wait: it goes by itself if the device
    /// moves again.
    Hung,
    /// A reset has begun, the device may still reach memory.
    Stopping,
    /// The device reaches no memory: bus mastering is off and nothing is pending (rule 6).
    Quiet,
    /// The device did not become quiet or is gone. Nothing is given back any more.
    Failed,
}

/// The transmit half of a queue pair: the raw layer, which trusts its caller with memory. The
/// safe layer above it is `TxPort` (feature `alloc`).
///
/// # Safety
/// The safe layer frees memory on the word of the implementation:
/// - it hands back a token only when the device has said, as the datasheet has it, that it reads
///   no fragment and no head room of that frame any more, and none that was not posted to it since
///   it was last handed back, whatever the device writes (rule 7): a done mark is believed for a
///   frame that the device has been told of by a doorbell, and is a
///   [`BadIndex`](QueueError::BadIndex) anywhere else. Against a device that says so too early
///   only an IOMMU helps;
/// - of memory that is not its own, it gives the device no addresses but those of the fragments
///   and of their head room;
/// - [`domain`](Self::domain) and the head room in [`capabilities`](Self::capabilities) are
///   always the same, and [`outstanding`](Self::outstanding) is 0 only if no frame is out;
/// - dropping the queue while a frame is out neither unmaps nor frees what that names.
///
/// A call may unwind, as callbacks are the program's: the safe layer then uses the queue no more
/// before a reset, and expects no token again that was handed back before `done` unwound, or
/// counts it as stray.
pub unsafe trait TxQueue: Send {
    /// What the device can do; the same for all queues of a device.
    fn capabilities(&self) -> &Capabilities;

    /// Whose addresses the fragments must be.
    fn domain(&self) -> DomainId;

    /// Writes a frame to the ring: wholly or not at all (rule 4). The device sees it with the
    /// next [`doorbell`](Self::doorbell).
    ///
    /// # Errors
    /// [`PostError`]; the ring is as before and `token` will not be handed back. Where more than
    /// one applies, any of them.
    ///
    /// # Safety
    /// Until `token` is handed back by [`reclaim`](Self::reclaim), `restart` or `release` (it
    /// may never be) every fragment must be readable by the device of
    /// [`domain`](Self::domain), and its bytes must not change; so must the head room below
    /// [`TxFrame::first`] be writable and used by nobody else.
    unsafe fn post(&mut self, frame: &TxFrame<'_>, token: Token) -> Result<(), PostError>;

    /// Hands what was posted to the device, and asks for a completion of the last frame at
    /// least, so that no release waits for later traffic (rule 2). Does nothing if nothing is
    /// new.
    fn doorbell(&mut self);

    /// Hands back the tokens of completed frames, each exactly once, in the order of their
    /// completion, and returns their number. `done` may unwind: what it was called with has been
    /// handed back.
    ///
    /// # Errors
    /// [`QueueError`]: the device wrote what it must not. The queue takes no more frames until
    /// a reset; tokens not handed back stay out. Some may have been handed back before the error
    /// was met: their number is what `done` has seen.
    fn reclaim(&mut self, done: &mut impl FnMut(Token)) -> Result<usize, QueueError>
    where
        Self: Sized;

    /// Whether a frame of `fragments` fragments, with another offload than the one before (which
    /// may cost a context descriptor), would fit now. `false` for more than
    /// [`max_fragments`](Capabilities::max_fragments), and while the queue is down.
    fn has_room(&self, fragments: usize) -> bool;

    /// Frames posted and not handed back by [`reclaim`](Self::reclaim), `restart` or `release`.
    fn outstanding(&self) -> usize;
}

/// The receive half of a queue pair. Buffers are the queue's own and return to the ring at
/// once; the caller copies what it keeps.
pub trait RxQueue: Send {
    /// Calls `frame` for each received frame, `budget` at most, and returns how many there
    /// were. Frames with errors are counted and dropped before. If `frame` unwinds, that frame
    /// may be lost or come again, nothing worse.
    ///
    /// What arrives are good frames for the station address and for all stations, of 60 bytes to
    /// [`max_frame_len`](Capabilities::max_frame_len); those for groups, for others, and longer
    /// ones as far as the driver's configuration says. Shorter ones may be dropped or not.
    ///
    /// # Errors
    /// [`QueueError`]: the device wrote what it must not, or is gone. Frames may have been
    /// handed over before that was met. A driver that can go on after such a write-back, as the
    /// next buffer is certain, counts [`nonsense`](RxCounters::nonsense) instead.
    fn receive(
        &mut self,
        budget: usize,
        frame: &mut impl FnMut(RxFrame<'_>),
    ) -> Result<usize, QueueError>
    where
        Self: Sized;

    /// What was dropped and why.
    fn counters(&self) -> RxCounters;
}

/// What a receive queue handed over and dropped, since the device was opened; resets go on
/// counting.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct RxCounters {
    /// Frames handed to the caller.
    pub delivered: u64,
    /// Frames that the device marked as damaged.
    pub damaged: u64,
    /// Frames that did not fit one buffer. Those that the device drops itself are counted in
    /// [`rx_length_errors`](Statistics::rx_length_errors).
    pub too_long: u64,
    /// Write-backs that no device that keeps to its datasheet would make.
    pub nonsense: u64,
}

/// The station address of a network interface.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// Every station.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Whether a frame to it goes to a group of stations, or all (IEEE 802, the lowest bit of the
    /// first byte).
    #[must_use]
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Whether it can be that of a station: for one alone, and not zero.
    #[must_use]
    pub const fn is_station(self) -> bool {
        let [a, b, c, d, e, f] = self.0;
        !self.is_multicast() && (a | b | c | d | e | f) != 0
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The state of the link. What is posted while it is down may wait for it, be dropped by the
/// device, or be refused; it is handed back once in any case.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LinkState {
    /// Whether there is a carrier.
    pub up: bool,
    /// Speed in Mbit/s; 0 while down, and where the device does not tell.
    pub speed_mbps: u32,
    /// Both directions at once; `false` while down.
    pub full_duplex: bool,
}

bitflags! {
    /// Why a device interrupted.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Causes: u8 {
        /// Frames have been received.
        const RECEIVE = 1 << 0;
        /// Frames have completed.
        const TRANSMIT = 1 << 1;
        /// The link changed.
        const LINK = 1 << 2;
        /// The device has lost received frames, as its FIFO was full ([`Statistics::rx_missed`]).
        /// What a queue drops by itself, for want of a buffer, may be counted
        /// ([`Statistics::rx_no_buffer`]) and interrupt nobody: a device need not have a cause for
        /// that (Intel's 82599 and X540 have none).
        const OVERRUN = 1 << 3;
    }
}

/// Counted by the device, since it was opened; resets of the device are bridged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Statistics {
    /// Good frames transmitted.
    pub tx_frames: u64,
    /// Their bytes as on the wire: padding and the 4 bytes of the frame check sequence included.
    pub tx_bytes: u64,
    /// Good frames received.
    pub rx_frames: u64,
    /// Their bytes, frame check sequence included.
    pub rx_bytes: u64,
    /// Received frames with a wrong frame check sequence.
    pub rx_crc_errors: u64,
    /// Received frames lost because the device's FIFO was full.
    pub rx_missed: u64,
    /// Times that a frame arrived and no receive buffer was there. It may have waited and been
    /// received all the same; a frame that was lost is in [`rx_missed`](Self::rx_missed) or here.
    pub rx_no_buffer: u64,
    /// Received frames of wrong length.
    pub rx_length_errors: u64,
}

#[cfg(all(test, feature = "alloc"))]
#[path = "nic_tests.rs"]
mod tests;
