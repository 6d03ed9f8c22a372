//! Stopping the device without waiting.
//!
//! The way to quiet, each step taken by [`Stop::step`] when the one before has finished: with
//! RING_RESET the queues are reset → status 0 is written → the status reads 0 → bus mastering off →
//! PCIe says that no transaction is pending → quiet.
//!
//! What RING_RESET is good for here: status 0 stops everything at once and says nothing until all
//! is done, while a queue that was reset has let go of its memory, whatever becomes of the rest. It
//! is a help, not a condition: a device that takes too long goes on to the reset of the whole.

use core::time::Duration;

use pagewire_hal::{Instant, Platform, Registers, driver, pci};

use crate::regs::Structures;
use crate::{Features, init};

/// How long the queues may take to be reset before the whole device is.
pub(crate) const QUEUES_LIMIT: Duration = Duration::from_millis(100);
/// How long the device may take to reset. The memory that it was lent hangs on it, so it gets
/// long.
pub(crate) const RESET_LIMIT: Duration = Duration::from_secs(1);
/// How long the bus may take to complete what is pending: the longest completion timeout that
/// PCI Express allows by default is 50 ms.
pub(crate) const PENDING_LIMIT: Duration = Duration::from_millis(500);

pub(crate) type State = driver::State<Stop>;
pub(crate) type Step = driver::Step<Stop>;

/// What is waited for, and since when.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stop {
    /// The queues to be reset.
    Queues(Instant),
    /// The status to read 0.
    Reset(Instant),
    /// PCIe to say that nothing is pending.
    Pending(Instant),
}

impl Stop {
    /// Begins to stop a device of `pairs` pairs.
    pub(crate) fn begin<R: Registers>(
        device: &Structures<R>,
        features: Features,
        pairs: u16,
        now: Instant,
    ) -> Self {
        if features.contains(Features::RING_RESET) {
            init::begin_queue_resets(device, pairs);
            return Self::Queues(now);
        }
        init::begin_reset(device);
        Self::Reset(now)
    }

    /// Goes on as far as it can. Everything is looked at before its time is found to be up, as
    /// this may be called rarely.
    pub(crate) fn step<P: Platform>(
        self,
        platform: &mut P,
        device: &Structures<P::Registers>,
        pairs: u16,
        pcie: Option<u16>,
        now: Instant,
    ) -> Step {
        let mut stop = self;
        if let Self::Queues(since) = stop {
            let is_late = now.saturating_since(since) >= QUEUES_LIMIT;
            if !init::are_queues_reset(device, pairs) && !is_late {
                return Step::Wait(stop);
            }
            init::begin_reset(device);
            stop = Self::Reset(now);
        }
        if let Self::Reset(since) = stop {
            if !init::is_reset(device) {
                return Step::wait_or_give_up(stop, since, RESET_LIMIT, now);
            }
            pci::stop_bus_mastering(platform);
            stop = Self::Pending(now);
        }
        let Self::Pending(since) = stop else {
            return Step::Wait(stop);
        };
        if !pci::is_bus_mastering_off(platform) || pci::transactions_pending(platform, pcie) {
            return Step::wait_or_give_up(stop, since, PENDING_LIMIT, now);
        }
        Step::Quiet
    }
}
