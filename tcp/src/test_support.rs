//! What the randomised tests of this crate share: their seed.

use proptest::test_runner::{Config, RngSeed};

/// The seed of every randomised test: `PROPTEST_RNG_SEED`, or always the same.
pub(crate) fn seed() -> u64 {
    let set = std::env::var("PROPTEST_RNG_SEED").ok();
    set.and_then(|seed| seed.parse().ok())
        .unwrap_or(0x0074_6370)
}

/// A seeded configuration that writes no files.
pub(crate) fn config() -> Config {
    Config {
        rng_seed: RngSeed::Fixed(seed()),
        failure_persistence: None,
        ..Config::default()
    }
}
