//! The 82599 as a device that lies: see [`crate::hostile`].

mod answers;

use pagewire_hal::Instant;

pub use crate::hostile::{Hostile, Lie, LieCounters, Lies};

pub(super) use crate::hostile::Liar;

use crate::hostile::{LyingBus, Moment, lies_of_config};

use super::bits::{RXEN, TE, cause, command, ctrl, offset};
use super::pci::LAYOUT;
use super::registers::{QUEUES, Register, RegisterFile, Ring, RingRegister, canonical};
use super::{Engine, Ixgbe82599};
use crate::Bus;

/// A driver makes some thousand accesses before anything happens in its rings.
const RARER_IN_ACCESSES: u32 = 40;

impl Ixgbe82599 {
    /// Makes the device hostile, or honest again with `None`, now. What a lie has done to memory
    /// and to the driver's mind stays done; lies that last end. See the
    /// [module](crate::hostile).
    pub fn be_hostile(&mut self, hostile: Option<Hostile>) {
        if let Some(liar) = self.liar.take() {
            self.lies_told = liar.told;
        }
        self.violations.unmute();
        let Some(hostile) = hostile else { return };
        self.violations.mute();
        let mut liar = Liar::new(hostile, self.lies_told.clone(), RARER_IN_ACCESSES);
        liar.known.context_type = command::CONTEXT as u8;
        for queue in &self.receiver.queues {
            for buffer in queue.buffers() {
                liar.known.add_buffer(buffer);
            }
        }
        for queue in 0..QUEUES {
            learn_ring(&mut liar, &self.registers, Ring::Transmit(queue));
            learn_ring(&mut liar, &self.registers, Ring::Receive(queue));
        }
        self.liar = Some(Box::new(liar));
    }

    /// Whether the device is not hostile, or its script and the lies that lasted are over.
    #[must_use]
    pub fn is_honest(&self) -> bool {
        self.liar.as_ref().is_none_or(|liar| liar.is_honest())
    }

    /// How often each lie was told since the device was made.
    #[must_use]
    pub fn lies_told(&self) -> &LieCounters {
        self.liar
            .as_ref()
            .map_or(&self.lies_told, |liar| &liar.told)
    }

    /// Whether it may lie: not any more once it has been removed.
    pub(super) fn lies(&self) -> bool {
        self.liar.is_some() && !self.gone
    }

    /// `Device::read` of a hostile device. The register is read all the same, with what that
    /// does to it.
    pub(super) fn lying_read(&mut self, bar: u8, at: u32, now: Instant) -> u32 {
        let Some(mut liar) = self.liar.take() else {
            return self.honest_read(bar, at, now);
        };
        let at_register = (bar == 0).then(|| canonical(at));
        let lies = at_register.map_or(Lies::none(), answers::lies_of);
        let lie = liar.turn(Moment::RegisterRead(lies));
        let value = if liar.is_gone() {
            u32::MAX
        } else {
            let honest = self.honest_read(bar, at, now);
            answers::register(&mut liar, lie, at_register, honest)
        };
        self.liar = Some(liar);
        value
    }

    /// `Device::write` of a hostile device.
    pub(super) fn lying_write(&mut self, bar: u8, at: u32, value: u32, now: Instant) {
        let Some(mut liar) = self.liar.take() else {
            return self.honest_write(bar, at, value, now);
        };
        let resets = value & (ctrl::RST | ctrl::LRST) != 0;
        let reset = bar == 0 && canonical(at) == offset::CTRL && resets;
        let lie = liar.turn(Moment::RegisterWrite { reset });
        let lost = matches!(lie, Some(Lie::WriteLost | Lie::ResetClearsNothing));
        if !lost && !liar.is_gone() {
            self.honest_write(bar, at, value, now);
            let register = (bar == 0).then(|| Register::at(canonical(at))).flatten();
            // By the time that these are written the ring is where it is to be.
            if let Some(Register::Ring(which, RingRegister::Control | RingRegister::Tail)) =
                register
            {
                learn_ring(&mut liar, &self.registers, which);
            }
        }
        self.liar = Some(liar);
    }

    /// `Device::config_read` of a hostile device.
    pub(super) fn lying_config_read(&mut self, at: u16) -> u32 {
        let Some(mut liar) = self.liar.take() else {
            return self.honest_config_read(at);
        };
        let lie = liar.turn(Moment::ConfigRead(lies_of_config(&LAYOUT, at)));
        let honest = self.honest_config_read(at);
        let value = liar.config(&LAYOUT, lie, at, honest);
        self.liar = Some(liar);
        value
    }

    /// `Device::step` of a hostile device: its work over a bus that lies, and then some.
    pub(super) fn lying_step(&mut self, bus: &mut dyn Bus, now: Instant) -> bool {
        let Some(mut liar) = self.liar.take() else {
            return self.honest_step(bus, now);
        };
        let quiet = self.seems_quiet();
        let lie = liar.turn(Moment::Step { quiet });
        let mut busy = false;
        if !liar.is_gone() {
            // Receive write-backs have the layout of the 82574's extended ones.
            let mut lying = LyingBus::new(bus, &mut liar, true);
            busy = self.honest_step(&mut lying, now);
            busy |= lying.finish(lie);
            if liar.flaps() {
                self.link = !self.link;
                self.interrupts.raise(cause::LSC);
            }
        }
        self.liar = Some(liar);
        busy
    }

    /// Whether the driver has reason to believe that the device does nothing.
    fn seems_quiet(&self) -> bool {
        let receives = self.registers.get(offset::RXCTRL) & RXEN != 0;
        let transmits = self.registers.get(offset::DMATXCTL) & TE != 0;
        self.reset.is_some()
            || matches!(self.engine, Engine::Quiet)
            || !self.pci.is_bus_master()
            || !receives && !transmits
    }
}

/// Takes note of where a ring is.
fn learn_ring(liar: &mut Liar, registers: &RegisterFile, which: Ring) {
    let (base, entries) = registers.ring(which);
    if entries > 0 {
        let receive = matches!(which, Ring::Receive(_));
        liar.known.add_ring(base, entries, receive);
    }
}
