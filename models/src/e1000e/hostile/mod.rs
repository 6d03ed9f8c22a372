//! The 82574L as a device that lies: see [`crate::hostile`].

mod answers;

use pagewire_hal::Instant;

pub use crate::hostile::{Hostile, Lie, LieCounters, Lies};

pub(super) use crate::hostile::Liar;

use crate::hostile::{LyingBus, Moment, lies_of_config};

use super::bits::{cause, ctrl, offset, rctl, rfctl, tctl};
use super::pci::LAYOUT;
use super::registers::{RegisterFile, Ring};
use super::{E1000e82574, Engine};
use crate::Bus;

/// A driver makes some hundred accesses before anything happens in its rings.
const RARER_IN_ACCESSES: u32 = 4;

impl E1000e82574 {
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
        for buffer in self.receive.buffers() {
            liar.known.add_buffer(buffer);
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

    /// `Device::read` of a hostile device. The register is read all the same, with what that
    /// does to it.
    pub(super) fn lying_read(&mut self, bar: u8, at: u32, now: Instant) -> u32 {
        let Some(mut liar) = self.liar.take() else {
            return self.honest_read(bar, at, now);
        };
        let lies = if bar == 0 {
            answers::lies_of(at)
        } else {
            Lies::none()
        };
        let lie = liar.turn(Moment::RegisterRead(lies));
        let value = if liar.is_gone() {
            u32::MAX
        } else {
            let honest = self.honest_read(bar, at, now);
            liar.register(lie, bar, at, honest)
        };
        self.liar = Some(liar);
        value
    }

    /// `Device::write` of a hostile device.
    pub(super) fn lying_write(&mut self, bar: u8, at: u32, value: u32, now: Instant) {
        let Some(mut liar) = self.liar.take() else {
            return self.honest_write(bar, at, value, now);
        };
        let reset =
            bar == 0 && (at == offset::CTRL || at == offset::CTRL_DUP) && value & ctrl::RST != 0;
        let lie = liar.turn(Moment::RegisterWrite { reset });
        let lost = matches!(lie, Some(Lie::WriteLost | Lie::ResetClearsNothing));
        if !lost && !liar.is_gone() {
            self.honest_write(bar, at, value, now);
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
        liar.learn_rings(&self.registers);
        let lie = liar.turn(Moment::Step { quiet });
        let mut busy = false;
        if !liar.is_gone() {
            let extended = self.registers.get(offset::RFCTL) & rfctl::EXSTEN != 0;
            let mut lying = LyingBus::new(bus, &mut liar, extended);
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
        let receives = self.registers.get(offset::RCTL) & rctl::EN != 0;
        let transmits = self.registers.get(offset::TCTL) & tctl::EN != 0;
        self.reset.is_some()
            || matches!(self.engine, Engine::Quiet)
            || !self.pci.is_bus_master()
            || !receives && !transmits
    }
}

impl Liar {
    /// Takes note of where the rings are.
    fn learn_rings(&mut self, registers: &RegisterFile) {
        for (which, receive) in [
            (Ring::Transmit(0), false),
            (Ring::Transmit(1), false),
            (Ring::Receive(0), true),
        ] {
            let (base, entries) = registers.ring(which);
            self.known.add_ring(base, entries, receive);
        }
    }
}
