//! What can go wrong, where, and how it is mended.

use std::fmt;
use std::path::PathBuf;

use pagewire_hal::PlatformError;
use pagewire_vfio_user::ClientError;
use rustix::io::Errno;

use crate::bind::Holder;
use crate::memlock::Memlock;
use crate::{Api, PciAddress};

/// Why a device could not be had or used. The text of each says what, where, and how to mend it.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum VfioError {
    /// There is no such PCI function.
    NoDevice(PciAddress),
    /// The function belongs to a driver of the kernel, or to none.
    NotBound {
        /// The function.
        address: PciAddress,
        /// Its driver.
        driver: Option<String>,
    },
    /// No IOMMU stands before the function.
    NoIommu(PciAddress),
    /// The kernel does not offer this way to the device.
    ApiMissing {
        /// The way that was asked for; `None` for whichever there is.
        api: Option<Api>,
        /// What was looked for and not found.
        missing: Vec<PathBuf>,
    },
    /// A file may not be opened.
    NoAccess {
        /// The function whose device file it is, or to which it is needed.
        address: PciAddress,
        /// The file.
        path: PathBuf,
    },
    /// Other functions of the IOMMU group belong to drivers of the kernel.
    GroupNotViable {
        /// The group.
        group: u32,
        /// Who is in the way.
        others: Vec<GroupMember>,
    },
    /// Another process has the device, or another function of its group, or this one has it open
    /// already.
    Busy {
        /// The function.
        address: PciAddress,
        /// Who has it, as far as can be seen.
        holders: Vec<Holder>,
    },
    /// The IOMMU cannot keep the interrupts of devices apart.
    UnsafeInterrupts(PciAddress),
    /// The device's accesses pass by the caches of the CPU, which iommufd does not accept.
    Incoherent(PciAddress),
    /// The container could not be made; in the words of the crate `pci-driver`.
    Container(String),
    /// More memory would have to be locked than the limit allows.
    MemlockTooSmall {
        /// Bytes that were to be mapped.
        wanted: u64,
        /// What is locked, and how much may be.
        memlock: Memlock,
    },
    /// The device's address space has no range that is long enough.
    NoAddresses {
        /// Bytes that were to be mapped.
        wanted: u64,
        /// Bytes of the longest free range below the highest address that the device can emit,
        /// from its first address on that is aligned as is wanted.
        longest: u64,
    },
    /// A region has to have at least one byte.
    Empty,
    /// The alignment is no power of two, or too large.
    Alignment(usize),
    /// The file can still be written or shortened.
    NotSealed,
    /// The function can be reset neither alone nor with its bus.
    NoReset(PciAddress),
    /// A reset of the bus would hit functions that are not ours.
    ResetHitsOthers {
        /// The function.
        address: PciAddress,
        /// The others.
        others: Vec<PciAddress>,
    },
    /// The device is behind a vfio-user socket, and there is something wrong with it.
    User(ClientError),
    /// The kernel says what it must not.
    Nonsense(&'static str),
    /// A system call failed.
    System {
        /// What was tried.
        doing: &'static str,
        /// The error number.
        errno: i32,
    },
}

/// A function in an IOMMU group that is in the way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupMember {
    /// The function.
    pub address: PciAddress,
    /// Its driver.
    pub driver: String,
}

impl VfioError {
    /// A system call that failed while `doing` something.
    pub(crate) fn system(doing: &'static str, errno: Errno) -> Self {
        Self::System {
            doing,
            errno: errno.raw_os_error(),
        }
    }

    /// The same, as the standard library tells it.
    pub(crate) fn io(doing: &'static str, error: &std::io::Error) -> Self {
        Self::system(doing, Errno::from_io_error(error).unwrap_or(Errno::IO))
    }
}

impl fmt::Display for VfioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDevice(address) => write!(
                f,
                "there is no PCI function {address}: `lspci -D` lists those that there are"
            ),
            Self::NotBound { address, driver } => not_bound(f, *address, driver.as_deref()),
            Self::NoIommu(address) => write!(
                f,
                "{address} is in no IOMMU group: switch the IOMMU on in the firmware (VT-d, AMD-Vi) \
                 and boot Linux with intel_iommu=on"
            ),
            Self::ApiMissing { api, missing } => api_missing(f, *api, missing),
            Self::NoAccess { address, path } => write!(
                f,
                "no permission to open {}: give it to this user (`sudo pagewire bind {address} \
                 --user $USER`), or be root",
                path.display()
            ),
            Self::GroupNotViable { group, others } => not_viable(f, *group, others),
            Self::Busy { address, holders } => busy(f, *address, holders),
            Self::UnsafeInterrupts(address) => write!(
                f,
                "the IOMMU before {address} cannot remap interrupts, so a device could forge those of \
                 others: switch interrupt remapping on in the firmware; or, if you trust the \
                 device, load vfio_iommu_type1 (or iommufd) with allow_unsafe_interrupts=1"
            ),
            Self::Incoherent(address) => write!(
                f,
                "iommufd does not take {address}: its accesses to memory are not coherent with the \
                 caches of the CPU, or a process that cannot be seen from here has it (be root to \
                 see all). If it is the former, the group API may take it"
            ),
            Self::Container(text) => write!(
                f,
                "cannot make a container for the IOMMU group: {text}. Linux 5.10 or later and the \
                 module vfio_iommu_type1 are needed"
            ),
            Self::MemlockTooSmall { wanted, memlock } => memlock.explain(f, *wanted),
            Self::NoAddresses { wanted, longest } => write!(
                f,
                "the device's address space has no room for {wanted} bytes in a row: at most \
                 {longest} are free. Register less at once, give regions back, or, if the device \
                 can emit more address bits, say so when it is opened"
            ),
            Self::Empty => write!(f, "a region needs at least one byte"),
            Self::Alignment(align) => write!(
                f,
                "no memory is aligned to {align} bytes: a power of two of at most 2 MiB is possible"
            ),
            Self::NotSealed => write!(
                f,
                "the file can still be written or shortened: seal it first (F_SEAL_WRITE and \
                 F_SEAL_SHRINK), or let `SealedFile::copy_of` make one"
            ),
            Self::NoReset(address) => write!(
                f,
                "{address} cannot be reset, neither alone nor with its bus: unbind and bind it again"
            ),
            Self::ResetHitsOthers { address, others } => resets_others(f, *address, others),
            Self::User(error) => error.fmt(f),
            Self::Nonsense(what) => write!(f, "the kernel's VFIO says what it must not: {what}"),
            Self::System { doing, errno } => {
                write!(f, "{doing}: {}", Errno::from_raw_os_error(*errno))
            }
        }
    }
}

