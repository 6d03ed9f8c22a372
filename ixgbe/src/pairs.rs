//! The pairs of queues: those that were not taken yet, and those that are lent for a reset.

use pagewire_hal::{NicError, Platform, QueueOwner, QueuePair};

use crate::rx::IxgbeRx;
use crate::tx::IxgbeTx;

/// Queue pairs that a device can have here: as many as an entry of the RSS table of 82599 and X540
/// can name. (They have 128 queues; the others serve virtual machines and traffic classes.)
/// The control part holds those that were not taken, and is moved by value.
pub(crate) const MAX_PAIRS: u16 = 16;

/// Names a queue: its device, and its pair in that. Receive and transmit queue of a pair have the
/// pair's number at the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct QueueId {
    pub(crate) owner: QueueOwner,
    pub(crate) pair: u16,
}

pub(crate) type Lent<'a, P> = QueuePair<'a, IxgbeTx<P>, IxgbeRx<P>>;

/// All pairs of a device.
pub(crate) struct Pairs<P: Platform> {
    owner: QueueOwner,
    count: u16,
    /// Those that were not taken, each at its index.
    here: [Option<(IxgbeTx<P>, IxgbeRx<P>)>; MAX_PAIRS as usize],
}

impl<P: Platform> Pairs<P> {
    /// `count` pairs, at most [`MAX_PAIRS`], which `make` makes.
    pub(crate) fn new(
        count: u16,
        mut make: impl FnMut(QueueId) -> Result<(IxgbeTx<P>, IxgbeRx<P>), NicError>,
    ) -> Result<Self, NicError> {
        let owner = QueueOwner::new_unique();
        let mut here = [const { None }; MAX_PAIRS as usize];
        for (pair, place) in (0..count).zip(&mut here) {
            *place = Some(make(QueueId { owner, pair })?);
        }
        Ok(Self { owner, count, here })
    }

    pub(crate) fn take(&mut self, index: u16) -> Option<(IxgbeTx<P>, IxgbeRx<P>)> {
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
        mut with: impl FnMut(u16, &mut IxgbeTx<P>, &mut IxgbeRx<P>) -> Result<(), NicError>,
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
