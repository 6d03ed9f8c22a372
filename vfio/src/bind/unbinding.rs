//! `unbind`: a device goes from vfio-pci back to the driver that it had.

use super::binding::lock;
use super::change::{Change, Fault};
use super::environment::{Environment, VFIO_PCI};
use super::holders::holders;
use super::memory::{Before, forget};
use super::name::DeviceName;
use super::network::Network;
use super::nic::{Driver, Missing, Nic, Override, find};
use super::outcome::{Action, After, Problem, Reason, Step, Unbound};
use super::refusal::Refusal;
use super::system::System;

/// Gives a device back to the driver that it had before [`bind`](super::bind()). Where that is not
/// known, the kernel chooses. A device that another driver has is left to it; a `bind` or `unbind`
/// that was cut short is finished.
///
/// # Errors
/// [`Problem`]. When the device cannot be taken from vfio-pci, it stays there, as it was; when the
/// driver it had does not take it back, it has none, and what it had stays remembered.
pub fn unbind(
    system: &mut dyn System,
    name: &DeviceName,
    interrupted: &dyn Fn() -> bool,
) -> Result<Unbound, Problem> {
    let environment = Environment::read(system);
    let may_change = environment.root != Some(false);
    if may_change {
        lock(system)?;
    }
    let address = find(system, name).map_err(Problem::Missing)?;
    let network = Network::read(system);
    let nic =
        Nic::read(system, address, &network).ok_or(Problem::Missing(Missing::Address(address)))?;
    let before = Before::recall(system, &nic);
    if let Some(refusal) = refusal(&nic, before.is_some(), may_change) {
        let refusals = vec![refusal];
        return Err(Problem::Refused {
            action: Action::Unbind,
            address,
            refusals,
        });
    }
    let holders = if nic.driver.is_vfio() {
        holders(system, &nic)
    } else {
        Vec::new()
    };
    if !holders.is_empty() {
        return Err(Problem::InUse { address, holders });
    }
    let mut unbinding = Unbinding {
        change: Change {
            system,
            address,
            steps: Vec::new(),
        },
        before,
    };
    if may_change {
        unbinding.run(&nic, interrupted)?;
    }
    let Unbinding { change, before } = unbinding;
    Ok(Unbound {
        address,
        changed: !change.steps.is_empty(),
        driver: change.driver().name().map(str::to_owned),
        remembered: before.is_some(),
        steps: change.steps,
    })
}

/// A device with another driver, and nothing left over, needs no root: nothing is to be done.
fn refusal(nic: &Nic, remembered: bool, may_change: bool) -> Option<Refusal> {
    if let Driver::Odd(target) = &nic.driver {
        return Some(Refusal::Odd(format!("the link to its driver ({target})")));
    }
    let work = nic.driver.is_vfio() || nic.driver == Driver::None || remembered;
    if !nic.is_nic() && work {
        return Some(Refusal::NotANic(nic.class));
    }
    (work && !may_change).then_some(Refusal::NotRoot(Action::Unbind))
}

struct Unbinding<'a> {
    change: Change<'a>,
    before: Option<Before>,
}

impl Unbinding<'_> {
    fn run(&mut self, nic: &Nic, interrupted: &dyn Fn() -> bool) -> Result<(), Problem> {
        self.release(nic, interrupted)?;
        self.give_back(nic)?;
        self.name_driver()?;
        if self.before.is_some() {
            let address = self.change.address;
            // A file that stays is harmless: the device has what it says.
            let _ = self
                .change
                .step(Step::Forget, |system| forget(system, address));
        }
        Ok(())
    }

    /// The device is no longer kept for vfio-pci, and no longer there. What somebody else keeps
    /// it for stays.
    fn release(&mut self, nic: &Nic, interrupted: &dyn Fn() -> bool) -> Result<(), Problem> {
        let kept = match &nic.driver_override {
            Override::Name(name) => Some(name.as_str()),
            Override::None | Override::Unsupported => None,
        };
        let before = self.before.as_ref();
        let wanted = before.and_then(|before| before.override_while_given(&nic.driver));
        let ours = nic.driver.is_vfio() || (before.is_some() && kept == Some(VFIO_PCI));
        if ours && kept != wanted.as_deref() && nic.driver_override != Override::Unsupported {
            let freed = self.change.set_override(wanted.as_deref());
            freed.map_err(|fault| self.failed(fault, self.unchanged()))?;
        }
        if let Some(driver) = nic.driver.name().filter(|_| nic.driver.is_vfio()) {
            let taken = if interrupted() {
                Err((Step::Take(driver.into()), Reason::Interrupted))
            } else {
                self.change.take(driver)
            };
            taken.map_err(|fault| {
                // It stays with vfio-pci, and kept for it.
                let kept_again = self.change.set_override(kept);
                let after = match kept_again {
                    _ if !self.change.is_there() => After::Gone,
                    Ok(()) => After::Back(Some(driver.into())),
                    Err((step, reason)) => self.left(format!("cannot {step}: {reason}")),
                };
                self.failed(fault, after)
            })?;
        }
        Ok(())
    }

    /// From here on an interruption would leave the device without a driver: it is not asked for.
    fn give_back(&mut self, nic: &Nic) -> Result<(), Problem> {
        if !matches!(self.change.driver(), Driver::None) {
            return Ok(());
        }
        match self.before.clone() {
            Some(Before { driver: None, .. }) => Ok(()),
            Some(Before {
                driver: Some(driver),
                module,
                ..
            }) => self
                .change
                .give(&driver, module.as_deref())
                .map_err(|fault| {
                    // A driver of the kernel's choice is better than none.
                    let _ = self.change.probe();
                    self.not_given(fault)
                }),
            None => {
                self.change.probe().map_err(|fault| self.not_given(fault))?;
                let had_one = nic.driver.is_vfio();
                if had_one && self.change.driver() == Driver::None {
                    return Err(self.not_given((Step::Probe, Reason::Driver(None))));
                }
                Ok(())
            }
        }
    }

    /// Last, the name that the device was kept for: the driver that it had would not get it else.
    fn name_driver(&mut self) -> Result<(), Problem> {
        let Some(before) = &self.before else {
            return Ok(());
        };
        let now = Override::read(self.change.system, self.change.address);
        let ours = now == Override::None || now == Override::Name(VFIO_PCI.into());
        if !ours || now == before.wanted_override() {
            return Ok(());
        }
        let name = before.driver_override.clone();
        let named = self.change.set_override(name.as_deref());
        named.map_err(|fault| {
            let after = self.left("it is not kept for the driver that it was kept for".into());
            self.failed(fault, after)
        })
    }

    fn not_given(&self, fault: Fault) -> Problem {
        let after = if self.change.is_there() {
            self.left("what it had did not take it back".into())
        } else {
            After::Gone
        };
        self.failed(fault, after)
    }

    fn left(&self, because: String) -> After {
        After::Left {
            driver: self.change.driver().name().map(str::to_owned),
            because,
        }
    }

    fn unchanged(&self) -> After {
        if self.change.is_there() {
            After::Unchanged
        } else {
            After::Gone
        }
    }

    fn failed(&self, (step, reason): Fault, after: After) -> Problem {
        Problem::Failed {
            address: self.change.address,
            step,
            reason,
            after,
        }
    }
}
