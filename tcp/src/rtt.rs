//! The retransmission timer (RFC 6298).

use core::time::Duration;

/// Retransmission timeout before anything was measured (RFC 6298, rule 2.1).
const INITIAL: Duration = Duration::from_secs(1);
/// The same when the SYN itself was sent again (RFC 6298, rule 5.7).
const INITIAL_AFTER_LOST_SYN: Duration = Duration::from_secs(3);
/// G, the granularity of the clock: that of the timestamps option, a millisecond.
const GRANULARITY: Duration = Duration::from_millis(1);
/// Doublings that are counted. More would change nothing: 2^20 times the granularity is already
/// a quarter of an hour.
const MAX_BACK_OFF: u32 = 20;

/// Estimates the round-trip time of a path and says how long to wait for an acknowledgment.
#[derive(Clone, Copy, Debug)]
pub struct RttEstimator {
    minimum: Duration,
    maximum: Duration,
    initial: Duration,
    estimate: Option<Estimate>,
    /// How often the timeout is doubled.
    back_off: u32,
    /// What follows from the others: it is asked for with every acknowledgment.
    timeout: Duration,
}

/// SRTT and RTTVAR.
#[derive(Clone, Copy, Debug)]
struct Estimate {
    smoothed: Duration,
    variation: Duration,
}

impl RttEstimator {
    /// An estimator that has measured nothing. Every timeout lies between `minimum` (RFC 6298
    /// asks for 1 s, rule 2.4; Linux takes 200 ms) and `maximum` (at least 60 s, rule 2.5), which
    /// wins if it is the smaller one.
    #[must_use]
    pub const fn new(minimum: Duration, maximum: Duration) -> Self {
        let mut estimator = Self {
            minimum,
            maximum,
            initial: INITIAL,
            estimate: None,
            back_off: 0,
            timeout: INITIAL,
        };
        estimator.timeout = estimator.compute();
        estimator
    }

    /// Takes the measured round-trip time `rtt`, and ends the back-off: what was measured is
    /// believed again (RFC 6298 section 5, last paragraph).
    ///
    /// To be called only for bytes that were sent once (Karn, RFC 6298 section 3), or where a
    /// timestamp tells which transmission was acknowledged; and not much more than once per
    /// round trip, or the estimate forgets too fast (RFC 7323 appendix G).
    pub fn sample(&mut self, rtt: Duration) {
        let estimate = match self.estimate {
            // Rule 2.2.
            None => Estimate {
                smoothed: rtt,
                variation: rtt / 2,
            },
            // Rule 2.3, alpha = 1/8, beta = 1/4; the variation first, from the old mean.
            Some(Estimate {
                smoothed,
                variation,
            }) => Estimate {
                variation: weigh(variation, smoothed.abs_diff(rtt), 4),
                smoothed: weigh(smoothed, rtt, 8),
            },
        };
        self.estimate = Some(estimate);
        self.back_off = 0;
        self.timeout = self.compute();
    }

    /// The retransmission timeout, back-off applied.
    #[must_use]
    #[inline]
    pub const fn rto(&self) -> Duration {
        self.timeout
    }

    const fn compute(&self) -> Duration {
        let base = match self.estimate {
            None => self.initial,
            Some(Estimate {
                smoothed,
                variation,
            }) => smoothed.saturating_add(longer(variation.saturating_mul(4), GRANULARITY)),
        };
        let back_off = if self.back_off < MAX_BACK_OFF {
            self.back_off
        } else {
            MAX_BACK_OFF
        };
        let timeout = longer(base, self.minimum).saturating_mul(1 << back_off);
        if timeout.as_nanos() < self.maximum.as_nanos() {
            timeout
        } else {
            self.maximum
        }
    }

    /// Doubles the timeout, up to the maximum: the timer has expired (RFC 6298, rule 5.5).
    pub fn back_off(&mut self) {
        self.back_off = (self.back_off + 1).min(MAX_BACK_OFF);
        self.timeout = self.compute();
    }

    /// Ends the back-off without a measurement. The RFC keeps it until the next
    /// [`sample`](Self::sample); this is for a timeout that turned out to be spurious, or a probe
    /// that was answered.
    pub fn reset_back_off(&mut self) {
        self.back_off = 0;
        self.timeout = self.compute();
    }

    /// To be called when a connection is established whose SYN was sent more than once: without
    /// a measurement the timeout of the first data is 3 s instead of 1 s, and not backed off
    /// (RFC 6298, rule 5.7).
    pub fn handshake_retransmitted(&mut self) {
        self.initial = INITIAL_AFTER_LOST_SYN;
        self.back_off = 0;
        self.timeout = self.compute();
    }

