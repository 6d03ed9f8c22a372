//! The older way: the IOMMU group of the device in a container, by the crate `pci-driver`.
//!
//! The crate opens the group and the container and maps memory; the device's own file it keeps to
//! itself, and with it the areas that can be mapped, and the reset of the bus. So the file is asked
//! for here, of the same group, and from there on both ways are one.

use std::ffi::CString;
use std::fs;
use std::io;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use pci_driver::backends::vfio::VfioContainer;
use pci_driver::regions::Permissions;
use rustix::io::Errno;

use crate::ioctl;
use crate::iommu::{Access, Api, Iommu, Source};
use crate::sysfs::Machine;
use crate::{PciAddress, VfioError};

/// A container with one group.
#[derive(Debug)]
pub(crate) struct Container {
    container: VfioContainer,
    group: OwnedFd,
}

/// Opens the group of a device, in a container of its own, and the device.
pub(crate) fn open(
    machine: &Machine,
    address: PciAddress,
    group: u32,
) -> Result<(OwnedFd, Container), VfioError> {
    let files = [machine.group_file(group), machine.container()];
    let missing: Vec<PathBuf> = files
        .iter()
        .filter(|file| !file.exists())
        .cloned()
        .collect();
    if !missing.is_empty() {
        return Err(VfioError::ApiMissing {
            api: Some(Api::Group),
            missing,
        });
    }
    let container =
        VfioContainer::new(&[group]).map_err(|error| explain(machine, address, group, &error))?;
    let group_file = own_copy(machine, group, &container)?;
    let name = CString::new(address.to_string())
        .map_err(|_| VfioError::Nonsense("an address with a 0 in it"))?;
    let device = ioctl::group_device(group_file.as_fd(), &name)
        .map_err(|errno| VfioError::system("cannot open the device in its group", errno))?;
    let container = Container {
        container,
        group: group_file,
    };
    Ok((device, container))
}

/// Why the group or the container could not be opened.
fn explain(machine: &Machine, address: PciAddress, group: u32, error: &io::Error) -> VfioError {
    let files = [machine.group_file(group), machine.container()];
    let Some(errno) = Errno::from_io_error(error) else {
        // `pci-driver` has words of its own for a group that is not viable and for a kernel that is
        // too old, and none for one without an IOMMU of type 1.
        let others = machine.in_the_way(group);
        let text = error.to_string();
        return if text.contains("viable") {
            // An iommufd that has one of its functions makes a group unviable as well.
            match machine.holders(&machine.files_of(group), None) {
                holders if others.is_empty() && !holders.is_empty() => {
                    VfioError::Busy { address, holders }
                }
                _ => VfioError::GroupNotViable { group, others },
            }
        } else if text == "TODO" {
            VfioError::Container("VFIO has no IOMMU of type 1 here".to_owned())
        } else {
            VfioError::Container(text)
        };
    };
    match errno {
        Errno::BUSY => {
            let holders = machine.holders(&machine.files_of(group), None);
            VfioError::Busy { address, holders }
        }
        Errno::ACCESS => {
            let closed = |file: &&PathBuf| {
                let opened = fs::OpenOptions::new().read(true).write(true).open(file);
                opened.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
            };
            let [group, container] = &files;
            let path = [container, group].into_iter().find(closed).unwrap_or(group);
            VfioError::NoAccess {
                address,
                path: path.clone(),
            }
        }
        Errno::PERM => VfioError::UnsafeInterrupts(address),
        errno => VfioError::system("cannot open the group and its container", errno),
    }
}

