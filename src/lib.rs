#![doc = include_str!("../README.md")]
#![no_std]

pub use pagewire_drivers as drivers;
pub use pagewire_e1000e as e1000e;
pub use pagewire_hal as hal;
pub use pagewire_ixgbe as ixgbe;
#[cfg(all(feature = "outbox", target_os = "linux"))]
pub use pagewire_outbox as outbox;
pub use pagewire_tcp as tcp;
#[cfg(all(feature = "vfio", target_os = "linux"))]
pub use pagewire_vfio as vfio;
pub use pagewire_virtio as virtio;
