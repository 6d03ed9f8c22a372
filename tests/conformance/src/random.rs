//! Seeded numbers: the same seed gives the same run.

/// A generator of 64 bits (SplitMix64, Steele, Lea and Flood 2014).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 if that is 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.next().checked_rem(bound as u64).unwrap_or(0) as usize
    }

    /// A number from `low` to `high`, both included; `low` if `high` is less.
    pub(crate) fn within(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high.saturating_sub(low).saturating_add(1))
    }

    /// `len` bytes, none of which is zero, so that they are never taken for padding.
    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len.next_multiple_of(8));
        while bytes.len() < len {
            bytes.extend(self.next().to_le_bytes().map(|byte| byte.max(1)));
        }
        bytes.truncate(len);
        bytes
    }
}

/// A seed of its own for what is called `name`, so that it runs alike with others and alone.
pub(crate) fn seed_for(seed: u64, name: &str) -> u64 {
    // FNV-1a.
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    Random::new(seed ^ hash).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_in_their_range_and_reach_its_ends() {
        let mut random = Random::new(1);
        let mut seen = [false; 3];
        for _ in 0..100 {
            let n = random.within(5, 7);
            seen[n - 5] = true;
        }
        assert_eq!(seen, [true; 3], "seed 1");
        assert_eq!(random.within(9, 3), 9, "seed 1");
        assert_eq!(random.below(0), 0, "seed 1");
        assert!(!random.bytes(5000).contains(&0), "seed 1");
    }

    #[test]
    fn each_name_has_a_seed_of_its_own() {
        assert_eq!(seed_for(1, "a"), seed_for(1, "a"));
        assert_ne!(seed_for(1, "a"), seed_for(1, "b"));
        assert_ne!(seed_for(1, "a"), seed_for(2, "a"));
    }
}
