//! What drivers are made of: the parts that those of this project share, for their authors and for
//! nobody else. A driver may use all of them or none; what it promises is said of
//! [`Nic`](crate::Nic) and its queues, not here.
//!
//! - [`Pairs`] keeps the pairs of queues that were not taken, and checks those that are lent for a
//!   reset.
//! - [`RxRing`] and [`TxRing`] are what is the same in queues whose device marks descriptors as
//!   done and is told of them by a tail register. [`Buffers`] serve any receive queue.

mod buffers;
mod pairs;
mod receive;
mod transmit;

pub use buffers::Buffers;
pub use pairs::{Pairs, QueueId};
pub use receive::{ReceiveDescriptor, RxRing};
pub use transmit::{TransmitDescriptor, TxRing};

/// Bytes of an Ethernet header.
pub const ETHERNET_HEADER: u32 = 14;
/// Bytes of a VLAN tag, which a received frame may have on top.
pub const VLAN_TAG: u32 = 4;
/// Bytes of a frame check sequence.
pub const FRAME_CHECK_SEQUENCE: u32 = 4;
