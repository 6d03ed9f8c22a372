//! What the models of Intel NICs have in common: their lies.

use pagewire_models::ixgbe::{Hostile, Lie, Lies};

use super::script::Decisions;

/// See [`Subject::is_truthful`](super::Subject::is_truthful).
const TRUTHFUL: [Lie; 13] = [
    Lie::RegisterNonsense,
    Lie::ReadyNever,
    Lie::ReadyAtOnce,
    Lie::RingIndex,
    Lie::DoneTakenAway,
    Lie::WrongLength,
    Lie::ErrorBits,
    Lie::WriteBackLost,
    Lie::InterruptAtRandom,
    Lie::InterruptLost,
    Lie::NeverQuiet,
    Lie::ResetNeverClears,
    Lie::LinkFlap,
];

pub(super) fn is_truthful(lie: Lie) -> bool {
    TRUTHFUL.contains(&lie)
}

pub(super) fn hostile(decisions: Decisions<'_>, lies: &[Lie]) -> Hostile {
    let hostile = match decisions {
        Decisions::Script(bytes) => Hostile::from_bytes(bytes),
        Decisions::Seed { seed, gap } => Hostile::from_seed(seed).with_gap(gap),
    };
    hostile.with_lies(lies.iter().copied().fold(Lies::none(), Lies::with))
}