/// A file descriptor of our own for the group that the container has just opened.
///
/// The crate does not hand its own out. But a group can be open only once (Linux
/// `vfio_group_fops_open`), so there is exactly one in this process: that of `container`, which is
/// there until this returns.
fn own_copy(
    machine: &Machine,
    group: u32,
    _container: &VfioContainer,
) -> Result<OwnedFd, VfioError> {
    let lost = VfioError::Nonsense("the group that was opened is not among the open files");
    let device = fs::metadata(machine.group_file(group))
        .map_err(|error| VfioError::io("cannot look at the group's file", &error))?
        .rdev();
    let open = fs::read_dir(machine.proc.join("self/fd"))
        .map_err(|error| VfioError::io("cannot list the open files of this process", &error))?;
    for entry in open.flatten() {
        let is_group = fs::metadata(entry.path()).is_ok_and(|file| file.rdev() == device);
        let number = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        let Some(number) = number.filter(|number| is_group && *number >= 0) else {
            continue;
        };
        // SAFETY: the number is not negative. It was just seen to be a descriptor of the group.
        // Of that there is one open file in the system, which `_container` opened, keeps to itself
        // and closes when it is dropped, not before we return; so this number stays open for the
        // one call in which it is used. (Copies are made here only, and a copy lives in a
        // `Container`, with the file that keeps another from being made.)
        let found = unsafe { BorrowedFd::borrow_raw(number) };
        let Ok(copy) = rustix::io::fcntl_dupfd_cloexec(found, 3) else {
            continue;
        };
        if rustix::fs::fstat(&copy).is_ok_and(|file| file.st_rdev == device) {
            return Ok(copy);
        }
    }
    Err(lost)
}

/// The error number in what `pci-driver` says of a mapping: it puts the system's words into its
/// own, and these end with the number.
fn errno_of(error: &io::Error) -> Errno {
    if let Some(errno) = Errno::from_io_error(error) {
        return errno;
    }
    let text = error.to_string();
    let number = text
        .rsplit_once("(os error ")
        .and_then(|(_, number)| number.strip_suffix(')')?.parse().ok());
    number.map_or(Errno::IO, Errno::from_raw_os_error)
}

impl Iommu for Container {
    fn api(&self) -> Option<Api> {
        Some(Api::Group)
    }

    fn usable(&self) -> Vec<RangeInclusive<u64>> {
        // The crate takes the kernel's last address for the first behind it. Read as the last, it
        // is right by either meaning, as only whole pages count.
        let iommu = self.container.iommu();
        let ranges = iommu.valid_iova_ranges().iter();
        ranges.map(|range| range.start..=range.end).collect()
    }

    fn page(&self) -> u64 {
        self.container.iommu().alignment() as u64
    }

    unsafe fn map(
        &self,
        memory: Source<'_>,
        len: u64,
        iova: u64,
        access: Access,
    ) -> Result<(), Errno> {
        let permissions = match access {
            Access::Read => Permissions::Read,
            Access::ReadWrite => Permissions::ReadWrite,
        };
        let len = usize::try_from(len).map_err(|_| Errno::INVAL)?;
        let memory = memory.pointer.as_ptr();
        // The device writes through the address.
        let _exposed = memory.expose_provenance();
        let iommu = self.container.iommu();
        // SAFETY: the caller's promise.
        let mapped = unsafe { iommu.map(iova, len, memory, permissions) };
        mapped.map_err(|error| errno_of(&error))
    }

    fn unmap(&self, iova: u64, len: u64) -> Result<(), Errno> {
        let len = usize::try_from(len).map_err(|_| Errno::INVAL)?;
        let unmapped = self.container.iommu().unmap(iova, len);
        unmapped.map_err(|error| errno_of(&error))
    }

    fn reset_owners(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.group.as_fd()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_found_in_the_words_of_the_crate() {
        let system = io::Error::from_raw_os_error(12);
        let text = format!("Failed to set up IOMMU mapping process memory [0x0, 0x1): {system}");
        assert_eq!(errno_of(&io::Error::other(text)), Errno::NOMEM);
        assert_eq!(errno_of(&system), Errno::NOMEM);
        assert_eq!(errno_of(&io::Error::other("something else")), Errno::IO);
        assert_eq!(errno_of(&io::Error::other("(os error )")), Errno::IO);
    }
}
