//! Which MSI-X vector says what, for a device of several pairs of queues.

use crate::{Causes, Platform};

/// Vectors for `pairs` pairs: that of the rest is the last. Of the others each queue has one,
/// receive and transmit in turns, or else each pair has one, or else pairs share them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vectors {
    count: u16,
    pairs: u16,
}

impl Vectors {
    /// Vectors that a device of `pairs` queue pairs has use for.
    #[must_use]
    pub const fn wanted(pairs: u16) -> u16 {
        2 * pairs + 1
    }

    /// Of `count` vectors, from 1 to [`wanted`](Self::wanted) and at most 64.
    #[must_use]
    pub const fn new(count: u16, pairs: u16) -> Self {
        Self { count, pairs }
    }

    /// Vectors in use.
    #[must_use]
    pub const fn count(self) -> u16 {
        self.count
    }

    /// Pairs of queues.
    #[must_use]
    pub const fn pairs(self) -> u16 {
        self.pairs
    }

    /// Of queue `index`: receive queues are even, transmit queues odd.
    #[must_use]
    pub const fn queue(self, index: u16) -> u16 {
        if self.count >= Self::wanted(self.pairs) {
            index
        } else if self.count > 1 {
            // With a vector for each pair this is the pair's.
            index / 2 % (self.count - 1)
        } else {
            0
        }
    }

    /// Of all that is no queue's.
    #[must_use]
    pub const fn rest(self) -> u16 {
        self.count.saturating_sub(1)
    }

    /// Which vectors have fired since the last time, a bit each, and what those of the queues mean.
    pub fn take<P: Platform>(self, platform: &mut P) -> (u64, Causes) {
        let mut fired = 0u64;
        for vector in 0..self.count {
            fired |= u64::from(platform.take_interrupt(vector)) << vector;
        }
        let mut causes = Causes::empty();
        for index in 0..2 * self.pairs {
            if fired >> self.queue(index) & 1 != 0 {
                let is_receive = index.is_multiple_of(2);
                causes |= if is_receive {
                    Causes::RECEIVE
                } else {
                    Causes::TRANSMIT
                };
            }
        }
        (fired, causes)
    }
}

#[cfg(test)]
mod tests {
    use super::Vectors;

    #[test]
    fn vectors_are_in_the_table_and_each_is_used() {
        for pairs in 1..=16 {
            for count in 1..=Vectors::wanted(pairs) {
                let vectors = Vectors::new(count, pairs);
                let mut used = std::vec![false; usize::from(count)];
                used[usize::from(vectors.rest())] = true;
                for index in 0..2 * pairs {
                    used[usize::from(vectors.queue(index))] = true;
                }
                let own = count <= pairs + 1 || count == Vectors::wanted(pairs);
                assert!(!own || !used.contains(&false), "{count} for {pairs} pairs");
            }
        }
        let shared = Vectors::new(3, 4);
        let of: std::vec::Vec<_> = (0..8).map(|index| shared.queue(index)).collect();
        assert_eq!(of, [0, 0, 1, 1, 0, 0, 1, 1]);
    }
}
