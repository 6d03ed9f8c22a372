//! What the machine as a whole has and lacks.

use super::system::System;
use super::text::{exists, is_kernel_name, line};

/// The driver that hands a PCI device to user space.
pub(super) const VFIO_PCI: &str = "vfio-pci";

/// The machine, for those who want to bind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Environment {
    /// The kernel's release; `None` if it cannot be read.
    pub release: Option<String>,
    /// Whether an IOMMU is on: there is at least one group of devices behind one.
    pub iommu: bool,
    /// Whether VFIO's mode without an IOMMU is on: every device may then write all memory.
    pub unsafe_mode: bool,
    /// The driver vfio-pci.
    pub vfio_pci: Module,
    /// The module vfio_iommu_type1, which maps memory for a group.
    pub type1: Module,
    /// The module iommufd, which maps memory for a device's own file.
    pub iommufd: Module,
    /// Whether we run as root; `None` if /proc does not say.
    pub root: Option<bool>,
    /// Bytes that this process may lock in memory; `None` without limit.
    pub locked_memory: Option<u64>,
}

/// Where a module is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Module {
    /// In the kernel: loaded or built in.
    Present,
    /// On disk.
    Loadable,
    /// Neither.
    Absent,
    /// There is no list of modules: modprobe will tell.
    Unknown,
}

impl Environment {
    /// Looks at the machine.
    #[must_use]
    pub fn read(system: &dyn System) -> Self {
        let release = line(system, "/proc/sys/kernel/osrelease").filter(|r| is_kernel_name(r));
        let groups = system.names("/sys/kernel/iommu_groups");
        let mode = "/sys/module/vfio/parameters/enable_unsafe_noiommu_mode";
        Self {
            iommu: groups.is_ok_and(|names| !names.is_empty()),
            unsafe_mode: line(system, mode).is_some_and(|value| value == "Y" || value == "1"),
            vfio_pci: Module::find(system, VFIO_PCI, release.as_deref()),
            type1: Module::called(system, "vfio_iommu_type1", release.as_deref()),
            iommufd: Module::called(system, "iommufd", release.as_deref()),
            root: root(system),
            locked_memory: locked_memory(system),
            release,
        }
    }
}

impl Module {
    /// A driver of that name, or a module that brings one.
    pub(super) fn find(system: &dyn System, driver: &str, release: Option<&str>) -> Self {
        if exists(system, &format!("/sys/bus/pci/drivers/{driver}")) {
            Self::Present
        } else {
            Self::listed(system, driver, release)
        }
    }

    /// A module of that name. (One that is built in is seen if it has parameters.)
    fn called(system: &dyn System, name: &str, release: Option<&str>) -> Self {
        if exists(system, &format!("/sys/module/{name}")) {
            Self::Present
        } else {
            Self::listed(system, name, release)
        }
    }

    fn listed(system: &dyn System, module: &str, release: Option<&str>) -> Self {
        let list = release.map(|release| format!("/lib/modules/{release}/modules.dep"));
        let Some(list) = list.and_then(|path| system.read(&path).ok()) else {
            return Self::Unknown;
        };
        let list = String::from_utf8_lossy(&list);
        // kernel/drivers/vfio/pci/vfio-pci.ko.xz: what it needs…
        let same = |path: &str| {
            let file = path.rsplit('/').next().unwrap_or(path);
            let name = file.split('.').next().unwrap_or(file);
            name.replace('_', "-") == module.replace('_', "-")
        };
        let listed = list
            .lines()
            .filter_map(|line| line.split_once(':'))
            .any(|(path, _)| same(path));
        if listed { Self::Loadable } else { Self::Absent }
    }
}

/// `Uid: real effective saved file-system`.
fn root(system: &dyn System) -> Option<bool> {
    let status = system.read("/proc/self/status").ok()?;
    let status = String::from_utf8_lossy(&status);
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    let effective: u32 = ids.split_whitespace().nth(1)?.parse().ok()?;
    Some(effective == 0)
}

/// `Max locked memory  soft  hard  bytes`, where no number means `unlimited`.
fn locked_memory(system: &dyn System) -> Option<u64> {
    let limits = system.read("/proc/self/limits").ok()?;
    let limits = String::from_utf8_lossy(&limits);
    let limit = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max locked memory"))?;
    limit.split_whitespace().next()?.parse().ok()
}
