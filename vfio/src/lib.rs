//! Pagewire on Linux VFIO: a NIC that is bound to vfio-pci, as a platform for its driver.
//!
//! [`VfioPlatform::open`] takes the address of a PCI function and yields a
//! [`Platform`](pagewire_hal::Platform): configuration space, registers, memory behind the IOMMU,
//! an eventfd for each interrupt vector. [`VfioHandle`] is what stays with the program when the
//! platform has gone into a driver; it maps buffers for the device where they lie.
//!
//! ```no_run
//! use pagewire_vfio::{Options, VfioPlatform};
//!
//! let platform = VfioPlatform::open("0000:03:00.0".parse()?, &Options::default())?;
//! let handle = platform.handle();
//! // … a driver takes the platform …
//! let region = handle.register(vec![0x5a; 1 << 20])?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`user`] is for a device that another process plays, without any of that.
//!
//! [`bind`] finds NICs and gives them to vfio-pci and back.
//!
//! [`protect`] lends memory that the program may write again at any moment.
//!
//! # Two ways to a device
//! Linux has two APIs, and both lead to the same file of the device. They differ in whom memory is
//! mapped with, and that is one trait in here:
//!
//! - the device's own file with iommufd ([`Api::Cdev`], Linux 6.6; layouts from the crates
//!   `vfio-bindings` and `iommufd-bindings`);
//! - the IOMMU group in a container ([`Api::Group`], by the crate `pci-driver`, Linux 5.10).
//!
//! The newer is taken where it is there, or the one that [`Options::api`] names. Devices without
//! an IOMMU (VFIO's noiommu mode) are refused: they could write anywhere.
//!
//! # What holds when something goes wrong
//! - Memory is freed after it was unmapped for the device, never before; if Linux refuses to unmap
//!   it is not freed at all ([`VfioHandle::stranded_bytes`]).
//! - When the process ends, however it ends, Linux closes the device: bus mastering off, reset,
//!   memory unlocked. The next program finds it as if it had just been bound.
//! - A device that is pulled out reads all ones. One that is to be *removed* by the system stays
//!   until the program lets it go.
//! - Memory is locked while it is mapped, and counts against the limit of the user
//!   ([`VfioError::MemlockTooSmall`] says which value would do).
//!
//! # Sources
//! Linux `Documentation/driver-api/vfio.rst` and `userspace-api/iommufd.rst`,
//! `include/uapi/linux/vfio.h` and `iommufd.h`, and what was seen in guests. Each item names its
//! own.
#![cfg(target_os = "linux")]

mod address;
mod answers;
mod arena;
mod bar;
pub mod bind;
mod cdev;
mod device;
mod error;
#[cfg(test)]
mod fake_iommu;
mod group;
mod interrupts;
mod ioctl;
mod iommu;
mod live;
mod memlock;
mod pages;
mod platform;
pub mod protect;
mod ranges;
mod region;
mod sealed;
mod space;
mod sysfs;
pub mod user;

pub use address::{ParseAddressError, PciAddress};
pub use arena::Memory;
pub use bar::VfioRegisters;
pub use device::ResetKind;
pub use error::{GroupMember, VfioError};
pub use interrupts::Vector;
pub use iommu::{Api, ParseApiError};
pub use live::LiveFile;
pub use memlock::Memlock;
pub use platform::{Options, VfioHandle, VfioPlatform};
pub use region::{VfioRegion, Withdrawn};
pub use sealed::SealedFile;
