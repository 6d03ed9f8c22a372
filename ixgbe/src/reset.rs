//! Stopping the device without waiting.
//!
//! The way to quiet, each step taken by [`Stop::step`] when the one before has finished:
//! interrupts masked, receiver and queues off, GIO master disable → STATUS says that no request is
//! pending → bus mastering off → PCIe says that no transaction is pending → on the X540 the PHY
//! taken from the firmware → reset → quiet.
//!
//! STATUS may never say so, with flow control or a link that is down, and PCIe nevertheless that
//! nothing is pending. For this case Intel prescribes (specification update of the 82599,
//! specification clarification 9) to flush the transmit path and to reset twice: loopback with the
//! receiver off, the buffers towards the bus cleared for 20 µs, then the resets. So it is done
//! here, and bus mastering stays off meanwhile. Whether the device is quiet is then asked anew,
//! after both resets: if STATUS still has a request, it is not. (The 82599 datasheet, 5.2.5.3.2 as
//! TinyNF quotes it, says that the driver "might" need two resets; two it is, as in Linux.)
//!
//! The datasheet's master disable begins with waiting for each receive queue to read as off, and
//! 100 µs more (4.6.7.1.2, as TinyNF quotes it); Linux waits 1 or 2 ms for all of them. Neither is
//! done here: memory is given back only after what comes next, which covers what is pending.

use core::time::Duration;

use pagewire_hal::{Instant, Platform, Registers, driver, pci};

use crate::bits::{Ctrl, Eec, GcrExt, Hlreg0, RXEN, Rdrxctl, Rxdctl, Status, Txdctl};
use crate::ids::Family;
use crate::regs::{
    Bar, CTRL, EEC, GCR_EXT, HLREG0, LOW_RECEIVE_QUEUES, PerQueue, QUEUES, RDRXCTL, RXCTRL, RXDCTL,
    RXDCTL_HIGH, STATUS, TXDCTL,
};
use crate::semaphore::{self, RESOURCE_LIMIT, Resource};
use crate::{interrupts, link};

/// How long the device may take to finish its requests (Linux: 800 times 100 µs).
pub(crate) const MASTER_LIMIT: Duration = Duration::from_millis(80);
/// How long the bus may take to complete what is pending. The device gives up on a completion
/// after 16 to 32 ms by default (specification clarification 2 of the 82599; PCI Express has 50 ms
/// as the longest default), after up to 64 s if it is told so, which Linux then waits for. Here
/// the memory that the device was lent hangs on it, so it gets longer than the default.
pub(crate) const PENDING_LIMIT: Duration = Duration::from_millis(500);
/// Time for a last completion, before the buffers are cleared (DPDK).
const LAST_COMPLETION: Duration = Duration::from_millis(3);
/// Time in which the buffers are cleared: 20 µs (specification clarification 9), at least.
const CLEARING: Duration = Duration::from_micros(20);
/// Time for a reset to clear its bit, and for the EEPROM to be read after it. The datasheet has no
/// limit, as TinyNF notes, which takes 1 s for the latter; Linux looks for 10 ms at the most.
pub(crate) const RESET_LIMIT: Duration = Duration::from_millis(500);
/// What open waits at once while it steps the sequence below.
const STEP: Duration = Duration::from_millis(1);

/// Time that a reset takes at least (Linux: 50 ms; for the X540 100 ms), in which this part of
/// the driver touches no register; queues on other threads, which do not know of the reset, may
/// still write a tail or look whether they are on. "Approximately 1 ms" must pass before that (82599 datasheet 8.2.3.1.1) and 10 ms before
/// the initialisation (4.6.3.2), as TinyNF quotes them. (Linux reads STATUS at once, to flush the
/// write, and DPDK CTRL after 1 µs. The datasheet is followed: nothing hurries.)
const fn settle(family: Family) -> Duration {
    match family {
        Family::I82599 => Duration::from_millis(50),
        Family::X540 => Duration::from_millis(100),
    }
}

pub(crate) type State = driver::State<Stop>;
pub(crate) type Step = driver::Step<Stop>;

/// What is waited for, and since when.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stop {
    wait: Wait,
    since: Instant,
    /// The device has not said that it has no request pending: it is flushed and reset twice.
    forced: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wait {
    /// STATUS to say that the device is no bus master.
    Master,
    /// PCIe to say that nothing is pending.
    Pending,
    /// A last completion, in loopback.
    Completion,
    /// The buffers towards the bus to be cleared.
    Buffers,
    /// The firmware to let go of the PHY.
    Phy,
    /// The first of two resets.
    FirstReset,
    /// The only reset or the second.
    Reset,
    /// After two resets, STATUS to say that the device is no bus master.
    MasterAgain,
}

