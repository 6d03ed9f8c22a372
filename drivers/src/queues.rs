//! The queues of a NIC of any driver.

use pagewire_e1000e::{E1000eRx, E1000eTx};
use pagewire_hal::{
    Capabilities, DomainId, Platform, PostError, QueueError, RxCounters, RxFrame, RxQueue, Token,
    TxFrame, TxQueue,
};
use pagewire_ixgbe::{IxgbeRx, IxgbeTx};
use pagewire_virtio::{VirtioRx, VirtioTx};

/// Does the same with whichever driver it is: `each!(value in AnyTx, queue => queue.doorbell())`.
macro_rules! each {
    ($value:expr, in $any:ident, $own:ident => $work:expr) => {
        match $value {
            $any::E1000e($own) => $work,
            $any::Ixgbe($own) => $work,
            $any::Virtio($own) => $work,
        }
    };
}
pub(crate) use each;

/// The transmit queue of an [`AnyNic`](crate::AnyNic).
#[derive(Debug)]
#[non_exhaustive]
pub enum AnyTx<P: Platform> {
    /// Of an 82574L.
    E1000e(E1000eTx<P>),
    /// Of an 82599 or X540.
    Ixgbe(IxgbeTx<P>),
    /// Of a virtio network device.
    Virtio(VirtioTx<P>),
}

/// The receive queue of an [`AnyNic`](crate::AnyNic).
#[derive(Debug)]
#[non_exhaustive]
pub enum AnyRx<P: Platform> {
    /// Of an 82574L.
    E1000e(E1000eRx<P>),
    /// Of an 82599 or X540.
    Ixgbe(IxgbeRx<P>),
    /// Of a virtio network device.
    Virtio(VirtioRx<P>),
}

// SAFETY: every call goes to the one queue inside, whose driver keeps the promise. Nothing changes
// which queue that is but a program that has the whole enum, and then it moves with its frames.
unsafe impl<P: Platform> TxQueue for AnyTx<P> {
    #[inline]
    fn capabilities(&self) -> &Capabilities {
        each!(self, in AnyTx, queue => queue.capabilities())
    }

    #[inline]
    fn domain(&self) -> DomainId {
        each!(self, in AnyTx, queue => queue.domain())
    }

    #[inline]
    unsafe fn post(&mut self, frame: &TxFrame<'_>, token: Token) -> Result<(), PostError> {
        // SAFETY: the caller promises for this queue what the one inside demands: domain and head
        // room are its.
        each!(self, in AnyTx, queue => unsafe { queue.post(frame, token) })
    }

    #[inline]
    fn doorbell(&mut self) {
        each!(self, in AnyTx, queue => queue.doorbell());
    }

    #[inline]
    fn reclaim(&mut self, done: &mut impl FnMut(Token)) -> Result<usize, QueueError> {
        each!(self, in AnyTx, queue => queue.reclaim(done))
    }

    #[inline]
    fn has_room(&self, fragments: usize) -> bool {
        each!(self, in AnyTx, queue => queue.has_room(fragments))
    }

    #[inline]
    fn outstanding(&self) -> usize {
        each!(self, in AnyTx, queue => queue.outstanding())
    }
}

impl<P: Platform> RxQueue for AnyRx<P> {
    #[inline]
    fn receive(
        &mut self,
        budget: usize,
        frame: &mut impl FnMut(RxFrame<'_>),
    ) -> Result<usize, QueueError> {
        each!(self, in AnyRx, queue => queue.receive(budget, frame))
    }

    #[inline]
    fn counters(&self) -> RxCounters {
        each!(self, in AnyRx, queue => queue.counters())
    }
}
