//! The pairs of queues: those that were not taken yet, and those that are lent for a reset.

use crate::{NicError, QueueOwner, QueuePair, Token};

/// Names a queue: its device, and its pair in that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QueueId {
    owner: QueueOwner,
    pair: u16,
}

impl QueueId {
    /// The number of the pair, from 0.
    #[must_use]
    #[inline(always)]
    pub const fn pair(self) -> u16 {
        self.pair
    }
}

/// The transmit half of a pair, as [`Pairs`] needs it.
pub trait TransmitHalf {
    /// Which queue it is.
    fn id(&self) -> QueueId;

    /// Stops the queue and hands back the tokens of all frames in the ring.
    ///
    /// # Safety
    /// The device is quiet: bus mastering is off and nothing is pending.
    unsafe fn drain(&mut self, released: &mut dyn FnMut(Token));

    /// Lets the memory be freed on drop.
    ///
    /// # Safety
    /// As [`drain`](Self::drain), and the device is told of the ring again only after the driver
    /// has put it into custody as not quiet.
    unsafe fn set_quiet(&mut self);
}

/// The receive half of a pair, as [`Pairs`] needs it.
pub trait ReceiveHalf {
    /// Which queue it is.
    fn id(&self) -> QueueId;

    /// Stops the queue.
    fn stop(&mut self);

    /// Lets the memory be freed on drop.
    ///
    /// # Safety
    /// As for [`TransmitHalf::set_quiet`].
    unsafe fn set_quiet(&mut self);
}

/// All pairs of a device, `N` at most: `T` and `R` are its queues.
///
/// The control part holds those that were not taken, and is moved by value: it is as long as `N`
/// pairs.
#[derive(Debug)]
pub struct Pairs<T, R, const N: usize> {
    owner: QueueOwner,
    count: u16,
    /// Those that were not taken, each at its index.
    here: [Option<(T, R)>; N],
}

impl<T: TransmitHalf, R: ReceiveHalf, const N: usize> Pairs<T, R, N> {
    /// `count` pairs, at most `N`, which `make` makes.
    ///
    /// # Errors
    /// What `make` says.
    pub fn new(
        count: u16,
        mut make: impl FnMut(QueueId) -> Result<(T, R), NicError>,
    ) -> Result<Self, NicError> {
        let owner = QueueOwner::new_unique();
        let mut here = [const { None }; N];
        for (pair, place) in (0..count).zip(&mut here) {
            *place = Some(make(QueueId { owner, pair })?);
        }
        Ok(Self { owner, count, here })
    }

    /// Pair `index`, if it is here.
    pub fn take(&mut self, index: u16) -> Option<(T, R)> {
        self.here.get_mut(usize::from(index))?.take()
    }

    /// Whether `lent` are the pairs that were taken, each with its own other half, and nothing
    /// else.
    ///
    /// # Errors
    /// [`NicError::Config`] for a pair that is none of ours, [`NicError::QueueMissing`].
    pub fn check(&self, lent: &[QueuePair<'_, T, R>]) -> Result<(), NicError> {
        let is_ours = |pair: &QueuePair<'_, T, R>| {
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
    /// are there; the others, which have no token out, come with position 0.
    pub fn each(
        &mut self,
        lent: &mut [QueuePair<'_, T, R>],
        mut with: impl FnMut(u16, &mut T, &mut R),
    ) {
        for (tx, rx) in self.here.iter_mut().flatten() {
            with(0, tx, rx);
        }
        for (position, pair) in (0..).zip(lent) {
            with(position, pair.tx, pair.rx);
        }
    }

    /// Stops all queues and hands back all tokens, each with the position of its queue in `lent`.
    ///
    /// # Safety
    /// The device is quiet: bus mastering is off and nothing is pending.
    pub unsafe fn drain(
        &mut self,
        lent: &mut [QueuePair<'_, T, R>],
        released: &mut dyn FnMut(u16, Token),
    ) {
        self.each(lent, |position, tx, rx| {
            rx.stop();
            // SAFETY: the caller's promise.
            unsafe { tx.drain(&mut |token| released(position, token)) };
        });
    }

    /// Lets the memory of all queues be freed on drop.
    ///
    /// # Safety
    /// As for [`TransmitHalf::set_quiet`].
    pub unsafe fn set_quiet(&mut self, lent: &mut [QueuePair<'_, T, R>]) {
        self.each(lent, |_, tx, rx| {
            // SAFETY: the caller's promise.
            unsafe { tx.set_quiet() };
            // SAFETY: the caller's promise.
            unsafe { rx.set_quiet() };
        });
    }

    /// As [`each`](Self::each), until it fails.
    ///
    /// # Errors
    /// What `with` said first.
    pub fn try_each(
        &mut self,
        lent: &mut [QueuePair<'_, T, R>],
        mut with: impl FnMut(&mut T, &mut R) -> Result<(), NicError>,
    ) -> Result<(), NicError> {
        let mut result = Ok(());
        self.each(lent, |_, tx, rx| {
            if result.is_ok() {
                result = with(tx, rx);
            }
        });
        result
    }
}

#[cfg(test)]
#[path = "pairs_tests.rs"]
mod tests;
