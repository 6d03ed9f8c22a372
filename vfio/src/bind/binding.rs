//! `bind`: a device goes from its driver to vfio-pci, or stays as it was.

use std::io;

use super::change::{Change, Fault};
use super::environment::{Environment, Module, VFIO_PCI};
use super::memory::{Before, LOCK};
use super::name::DeviceName;
use super::network::Network;
use super::nic::{Missing, Nic, Override, find};
use super::outcome::{Action, After, Bound, Problem, Reason, Step};
use super::refusal::Refusal;
use super::system::System;
use super::text::exists;
use super::users::User;
use super::verdict::{LOCKED_MEMORY, Note, Verdict};

/// How often a device file is looked for, some 20 ms apart.
const LOOKS: u32 = 100;

/// What the user wants of `bind`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BindOptions {
    /// Set aside what [`Refusal::can_be_forced`].
    pub force: bool,
    /// Who gets the device files.
    pub user: Option<User>,
}

/// Binds a device to vfio-pci. `interrupted` is asked before each step; if it says yes, or a step
/// fails, the device gets back what it had.
///
/// A device that VFIO has already is left as it is, but for the owner of its files.
///
/// # Errors
/// [`Problem`]; the device is then as it was, unless [`Problem::Failed`] says otherwise.
pub fn bind(
    system: &mut dyn System,
    name: &DeviceName,
    options: &BindOptions,
    interrupted: &dyn Fn() -> bool,
) -> Result<Bound, Problem> {
    let environment = Environment::read(system);
    let may_change = environment.root != Some(false);
    if may_change {
        lock(system)?;
    }
    let address = find(system, name).map_err(Problem::Missing)?;
    let network = Network::read(system);
    let nic =
        Nic::read(system, address, &network).ok_or(Problem::Missing(Missing::Address(address)))?;
    let bound = nic.driver.is_vfio();
    let mut verdict = if bound {
        Verdict::of_bound(&nic, &environment, options.user.is_some())
    } else {
        Verdict::of(&nic, &environment, &network)
    };
    if options.force {
        verdict.force();
    }
    if !may_change && (!bound || options.user.is_some()) {
        verdict.refusals.insert(0, Refusal::NotRoot(Action::Bind));
    }
    let Verdict { refusals, notes } = verdict;
    if !refusals.is_empty() {
        return Err(Problem::Refused {
            action: Action::Bind,
            address,
            refusals,
        });
    }
    let before = before(system, &nic);
    let change = Change {
        system,
        address,
        steps: Vec::new(),
    };
    let mut binding = Binding {
        change,
        before,
        owners: Vec::new(),
        interrupted,
    };
    if !bound {
        binding.bind(&nic, &environment)?;
    }
    let files = binding.files(options, !bound)?;
    let Binding { change, before, .. } = binding;
    let mut bound = Bound {
        address,
        changed: !change.steps.is_empty(),
        previous: before.driver.filter(|driver| driver != VFIO_PCI),
        group: nic.group,
        files,
        steps: change.steps,
        notes,
    };
    bound.notes.extend(mapping(change.system, &bound.files));
    if let Some(user) = options.user.as_ref().filter(|user| user.id != 0) {
        bound
            .notes
            .extend(notes_for(change.system, user, &environment, &bound.files));
    }
    Ok(bound)
}

/// Nobody else binds or unbinds until the end.
pub(super) fn lock(system: &mut dyn System) -> Result<(), Problem> {
    system.lock(LOCK).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => Problem::Busy,
        _ => Problem::Lock(error),
    })
}

/// What to give back one day. A device that vfio-pci has, or that is kept for it, was bound
/// before, or a bind was cut short: then it is what was remembered.
fn before(system: &dyn System, nic: &Nic) -> Before {
    let kept = Override::Name(VFIO_PCI.into());
    let unfinished = nic.driver.is_vfio() || nic.driver_override == kept;
    let recalled = unfinished.then(|| Before::recall(system, nic)).flatten();
    recalled.unwrap_or_else(|| Before::now(system, nic))
}

/// What maps memory is loaded with vfio-pci, where modprobe knows that they go together.
fn mapping(system: &dyn System, files: &[String]) -> Option<Note> {
    let by_file = files.iter().any(|file| is_own(file)) && exists(system, "/dev/iommu");
    let by_group = exists(system, "/sys/module/vfio_iommu_type1");
    (!by_file && !by_group).then_some(Note::NoMappingYet)
}

/// Whether it is the device's own file, not its group's.
fn is_own(file: &str) -> bool {
    file.starts_with("/dev/vfio/devices/")
}

