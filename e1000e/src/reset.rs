//! Stopping the device without waiting, and noticing that it hangs.
//!
//! The way to quiet, each step taken by [`Stop::step`] when the one before has finished:
//! receive and transmit off, GIO master disable → STATUS says that no request is pending → bus
//! mastering off → PCIe says that no transaction is pending → global reset → quiet.

use core::time::Duration;

use pagewire_hal::{Instant, Platform, Registers, pci};

use crate::ids::Family;
use crate::init::{self, RESET_LIMIT, SETTLE};
use crate::regs::{Bar, CTRL, Ctrl, TDH, TDT};
use crate::{interrupts, link};

/// How long the device may take to finish its requests. Linux gives it 80 ms and resets it then
/// all the same; here the memory that it was lent hangs on it, so it gets longer.
pub(crate) const MASTER_LIMIT: Duration = Duration::from_millis(500);
/// How long the bus may take to complete what is pending: the longest completion timeout that
/// PCI Express allows by default is 50 ms.
pub(crate) const PENDING_LIMIT: Duration = Duration::from_millis(500);
/// Time between two looks at a transmit head that does not move, at least.
pub(crate) const HANG_INTERVAL: Duration = Duration::from_millis(500);

/// Where the device is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// It works.
    Running,
    /// On its way to quiet.
    Stopping(Stop),
    /// It reaches no memory.
    Quiet,
    /// It did not become quiet, or is gone.
    Failed,
}

/// What is waited for, and since when.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stop {
    /// STATUS to say that the device is no bus master.
    Master(Instant),
    /// PCIe to say that nothing is pending.
    Pending(Instant),
    /// The global reset.
    Reset(Instant),
}

/// How a step ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// Wait for this.
    Wait(Stop),
    /// The device is quiet.
    Quiet,
    /// It does not become quiet.
    NotQuiet,
}

/// Begins to stop the device.
pub(crate) fn begin<R: Registers>(registers: &Bar<R>, family: Family, now: Instant) -> Stop {
    interrupts::mask(registers);
    init::stop_queues(registers);
    registers.change(CTRL, 0, Ctrl::GIO_MASTER_DISABLE.bits());
    // The firmware must not use the PHY during the reset. It lets go on its own time; whether it
    // has is not waited for (Linux resets after its wait in any case).
    link::request_mdio(registers, family);
    Stop::Master(now)
}

impl Stop {
    /// Goes on as far as it can. Everything is looked at before its time is found to be up, as
    /// this may be called rarely.
    pub(crate) fn step<P: Platform>(
        self,
        platform: &mut P,
        registers: &Bar<P::Registers>,
        family: Family,
        pcie: Option<u16>,
        now: Instant,
    ) -> Step {
        let mut stop = self;
        if let Self::Master(since) = stop {
            if init::is_master(registers) {
                return wait_or_give_up(stop, since, MASTER_LIMIT, now);
            }
            pci::stop_bus_mastering(platform);
            stop = Self::Pending(now);
        }
        if let Self::Pending(since) = stop {
            if !pci::is_bus_mastering_off(platform) || pci::transactions_pending(platform, pcie) {
                return wait_or_give_up(stop, since, PENDING_LIMIT, now);
            }
            init::issue_reset(registers);
            return Step::Wait(Self::Reset(now));
        }
        let Self::Reset(since) = stop else {
            return Step::Wait(stop);
        };
        let elapsed = now.saturating_since(since);
        // A reset that does not end is no danger to memory any more: `restart` refuses then,
        // `release` does not.
        let ended = init::is_reset_done(registers) || elapsed >= RESET_LIMIT;
        if elapsed < SETTLE || !ended {
            return Step::Wait(stop);
        }
        link::put_mdio(registers, family);
        init::clear_interrupts(registers);
        Step::Quiet
    }
}

fn wait_or_give_up(stop: Stop, since: Instant, limit: Duration, now: Instant) -> Step {
    if now.saturating_since(since) >= limit {
        Step::NotQuiet
    } else {
        Step::Wait(stop)
    }
}

/// Watches the transmitter: with work to do and no progress in two looks in a row it hangs.
///
/// Descriptors that wait for a link count as well: their pages are stranded until a reset.
#[derive(Debug, Default)]
pub(crate) struct HangWatch {
    /// When the head was first seen here, the head, and the frames sent by then.
    seen: Option<(Instant, u32, u64)>,
}

impl HangWatch {
    /// Forgets what was seen.
    pub(crate) fn restart(&mut self) {
        self.seen = None;
    }

    /// One look. `sent` yields the number of frames sent so far; it is asked for only while
    /// there is work, and tells a head that stands still from one that has gone round.
    pub(crate) fn is_hung<R: Registers>(
        &mut self,
        registers: &Bar<R>,
        now: Instant,
        sent: impl FnOnce() -> u64,
    ) -> bool {
        let head = registers.read_ring(TDH);
        if head == registers.read_ring(TDT) {
            self.seen = None;
            return false;
        }
        let sent = sent();
        match self.seen {
            Some((since, at, before)) if at == head && before == sent => {
                now.saturating_since(since) >= HANG_INTERVAL
            }
            _ => {
                self.seen = Some((now, head, sent));
                false
            }
        }
    }
}
