//! Several pairs of queues of one device: one is worked with, the others wait.

use std::mem::swap;

use pagewire::hal::{Nic, NicError, PortPair, TxPort};

use super::books::Books;
use super::raw::{Raw, layout};
use super::rig::{Port, Rx};
use super::subject::Subject;

/// A pair of queues with a port on it, and its books.
pub(crate) struct Pair<S: Subject> {
    pub(super) port: Port<S>,
    pub(super) rx: Rx<S>,
    pub(super) books: Books,
    pub(super) delivered: u64,
}

impl<S: Subject> Pair<S> {
    /// Pair `index` of a device; `None` if the machine has no memory for the port.
    pub(super) fn take(nic: &mut S::Nic, index: u16) -> Option<Self> {
        let (tx, rx) = nic.take_queues(index)?;
        assert!(nic.take_queues(index).is_none(), "queues were taken twice");
        Some(Self {
            port: TxPort::new(nic, tx, &layout()).ok()?,
            rx,
            books: Books::default(),
            delivered: 0,
        })
    }
}

impl<S: Subject> Raw<S> {
    /// Works with another pair from now on: the one that has waited at `index`, less 1. 0 changes
    /// nothing.
    pub(crate) fn turn_to(&mut self, index: usize) {
        let other = index.checked_sub(1).and_then(|at| self.others.get_mut(at));
        let Some(other) = other else { return };
        swap(&mut self.port, &mut other.port);
        swap(&mut self.rx, &mut other.rx);
        swap(&mut self.books, &mut other.books);
        swap(&mut self.delivered, &mut other.delivered);
    }

    /// Calls `with` while each pair is worked with.
    pub(crate) fn for_each_pair(&mut self, mut with: impl FnMut(&mut Self)) {
        for index in 0..=self.others.len() {
            self.turn_to(index);
            with(self);
            self.turn_to(index);
        }
    }

    /// Calls `with` with the device and all pairs.
    fn with_all<T>(
        &mut self,
        with: impl FnOnce(&mut S::Nic, &mut [PortPair<'_, S::Nic>]) -> T,
    ) -> T {
        let mut pairs = vec![PortPair {
            tx: &mut self.port,
            rx: &mut self.rx,
        }];
        pairs.extend(self.others.iter_mut().map(|other| PortPair {
            tx: &mut other.port,
            rx: &mut other.rx,
        }));
        with(&mut self.nic, &mut pairs)
    }

    /// After the device has been stopped: takes all back and starts it again.
    pub(crate) fn restart(&mut self) -> Result<(), NicError> {
        let restarted = self.with_all(pagewire::hal::restart);
        // It may fail before the tokens are handed back, or after that.
        self.for_each_pair(|raw| {
            if restarted.is_ok() || raw.port.outstanding() == 0 {
                raw.books.all_back();
            }
        });
        self.is_released &= restarted.is_err();
        restarted
    }

    /// After the device has been stopped: takes all back.
    pub(crate) fn release(&mut self) -> Result<(), NicError> {
        self.with_all(pagewire::hal::release)?;
        self.for_each_pair(|raw| raw.books.all_back());
        self.is_released = true;
        Ok(())
    }
}

/// Drops device, port and receive queue in one of six orders, the first half of the other pairs
/// before them, and the rest behind. Returns the books of the others.
pub(super) fn drop_in_order<S: Subject>(
    order: u8,
    nic: S::Nic,
    port: Port<S>,
    rx: Rx<S>,
    others: Vec<Pair<S>>,
) -> Vec<Books> {
    let mut books = Vec::new();
    let mut others = others.into_iter();
    let early = others.len() / 2;
    let mut part = |other: Pair<S>| books.push(other.books);
    others.by_ref().take(early).for_each(&mut part);
    match order % 6 {
        0 => drop((nic, port, rx)),
        1 => drop((nic, rx, port)),
        2 => drop((port, nic, rx)),
        3 => drop((port, rx, nic)),
        4 => drop((rx, nic, port)),
        _ => drop((rx, port, nic)),
    }
    others.for_each(part);
    books
}