    /// The smoothed round-trip time, SRTT, once something was measured.
    #[must_use]
    pub fn smoothed(&self) -> Option<Duration> {
        self.estimate.map(|e| e.smoothed)
    }
}

/// The longer of two.
const fn longer(one: Duration, other: Duration) -> Duration {
    if one.as_nanos() < other.as_nanos() {
        other
    } else {
        one
    }
}

/// (1 − 1/`divisor`) × `old` + 1/`divisor` × `new`, without overflow for any two durations.
fn weigh(old: Duration, new: Duration, divisor: u32) -> Duration {
    (old - old / divisor).saturating_add(new / divisor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{config, seed};
    use proptest::prelude::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn estimator() -> RttEstimator {
        RttEstimator::new(ms(200), Duration::from_secs(60))
    }

    #[test]
    fn begins_with_one_second() {
        let mut rtt = estimator();
        assert_eq!(rtt.rto(), ms(1000));
        assert_eq!(rtt.smoothed(), None);
        rtt.back_off();
        assert_eq!(rtt.rto(), ms(2000));
    }

    #[test]
    fn first_and_second_sample_follow_the_rules() {
        let mut rtt = estimator();
        rtt.sample(ms(100));
        assert_eq!(rtt.smoothed(), Some(ms(100)));
        assert_eq!(rtt.rto(), ms(300)); // 100 + 4 × 50
        rtt.sample(ms(180));
        assert_eq!(rtt.smoothed(), Some(ms(110))); // 7/8 × 100 + 1/8 × 180
        assert_eq!(rtt.rto(), ms(340)); // 110 + 4 × (3/4 × 50 + 1/4 × 80)
        rtt.sample(ms(30));
        assert_eq!(rtt.smoothed(), Some(ms(100))); // 7/8 × 110 + 1/8 × 30
        assert_eq!(rtt.rto(), Duration::from_micros(352_500)); // 100 + 4 × (43.125 + 20)
    }

    #[test]
    fn granularity_and_minimum_are_floors() {
        let mut rtt = RttEstimator::new(Duration::ZERO, Duration::from_secs(60));
        for _ in 0..200 {
            rtt.sample(ms(100));
        }
        assert_eq!(rtt.rto(), ms(101)); // the variation has died away, G is left
        let mut rtt = estimator();
        rtt.sample(Duration::from_micros(50));
        assert_eq!(rtt.rto(), ms(200));
    }

    #[test]
    fn back_off_doubles_up_to_the_maximum_and_ends_with_a_sample() {
        let mut rtt = estimator();
        rtt.sample(ms(100));
        for expected in [600, 1200, 2400, 4800, 9600, 19_200, 38_400, 60_000, 60_000] {
            rtt.back_off();
            assert_eq!(rtt.rto(), ms(expected));
        }
        for _ in 0..1000 {
            rtt.back_off();
        }
        assert_eq!(rtt.rto(), ms(60_000));
        rtt.sample(ms(100));
        assert_eq!(rtt.rto(), ms(250)); // 100 + 4 × 37.5
        rtt.back_off();
        rtt.reset_back_off();
        assert_eq!(rtt.rto(), ms(250));
    }

    #[test]
    fn a_lost_syn_makes_the_first_timeout_three_seconds() {
        let mut rtt = estimator();
        rtt.back_off();
        rtt.handshake_retransmitted();
        assert_eq!(rtt.rto(), ms(3000));
        rtt.sample(ms(100));
        assert_eq!(rtt.rto(), ms(300));
    }

    proptest! {
        #![proptest_config(config())]

        #[test]
        fn timeout_keeps_its_bounds(
            events in prop::collection::vec(any::<Option<(u64, u32)>>(), 0..40),
        ) {
            let (low, high) = (ms(200), Duration::from_secs(60));
            let mut rtt = RttEstimator::new(low, high);
            let mut largest = Duration::ZERO;
            for event in events {
                match event {
                    Some((secs, nanos)) => {
                        let sample = Duration::new(secs, nanos % 1_000_000_000);
                        largest = largest.max(sample);
                        rtt.sample(sample);
                        prop_assert!(rtt.smoothed() <= Some(largest), "seed {}", seed());
                    }
                    None => rtt.back_off(),
                }
                prop_assert!(low <= rtt.rto() && rtt.rto() <= high, "seed {}", seed());
            }
        }
    }
}
