//! The conformance suite on a NIC behind VFIO; the far end is another NIC of the same machine,
//! which the kernel drives. For guests of the lab (`tests/lab/run`), and for a real machine with a
//! cable between two ports.
//!
//! `PAGEWIRE_SEED=n` takes that seed instead of 0, and `PAGEWIRE_CHECK=name` runs only the checks
//! whose name contains that.
// A check that fails ends the program by a panic, as a test does.
#![cfg_attr(target_os = "linux", allow(clippy::unwrap_used))]

#[cfg(target_os = "linux")]
mod bench;
#[cfg(target_os = "linux")]
mod packet_socket;
#[cfg(target_os = "linux")]
mod run;
#[cfg(target_os = "linux")]
#[path = "../../../qtest/suite.rs"]
mod suite;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    run::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("VFIO and packet sockets are Linux's");
}
