//! The cases, and their names.

use std::fmt;

/// What is done with bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    /// Copied, by the platform's `memcpy`.
    Memcpy,
    /// Copied by `memcpy`, and then summed where they are.
    MemcpyAndSum,
    /// Copied and summed in one pass.
    Fused,
    /// The same without vectors.
    FusedPortable,
    /// Summed.
    Sum,
    /// The same without vectors.
    SumPortable,
}

impl Work {
    /// All of it.
    pub const ALL: [Self; 6] = [
        Self::Memcpy,
        Self::MemcpyAndSum,
        Self::Fused,
        Self::FusedPortable,
        Self::Sum,
        Self::SumPortable,
    ];

    /// As in the table.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Memcpy => "memcpy",
            Self::MemcpyAndSum => "memcpy,sum",
            Self::Fused => "fused",
            Self::FusedPortable => "fused-portable",
            Self::Sum => "sum",
            Self::SumPortable => "sum-portable",
        }
    }
}

/// Lengths in bytes.
pub const LENS: [usize; 7] = [64, 256, 512, 1448, 4096, 16384, 65536];

/// Where the bytes are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// In the cache.
    Hot,
    /// In memory.
    Cold,
}

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Case {
    /// Where the bytes are.
    pub source: Source,
    /// How many there are.
    pub len: usize,
    /// What is done.
    pub work: Work,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = match self.source {
            Source::Hot => "hot",
            Source::Cold => "cold",
        };
        write!(f, "{source}/{}/{}", self.len, self.work.name())
    }
}

/// All cases, the works of one length one after the other.
#[must_use]
pub fn all(sources: &[Source]) -> Vec<Case> {
    let mut cases = Vec::new();
    for source in sources {
        for len in LENS {
            cases.extend(Work::ALL.map(|work| Case {
                source: *source,
                len,
                work,
            }));
        }
    }
    cases
}
