//! What drivers are made of: the parts that those of this project share, for their authors and for
//! nobody else. A driver may use all of them or none; what it promises is said of [`Nic`] and its
//! queues, not here.
//!
//! - [`Pairs`] keeps the pairs of queues that were not taken, and checks those that are lent for a
//!   reset.
//!
//! [`Nic`]: crate::Nic

mod pairs;

pub use pairs::{Pairs, QueueId};