/// What only matters if somebody else than root opens the device.
fn notes_for(
    system: &dyn System,
    user: &User,
    environment: &Environment,
    files: &[String],
) -> Vec<Note> {
    let mut notes = Vec::new();
    let limit = environment
        .locked_memory
        .filter(|&limit| limit < LOCKED_MEMORY);
    notes.extend(limit.map(Note::LockedMemory));
    let own_file = files.iter().any(|file| is_own(file));
    let theirs = system.owner("/dev/iommu").ok() == Some(user.id);
    if own_file && !theirs {
        notes.push(Note::IommuFile);
    }
    notes
}

struct Binding<'a> {
    change: Change<'a>,
    before: Before,
    /// Files that were given away, and whose they were.
    owners: Vec<(String, u32)>,
    interrupted: &'a dyn Fn() -> bool,
}

impl Binding<'_> {
    fn bind(&mut self, nic: &Nic, environment: &Environment) -> Result<(), Problem> {
        let prepared = self.prepare(nic, environment);
        prepared.map_err(|fault| self.failed(fault, After::Unchanged))?;
        let done = self.change_driver(nic);
        done.map_err(|fault| self.take_back(fault))
    }

    /// What changes nothing about the device.
    fn prepare(&mut self, nic: &Nic, environment: &Environment) -> Result<(), Fault> {
        if environment.vfio_pci != Module::Present {
            self.go_on(Step::LoadModule(VFIO_PCI.into()))?;
            self.change.load(VFIO_PCI)?;
        }
        self.go_on(Step::Remember)?;
        let before = &self.before;
        self.change
            .step(Step::Remember, |system| before.remember(system, nic))
    }

    fn change_driver(&mut self, nic: &Nic) -> Result<(), Fault> {
        self.go_on(Step::Override(Some(VFIO_PCI.into())))?;
        self.change.set_override(Some(VFIO_PCI))?;
        if let Some(driver) = nic.driver.name() {
            self.go_on(Step::Take(driver.into()))?;
            self.change.take(driver)?;
        }
        self.go_on(Step::Probe)?;
        self.change.probe()?;
        match self.change.driver() {
            driver if driver.name() == Some(VFIO_PCI) => Ok(()),
            driver => {
                let name = driver.name().map(str::to_owned);
                Err((Step::Give(VFIO_PCI.into()), Reason::Driver(name)))
            }
        }
    }

    /// The device files, given to whoever is to have them.
    fn files(&mut self, options: &BindOptions, fresh: bool) -> Result<Vec<String>, Problem> {
        let given = self.wait_for_files().and_then(|files| {
            if let Some(user) = &options.user {
                self.give_files(&files, user.id)?;
            }
            Ok(files)
        });
        given.map_err(|fault| {
            self.owners_back();
            if fresh {
                self.take_back(fault)
            } else {
                self.failed(fault, After::Back(Some(VFIO_PCI.into())))
            }
        })
    }

    fn wait_for_files(&mut self) -> Result<Vec<String>, Fault> {
        for _ in 0..LOOKS {
            self.go_on(Step::DeviceFile)?;
            let Change {
                system, address, ..
            } = &mut self.change;
            let nic = Nic::read(*system, *address, &Network::default());
            let files = nic.map(|nic| nic.device_files(*system)).unwrap_or_default();
            if !files.is_empty() {
                return Ok(files);
            }
            system.pause();
        }
        Err((Step::DeviceFile, Reason::NoDeviceFile))
    }

    fn give_files(&mut self, files: &[String], user: u32) -> Result<(), Fault> {
        for file in files {
            let step = Step::Own {
                file: file.clone(),
                user,
            };
            self.go_on(step.clone())?;
            let owner = self.change.system.owner(file);
            let owner = owner.map_err(|error| (step.clone(), Reason::Io(error)))?;
            if owner != user {
                self.change
                    .step(step, |system| system.set_owner(file, user))?;
                self.owners.push((file.clone(), owner));
            }
        }
        Ok(())
    }

    /// Other devices of the group, and so its file, may stay with VFIO.
    fn owners_back(&mut self) {
        for (file, owner) in std::mem::take(&mut self.owners) {
            if exists(self.change.system, &file) {
                let _ = self.change.system.set_owner(&file, owner);
            }
        }
    }

    fn go_on(&self, step: Step) -> Result<(), Fault> {
        if (self.interrupted)() {
            Err((step, Reason::Interrupted))
        } else {
            Ok(())
        }
    }

    fn take_back(&mut self, fault: Fault) -> Problem {
        let after = self.change.put_back(&self.before);
        self.failed(fault, after)
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
