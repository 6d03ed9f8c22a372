//! Whether a NIC can be bound: a decision about plain data.

use std::fmt;
use std::net::IpAddr;

use super::environment::{Environment, Module};
use super::group::{Companion, IommuGroup, Usage};
use super::interface::Interface;
use super::network::Network;
use super::nic::{Driver, Function, Nic, Override};
use super::refusal::{Refusal, joined};

/// Bytes of locked memory that a NIC's rings, its buffers and a file or two need: below that we
/// warn. Linux gives a user 8 MiB.
pub const LOCKED_MEMORY: u64 = 64 << 20;

/// Something to know that keeps nobody from binding.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Note {
    /// A refusal that `--force` set aside.
    Forced(Refusal),
    /// The interface is up with nothing but an address that Linux gave it by itself.
    LinkLocalOnly(String),
    /// The interface is down and still has addresses: they go.
    DownWithAddress {
        /// The interface.
        interface: String,
        /// Its addresses.
        addresses: Vec<IpAddr>,
    },
    /// The kernel knows no way to reset the device.
    NoReset,
    /// Others in the group belong to user space, or may: one process gets them all.
    Shared(Vec<Companion>),
    /// A device that is bound already is of no use all the same.
    Unusable(Refusal),
    /// This process may lock so many bytes of memory, which is little.
    LockedMemory(u64),
    /// The user may open the device, yet not /dev/iommu, which goes with the device's own file.
    IommuFile,
    /// Nothing that maps memory for the device is loaded.
    NoMappingYet,
}

impl Note {
    /// A word for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Forced(_) => "forced",
            Self::LinkLocalOnly(_) => "link-local-only",
            Self::DownWithAddress { .. } => "down-with-address",
            Self::NoReset => "no-reset",
            Self::Shared(_) => "shared-group",
            Self::Unusable(_) => "unusable",
            Self::LockedMemory(_) => "locked-memory",
            Self::IommuFile => "iommu-file",
            Self::NoMappingYet => "no-mapping-yet",
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forced(refusal) => write!(f, "forced, although {refusal}"),
            Self::LinkLocalOnly(interface) => write!(
                f,
                "{interface} is up with a link-local address only, which Linux gave it by itself"
            ),
            Self::DownWithAddress {
                interface,
                addresses,
            } => write!(
                f,
                "{interface} is down and loses its addresses: {}",
                joined(addresses)
            ),
            Self::NoReset => f.write_str(
                "the kernel knows no way to reset it: after a crash it may need a reboot",
            ),
            Self::Shared(companions) => write!(
                f,
                "the whole IOMMU group goes to one process, and Pagewire can open one function of \
                 it at a time; in it are also {}",
                joined(companions)
            ),
            Self::Unusable(refusal) => write!(f, "bound, yet Pagewire cannot use it: {refusal}"),
            Self::LockedMemory(bytes) => write!(
                f,
                "this process may lock {} KiB of memory (a login of that user may have another \
                 limit), and a NIC needs some {} MiB: raise `ulimit -l` (memlock in \
                 /etc/security/limits.conf, LimitMEMLOCK= in a unit of systemd)",
                bytes >> 10,
                LOCKED_MEMORY >> 20
            ),
            Self::IommuFile => f.write_str(
                "/dev/iommu belongs to root, so the device is opened by its group; the owner of \
                 /dev/iommu is left alone, as it serves all devices",
            ),
            Self::NoMappingYet => f.write_str(
                "nothing that maps memory for it is loaded: modprobe vfio_iommu_type1, before it \
                 is opened",
            ),
        }
    }
}

/// What speaks against binding and what is worth knowing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Verdict {
    /// Why not; empty if it can be bound.
    pub refusals: Vec<Refusal>,
    /// What to know.
    pub notes: Vec<Note>,
}

impl Verdict {
    /// Judges a device that VFIO does not have yet. Who asks (root or not) is not looked at.
    #[must_use]
    pub fn of(nic: &Nic, environment: &Environment, network: &Network) -> Self {
        let mut verdict = Self::default();
        verdict.device(nic);
        verdict.iommu(nic, environment);
        for interface in &nic.interfaces {
            verdict.interface(interface, network);
        }
        let release = &environment.release;
        if environment.vfio_pci == Module::Absent {
            let release = release.clone();
            verdict.refusals.push(Refusal::NoVfioPci { release });
        } else if environment.type1 == Module::Absent && environment.iommufd == Module::Absent {
            let release = release.clone();
            verdict.refusals.push(Refusal::NoMapping { release });
        }
        verdict
    }

    /// Judges an interface alone: whether a connection would be cut if it were taken away.
    #[must_use]
    pub fn of_interface(interface: &Interface, network: &Network) -> Self {
        let mut verdict = Self::default();
        verdict.interface(interface, network);
        verdict
    }

    /// Judges a device that VFIO has already: whether it can be used, and, if it is to be given to
    /// a user, whether that is to be done. A user is not given what is no NIC, nor a device that
    /// would let them write all memory.
    #[must_use]
    pub fn of_bound(nic: &Nic, environment: &Environment, for_user: bool) -> Self {
        let mut verdict = Self::default();
        if !nic.is_nic() {
            verdict.refusals.push(Refusal::NotANic(nic.class));
        }
        verdict.iommu(nic, environment);
        let keeps = |refusal: &Refusal| for_user && !matches!(refusal, Refusal::GroupInUse { .. });
        let (kept, noted) = std::mem::take(&mut verdict.refusals)
            .into_iter()
            .partition(keeps);
        verdict.refusals = kept;
        verdict
            .notes
            .extend(Vec::into_iter(noted).map(Note::Unusable));
        verdict
    }

