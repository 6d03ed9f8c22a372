//! Queue pairs of any driver as pairs of one driver, for a reset.

use core::mem::MaybeUninit;

use pagewire_hal::{NicError, QueuePair};

/// The most pairs of queues that an [`AnyNic`](crate::AnyNic) can have, which is what the driver
/// with the most has: a reset lists them on the stack, in 16 bytes each.
pub const MAX_QUEUE_PAIRS: u16 = 16;

/// Takes a pair of the named driver out of its enums; `None` if either half is another's.
macro_rules! own_pair {
    ($driver:ident) => {
        |tx, rx| match (tx, rx) {
            ($crate::AnyTx::$driver(tx), $crate::AnyRx::$driver(rx)) => {
                Some(pagewire_hal::QueuePair { tx, rx })
            }
            _ => None,
        }
    };
}
pub(crate) use own_pair;

/// Calls `work` with the pairs of one driver that `own` finds inside of `queues`, each at the
/// position where it was.
///
/// # Errors
/// [`NicError::Config`] if one pair is of another driver, or if there are more than
/// [`MAX_QUEUE_PAIRS`]: nothing was done. Else what `work` says.
pub(crate) fn with_own_pairs<'q, AnyTx: 'q, AnyRx: 'q, Tx: 'q, Rx: 'q>(
    queues: &'q mut [QueuePair<'_, AnyTx, AnyRx>],
    own: impl Fn(&'q mut AnyTx, &'q mut AnyRx) -> Option<QueuePair<'q, Tx, Rx>>,
    work: impl FnOnce(&mut [QueuePair<'q, Tx, Rx>]) -> Result<(), NicError>,
) -> Result<(), NicError> {
    let mut room = [const { MaybeUninit::uninit() }; MAX_QUEUE_PAIRS as usize];
    let Some(list) = room.get_mut(..queues.len()) else {
        return Err(NicError::Config {
            what: "more queue pairs were handed in than any device has here (16)",
        });
    };
    for (place, pair) in list.iter_mut().zip(queues) {
        let Some(pair) = own(&mut *pair.tx, &mut *pair.rx) else {
            return Err(NicError::Config {
                what: "a queue pair of another driver's device was handed in",
            });
        };
        place.write(pair);
    }
    // SAFETY: the list is as long as `queues`, so the loop has written each of its places.
    work(unsafe { list.assume_init_mut() })
}
