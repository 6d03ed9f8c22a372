//! The e1000e driver on a device that lies, through the safe API: no panic, no access out of
//! bounds, nothing given back twice or early, no wait without end, and errors that say what
//! happened.
//!
//! `PAGEWIRE_SEED=n` replays one seed, `PAGEWIRE_FULL=yes` plays more of them.
// A test may panic: that is how it fails.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod hostile;
#[path = "hostile/named.rs"]
mod named;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use hostile::{Outcome, exercise};
use pagewire_models::e1000e::Lie;

/// An input for `exercise` of some hundred bytes.
fn input(seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bytes: Vec<u8> = (0..7).map(|_| random.u8(..)).collect();
    // Three in four open before the lies begin, and see more than a refusal.
    if random.u8(..) >= 64 {
        bytes[0] &= !1;
    }
    // A lie that is told alone is told often.
    if bytes[3] >= 0xc0 {
        bytes[0] |= 8;
        bytes[5] &= 0x1f;
    }
    let program = random.u16(20..250);
    bytes.extend_from_slice(&program.to_le_bytes());
    let lies = random.u16(..400);
    bytes.extend((0..program + lies).map(|_| random.u8(..)));
    bytes
}

/// Plays one input; `None`, and a line, if that panics.
fn play(input: &[u8], name: &str) -> Option<Outcome> {
    let outcome = catch_unwind(AssertUnwindSafe(|| exercise(input))).ok();
    if outcome.is_none() {
        println!("FAILED: {name}");
    }
    outcome
}

/// The text with one sign for each run of digits, as in "0xff" or "1514".
fn without_numbers(text: &str) -> String {
    let mut kept = String::new();
    for word in text.split(' ') {
        let number = word.starts_with(|c: char| c.is_ascii_digit());
        kept.push_str(if number { "#" } else { word });
        kept.push(' ');
    }
    kept
}

#[test]
fn whatever_the_device_says() {
    let full = std::env::var("PAGEWIRE_FULL").is_ok_and(|value| value == "yes");
    let one: Option<u64> = std::env::var("PAGEWIRE_SEED")
        .ok()
        .map(|n| n.parse().unwrap());
    let seeds = match one {
        Some(seed) => seed..seed + 1,
        None if full => 0..100_000,
        None => 0..3000,
    };
    let mut told = vec![0; Lie::ALL.len()];
    let mut failed = Vec::new();
    let mut errors = BTreeSet::new();
    let (mut opened, mut sent, mut received, mut taken_back) = (0, 0, 0, 0);
    for seed in seeds {
        let Some(outcome) = play(&input(seed), &format!("PAGEWIRE_SEED={seed}")) else {
            failed.push(seed);
            continue;
        };
        for (sum, lie) in told.iter_mut().zip(Lie::ALL) {
            *sum += outcome.lies.told(lie);
        }
        errors.extend(outcome.errors.iter().map(|text| without_numbers(text)));
        opened += u64::from(outcome.opened);
        sent += outcome.sent;
        received += outcome.received;
        taken_back += outcome.taken_back;
    }
    assert!(failed.is_empty(), "PAGEWIRE_SEED={failed:?}");
    println!("{opened} opened, {sent} sent, {received} received, {taken_back} taken back");
    println!("lies: {:?}", Lie::ALL.iter().zip(&told).collect::<Vec<_>>());
    println!("errors: {errors:#?}");
    if one.is_some() {
        return;
    }
    for (lie, count) in Lie::ALL.iter().zip(&told) {
        assert!(*count > 0, "no seed told {lie:?}");
    }
    assert!(opened > 0 && sent > 0 && received > 0 && taken_back > 0);
}

/// What fuzzing has found worth keeping. Any byte string is an input.
#[test]
fn the_kept_corpus() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/e1000e");
    let mut failed = Vec::new();
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        count += 1;
        if play(&bytes, &path.display().to_string()).is_none() {
            failed.push(path);
        }
    }
    assert!(count >= 50, "only {count} files in the corpus");
    assert!(failed.is_empty(), "{failed:?}");
}