    /// Whether the device can be bound; of one that VFIO has already, whether it can be used.
    #[must_use]
    pub fn is_good(&self) -> bool {
        let unusable = |note: &Note| matches!(note, Note::Unusable(_));
        self.refusals.is_empty() && !self.notes.iter().any(unusable)
    }

    /// Sets aside what may be forced.
    pub(super) fn force(&mut self) {
        let (forced, kept) = std::mem::take(&mut self.refusals)
            .into_iter()
            .partition(Refusal::can_be_forced);
        self.refusals = kept;
        self.notes.extend(Vec::into_iter(forced).map(Note::Forced));
    }

    fn device(&mut self, nic: &Nic) {
        if !nic.is_nic() {
            self.refusals.push(Refusal::NotANic(nic.class));
        }
        match &nic.driver {
            Driver::Odd(target) => {
                let what = format!("the link to its driver ({target})");
                self.refusals.push(Refusal::Odd(what));
            }
            Driver::Name(driver) if nic.interfaces.is_empty() && brings_an_interface(driver) => {
                let driver = driver.clone();
                self.refusals.push(Refusal::InterfaceElsewhere { driver });
            }
            Driver::Name(_) | Driver::None => {}
        }
        for folder in &nic.unreadable {
            self.refusals
                .push(Refusal::Odd(format!("the folder {folder}")));
        }
        match nic.function {
            Function::Physical(virtuals) if virtuals > 0 => {
                self.refusals.push(Refusal::VirtualFunctions(virtuals));
            }
            Function::Physical(_) | Function::Virtual(_) | Function::Alone => {}
        }
        if nic.driver_override == Override::Unsupported {
            self.refusals.push(Refusal::NoOverride);
        }
        if nic.reset_methods.as_ref().is_some_and(Vec::is_empty) {
            self.notes.push(Note::NoReset);
        }
    }

    fn iommu(&mut self, nic: &Nic, environment: &Environment) {
        match &nic.group {
            IommuGroup::Number(_) => self.group(nic),
            IommuGroup::Unsafe(_) => self.refusals.push(Refusal::UnsafeMode),
            IommuGroup::None if environment.unsafe_mode => {
                self.refusals.push(Refusal::UnsafeMode);
            }
            IommuGroup::None if environment.iommu => self.refusals.push(Refusal::NoGroup),
            IommuGroup::None => self.refusals.push(Refusal::NoIommu),
            IommuGroup::Odd(target) => {
                let what = format!("the link to its IOMMU group ({target})");
                self.refusals.push(Refusal::Odd(what));
            }
        }
    }

    fn group(&mut self, nic: &Nic) {
        let group = nic.group.number().unwrap_or_default();
        let has = |usage| nic.companions.iter().any(move |c| c.usage == usage);
        if has(Usage::InUse) {
            let companions = nic.companions.clone();
            self.refusals
                .push(Refusal::GroupInUse { group, companions });
            return;
        }
        let theirs = nic.companions.iter().filter(|c| !c.is_bridge());
        let theirs: Vec<_> = theirs.cloned().collect();
        if !theirs.is_empty() {
            self.notes.push(Note::Shared(theirs));
        }
    }

    fn interface(&mut self, interface: &Interface, network: &Network) {
        let name = &interface.name;
        if !interface.up {
            let own = interface.carries.first();
            let addresses = own.map(|(_, carried)| carried.addresses.clone());
            if let Some(addresses) = addresses.filter(|addresses| !addresses.is_empty()) {
                let interface = name.clone();
                self.notes.push(Note::DownWithAddress {
                    interface,
                    addresses,
                });
            }
            return;
        }
        let before = self.refusals.len();
        let mut link_local = false;
        for (of, carried) in &interface.carries {
            link_local |= !carried.link_local.is_empty();
            if !carried.addresses.is_empty() || (carried.routed && !carried.default_route) {
                self.refusals.push(Refusal::HasAddress {
                    interface: name.clone(),
                    of: of.clone(),
                    addresses: carried.addresses.clone(),
                });
            }
            if carried.default_route {
                self.refusals.push(Refusal::DefaultRoute {
                    interface: name.clone(),
                    of: of.clone(),
                });
            }
        }
        let above = interface.carries.iter().skip(1);
        let above: Vec<_> = above.map(|(name, _)| name.clone()).collect();
        if self.refusals.len() == before && !above.is_empty() {
            self.refusals.push(Refusal::Below {
                interface: name.clone(),
                above,
            });
        }
        if !network.unreadable().is_empty() {
            self.refusals.push(Refusal::NetworkUnknown {
                interface: name.clone(),
                files: network.unreadable().to_vec(),
            });
        } else if self.refusals.len() == before && !network.unplaced().is_empty() {
            self.refusals.push(Refusal::MayHaveAddress {
                interface: name.clone(),
                addresses: network.unplaced().to_vec(),
            });
        } else if self.refusals.len() == before && link_local {
            self.notes.push(Note::LinkLocalOnly(name.clone()));
        }
    }
}

/// Drivers that have a NIC without an interface: those for user space, and placeholders.
fn brings_an_interface(driver: &str) -> bool {
    let none = ["uio_pci_generic", "igb_uio", "pci-stub", "pci-pf-stub"];
    !none.contains(&driver)
}