/// Begins to stop the device, whatever it was doing.
pub(crate) fn begin<R: Registers>(registers: &Bar<R>, now: Instant) -> Stop {
    interrupts::mask(registers);
    stop_queues(registers);
    registers.change(CTRL, 0, Ctrl::GIO_MASTER_DISABLE.bits());
    Stop {
        wait: Wait::Master,
        since: now,
        forced: false,
    }
}

/// Switches the receiver and all queues off: another driver may have used others than we do.
fn stop_queues<R: Registers>(registers: &Bar<R>) {
    registers.change(RXCTRL, RXEN, 0);
    for queue in 0..QUEUES {
        registers.write(TXDCTL.of(queue), Txdctl::SWFLSH.bits());
        let receive = match queue.checked_sub(LOW_RECEIVE_QUEUES) {
            None => RXDCTL.of(queue),
            Some(high) => RXDCTL_HIGH.of(high),
        };
        let (off, flush) = (Rxdctl::ENABLE.bits(), Rxdctl::SWFLSH.bits());
        registers.change(receive, off, flush);
    }
    registers.read(STATUS); // Posted writes arrive before a read returns.
}

/// Whether the device may still have requests on the bus.
fn is_master<R: Registers>(registers: &Bar<R>) -> bool {
    Status::from_bits_retain(registers.read(STATUS)).contains(Status::GIO_MASTER_ENABLE)
}

/// Resets all but configuration space. Where the link is down it is reset as well (Linux; with a
/// link that is up the firmware may be using it), but for the X540.
///
/// For the link Linux sets LRST alone ("resets everything", `ixgbe_type.h`), ixy both; the
/// datasheet speaks of RST only (4.2.1.6.1, as TinyNF quotes it). Both are set here: so RST is in
/// any case.
fn issue_reset<R: Registers>(registers: &Bar<R>, family: Family) {
    let mut reset = Ctrl::RST;
    if family == Family::I82599 && !link::read(registers).up {
        reset |= Ctrl::LRST;
    }
    registers.change(CTRL, 0, reset.bits());
}

/// Whether the reset bits have cleared themselves, the EEPROM has been read, and the memory of the
/// receive DMA is initialised (82599 datasheet 4.6.3, as TinyNF quotes it).
pub(crate) fn is_reset_done<R: Registers>(registers: &Bar<R>) -> bool {
    let control = Ctrl::from_bits_retain(registers.read(CTRL));
    !control.intersects(Ctrl::RST | Ctrl::LRST)
        && Eec::from_bits_retain(registers.read(EEC)).contains(Eec::AUTO_RD)
        && Rdrxctl::from_bits_retain(registers.read(RDRXCTL)).contains(Rdrxctl::DMAIDONE)
}

/// At open: goes the whole way, waiting. Nothing of ours is known to the device yet.
pub(crate) fn run<P: Platform>(
    platform: &mut P,
    registers: &Bar<P::Registers>,
    family: Family,
    port: Resource,
    pcie: Option<u16>,
) -> Result<(), pagewire_hal::NicError> {
    // A time of its own: so it ends even with a clock that stands still.
    let mut now = Instant::ZERO;
    let mut stop = begin(registers, now);
    loop {
        match stop.step(platform, registers, family, port, pcie, now) {
            Step::Wait(next) => stop = next,
            Step::NotQuiet => {
                return Err(pagewire_hal::NicError::Timeout {
                    what: "the device finishing its bus accesses (GIO master disable)",
                    after: MASTER_LIMIT,
                });
            }
            Step::Quiet => break,
        }
        platform.wait(STEP);
        now = now + STEP;
    }
    if is_reset_done(registers) {
        return Ok(());
    }
    Err(pagewire_hal::NicError::Timeout {
        what: "the reset, and the reading of the EEPROM after it",
        after: RESET_LIMIT,
    })
}

impl Stop {
    const fn go(self, wait: Wait, now: Instant) -> Self {
        Self {
            wait,
            since: now,
            forced: self.forced,
        }
    }

    /// Goes on as far as it can. Everything is looked at before its time is found to be up, as
    /// this may be called rarely. `port` is the PHY of this port.
    pub(crate) fn step<P: Platform>(
        self,
        platform: &mut P,
        registers: &Bar<P::Registers>,
        family: Family,
        port: Resource,
        pcie: Option<u16>,
        now: Instant,
    ) -> Step {
        let mut stop = self;
        loop {
            let next = match stop.wait {
                Wait::Master => stop.leave_bus(platform, registers, now),
                Wait::Pending => stop.pending(platform, registers, pcie, now),
                Wait::Completion => stop.clear_buffers(registers, now),
                Wait::Buffers => stop.end_clearing(registers, now),
                Wait::Phy => stop.reset(registers, family, port, now),
                Wait::FirstReset => stop.second_reset(registers, family, now),
                Wait::Reset => return stop.end_reset(registers, family, port, now),
                Wait::MasterAgain => return stop.end_forced(registers, now),
            };
            match next {
                Step::Wait(next) if next.wait != stop.wait => stop = next,
                other => return other,
            }
        }
    }

