//! The virtio-net driver on a device that lies, through the safe API: no panic, no access out of
//! bounds, nothing given back twice or early, no wait without end, and errors that say what
//! happened. Each test in both formats of the rings.
//!
//! `PAGEWIRE_SEED=n` replays one seed, `PAGEWIRE_FULL=yes` plays more of them.
// A test may panic: that is how it fails.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod hostile;
#[path = "hostile/lies.rs"]
mod lies;
#[path = "hostile/named_virtio.rs"]
mod named;
#[path = "hostile/removal.rs"]
mod removal;
#[path = "hostile/runs.rs"]
mod runs;

use hostile::Virtio;
use pagewire_models::virtio::Lie;

/// The flag for packed rings.
const PACKED: u8 = 4;

/// All lies but one about a register that the driver does not read: `queue_enable`.
fn is_due(lie: Lie) -> bool {
    lie != Lie::EnableWrong
}

#[test]
fn whatever_the_device_says_split() {
    let due = |lie| is_due(lie) && lie != Lie::FlagsFlipped;
    runs::whatever_the_device_says::<Virtio>((6000, 50_000), (0, PACKED), due);
}

#[test]
fn whatever_the_device_says_packed() {
    runs::whatever_the_device_says::<Virtio>((6000, 50_000), (PACKED, 0), is_due);
}

#[test]
fn the_kept_corpus() {
    runs::the_kept_corpus::<Virtio>("virtio", 50);
}

removal::tests!(Virtio);
