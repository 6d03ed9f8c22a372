//! The field Range (RFC 9110 section 14).

use std::ops::Range;

/// What a client wants of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Wanted {
    /// All of it; also where the field is none that we understand, which is to be ignored.
    Whole,
    /// These bytes. There is one at least, and all are in the file.
    Part(Range<u64>),
    /// Bytes that it does not have.
    Outside,
}

/// Reads the field for a file of `len` bytes.
///
/// Several ranges are ignored, as section 14.2 allows, and so is a field that is malformed.
pub(super) fn wanted(field: &str, len: u64) -> Wanted {
    let Some((unit, set)) = field.split_once('=') else {
        return Wanted::Whole;
    };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Wanted::Whole;
    }
    let is_space = |character| matches!(character, ' ' | '\t');
    let ranges = set.split(',').map(|range| range.trim_matches(is_space));
    // Empty elements of a list do not count (section 5.6.1.2).
    let mut ranges = ranges.filter(|range| !range.is_empty());
    match (ranges.next(), ranges.next()) {
        (Some(range), None) => one(range, len).unwrap_or(Wanted::Whole),
        _ => Wanted::Whole,
    }
}

/// Reads one range (section 14.1.2); `None`: it is none.
fn one(range: &str, len: u64) -> Option<Wanted> {
    let (first, last) = range.split_once('-')?;
    if first.is_empty() {
        let count = number(last)?;
        return Some(match (count, len) {
            (0, _) => Wanted::Outside,
            // All of nothing: satisfiable, but Content-Range has no words for it.
            (_, 0) => Wanted::Whole,
            _ => Wanted::Part(len.saturating_sub(count)..len),
        });
    }
    let first = number(first)?;
    let last = match last {
        "" => u64::MAX,
        last => number(last)?,
    };
    if last < first {
        return None;
    }
    if first >= len {
        return Some(Wanted::Outside);
    }
    Some(Wanted::Part(first..last.saturating_add(1).min(len)))
}

/// A number of digits alone; one that is too large is as good as the largest.
fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rfc_9110_14_1_2_byte_ranges() {
        use Wanted::{Outside, Part, Whole};
        for (field, expected) in [
            // The examples of the section, for a file of 10000 bytes.
            ("bytes=0-499", Part(0..500)),
            ("bytes=500-999", Part(500..1000)),
            ("bytes=-500", Part(9500..10000)),
            ("bytes=9500-", Part(9500..10000)),
            ("bytes=0-0,-1", Whole),
            ("bytes= 0-999, 4500-5499, -1000", Whole),
            // Its edges.
            ("bytes=0-0", Part(0..1)),
            ("bytes=9999-9999", Part(9999..10000)),
            ("bytes=9999-20000", Part(9999..10000)),
            ("bytes=10000-", Outside),
            ("bytes=10000-10001", Outside),
            ("bytes=-0", Outside),
            ("bytes=-10000", Part(0..10000)),
            ("bytes=-99999", Part(0..10000)),
            ("bytes=0-18446744073709551615", Part(0..10000)),
            ("bytes=0-99999999999999999999999", Part(0..10000)),
            ("bytes=99999999999999999999999-", Outside),
            ("BYTES=1-2", Part(1..3)),
            ("bytes=, 1-2 ,,", Part(1..3)),
        ] {
            assert_eq!(wanted(field, 10000), expected, "{field}");
        }
    }

    #[test]
    fn rfc_9110_14_2_what_is_not_understood_is_ignored() {
        for field in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=2-1",
            "bytes=1",
            "bytes=+1-2",
            "bytes=1-2-3",
            "bytes=1 - 2",
            "bytes=--1",
            "lines=1-2",
            "bytes=1-2, bytes=3-4",
            "=1-2",
        ] {
            assert_eq!(wanted(field, 10000), Wanted::Whole, "{field}");
        }
    }

    #[test]
    fn an_empty_file_has_no_range() {
        assert_eq!(wanted("bytes=0-", 0), Wanted::Outside);
        assert_eq!(wanted("bytes=0-0", 0), Wanted::Outside);
        assert_eq!(wanted("bytes=-1", 0), Wanted::Whole);
    }

    proptest! {
        #[test]
        fn a_part_is_never_empty_and_always_inside(
            field in "bytes=[0-9]{0,20}-[0-9]{0,20}|\\PC{0,30}",
            len in any::<u64>(),
        ) {
            if let Wanted::Part(part) = wanted(&field, len) {
                prop_assert!(part.start < part.end && part.end <= len, "{part:?} of {len}");
            }
        }

        #[test]
        fn what_is_asked_for_is_given(first in any::<u64>(), more in any::<u64>(), len in 1..u64::MAX) {
            let last = first.saturating_add(more);
            let expected = match first < len {
                true => Wanted::Part(first..last.min(len - 1) + 1),
                false => Wanted::Outside,
            };
            prop_assert_eq!(wanted(&format!("bytes={first}-{last}"), len), expected);
        }
    }
}
