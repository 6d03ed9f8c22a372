//! Memory that the program goes on writing while it is sent: the sender, all three drivers on their
//! models, a wire that loses frames, and smoltcp as the receiver, which gets the bytes of the time of
//! each call.
// A test may panic: that is how it fails.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../tcp/tests/common/guarded.rs"]
#[allow(dead_code)] // what the sender's own tests use besides
mod guarded;
#[path = "sharing/machine.rs"]
mod machine;
#[path = "sharing/receiver.rs"]
mod receiver;
#[path = "sharing/schedules.rs"]
mod schedules;
#[cfg(target_os = "linux")]
#[path = "sharing/scribble.rs"]
mod scribble;
#[cfg(target_os = "linux")]
#[path = "sharing/systems.rs"]
mod systems;
