//! What Pagewire costs: instructions by callgrind, and nanoseconds.
//!
//! Each driver is opened on its real model, and then the model is taken away: registers become
//! plain memory, and descriptors are marked as done by the bench, outside the measured part. So
//! what is counted is the driver and the layer above it, and nothing else.
//!
//! Not by gungraun, which starts one valgrind for each benchmark and divides nothing by frames:
//! here all cases run in one valgrind, and counts are kept per frame in a file of the repository.

pub mod callgrind;
pub mod copy;
pub mod frames;
pub mod guard;
pub mod memory;
pub mod platform;
pub mod report;
pub mod sender;
