//! What Linux says of a PCI function in its file systems.

use std::fs;
use std::path::{Path, PathBuf};

use crate::bind::Holder;
use crate::error::GroupMember;
use crate::{PciAddress, VfioError};

/// Where the file systems of the kernel are; elsewhere in tests.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) sys: PathBuf,
    pub(crate) dev: PathBuf,
    pub(crate) proc: PathBuf,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            sys: PathBuf::from("/sys"),
            dev: PathBuf::from("/dev"),
            proc: PathBuf::from("/proc"),
        }
    }
}

impl Machine {
    fn function(&self, address: PciAddress) -> PathBuf {
        self.sys.join("bus/pci/devices").join(address.to_string())
    }

    /// The name of the driver that the function belongs to.
    pub(crate) fn driver(&self, address: PciAddress) -> Option<String> {
        link_name(&self.function(address).join("driver"))
    }

    /// The IOMMU group of the function, which is there and belongs to a driver of VFIO.
    pub(crate) fn group(&self, address: PciAddress) -> Result<u32, VfioError> {
        if !self.function(address).exists() {
            return Err(VfioError::NoDevice(address));
        }
        let link = self.function(address).join("iommu_group");
        // A group that VFIO makes up for a device without an IOMMU.
        let is_unsafe = fs::read(link.join("name")).is_ok_and(|name| name == b"vfio-noiommu\n");
        let group = link_name(&link)
            .filter(|_| !is_unsafe)
            .and_then(|name| name.parse().ok())
            .ok_or(VfioError::NoIommu(address))?;
        match self.driver(address) {
            Some(driver) if is_vfio(&driver) => Ok(group),
            driver => Err(VfioError::NotBound { address, driver }),
        }
    }

    /// Whether the machine is QEMU's: of its devices those that have no other name say so in their
    /// subsystem (1af4), the bridge to the CPU first of all.
    pub(crate) fn is_qemu(&self) -> bool {
        let bridge = self
            .sys
            .join("bus/pci/devices/0000:00:00.0/subsystem_vendor");
        fs::read_to_string(bridge).is_ok_and(|vendor| vendor.trim() == "0x1af4")
    }

    /// The device's own file, if the kernel makes such files.
    pub(crate) fn device_file(&self, address: PciAddress) -> Option<PathBuf> {
        let entries = fs::read_dir(self.function(address).join("vfio-dev")).ok()?;
        let mut names = entries.flatten().map(|entry| entry.file_name());
        let name = names.find(|name| name.to_str().is_some_and(|name| name.starts_with("vfio")))?;
        Some(self.dev.join("vfio/devices").join(name))
    }

    pub(crate) fn group_file(&self, group: u32) -> PathBuf {
        self.dev.join("vfio").join(group.to_string())
    }

    pub(crate) fn container(&self) -> PathBuf {
        self.dev.join("vfio/vfio")
    }

    pub(crate) fn iommufd(&self) -> PathBuf {
        self.dev.join("iommu")
    }

    /// The functions of a group that keep it from being given to a program. (Linux: a driver that
    /// does not leave DMA to VFIO; those of VFIO do, and of bridges pcieport.)
    pub(crate) fn in_the_way(&self, group: u32) -> Vec<GroupMember> {
        let member = |address| {
            let driver = self.driver(address)?;
            let harmless = is_vfio(&driver) || driver == "pcieport" || driver == "pci-stub";
            (!harmless).then_some(GroupMember { address, driver })
        };
        self.members(group).into_iter().filter_map(member).collect()
    }

    /// The functions in a group, by address.
    fn members(&self, group: u32) -> Vec<PciAddress> {
        let devices = self
            .sys
            .join(format!("kernel/iommu_groups/{group}/devices"));
        let entries = fs::read_dir(devices).into_iter().flatten().flatten();
        let mut found: Vec<PciAddress> = entries
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect();
        found.sort();
        found
    }

    /// The files by which a group or one of its functions is opened.
    pub(crate) fn files_of(&self, group: u32) -> Vec<PathBuf> {
        let functions = self.members(group).into_iter();
        let own = functions.filter_map(|address| self.device_file(address));
        std::iter::once(self.group_file(group)).chain(own).collect()
    }

    /// The processes that have one of `files` open, as far as this one may see. This process may
    /// have opened `just_opened` once: that does not count.
    pub(crate) fn holders(&self, files: &[PathBuf], just_opened: Option<&Path>) -> Vec<Holder> {
        let processes = fs::read_dir(&self.proc).into_iter().flatten().flatten();
        let mut found: Vec<Holder> = processes
            .filter_map(|entry| {
                let process = entry.file_name().to_str()?.parse().ok()?;
                let ours = just_opened.filter(|_| process == std::process::id());
                let file = open_file(&entry.path(), files, ours)?;
                let name = fs::read_to_string(entry.path().join("comm"));
                Some(Holder {
                    process,
                    name: name.unwrap_or_default().trim().to_owned(),
                    file: file.display().to_string(),
                })
            })
            .collect();
        found.sort_by_key(|holder| holder.process);
        found
    }
}

/// Whether a driver leaves the function to programs: vfio-pci and its relatives of vendors.
fn is_vfio(driver: &str) -> bool {
    driver == "vfio-pci" || driver.ends_with("-vfio-pci") || driver.ends_with("_vfio_pci")
}

/// The last name in a link.
fn link_name(link: &Path) -> Option<String> {
    let target = fs::read_link(link).ok()?;
    Some(target.file_name()?.to_str()?.to_owned())
}

/// The first of `files` that a process has open, `but_for` once that one.
fn open_file(process: &Path, files: &[PathBuf], mut but_for: Option<&Path>) -> Option<PathBuf> {
    let open = fs::read_dir(process.join("fd")).into_iter().flatten();
    let mut targets = open
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok());
    targets
        .find(|target| files.contains(target) && but_for.take_if(|once| once == target).is_none())
}

#[cfg(test)]
#[path = "sysfs_tests.rs"]
mod tests;
