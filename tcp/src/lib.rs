//! A TCP sender that shares the program's pages with the NIC, segment by segment, where they
//! fit its gather list, and copies where they do not.
//!
//! The crate does no input or output and has no clock. A [`Stack`] owns a
//! [`TxPort`](pagewire_hal::TxPort); received frames and the time are arguments of
//! [`Stack::input`] and [`Stack::poll`].
//!
//! The way of a byte: [`Stack::register`] makes a region known; [`Stack::send`] borrows ranges of
//! it, of any length and alignment, and from then on they do not change; `poll` decides how much
//! may go, counts the pieces that the device would have to gather ([`plan`]), and either attaches
//! the pages behind a header or copies them; an acknowledgment gives the connection's loan back,
//! a completion the device's; the last of both releases the page, and [`Stack::completion`] tells
//! the program. `transmit.rs` has the path of a segment, in the steps of the sketch of 1997 from
//! which it comes.
//!
//! Where the device cuts long frames into segments (TSO), what may go at a time is handed over as
//! one frame of up to 64 KiB; see [`plan`] for what the page budget makes of it.
//!
//! What is not here: IPv6, reassembly of IP fragments, path MTU discovery, ECN, urgent data,
//! keep-alives, delayed acknowledgments, pacing. It receives in order only: what comes out of
//! order is sent again by the peer.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod checksum;
pub mod congestion;
pub mod isn;
pub mod neighbour;
pub mod plan;
pub mod route;
pub mod rtt;
pub mod sack;
pub mod seq;
pub mod wire;

mod connection;
mod connection_ack;
mod connection_input;
mod connection_loss;
mod connection_output;
mod flight;
mod headers;
mod lending;
mod receive;
mod segmentation;
mod send_buffer;
mod share;
mod stack;
mod stack_config;
mod stack_input;
mod stack_poll;
mod stack_send;
mod stats;
#[cfg(test)]
mod test_support;
mod transmit;

pub use connection::{ConnectionError, State};
pub use lending::{CopiedEarly, CopyRule, Explanation, OnWrite, SendOptions, Thresholds};
pub use send_buffer::{Completion, Outcome, Slice};
pub use stack::{ConnectionId, Stack};
pub use stack_config::{ConnectError, SendError, StackConfig, StackError};
pub use stats::{
    Checksums, ConnectionStats, Copied, Count, Dropped, LentTimes, Segmented, StackStats,
};