fn not_bound(f: &mut fmt::Formatter<'_>, address: PciAddress, driver: Option<&str>) -> fmt::Result {
    match driver {
        Some(driver) => write!(f, "{address} belongs to the kernel's driver {driver}")?,
        None => write!(f, "{address} has no driver")?,
    }
    write!(f, ": give it to vfio-pci with `pagewire bind {address}`")
}

fn api_missing(f: &mut fmt::Formatter<'_>, api: Option<Api>, missing: &[PathBuf]) -> fmt::Result {
    match api {
        Some(api) => write!(f, "the kernel does not offer VFIO's {api} here")?,
        None => write!(f, "the kernel does not offer VFIO here")?,
    }
    for (index, path) in missing.iter().enumerate() {
        let before = if index == 0 { ": no " } else { ", no " };
        write!(f, "{before}{}", path.display())?;
    }
    match api {
        Some(Api::Cdev) => write!(
            f,
            ". Linux 6.6 or later with CONFIG_IOMMUFD and CONFIG_VFIO_DEVICE_CDEV has it; the \
             group API may be there instead"
        ),
        _ => write!(f, ". Load the modules vfio-pci and vfio_iommu_type1"),
    }
}

fn not_viable(f: &mut fmt::Formatter<'_>, group: u32, others: &[GroupMember]) -> fmt::Result {
    write!(f, "IOMMU group {group} is shared with devices in use:")?;
    for GroupMember { address, driver } in others {
        write!(f, " {address} ({driver})")?;
    }
    if others.is_empty() {
        write!(f, " nobody that can be seen")?;
    }
    write!(
        f,
        ". The IOMMU cannot keep them apart: bind each of them to vfio-pci as well, or put the NIC \
         into another slot"
    )
}

fn busy(f: &mut fmt::Formatter<'_>, address: PciAddress, holders: &[Holder]) -> fmt::Result {
    write!(f, "{address} is in use")?;
    let is_ours = |holder: &Holder| holder.process == std::process::id();
    for (index, holder) in holders.iter().enumerate() {
        let before = if index == 0 { " by" } else { "," };
        if is_ours(holder) {
            write!(f, "{before} this process ({})", holder.file)?;
        } else {
            write!(f, "{before} {holder}")?;
        }
    }
    if !holders.is_empty() && holders.iter().all(is_ours) {
        return write!(
            f,
            ": one function of its group can be open, and once; drop the VfioPlatform that has it, \
             and all that came of it"
        );
    }
    if holders.is_empty() {
        write!(
            f,
            " by a process that cannot be seen from here (be root to see all)"
        )?;
    }
    write!(f, ": only one process can drive it; end that one first")
}

fn resets_others(
    f: &mut fmt::Formatter<'_>,
    address: PciAddress,
    others: &[PciAddress],
) -> fmt::Result {
    write!(
        f,
        "{address} has no reset of its own, and a reset of its bus would hit what is not ours:"
    )?;
    others.iter().try_for_each(|other| write!(f, " {other}"))?;
    write!(
        f,
        ". Bind those to vfio-pci too and leave them alone, or unbind and bind it again"
    )
}

impl std::error::Error for VfioError {}

impl From<VfioError> for PlatformError {
    /// What of the error fits into a number; the rest is for the log.
    fn from(error: VfioError) -> Self {
        match error {
            VfioError::MemlockTooSmall { .. }
            | VfioError::NoAddresses { .. }
            | VfioError::Alignment(_) => Self::OutOfMemory,
            VfioError::System { errno, .. } if errno == Errno::NOMEM.raw_os_error() => {
                Self::OutOfMemory
            }
            VfioError::System { errno, .. } => Self::System(errno),
            VfioError::User(ClientError::Gone | ClientError::Silent) => {
                Self::System(Errno::NODEV.raw_os_error())
            }
            _ => Self::System(Errno::INVAL.raw_os_error()),
        }
    }
}

#[cfg(test)]
#[path = "error_tests.rs"]
mod tests;
