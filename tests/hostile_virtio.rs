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

/// Lies about what is read a few times, at open or in a reset: some hundred seeds need
/// not hit them. Those at open have a test of their own.
const SELDOM: [Lie; 16] = [
    Lie::NotifyMultiplier,
    Lie::FeaturesChanged,
    Lie::QueueCount,
    Lie::QueueSize,
    Lie::NotifyOffset,
    Lie::VectorRefused,
    Lie::EnableWrong,
    Lie::QueueResetNeverEnds,
    Lie::GenerationUnsettled,
    Lie::MacNonsense,
    Lie::MtuNonsense,
    Lie::PairsNonsense,
    Lie::IdChanged,
    Lie::AnswerMissing,
    Lie::AnswerGarbage,
    Lie::CommandLost,
];

/// What some of 1,500 seeds must tell.
fn is_due(lie: Lie) -> bool {
    !SELDOM.contains(&lie)
}

#[test]
fn whatever_the_device_says_split() {
    let due = |lie| is_due(lie) && lie != Lie::FlagsFlipped;
    runs::whatever_the_device_says::<Virtio>((1500, 50_000), (0, PACKED), due);
}

#[test]
fn whatever_the_device_says_packed() {
    runs::whatever_the_device_says::<Virtio>((1500, 50_000), (PACKED, 0), is_due);
}

#[test]
fn the_kept_corpus() {
    runs::the_kept_corpus::<Virtio>("virtio", 50);
}

removal::tests!(Virtio);
