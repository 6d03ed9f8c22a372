//! Sans-IO TCP sender that shares user pages with the NIC where they fit its gather list.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod checksum;
pub mod congestion;
pub mod isn;
pub mod neighbour;
pub mod route;
pub mod rtt;
pub mod sack;
pub mod seq;
pub mod wire;
