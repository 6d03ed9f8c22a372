//! Sequence numbers: 32 bits that wrap (RFC 9293 section 3.4).

/// A TCP sequence number.
///
/// Two numbers can be compared only while they are less than 2^31 apart, as all numbers of one
/// window are. There is no `Ord`: the order of sequence numbers is a circle, so it is not
/// transitive, and sorted containers would break on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
#[repr(transparent)]
pub struct SeqNumber(pub u32);

impl SeqNumber {
    /// The number `count` bytes later.
    #[must_use]
    #[inline]
    pub const fn add(self, count: u32) -> Self {
        Self(self.0.wrapping_add(count))
    }

    /// `self` − `earlier` modulo 2^32, as a signed number: negative if `earlier` is later. The
    /// two that are exactly 2^31 apart give `i32::MIN` both ways.
    #[must_use]
    #[inline]
    pub const fn distance(self, earlier: Self) -> i32 {
        self.0.wrapping_sub(earlier.0).cast_signed()
    }

    /// Whether `self` comes before `other`.
    #[must_use]
    #[inline]
    pub const fn is_before(self, other: Self) -> bool {
        self.distance(other) < 0
    }

    /// Whether `self` is `other` or comes before it.
    #[must_use]
    #[inline]
    pub const fn is_at_or_before(self, other: Self) -> bool {
        self.distance(other) <= 0
    }

    /// Whether `self` comes after `other`.
    #[must_use]
    #[inline]
    pub const fn is_after(self, other: Self) -> bool {
        self.distance(other) > 0
    }

    /// Whether `self` is `other` or comes after it.
    #[must_use]
    #[inline]
    pub const fn is_at_or_after(self, other: Self) -> bool {
        self.distance(other) >= 0
    }

    /// The later of the two.
    #[must_use]
    #[inline]
    pub const fn max(self, other: Self) -> Self {
        if self.is_before(other) { other } else { self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{config, seed};
    use proptest::prelude::*;

    #[test]
    fn compares_across_the_wrap() {
        let before = SeqNumber(u32::MAX - 1);
        let after = before.add(3);
        assert_eq!(after, SeqNumber(1));
        assert_eq!(after.distance(before), 3);
        assert_eq!(before.distance(after), -3);
        assert!(before.is_before(after) && after.is_after(before));
        assert!(!after.is_before(before) && !before.is_after(after));
        assert_eq!(before.max(after), after);
        assert_eq!(after.max(before), after);
    }

    #[test]
    fn a_number_is_neither_before_nor_after_itself() {
        let seq = SeqNumber(7);
        assert!(!seq.is_before(seq) && !seq.is_after(seq));
        assert!(seq.is_at_or_before(seq) && seq.is_at_or_after(seq));
    }

    proptest! {
        #![proptest_config(config())]

        #[test]
        fn order_follows_the_distance(start: u32, ahead in 1u32..1 << 31) {
            let earlier = SeqNumber(start);
            let later = earlier.add(ahead);
            let seed = seed();
            prop_assert_eq!(later.distance(earlier).cast_unsigned(), ahead, "seed {}", seed);
            prop_assert_eq!(earlier.distance(later), -ahead.cast_signed(), "seed {}", seed);
            prop_assert!(earlier.is_before(later) && earlier.is_at_or_before(later), "seed {seed}");
            prop_assert!(later.is_after(earlier) && later.is_at_or_after(earlier), "seed {seed}");
            prop_assert_eq!(earlier.max(later), later, "seed {}", seed);
        }
    }
}