    /// Whether a reset has been issued so recently that the registers are to be left alone.
    pub(crate) fn is_resetting(&self, family: Family, now: Instant) -> bool {
        self.has_reset() && self.elapsed(now) < settle(family)
    }

    /// Whether the last thing done was to issue a reset.
    pub(crate) const fn has_reset(&self) -> bool {
        matches!(self.wait, Wait::FirstReset | Wait::Reset)
    }

    fn elapsed(&self, now: Instant) -> Duration {
        now.saturating_since(self.since)
    }

    fn leave_bus<P: Platform>(
        mut self,
        platform: &mut P,
        registers: &Bar<P::Registers>,
        now: Instant,
    ) -> Step {
        if is_master(registers) {
            if self.elapsed(now) < MASTER_LIMIT {
                return Step::Wait(self);
            }
            self.forced = true;
        }
        pci::stop_bus_mastering(platform);
        Step::Wait(self.go(Wait::Pending, now))
    }

    fn pending<P: Platform>(
        self,
        platform: &P,
        registers: &Bar<P::Registers>,
        pcie: Option<u16>,
        now: Instant,
    ) -> Step {
        if !pci::is_bus_mastering_off(platform) || pci::transactions_pending(platform, pcie) {
            return Step::wait_or_give_up(self, self.since, PENDING_LIMIT, now);
        }
        if !self.forced {
            return Step::Wait(self.go(Wait::Phy, now));
        }
        registers.change(HLREG0, 0, Hlreg0::LPBK.bits());
        Step::Wait(self.go(Wait::Completion, now))
    }

    fn clear_buffers<R: Registers>(self, registers: &Bar<R>, now: Instant) -> Step {
        if self.elapsed(now) < LAST_COMPLETION {
            return Step::Wait(self);
        }
        registers.change(GCR_EXT, 0, GcrExt::BUFFERS_CLEAR.bits());
        registers.read(STATUS); // The time counts from when the write has arrived.
        Step::Wait(self.go(Wait::Buffers, now))
    }

    fn end_clearing<R: Registers>(self, registers: &Bar<R>, now: Instant) -> Step {
        if self.elapsed(now) < CLEARING {
            return Step::Wait(self);
        }
        registers.change(GCR_EXT, GcrExt::BUFFERS_CLEAR.bits(), 0);
        registers.change(HLREG0, Hlreg0::LPBK.bits(), 0);
        Step::Wait(self.go(Wait::Phy, now))
    }

    /// The firmware of the X540 must not use the PHY during the reset (Linux `ixgbe_reset_hw_X540`,
    /// which gives it back as soon as the reset is issued; here it is kept until the reset has
    /// ended, as nothing is to be written before). If it does not let go in its time it is reset
    /// all the same.
    fn reset<R: Registers>(
        self,
        registers: &Bar<R>,
        family: Family,
        port: Resource,
        now: Instant,
    ) -> Step {
        if family == Family::X540 && !semaphore::try_take(registers, family, port) {
            if self.elapsed(now) < RESOURCE_LIMIT {
                return Step::Wait(self);
            }
            log::warn!("ixgbe: the firmware does not release the PHY; reset all the same");
        }
        issue_reset(registers, family);
        let which = if self.forced {
            Wait::FirstReset
        } else {
            Wait::Reset
        };
        Step::Wait(self.go(which, now))
    }

    fn second_reset<R: Registers>(self, registers: &Bar<R>, family: Family, now: Instant) -> Step {
        if self.elapsed(now) < settle(family) {
            return Step::Wait(self);
        }
        issue_reset(registers, family);
        Step::Wait(self.go(Wait::Reset, now))
    }

    fn end_reset<R: Registers>(
        self,
        registers: &Bar<R>,
        family: Family,
        port: Resource,
        now: Instant,
    ) -> Step {
        let elapsed = self.elapsed(now);
        if elapsed < settle(family) {
            return Step::Wait(self);
        }
        // A reset that does not end is no danger to memory any more: `restart` refuses then,
        // `release` does not.
        if !is_reset_done(registers) && elapsed < RESET_LIMIT {
            return Step::Wait(self);
        }
        if family == Family::X540 {
            semaphore::put(registers, family, port);
        }
        interrupts::clear(registers);
        if !self.forced {
            return Step::Quiet;
        }
        registers.change(CTRL, 0, Ctrl::GIO_MASTER_DISABLE.bits());
        Step::Wait(self.go(Wait::MasterAgain, now))
    }

    fn end_forced<R: Registers>(self, registers: &Bar<R>, now: Instant) -> Step {
        if !is_master(registers) {
            return Step::Quiet;
        }
        Step::wait_or_give_up(self, self.since, MASTER_LIMIT, now)
    }
}
