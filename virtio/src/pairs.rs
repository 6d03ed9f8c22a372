//! The pairs of queues: those that were not taken yet, and those that are lent for a reset.

use pagewire_hal::{NicError, Platform, QueueOwner, QueuePair};

use crate::rx::VirtioRx;
use crate::tx::VirtioTx;

/// Queue pairs that a device can have here. The control part holds those that were not taken, and
/// is moved by value: eight make it some 10 KiB long. With pages that are not copied one pair
/// fills a fast wire; more serve to keep processors apart.
pub(crate) const MAX_PAIRS: u16 = 8;

/// Names a queue: its device, and its pair in that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct QueueId {
    pub(crate) owner: QueueOwner,
    pub(crate) pair: u16,
}

impl QueueId {
    /// Where the device has the receive queue (virtio 1.3, section 5.1.2).
    pub(crate) const fn receive(self) -> u16 {
        2 * self.pair
    }

    /// Where the device has the transmit queue.
    pub(crate) const fn transmit(self) -> u16 {
        2 * self.pair + 1
    }
}

pub(crate) type Lent<'a, P> = QueuePair<'a, VirtioTx<P>, VirtioRx<P>>;

/// All pairs of a device.
pub(crate) struct Pairs<P: Platform> {
    owner: QueueOwner,
    count: u16,
    /// Those that were not taken, each at its index.
    here: [Option<(VirtioTx<P>, VirtioRx<P>)>; MAX_PAIRS as usize],
}

impl<P: Platform> Pairs<P> {
    /// `count` pairs, at most [`MAX_PAIRS`], which `make` makes.
    pub(crate) fn new(
        count: u16,
        mut make: impl FnMut(QueueId) -> Result<(VirtioTx<P>, VirtioRx<P>), NicError>,
    ) -> Result<Self, NicError> {
        let owner = QueueOwner::new_unique();
        let mut here = [const { None }; MAX_PAIRS as usize];
        for (pair, place) in (0..count).zip(&mut here) {
            *place = Some(make(QueueId { owner, pair })?);
        }
        Ok(Self { owner, count, here })
    }

    pub(crate) fn take(&mut self, index: u16) -> Option<(VirtioTx<P>, VirtioRx<P>)> {
        self.here.get_mut(usize::from(index))?.take()
    }

    /// Whether `lent` are the pairs that were taken, each with its own other half, and nothing
    /// else.
    pub(crate) fn check(&self, lent: &[Lent<'_, P>]) -> Result<(), NicError> {
        let is_ours = |pair: &Lent<'_, P>| {
            let id = pair.tx.id();
            id.owner == self.owner && pair.rx.id() == id
        };
        if !lent.iter().all(is_ours) {
            return Err(NicError::Config {
                what: "a queue pair of another device, or two halves of different pairs",
            });
        }
        let is_missing = |(index, place): &(u16, &Option<_>)| {
            place.is_none() && !lent.iter().any(|pair| pair.tx.id().pair == *index)
        };
        match (0..self.count).zip(&self.here).find(is_missing) {
            Some((index, _)) => Err(NicError::QueueMissing { index }),
            None => Ok(()),
        }
    }

    /// Calls `with` with every pair, wherever it is, and with the position in `lent` of those that
    /// are there; the others have no token out.
    pub(crate) fn each(
        &mut self,
        lent: &mut [Lent<'_, P>],
        mut with: impl FnMut(u16, &mut VirtioTx<P>, &mut VirtioRx<P>) -> Result<(), NicError>,
    ) -> Result<(), NicError> {
        for (tx, rx) in self.here.iter_mut().flatten() {
            with(0, tx, rx)?;
        }
        for (position, pair) in (0..).zip(lent) {
            with(position, pair.tx, pair.rx)?;
        }
        Ok(())
    }
}
