//! Pagewire on Linux VFIO: a NIC that is bound to vfio-pci, as a platform for its driver.
#![cfg(target_os = "linux")]

mod address;
pub mod bind;

pub use address::{ParseAddressError, PciAddress};
