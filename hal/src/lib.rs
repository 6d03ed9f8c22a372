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
//!
//! A new driver starts with [`Capabilities::minimal`], keeps its descriptors in a
//! [`DescriptorRing`] with [`RingCounters`], orders its accesses with [`barrier`], and calls
//! [`TxFrame::check`] first in [`TxQueue::post`].
//!
//! Rules that these pages refer to by number:
//!
//! 1. Fragments are counted on the translated list, merged and split; the header is one of them.
//! 2. Completed is not acknowledged, acknowledged is not completed: a page is released after both.
//! 3. The bytes of a lent page do not change.
//! 4. A frame is posted wholly or not at all, and no fragment is empty.
//! 5. Sharing pages needs gather, not checksum offload.
//! 6. What was lent is given back exactly once, or leaked if the device never becomes quiet.
//! 7. Nothing that a device writes is trusted with memory safety.
//! 8. Nothing is advertised that is not done.
//!
//! The safe layer holds against any safe code, and against anything that a device writes into
//! its rings. It relies on the word of the implementations of the `unsafe` traits, and on an
//! IOMMU where a device is not to reach more than it was given.
#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(any(test, feature = "audit"))]
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

pub use address::{DeviceAddress, DomainId, QueueOwner};
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
pub use region::{DmaBuffer, FixedBytes, PagedRegion, Region};
#[cfg(feature = "alloc")]
pub use reset::{PortPair, release, restart, shut_down};
pub use ring::{Custody, DescriptorRing, RingCounters};
pub use translation::{GatherFull, GatherList, Granule, MAX_GATHER, Run, Runs, Translation};
