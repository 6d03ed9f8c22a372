//! Where a hostile device takes its decisions from.

/// Decisions: without end from a seed, or as many as a script has.
#[derive(Clone, Debug)]
pub(super) enum Source {
    Seed(fastrand::Rng),
    Script { bytes: Vec<u8>, at: usize },
}

impl Source {
    /// Whether there is another decision.
    pub(super) fn has_more(&self) -> bool {
        match self {
            Self::Seed(_) => true,
            Self::Script { bytes, at } => *at < bytes.len(),
        }
    }

    pub(super) fn is_script(&self) -> bool {
        matches!(self, Self::Script { .. })
    }

    /// The next byte; 0 when the script has run out.
    pub(super) fn byte(&mut self) -> u8 {
        match self {
            Self::Seed(random) => random.u8(..),
            Self::Script { bytes, at } => {
                let byte = bytes.get(*at).copied().unwrap_or(0);
                *at = at.saturating_add(1);
                byte
            }
        }
    }

    pub(super) fn half(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    pub(super) fn word(&mut self) -> u32 {
        u32::from(self.half()) | u32::from(self.half()) << 16
    }

    pub(super) fn long(&mut self) -> u64 {
        u64::from(self.word()) | u64::from(self.word()) << 32
    }

    /// A byte's choice among `count`; 0 if there is nothing to choose from.
    pub(super) fn choose(&mut self, count: usize) -> usize {
        usize::from(self.byte()).checked_rem(count).unwrap_or(0)
    }

    /// One of `values`; 0 if there are none.
    pub(super) fn pick(&mut self, values: &[u32]) -> u32 {
        let choice = self.choose(values.len());
        values.get(choice).copied().unwrap_or(0)
    }

    /// How many opportunities to let pass before the next lie: a byte of the script, or on average
    /// `mean` from a seed.
    pub(super) fn gap(&mut self, mean: u32) -> u32 {
        match self {
            Self::Script { .. } => u32::from(self.byte()),
            Self::Seed(random) => random.u32(..=mean.saturating_mul(2)),
        }
    }

    /// Fills `target` from two bytes of the source, so that a scribble does not eat a script up.
    pub(super) fn fill(&mut self, target: &mut [u8]) {
        fastrand::Rng::with_seed(self.half().into()).fill(target);
    }
}
