//! Where a hostile device takes its decisions from.

use std::sync::Arc;

use crate::pace::Random;

/// Decisions: without end from a seed, or as many as a script has.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    Seed(Random),
    Script { bytes: Arc<[u8]>, at: usize },
}

impl Source {
    /// Whether there is another decision.
    pub(crate) fn has_more(&self) -> bool {
        match self {
            Self::Seed(_) => true,
            Self::Script { bytes, at } => *at < bytes.len(),
        }
    }

    pub(crate) fn is_script(&self) -> bool {
        matches!(self, Self::Script { .. })
    }

    /// The next byte; 0 when the script has run out.
    pub(crate) fn byte(&mut self) -> u8 {
        match self {
            Self::Seed(random) => (random.next() >> 56) as u8,
            Self::Script { bytes, at } => {
                let byte = bytes.get(*at).copied().unwrap_or(0);
                *at = at.saturating_add(1);
                byte
            }
        }
    }

    pub(crate) fn half(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    pub(crate) fn word(&mut self) -> u32 {
        u32::from(self.half()) | u32::from(self.half()) << 16
    }

    pub(crate) fn long(&mut self) -> u64 {
        u64::from(self.word()) | u64::from(self.word()) << 32
    }

    /// A byte's choice among `count`; 0 if there is nothing to choose from.
    pub(crate) fn choose(&mut self, count: usize) -> usize {
        usize::from(self.byte()).checked_rem(count).unwrap_or(0)
    }

    /// How many opportunities to let pass before the next lie: a byte of the script, or on average
    /// `mean` from a seed.
    pub(crate) fn gap(&mut self, mean: u32) -> u32 {
        match self {
            Self::Script { .. } => u32::from(self.byte()),
            Self::Seed(random) => random.below(2 * u64::from(mean) + 1) as u32,
        }
    }

    /// Fills `target` from two bytes of the source, so that a scribble does not eat a script up.
    pub(crate) fn fill(&mut self, target: &mut [u8]) {
        let mut random = Random::new(u64::from(self.half()));
        for chunk in target.chunks_mut(8) {
            for (byte, value) in chunk.iter_mut().zip(random.next().to_le_bytes()) {
                *byte = value;
            }
        }
    }
}
