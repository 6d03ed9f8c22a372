//! What stands on any [`Nic`](pagewire_hal::Nic), whichever driver it is from.
//!
//! Today that is one adapter, `smoltcp` (a module, with the feature of that name). The table of
//! PCI ids that picks the driver is **not there yet**: a program opens `pagewire-e1000e` itself.
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "smoltcp")]
extern crate alloc;
#[cfg(test)]
extern crate std;

#[cfg(feature = "smoltcp")]
pub mod smoltcp;
