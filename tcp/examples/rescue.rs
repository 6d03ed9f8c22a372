//! What it costs to send a segment whose pieces do not fit the gather list: copy the shortest
//! prefix (a rescue), end the segment at a piece instead, or copy all of it.
//!
//! The whole stack runs, on a queue that reads nothing: this is the time of the CPU alone, per
//! kilobyte of payload. Hot is a region that fits the caches, cold one that does not fit any.
//!
//! `cargo run --release -p pagewire-tcp --example rescue`

#![allow(clippy::expect_used)] // a measurement may panic

mod harness;

use harness::{Case, measure};
use pagewire_hal::ChecksumOffload;

/// Never shared in part: all or nothing.
const NO_RESCUE: usize = 1 << 20;

/// A layout of the program's data, and how many of its pieces fit.
#[derive(Clone, Copy)]
struct Layout {
    name: &'static str,
    /// Lengths of the slices of the data, over and over, with gaps between.
    slices: &'static [usize],
    mtu: u16,
    max_fragments: u16,
    /// Payload of a segment that ends at a piece.
    shortened: u16,
}

/// What to do with a segment of too many pieces.
#[derive(Clone, Copy)]
enum Way {
    Rescue,
    Shorten,
    CopyAll,
    /// A device that takes one piece more: what it is all compared with.
    Fits,
}

const LAYOUTS: [Layout; 6] = [
    Layout {
        name: "4 x 365, prefix 365",
        slices: &[365],
        mtu: 1500,
        max_fragments: 4,
        shortened: 1095,
    },
    Layout {
        name: "100 + 1360, prefix 100",
        slices: &[100, 1360],
        mtu: 1500,
        max_fragments: 2,
        shortened: 1360,
    },
    Layout {
        name: "948 + 512, prefix 948",
        slices: &[948, 512],
        mtu: 1500,
        max_fragments: 2,
        shortened: 948,
    },
    Layout {
        name: "4 x 2240, prefix 2240",
        slices: &[2240],
        mtu: 9000,
        max_fragments: 4,
        shortened: 6720,
    },
    Layout {
        name: "768 + 2 x 4096, prefix 768",
        slices: &[768, 4096, 4096],
        mtu: 9000,
        max_fragments: 3,
        shortened: 8192,
    },
    Layout {
        name: "8448 + 512, prefix 8448",
        slices: &[8448, 512],
        mtu: 9000,
        max_fragments: 2,
        shortened: 8448,
    },
];

impl Layout {
    fn case(&self, way: Way) -> Case {
        let whole = self.mtu - 40;
        Case {
            slices: self.slices,
            mtu: self.mtu,
            max_fragments: self.max_fragments + u16::from(matches!(way, Way::Fits)),
            mss: if matches!(way, Way::Shorten) {
                self.shortened
            } else {
                whole
            },
            share_min: if matches!(way, Way::CopyAll) {
                NO_RESCUE
            } else {
                1
            },
            segmentation: None,
        }
    }
}

fn line(name: &str, case: &Case) {
    print!("    {name:30}");
    let all = ChecksumOffload::TCP_IPV4 | ChecksumOffload::IPV4_HEADER;
    for checksum in [all, ChecksumOffload::empty()] {
        let hot = measure(case, checksum, 128 << 10, 3000);
        let cold = measure(case, checksum, 128 << 20, 20);
        print!(" {hot:7.1} {cold:7.1}");
    }
    println!();
}

fn main() {
    println!("ns per KiB of payload                   device sums       CPU sums");
    println!("                                        hot    cold     hot    cold");
    for mtu in [1500, 9000] {
        println!("slices of 32 KiB, MTU {mtu}");
        for (name, max_fragments) in [("shares", 4), ("does not gather", 1)] {
            let case = Case {
                slices: &[32 << 10],
                mtu,
                max_fragments,
                mss: mtu - 40,
                share_min: 1,
                segmentation: None,
            };
            line(name, &case);
        }
    }
    for layout in LAYOUTS {
        println!("{}", layout.name);
        for (name, way) in [
            ("rescue", Way::Rescue),
            ("ends at a piece", Way::Shorten),
            ("copies all", Way::CopyAll),
            ("one piece more fits", Way::Fits),
        ] {
            line(name, &layout.case(way));
        }
    }
}
