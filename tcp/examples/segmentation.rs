//! What segmentation by the device saves: the CPU's part of a transfer in segments and in
//! requests, with a payload of few pieces and of many.
//!
//! The whole stack runs, on a queue that reads nothing. Without an argument it prints the time
//! per KiB of payload; with the name of a case it sends so many MiB (64 if not told) of it, to be
//! counted by a profiler. What the start costs is what the difference of two lengths leaves out.
//!
//! `cargo run --release -p pagewire-tcp --example segmentation`
//!
//! `valgrind --tool=callgrind target/release/examples/segmentation requests-32k 64`

#![allow(clippy::expect_used)] // a measurement may panic

mod harness;

use harness::{Case, Run, measure, slices};
use pagewire_hal::{ChecksumOffload, Granule, Segmentation};
use pagewire_models::host::{Host, HostConfig};

/// What the program hands in.
const SLICES: [(&str, &[usize]); 3] = [("32k", &[32 << 10]), ("4k", &[4 << 10]), ("700", &[700])];

/// As most devices have them.
fn limits() -> Segmentation {
    let mut limits = Segmentation::new(65535, 192);
    limits.ipv4 = true;
    limits.seed_has_length = true;
    limits
}

fn cases() -> Vec<(String, Case)> {
    let mut cases = Vec::new();
    for (name, slices) in SLICES {
        for (kind, segmentation) in [("segments", None), ("requests", Some(limits()))] {
            let case = Case {
                slices,
                mtu: 1500,
                max_fragments: 64,
                mss: 1460,
                share_min: 512,
                segmentation,
            };
            cases.push((format!("{kind}-{name}"), case));
        }
    }
    cases
}

/// Sends `mib` MiB, and tells what was sent.
fn send(case: &Case, mib: usize) {
    const REGION: usize = 1 << 20;
    let host = Host::new(HostConfig {
        seed: 1,
        granule: Granule::from_bytes(4096).expect("a power of two"),
    });
    let mut run = Run::new(case, ChecksumOffload::TCP_IPV4, &host);
    let region = host.register(vec![0x55u8; REGION]).expect("memory");
    let region = run.stack.register(region).expect("one domain");
    let slices = slices(case, region, REGION);
    let bytes: usize = slices.iter().map(|slice| slice.len).sum();
    let per_batch = ((256 << 10) * slices.len() / bytes).max(1);
    for _ in 0..mib {
        run.send(&slices, per_batch);
    }
    let stats = run.stack.connection_stats(run.id).expect("it is open");
    println!(
        "{} bytes in {} segments; {} requests of {} bytes, {} ended by the page budget",
        stats.data.bytes,
        stats.data.segments,
        stats.segmented.requests,
        stats.segmented.mean_payload().unwrap_or(0),
        stats.segmented.ended_by_budget
    );
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    if let Some(wanted) = arguments.next() {
        let mib = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(64);
        match cases().iter().find(|(name, _)| *name == wanted) {
            Some((_, case)) => send(case, mib),
            None => println!("no such case: {wanted}"),
        }
        return;
    }
    println!("ns per KiB of payload      hot    cold");
    for (name, case) in cases() {
        let hot = measure(&case, ChecksumOffload::TCP_IPV4, 1 << 20, 300);
        let cold = measure(&case, ChecksumOffload::TCP_IPV4, 128 << 20, 5);
        println!("{name:20} {hot:9.1} {cold:7.1}");
    }
}
