//! The vfio-user protocol: a PCI device that another process plays, reached over a UNIX socket.
//!
//! The *server* has the device ([`Listener`], [`Session`], [`Backend`]), the *client* drives it
//! ([`Client`]): QEMU for its guest, or a driver in user space. Memory for DMA and eventfds for
//! interrupts go over the socket as file descriptors.
//!
//! Neither end believes the other: what is too long, too short or out of place ends the
//! connection or is answered with an error number, and no message makes either end panic.
//!
//! # Why not the crate `vfio_user`
//! It is the judge of both ends in the tests here. As either end itself it does not do what this
//! project promises: its client takes a refusal for an answer (and waits for ever for the rest of
//! it), its server panics on a version message that ends early, serves one client while others
//! wait without a word, and cannot be stopped.
//!
//! # Source
//! The "vfio-user Protocol Specification" in QEMU's documentation (`docs/interop/vfio-user.rst`);
//! regions, interrupts and flags are those of Linux's `include/uapi/linux/vfio.h`. Where what QEMU
//! does goes beyond the specification it says so at the place. Numbers are in the byte order of
//! the machine.
#![cfg(target_os = "linux")]

mod client;
mod listener;
mod message;
mod session;

pub use client::{Client, ClientError};
pub use listener::{BindError, Listener};
pub use rustix::io::Errno;
pub use session::{Backend, DmaMap, DmaUnmap, IrqSet, Session, SessionError};

/// Regions of a PCI device: BARs 0 to 5, expansion ROM, configuration space, VGA.
pub const PCI_REGIONS: u32 = 9;
/// The region of the expansion ROM.
pub const ROM_REGION: u32 = 6;
/// The region of configuration space.
pub const CONFIG_REGION: u32 = 7;

/// Interrupts of a PCI device, by kind: INTx, MSI, MSI-X, errors, requests.
pub const PCI_IRQS: u32 = 5;
/// The kind of the interrupt pin.
pub const INTX: u32 = 0;
/// The kind of MSI-X.
pub const MSIX: u32 = 2;

/// What there is to know of a region.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RegionInfo {
    /// Bytes; 0 if there is no such region.
    pub len: u64,
    /// Whether it can be read.
    pub readable: bool,
    /// Whether it can be written.
    pub writable: bool,
}

/// What there is to know of the interrupts of a kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct IrqInfo {
    /// How many; 0 if there are none of this kind.
    pub count: u32,
    /// Whether the server masks an interrupt when it signals it (as of the pin), until the
    /// client unmasks it.
    pub automasked: bool,
}
