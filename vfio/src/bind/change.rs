//! The changes that binding is made of, and how a device gets back what it had.

use std::io;

use super::environment::Module;
use super::memory::{Before, forget};
use super::nic::{Driver, Override, folder};
use super::outcome::{After, Reason, Step};
use super::system::System;
use super::text::exists;
use crate::PciAddress;

/// One device under change, and what was done so far.
pub(super) struct Change<'a> {
    pub(super) system: &'a mut dyn System,
    pub(super) address: PciAddress,
    pub(super) steps: Vec<Step>,
}

/// A step that did not succeed.
pub(super) type Fault = (Step, Reason);

impl Change<'_> {
    /// Does a step and notes it.
    pub(super) fn step(
        &mut self,
        step: Step,
        action: impl FnOnce(&mut dyn System) -> io::Result<()>,
    ) -> Result<(), Fault> {
        match action(self.system) {
            Ok(()) => {
                self.steps.push(step);
                Ok(())
            }
            Err(error) => Err((step, Reason::Io(error))),
        }
    }

    pub(super) fn driver(&self) -> Driver {
        Driver::read(self.system, self.address)
    }

    pub(super) fn load(&mut self, module: &str) -> Result<(), Fault> {
        self.step(Step::LoadModule(module.into()), |system| {
            system.load_module(module)
        })
    }

    /// Names the only driver that may have the device; `None`: any that knows it.
    pub(super) fn set_override(&mut self, driver: Option<&str>) -> Result<(), Fault> {
        let path = format!("{}/driver_override", folder(self.address));
        // An empty line takes the name away.
        let text = format!("{}\n", driver.unwrap_or_default());
        self.step(Step::Override(driver.map(str::to_owned)), |system| {
            system.write(&path, &text)
        })
    }

    /// Takes the device from a driver.
    pub(super) fn take(&mut self, driver: &str) -> Result<(), Fault> {
        let path = format!("/sys/bus/pci/drivers/{driver}/unbind");
        let text = self.address.to_string();
        self.step(Step::Take(driver.into()), |system| {
            system.write(&path, &text)
        })
    }

    /// Lets the kernel find a driver. That it found none is no error to the kernel: look.
    pub(super) fn probe(&mut self) -> Result<(), Fault> {
        let text = self.address.to_string();
        self.step(Step::Probe, |system| {
            system.write("/sys/bus/pci/drivers_probe", &text)
        })
    }

    /// Gives the device to a driver: the kernel is asked first, then the driver. The driver's
    /// module is loaded if it is no longer there.
    pub(super) fn give(&mut self, driver: &str, module: Option<&str>) -> Result<(), Fault> {
        if Module::find(self.system, driver, None) != Module::Present {
            self.load(module.unwrap_or(driver))?;
        }
        // What the kernel says counts less than what it did.
        let probed = self.probe();
        match self.driver() {
            Driver::Name(name) if name == driver => return Ok(()),
            Driver::Name(other) => self.take(&other)?,
            Driver::None | Driver::Odd(_) => {}
        }
        let path = format!("/sys/bus/pci/drivers/{driver}/bind");
        let text = self.address.to_string();
        self.step(Step::Give(driver.into()), |system| {
            system.write(&path, &text)
        })
        .map_err(|fault| probed.err().unwrap_or(fault))?;
        let now = self.driver();
        if now.name() == Some(driver) {
            Ok(())
        } else {
            let name = now.name().map(str::to_owned);
            Err((Step::Give(driver.into()), Reason::Driver(name)))
        }
    }

    /// Whether the device is still there.
    pub(super) fn is_there(&self) -> bool {
        exists(self.system, &folder(self.address))
    }

    /// Gives the device back what it had, from whatever state it is in. Goes on after an error:
    /// as much as can be is put back. What was remembered is forgotten only if all of it was.
    pub(super) fn put_back(&mut self, before: &Before) -> After {
        let mut trouble = Vec::new();
        let mut note = |result: Result<(), Fault>| {
            if let Err((step, reason)) = result {
                trouble.push(format!("cannot {step}: {reason}"));
            }
        };
        let now = self.driver();
        let named = Override::read(self.system, self.address);
        let meanwhile = before.override_while_given(&now);
        if named != Override::of(meanwhile.as_deref()) && self.is_there() {
            note(self.set_override(meanwhile.as_deref()));
        }
        if now.name() != before.driver.as_deref() {
            if let Some(driver) = now.name() {
                note(self.take(driver));
            }
            if let (Some(driver), Driver::None) = (&before.driver, self.driver()) {
                note(self.give(driver, before.module.as_deref()));
            }
        }
        let named = Override::read(self.system, self.address);
        if named != before.wanted_override() && self.is_there() {
            note(self.set_override(before.driver_override.as_deref()));
        }
        if !self.is_there() {
            let _ = forget(self.system, self.address);
            return After::Gone;
        }
        let driver = self.driver().name().map(str::to_owned);
        let named = Override::read(self.system, self.address);
        if driver == before.driver && named == before.wanted_override() {
            // A file that stays is harmless: it says what is so.
            let _ = forget(self.system, self.address);
            After::Back(driver)
        } else {
            let because = trouble.join(", ");
            After::Left { driver, because }
        }
    }
}
