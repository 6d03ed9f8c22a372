//! The hardware abstraction of Pagewire: the words that drivers, models and the TCP sender
//! share.
//!
//! A NIC author implements [`Nic`], [`TxQueue`] and [`RxQueue`]; a kernel or user-space author
//! implements [`Platform`], [`Registers`] and [`DmaMemory`]. Everything else is in here.
//!
//! - [`Capabilities`] says how many pieces a frame may gather and which checksums the device
//!   inserts; [`Offload`] asks for them, frame by frame.
//! - [`Region`] is memory of the program that the device may read; [`Translation`] turns a range
//!   of it into device addresses, and is the only thing that does.
//! - `TxPort` and `Ledger` (feature `alloc`) are the safe layer: a region is released when the
//!   last descriptor that names it has completed and the last holder has given its loan back.
#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(test)]
extern crate std;

mod address;
pub mod barrier;
#[cfg(feature = "alloc")]
mod builder;
mod capabilities;
#[cfg(all(test, feature = "alloc"))]
mod fake_nic;
mod frame;
#[cfg(feature = "alloc")]
mod ledger;
mod mmio;
mod nic;
mod platform;
#[cfg(feature = "alloc")]
mod pool;
#[cfg(feature = "alloc")]
mod port;
mod region;
#[cfg(feature = "alloc")]
mod reset;
mod ring;
#[cfg(all(test, feature = "alloc"))]
mod test_support;
mod translation;

pub use address::{DeviceAddress, DomainId};
#[cfg(feature = "alloc")]
pub use builder::FrameBuilder;
pub use capabilities::{Capabilities, ChecksumOffload, Segmentation};
pub use frame::{Fragment, FrameError, Offload, Token, TxFrame};
#[cfg(feature = "alloc")]
pub use ledger::{Ledger, LedgerCounters, LendError, Loan, RegionId};
pub use mmio::MappedRegisters;
pub use nic::{
    Causes, LinkState, MacAddress, Nic, NicError, Phase, PostError, QueueError, QueuePair,
    RxChecksum, RxCounters, RxFrame, RxQueue, Statistics, TxQueue, Verdict,
};
pub use platform::{DmaMemory, Instant, Platform, PlatformError, Registers};
#[cfg(feature = "alloc")]
pub use pool::{FrameBuffer, PoolLayout};
#[cfg(feature = "alloc")]
pub use port::{FrameId, PortCounters, PortError, TxPort};
pub use region::{DmaBuffer, FixedBytes, Region};
#[cfg(feature = "alloc")]
pub use reset::{PortPair, release, restart};
pub use ring::{Custody, DescriptorRing, RingCounters};
pub use translation::{GatherFull, GatherList, Granule, MAX_GATHER, Run, Runs, Translation};
