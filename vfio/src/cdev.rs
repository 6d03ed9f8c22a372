//! The newer way: the device's own file, and an address space of iommufd.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use iommufd_bindings::{
    iommufd_ioas_map_flags_IOMMU_IOAS_MAP_FIXED_IOVA as FIXED_IOVA,
    iommufd_ioas_map_flags_IOMMU_IOAS_MAP_READABLE as READABLE,
    iommufd_ioas_map_flags_IOMMU_IOAS_MAP_WRITEABLE as WRITEABLE,
};
use rustix::io::Errno;

use crate::ioctl;
use crate::iommu::{Access, Api, Iommu, Source};
use crate::sysfs::Machine;
use crate::{PciAddress, VfioError};

/// An address space of iommufd.
#[derive(Debug)]
pub(crate) struct Ioas {
    iommufd: OwnedFd,
    id: u32,
    ranges: Vec<(u64, u64)>,
    page: u64,
}

/// Opens the device's own file and attaches it to an address space of its own.
pub(crate) fn open(
    machine: &Machine,
    address: PciAddress,
    group: u32,
) -> Result<(OwnedFd, Ioas), VfioError> {
    let Some(path) = machine.device_file(address) else {
        return Err(missing(vec![machine.dev.join("vfio/devices")]));
    };
    let device = open_file(&path)?;
    let iommufd = open_file(&machine.iommufd())?;
    let busy = || {
        let files = [path.clone(), machine.group_file(group)];
        let mut holders = machine.holders(&files);
        // We have opened it ourselves just now; there may be others in this process.
        holders.retain(|holder| holder.process != std::process::id());
        VfioError::Busy { address, holders }
    };
    ioctl::bind_iommufd(device.as_fd(), iommufd.as_fd()).map_err(|errno| match errno {
        // The file is bound to another iommufd already, or the group is open.
        Errno::BUSY | Errno::INVAL => busy(),
        errno => VfioError::system("cannot bind the device to iommufd", errno),
    })?;
    let id = ioctl::ioas_alloc(iommufd.as_fd())
        .map_err(|errno| VfioError::system("cannot make an address space", errno))?;
    ioctl::attach_ioas(device.as_fd(), id).map_err(|errno| match errno {
        Errno::BUSY => VfioError::GroupNotViable {
            group,
            others: machine.in_the_way(group),
        },
        Errno::PERM => VfioError::UnsafeInterrupts(address),
        errno => VfioError::system("cannot attach the device to its address space", errno),
    })?;
    // Only now: the device narrows the ranges.
    let (ranges, alignment) = ioctl::ioas_ranges(iommufd.as_fd(), id)
        .map_err(|errno| VfioError::system("cannot ask for the usable addresses", errno))?;
    if !alignment.is_power_of_two() {
        return Err(VfioError::Nonsense("an alignment that is no power of two"));
    }
    let page = alignment.max(rustix::param::page_size() as u64);
    let ioas = Ioas {
        iommufd,
        id,
        ranges,
        page,
    };
    Ok((device, ioas))
}

fn missing(missing: Vec<PathBuf>) -> VfioError {
    VfioError::ApiMissing {
        api: Some(Api::Cdev),
        missing,
    }
}

fn open_file(path: &Path) -> Result<OwnedFd, VfioError> {
    let opened: io::Result<File> = OpenOptions::new().read(true).write(true).open(path);
    opened
        .map(OwnedFd::from)
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => missing(vec![path.to_owned()]),
            io::ErrorKind::PermissionDenied => VfioError::NoAccess {
                path: path.to_owned(),
            },
            _ => VfioError::io("cannot open the device's file or /dev/iommu", &error),
        })
}

impl Iommu for Ioas {
    fn api(&self) -> Option<Api> {
        Some(Api::Cdev)
    }

    fn usable(&self) -> Vec<RangeInclusive<u64>> {
        self.ranges.iter().map(|(from, to)| *from..=*to).collect()
    }

    fn page(&self) -> u64 {
        self.page
    }

    unsafe fn map(
        &self,
        memory: Source<'_>,
        len: u64,
        iova: u64,
        access: Access,
    ) -> Result<(), Errno> {
        let access = match access {
            Access::Read => READABLE,
            Access::ReadWrite => READABLE | WRITEABLE,
        };
        let place = (
            memory.pointer.as_ptr().expose_provenance() as u64,
            len,
            iova,
        );
        // SAFETY: the caller's promise.
        unsafe { ioctl::ioas_map(self.iommufd.as_fd(), self.id, FIXED_IOVA | access, place) }
    }

    fn unmap(&self, iova: u64, len: u64) -> Result<(), Errno> {
        let unmapped = ioctl::ioas_unmap(self.iommufd.as_fd(), self.id, iova, len)?;
        if unmapped == len {
            Ok(())
        } else {
            Err(Errno::NOENT)
        }
    }

    fn reset_owners(&self) -> Vec<BorrowedFd<'_>> {
        // The kernel knows what this iommufd owns.
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_or_no_device_is_told() {
        let root = tempfile::TempDir::new().unwrap();
        let machine = Machine {
            sys: root.path().join("sys"),
            dev: root.path().join("dev"),
            proc: root.path().join("proc"),
        };
        let address: PciAddress = "0000:03:00.0".parse().unwrap();
        let open = || open(&machine, address, 17).unwrap_err();
        // A kernel without such files.
        assert_eq!(open(), missing(vec![machine.dev.join("vfio/devices")]));
        // The file is announced, but not there; then iommufd is not.
        let folder = machine
            .sys
            .join("bus/pci/devices/0000:03:00.0/vfio-dev/vfio3");
        std::fs::create_dir_all(folder).unwrap();
        let file = machine.dev.join("vfio/devices/vfio3");
        assert_eq!(open(), missing(vec![file.clone()]));
        std::fs::create_dir_all(machine.dev.join("vfio/devices")).unwrap();
        std::fs::write(&file, "").unwrap();
        assert_eq!(open(), missing(vec![machine.dev.join("iommu")]));
        // What is there is no device.
        std::fs::write(machine.dev.join("iommu"), "").unwrap();
        let error = open().to_string();
        assert!(
            error.starts_with("cannot bind the device to iommufd: "),
            "{error}"
        );
    }
}
