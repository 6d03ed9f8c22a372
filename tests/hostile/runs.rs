//! Many runs: by seed, and of what a fuzzer has kept.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use crate::hostile::{Outcome, Subject, exercise};

/// How many of each thing all runs have seen.
#[derive(Clone, Debug, Default)]
struct Sums {
    opened: u64,
    sent: u64,
    received: u64,
    taken_back: u64,
    /// In the order of [`Subject::LIES`].
    told: Vec<u64>,
    errors: BTreeSet<String>,
}

/// An input for `exercise` of some hundred bytes; `flags` are set, those of `clear` are not.
fn input(seed: u64, flags: u8, clear: u8) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bytes: Vec<u8> = (0..7).map(|_| random.u8(..)).collect();
    // Three in four open before the lies begin, and see more than a refusal.
    if random.u8(..) >= 64 {
        bytes[0] &= !1;
    }
    // Half of the seeds tell one lie alone, and often: half of these from before the driver is
    // opened, as some lies have their place there only.
    if seed.is_multiple_of(3) {
        bytes[3] |= 0xc0;
    }
    if bytes[3] >= 0xc0 {
        bytes[0] |= 8;
        bytes[5] &= 0x1f;
        if random.bool() {
            bytes[0] |= 1;
            bytes[5] &= 3;
        }
    }
    bytes[0] = bytes[0] & !clear | flags;
    let program = random.u16(20..250);
    bytes.extend_from_slice(&program.to_le_bytes());
    let lies = random.u16(..400);
    bytes.extend((0..program + lies).map(|_| random.u8(..)));
    bytes
}

/// Plays one input; `None`, and a line, if that panics.
fn play<S: Subject>(input: &[u8], name: &str) -> Option<Outcome> {
    let outcome = catch_unwind(AssertUnwindSafe(|| exercise::<S>(input))).ok();
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

/// Plays `few` seeds, or `many` with `PAGEWIRE_FULL=yes`, or the one of `PAGEWIRE_SEED`, whose
/// plans have `flags` and not those of `clear`. Every lie that `due` names must have been told.
pub(crate) fn whatever_the_device_says<S: Subject>(
    (few, many): (u64, u64),
    (flags, clear): (u8, u8),
    due: impl Fn(S::Lie) -> bool,
) {
    let full = std::env::var("PAGEWIRE_FULL").is_ok_and(|value| value == "yes");
    let one: Option<u64> = std::env::var("PAGEWIRE_SEED")
        .ok()
        .map(|n| n.parse().unwrap());
    let seeds = match one {
        Some(seed) => seed..seed + 1,
        None => 0..if full { many } else { few },
    };
    let mut sums = Sums {
        told: vec![0; S::LIES.len()],
        ..Sums::default()
    };
    let mut failed = Vec::new();
    for seed in seeds {
        let input = input(seed, flags, clear);
        let Some(outcome) = play::<S>(&input, &format!("PAGEWIRE_SEED={seed}")) else {
            failed.push(seed);
            continue;
        };
        for (sum, told) in sums.told.iter_mut().zip(&outcome.lies) {
            *sum += told;
        }
        let errors = outcome.errors.iter().map(|text| without_numbers(text));
        sums.errors.extend(errors);
        sums.opened += u64::from(outcome.opened);
        sums.sent += outcome.sent;
        sums.received += outcome.received;
        sums.taken_back += outcome.taken_back;
    }
    assert!(failed.is_empty(), "PAGEWIRE_SEED={failed:?}");
    println!(
        "{} opened, {} sent, {} received, {} taken back",
        sums.opened, sums.sent, sums.received, sums.taken_back
    );
    let told: Vec<_> = S::LIES.iter().zip(&sums.told).collect();
    println!("lies: {told:?}");
    println!("errors: {:#?}", sums.errors);
    if one.is_some() {
        return;
    }
    for (lie, count) in told {
        assert!(*count > 0 || !due(*lie), "no seed told {lie:?}");
    }
    assert!(sums.opened > 0 && sums.sent > 0 && sums.received > 0 && sums.taken_back > 0);
}

/// What fuzzing has found worth keeping, at least `least` files. Any byte string is an input.
pub(crate) fn the_kept_corpus<S: Subject>(name: &str, least: usize) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut failed = Vec::new();
    let mut count = 0;
    for entry in std::fs::read_dir(corpus.join(name)).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        count += 1;
        if play::<S>(&bytes, &path.display().to_string()).is_none() {
            failed.push(path);
        }
    }
    assert!(count >= least, "only {count} files in the corpus");
    assert!(failed.is_empty(), "{failed:?}");
}
