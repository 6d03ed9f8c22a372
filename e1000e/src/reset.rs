//! Stopping the device without waiting.
//!
//! The way to quiet, each step taken by [`Stop::step`] when the one before has finished:
//! receive and transmit off, GIO master disable → STATUS says that no request is pending → bus
//! mastering off → PCIe says that no transaction is pending → global reset → quiet.

use core::time::Duration;

use pagewire_hal::{Instant, Platform, Registers, driver, pci};

use crate::ids::Family;
use crate::init::{self, RESET_LIMIT, SETTLE};
use crate::regs::{Bar, CTRL, Ctrl};
use crate::{interrupts, link};

/// How long the device may take to finish its requests. Linux gives it 80 ms and resets it then
/// all the same; here the memory that it was lent hangs on it, so it gets longer.
pub(crate) const MASTER_LIMIT: Duration = Duration::from_millis(500);
/// How long the bus may take to complete what is pending: the longest completion timeout that
/// PCI Express allows by default is 50 ms.
pub(crate) const PENDING_LIMIT: Duration = Duration::from_millis(500);
pub(crate) type State = driver::State<Stop>;
pub(crate) type Step = driver::Step<Stop>;

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
                return Step::wait_or_give_up(stop, since, MASTER_LIMIT, now);
            }
            pci::stop_bus_mastering(platform);
            stop = Self::Pending(now);
        }
        if let Self::Pending(since) = stop {
            if !pci::is_bus_mastering_off(platform) || pci::transactions_pending(platform, pcie) {
                return Step::wait_or_give_up(stop, since, PENDING_LIMIT, now);
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
