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
//! A new driver depends on this crate without its default features (`alloc` brings what has no
//! link here: `TxPort`, `Ledger`, `PortPair` with `restart`, `release` and `shut_down`). It starts
//! with [`Capabilities::minimal`], keeps its descriptors in a [`DescriptorRing`] with
//! [`RingCounters`], orders its accesses with [`barrier`], calls [`TxFrame::check`] first in
//! [`TxQueue::post`], and does what [`Nic`] says of a driver's life. The crate
//! `pagewire-conformance` judges it, all but rule 7: what it does when the device lies must be
//! tried with a device that does.
//!
//! The transmit half of a ring whose device writes back a done bit, in short:
//!
//! ```
//! use pagewire_hal::{DescriptorRing, DmaMemory, RingCounters, Token, TxFrame, barrier};
//!
//! const DONE: u64 = 1 << 63;
//!
//! struct Tx<M: DmaMemory> {
//!     ring: DescriptorRing<M, [u64; 2]>,
//!     counters: RingCounters,
//!     /// Of the last fragment of each frame, in memory that the device does not reach.
//!     tokens: Vec<Option<Token>>,
//!     /// Descriptors that the device was told of and has not reported.
//!     announced: u32,
//! }
//!
//! impl<M: DmaMemory> Tx<M> {
//!     /// After `frame.check(…)`. All or nothing: the room is looked at first (rule 4).
//!     fn post(&mut self, frame: &TxFrame<'_>, token: Token) -> bool {
//!         let count = frame.fragments.len() as u32;
//!         if self.counters.free() < count {
//!             return false;
//!         }
//!         let mut index = self.counters.tail();
//!         for (place, fragment) in frame.fragments.iter().enumerate() {
//!             let is_last = place + 1 == frame.fragments.len();
//!             self.ring.write(index, [fragment.address.0, u64::from(fragment.len)]);
//!             self.tokens[index as usize] = is_last.then_some(token);
//!             index = self.counters.next(index);
//!         }
//!         self.counters.produce(count);
//!         true
//!     }
//!
//!     fn doorbell(&mut self, write_tail: impl FnOnce(u32)) {
//!         barrier::publish();
//!         write_tail(self.counters.tail());
//!         self.announced = self.counters.used();
//!     }
//!
//!     /// Only what the device was told of is looked at, whatever it writes (rule 7).
//!     fn reclaim(&mut self, mut done: impl FnMut(Token)) {
//!         while self.announced > 0 {
//!             let head = self.counters.head();
//!             if self.ring.read(head)[1] & DONE == 0 {
//!                 return;
//!             }
//!             barrier::observe();
//!             // Consumed before the call: a callback that unwinds gets no token twice.
//!             self.counters.consume(1);
//!             self.announced -= 1;
//!             if let Some(token) = self.tokens[head as usize].take() {
//!                 done(token);
//!             }
//!         }
//!     }
//! }
//! ```
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
#[cfg(any(test, feature = "audit", feature = "fake", feature = "std"))]
extern crate std;

mod address;
#[cfg(feature = "alloc")]
mod apart;
pub mod barrier;
#[cfg(feature = "alloc")]
mod builder;
mod capabilities;
#[cfg(feature = "alloc")]
mod copy_pool;
pub mod driver;
mod error;
#[cfg(feature = "fake")]
pub mod fake;
#[cfg(all(test, feature = "alloc"))]
mod fake_nic;
mod frame;
#[cfg(feature = "alloc")]
mod ledger;
#[cfg(feature = "alloc")]
mod ledger_entry;
#[cfg(feature = "alloc")]
mod ledger_hold;
#[cfg(feature = "alloc")]
mod ledger_read;
mod mmio;
mod nic;
pub mod pci;
mod platform;
#[cfg(feature = "alloc")]
mod pool;
#[cfg(feature = "alloc")]
mod port;
mod received;
mod region;
#[cfg(feature = "alloc")]
mod reset;
mod ring;
mod sharing;
pub mod sum;
#[cfg(all(test, feature = "alloc"))]
mod test_support;
mod translation;

pub use address::{DeviceAddress, DomainId, QueueOwner};
#[cfg(feature = "alloc")]
pub use builder::FrameBuilder;
pub use capabilities::{Capabilities, ChecksumOffload, Segmentation};
#[cfg(feature = "alloc")]
pub use copy_pool::CopyPool;
pub use error::{NicError, PostError, QueueError};
pub use frame::{Fragment, FrameError, Offload, Token, TxFrame};
#[cfg(feature = "alloc")]
pub use ledger::{Ledger, LedgerCounters, LendError, Loan, RegionId};
pub use mmio::MappedRegisters;
pub use nic::{
    Causes, LinkState, MacAddress, Nic, Phase, QueuePair, RxCounters, RxQueue, Statistics, TxQueue,
};
pub use platform::{DmaMemory, Instant, Platform, PlatformError, Registers};
#[cfg(feature = "alloc")]
pub use pool::{FrameBuffer, PoolLayout};
#[cfg(feature = "alloc")]
pub use port::{FrameId, PortCounters, PortError, TxPort};
pub use received::{HashInput, RxChecksum, RxFrame, RxHash, RxPiece, Verdict};
pub use region::{DmaBuffer, FixedBytes, PagedRegion, Region};
#[cfg(feature = "alloc")]
pub use reset::{PortPair, release, restart, shut_down};
pub use ring::{Custody, DescriptorRing, RingCounters};
pub use sharing::{Lendable, Live, Refused, Sharing, Watch};
pub use translation::{GatherFull, GatherList, Granule, MAX_GATHER, Run, Runs, Translation};
