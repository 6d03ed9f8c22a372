//! The calls that people know, on models of the NICs: what arrives, what is mapped, and what a program
//! hears of it.
#![cfg(target_os = "linux")]
// A test may panic: that is how it fails.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "sharing/machine.rs"]
#[allow(dead_code, reason = "the tests of sharing use the rest")]
mod machine;
#[path = "sharing/receiver.rs"]
#[allow(dead_code, reason = "the tests of sharing use the rest")]
mod receiver;

#[path = "outbox/calls.rs"]
mod calls;
#[path = "outbox/desk.rs"]
mod desk;
#[path = "outbox/limits.rs"]
mod limits;
#[path = "outbox/notices.rs"]
mod notices;
#[path = "outbox/schedules.rs"]
mod schedules;
