//! Resets of a device whose transmit queues are in ports.

use alloc::vec::Vec;

use crate::{Instant, Nic, NicError, Phase, QueuePair, Token, TxPort};

/// A port and the receive queue of the same pair, lent for a reset.
#[derive(Debug)]
pub struct PortPair<'a, N: Nic> {
    /// The port on the transmit queue.
    pub tx: &'a mut TxPort<N::Tx, N::Memory>,
    /// The receive queue.
    pub rx: &'a mut N::Rx,
}

/// [`Nic::restart`] for queues that are in ports: all frames that had not completed are taken
/// back, whether or not the device starts again. Which they were, [`TxPort::in_flight`] tells;
/// they may or may not have been on the wire.
///
/// # Errors
/// As there.
pub fn restart<N: Nic>(nic: &mut N, pairs: &mut [PortPair<'_, N>]) -> Result<(), NicError> {
    with_queues(nic, pairs, N::restart)
}

/// [`Nic::release`] for queues that are in ports: all frames that had not completed are taken
/// back, the device stays stopped.
///
/// # Errors
/// As there.
pub fn release<N: Nic>(nic: &mut N, pairs: &mut [PortPair<'_, N>]) -> Result<(), NicError> {
    with_queues(nic, pairs, N::release)
}

/// Stops the device for good, from whatever phase it is in: [`Nic::begin_reset`], [`Nic::poll`]
/// until it is quiet, [`release`]. All frames are taken back; what is dropped afterwards is freed.
///
/// `wait` is called between two polls and returns the time. It may sleep, or move a model on; if
/// it returns `None` the waiting ends.
///
/// # Errors
/// What `poll` and `release` say; [`NicError::NotQuiet`] if the device has failed before, or if
/// `wait` gave up: nothing is given back then, and what the device may still reach leaks.
pub fn shut_down<N: Nic>(
    nic: &mut N,
    pairs: &mut [PortPair<'_, N>],
    mut wait: impl FnMut() -> Option<Instant>,
) -> Result<(), NicError> {
    let mut now = wait().ok_or(NicError::NotQuiet)?;
    nic.begin_reset(now);
    loop {
        match nic.poll(now)? {
            Phase::Quiet => return release(nic, pairs),
            Phase::Failed => return Err(NicError::NotQuiet),
            _ => {}
        }
        now = wait().ok_or(NicError::NotQuiet)?;
    }
}

type ResetCall<N> = fn(
    &mut N,
    &mut [QueuePair<'_, <N as Nic>::Tx, <N as Nic>::Rx>],
    &mut dyn FnMut(u16, Token),
) -> Result<(), NicError>;

fn with_queues<N: Nic>(
    nic: &mut N,
    pairs: &mut [PortPair<'_, N>],
    call: ResetCall<N>,
) -> Result<(), NicError> {
    let mut tokens = Vec::new();
    let result = {
        let mut queues: Vec<_> = pairs
            .iter_mut()
            .map(|p| QueuePair {
                tx: &mut p.tx.queue,
                rx: &mut *p.rx,
            })
            .collect();
        call(nic, &mut queues, &mut |index, token| {
            tokens.push((index, token))
        })
    };
    for (index, token) in tokens {
        if let Some(pair) = pairs.get_mut(usize::from(index)) {
            pair.tx.complete(token);
        }
    }
    if result.is_ok() {
        for pair in pairs {
            pair.tx.interrupted = false;
        }
    }
    result
}
