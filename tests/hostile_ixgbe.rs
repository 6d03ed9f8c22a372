//! The ixgbe driver on a device that lies, through the safe API: no panic, no access out of
//! bounds, nothing given back twice or early, no wait without end, and errors that say what
//! happened. One pair of queues, and several.
//!
//! `PAGEWIRE_SEED=n` replays one seed, `PAGEWIRE_FULL=yes` plays more of them.
// A test may panic: that is how it fails.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod hostile;
#[path = "hostile/lies.rs"]
mod lies;
#[path = "hostile/named_intel.rs"]
mod named;
#[path = "hostile/named_ixgbe.rs"]
mod named_ixgbe;
#[path = "hostile/removal.rs"]
mod removal;
#[path = "hostile/runs.rs"]
mod runs;

use hostile::Ixgbe;

#[test]
fn whatever_the_device_says() {
    runs::whatever_the_device_says::<Ixgbe>((3000, 100_000), (0, 0), |_| true);
}

#[test]
fn the_kept_corpus() {
    runs::the_kept_corpus::<Ixgbe>("ixgbe", 50);
}

removal::tests!(Ixgbe);
named::tests!(Ixgbe);
