//! What drivers are made of: the parts that those of this project share, for their authors and for
//! nobody else. A driver may use all of them or none; what it promises is said of
//! [`Nic`](crate::Nic) and its queues, not here.
//!
//! - [`Bar`] names registers, and keeps those that tell the device of memory apart.
//! - [`identify()`] and [`wait_until`] are for opening a device.
//! - [`Pairs`] keeps the pairs of queues that were not taken, and checks those that are lent for a
//!   reset.
//! - [`RxRing`] and [`TxRing`] are what is the same in queues whose device marks descriptors as
//!   done and is told of them by a tail register. [`Buffers`] serve any receive queue.
//! - [`Vectors`] says which MSI-X vector is whose.
//! - [`check_storing`] is for self-tests: whether registers hold what is written.
//! - [`State`] and [`Step`] are the way to quiet, [`HangWatch`] the reason to go there.
//! - [`intel`] is what two families of one maker share, as that has to be somewhere once.

mod buffers;
mod check;
mod identify;
pub mod intel;
mod pairs;
mod receive;
mod registers;
mod state;
mod transmit;
mod vectors;
mod wait;

pub use crate::frame::Lengths;
pub use buffers::Buffers;
pub use check::{RegisterError, StoringRegisters, WrongRegister, check_storing};
pub use identify::identify;
pub use pairs::{Pairs, QueueId, ReceiveHalf, TransmitHalf};
pub use receive::{ReceiveDescriptor, RxRing};
pub use registers::{Bar, Register, RingRegister};
pub use state::{HANG_INTERVAL, HangWatch, State, Step};
pub use transmit::{Remembered, TransmitDescriptor, TxRing};
pub use vectors::Vectors;
pub use wait::wait_until;

/// Bytes of an Ethernet header.
pub const ETHERNET_HEADER: u32 = 14;
/// Bytes of a VLAN tag, which a received frame may have on top.
pub const VLAN_TAG: u32 = 4;
/// Bytes of a frame check sequence.
pub const FRAME_CHECK_SEQUENCE: u32 = 4;

/// Bytes in a receive buffer that holds every frame of up to `longest` bytes without frame check
/// sequence: the smallest power of two from 2 KiB that has room for a VLAN tag and the frame check
/// sequence as well.
#[must_use]
pub const fn receive_buffer_len(longest: u32) -> u32 {
    let len = (longest + VLAN_TAG + FRAME_CHECK_SEQUENCE).next_power_of_two();
    if len < 2048 { 2048 } else { len }
}
