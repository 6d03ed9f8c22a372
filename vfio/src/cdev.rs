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
    let device = open_file(&path, address)?;
    let iommufd = open_file(&machine.iommufd(), address)?;
    ioctl::bind_iommufd(device.as_fd(), iommufd.as_fd())
        .map_err(|errno| not_bound(machine, address, group, &path, errno))?;
    let id = ioctl::ioas_alloc(iommufd.as_fd())
        .map_err(|errno| VfioError::system("cannot make an address space", errno))?;
    ioctl::attach_ioas(device.as_fd(), id).map_err(|errno| match errno {
        Errno::BUSY => VfioError::GroupNotViable {
            group,
            others: machine.in_the_way(group),
        },
        // Where binding has not found it out already.
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

/// Why the device at `path`, which we have just opened, could not be bound to our iommufd. One
/// number has several causes (Linux 6.6 `vfio_df_ioctl_bind_iommufd`, `iommufd_device_bind`,
/// `iommu_device_claim_dma_owner`); which it is, is seen by looking.
fn not_bound(
    machine: &Machine,
    address: PciAddress,
    group: u32,
    path: &Path,
    errno: Errno,
) -> VfioError {
    let holders_of = |files: &[PathBuf]| machine.holders(files, Some(path));
    match errno {
        // The group is open by the older API.
        Errno::BUSY => {
            let holders = holders_of(&[path.to_owned(), machine.group_file(group)]);
            VfioError::Busy { address, holders }
        }
        // The device is bound to another iommufd, or its accesses pass by the caches.
        Errno::INVAL => match holders_of(&[path.to_owned()]) {
            holders if holders.is_empty() => VfioError::Incoherent(address),
            holders => VfioError::Busy { address, holders },
        },
        // Others in the group are a kernel driver's, or another iommufd's; or the IOMMU does not
        // remap interrupts.
        Errno::PERM => {
            let others = machine.in_the_way(group);
            // Not those of the device's own file: they are no cause of this (above).
            let mut files = machine.files_of(group);
            files.retain(|file| file != path);
            let holders = holders_of(&files);
            if !others.is_empty() {
                VfioError::GroupNotViable { group, others }
            } else if !holders.is_empty() {
                VfioError::Busy { address, holders }
            } else {
                VfioError::UnsafeInterrupts(address)
            }
        }
        errno => VfioError::system("cannot bind the device to iommufd", errno),
    }
}

fn missing(missing: Vec<PathBuf>) -> VfioError {
    VfioError::ApiMissing {
        api: Some(Api::Cdev),
        missing,
    }
}

fn open_file(path: &Path, address: PciAddress) -> Result<OwnedFd, VfioError> {
    let opened: io::Result<File> = OpenOptions::new().read(true).write(true).open(path);
    opened
        .map(OwnedFd::from)
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => missing(vec![path.to_owned()]),
            io::ErrorKind::PermissionDenied => VfioError::NoAccess {
                address,
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

    /// Two functions of group 17; the first is ours, just opened.
    struct Bench {
        root: tempfile::TempDir,
        machine: Machine,
    }

    impl Bench {
        fn new() -> Self {
            let root = tempfile::TempDir::new().unwrap();
            let machine = Machine {
                sys: root.path().join("sys"),
                dev: root.path().join("dev"),
                proc: root.path().join("proc"),
            };
            let bench = Self { root, machine };
            bench.link("sys/kernel/iommu_groups/17/devices/0000:03:00.0", "x");
            bench.link("sys/kernel/iommu_groups/17/devices/0000:03:00.1", "x");
            for (function, file) in [("0000:03:00.0", "vfio3"), ("0000:03:00.1", "vfio4")] {
                let folder = format!("sys/bus/pci/devices/{function}");
                std::fs::create_dir_all(
                    bench.root.path().join(&folder).join("vfio-dev").join(file),
                )
                .unwrap();
                bench.link(&format!("{folder}/driver"), "../drivers/vfio-pci");
            }
            bench.opens(std::process::id(), 3, "vfio/devices/vfio3");
            bench
        }

        fn link(&self, path: &str, target: &str) {
            let path = self.root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            let _ = std::fs::remove_file(&path);
            std::os::unix::fs::symlink(target, path).unwrap();
        }

        fn opens(&self, process: u32, fd: u32, file: &str) {
            let target = self.machine.dev.join(file);
            self.link(
                &format!("proc/{process}/fd/{fd}"),
                &target.to_string_lossy(),
            );
        }

        fn says(&self, errno: Errno) -> VfioError {
            let path = self.machine.dev.join("vfio/devices/vfio3");
            not_bound(&self.machine, address(), 17, &path, errno)
        }

        /// The processes of a busy device.
        fn holders(&self, errno: Errno) -> Vec<u32> {
            match self.says(errno) {
                VfioError::Busy { holders, .. } => holders.iter().map(|h| h.process).collect(),
                other => panic!("{other}"),
            }
        }
    }

    fn address() -> PciAddress {
        "0000:03:00.0".parse().unwrap()
    }

    #[test]
    fn not_permitted_has_several_causes() {
        let bench = Bench::new();
        let nobody = bench.says(Errno::PERM);
        assert_eq!(nobody, VfioError::UnsafeInterrupts(address()));
        // Who has the device's own file open, and is not bound, does not matter.
        bench.opens(4712, 5, "vfio/devices/vfio3");
        assert_eq!(bench.says(Errno::PERM), nobody);
        bench.opens(4711, 5, "vfio/devices/vfio4");
        assert_eq!(bench.holders(Errno::PERM), [4711]);
        let bench = Bench::new();
        bench.opens(4711, 5, "vfio/17");
        assert_eq!(bench.holders(Errno::PERM), [4711]);
        // This process, by the companion's file.
        let bench = Bench::new();
        bench.opens(std::process::id(), 5, "vfio/devices/vfio4");
        assert_eq!(bench.holders(Errno::PERM), [std::process::id()]);
        let driver = "sys/bus/pci/devices/0000:03:00.1/driver";
        bench.link(driver, "../drivers/igb");
        let VfioError::GroupNotViable { group: 17, others } = bench.says(Errno::PERM) else {
            panic!();
        };
        assert_eq!(others[0].driver, "igb");
    }

    #[test]
    fn invalid_means_in_use_or_not_coherent() {
        let bench = Bench::new();
        let error = bench.says(Errno::INVAL);
        assert_eq!(error, VfioError::Incoherent(address()));
        let text = error.to_string();
        assert!(
            text.contains("coherent") && text.contains("group"),
            "{text}"
        );
        // A companion that is open is no cause of it.
        bench.opens(4711, 5, "vfio/devices/vfio4");
        assert_eq!(bench.says(Errno::INVAL), error);
        bench.opens(4711, 6, "vfio/devices/vfio3");
        assert_eq!(bench.holders(Errno::INVAL), [4711]);
    }

    #[test]
    fn a_second_open_in_this_process_is_told_as_that() {
        let bench = Bench::new();
        bench.opens(std::process::id(), 7, "vfio/devices/vfio3");
        assert_eq!(bench.holders(Errno::INVAL), [std::process::id()]);
        let text = bench.says(Errno::INVAL).to_string();
        assert!(text.contains("in use by this process"), "{text}");
        assert!(!text.contains("cannot be seen"), "{text}");
        // The group, by the older API.
        let bench = Bench::new();
        assert_eq!(bench.holders(Errno::BUSY), []);
        bench.opens(std::process::id(), 7, "vfio/17");
        assert_eq!(bench.holders(Errno::BUSY), [std::process::id()]);
    }
}
