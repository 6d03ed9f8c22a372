//! Time does not overflow.

use super::*;

#[test]
fn time_saturates_at_both_ends() {
    let end = Instant::from_nanos(u64::MAX);
    assert_eq!(end + Duration::from_nanos(1), end);
    assert_eq!(Instant::ZERO + Duration::MAX, end);
    assert_eq!(Instant::ZERO.saturating_since(end), Duration::ZERO);
    let since = end.saturating_since(Instant::ZERO);
    assert_eq!(since, Duration::from_nanos(u64::MAX));
    let later = Instant::from_nanos(5) + Duration::from_micros(2);
    assert_eq!(later.as_nanos(), 2005);
}
