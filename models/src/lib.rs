//! Software NICs behind the Pagewire platform traits, seeded and suspicious, and the wires to
//! plug them into.
//!
//! A model is written from the device's specification, never from our driver. Whatever the
//! specification leaves to the hardware is a named switch, on by default, and drawn from a
//! seed; whatever it forbids to the driver is reported as a violation.

mod checksum;
mod device;
pub mod e1000e;
pub mod fake;
pub mod host;
pub mod hostile;
mod intel;
pub mod ixgbe;
mod lies;
mod pace;
#[cfg(target_os = "linux")]
pub mod qtest;
#[cfg(test)]
mod rig;
#[cfg(all(target_os = "linux", feature = "vfio-user"))]
pub mod vfio_user;
mod violations;
pub mod virtio;
pub mod wire;

pub use device::{Bus, Device, DmaFault, Wire};
pub use host::{Host, HostConfig, HostMemory, HostRegion, ModelHandle, ModelPlatform};
