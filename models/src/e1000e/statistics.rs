//! Statistics: the device's registers, cleared by reading, and what the model counts for the
//! people around it.

use super::bits::{offset, statistic};

const COUNT: usize = ((offset::ICRXOC - offset::CRCERRS) / 4 + 1) as usize;

/// The registers of 64 bits, octets all: the lower half of each.
const WIDE: [u32; 4] = [
    statistic::GORC,
    statistic::GOTC,
    statistic::TOR,
    statistic::TOT,
];

/// The registers. A 32-bit one stops at its greatest value (82583V datasheet 9.2.7); of a 64-bit
/// one the upper half, read last, clears both (8254x SDM 13.7.31).
///
/// What becomes of octets that are counted between the reading of the two halves is not said.
/// Here they are in the next reading, or lost, as [`Latitude`](super::Latitude) has it: Linux e1000e
/// adds up the lower halves it has read, and reads the upper ones only to clear.
pub(super) struct Statistics {
    words: [u32; COUNT],
    /// The whole of each when its lower half was read, if that was since it was cleared.
    shown: [Option<u64>; WIDE.len()],
}

impl Statistics {
    pub(super) const fn new() -> Self {
        Self {
            words: [0; COUNT],
            shown: [None; WIDE.len()],
        }
    }

    fn word(&mut self, at: u32) -> Option<&mut u32> {
        let index = at.checked_sub(offset::CRCERRS)? / 4;
        self.words.get_mut(index as usize)
    }

    pub(super) fn count(&mut self, at: u32) {
        if let Some(word) = self.word(at) {
            *word = word.saturating_add(1);
        }
    }

    /// Adds to the 64-bit register whose lower half is at `at`.
    pub(super) fn add(&mut self, at: u32, bytes: u64) {
        let sum = self.wide(at).saturating_add(bytes);
        self.set_wide(at, sum);
    }

    fn wide(&mut self, at: u32) -> u64 {
        let low = self.word(at).map_or(0, |word| *word);
        let high = self.word(at + 4).map_or(0, |word| *word);
        u64::from(high) << 32 | u64::from(low)
    }

    fn set_wide(&mut self, at: u32, value: u64) {
        if let Some(word) = self.word(at) {
            *word = value as u32;
        }
        if let Some(word) = self.word(at + 4) {
            *word = (value >> 32) as u32;
        }
    }

    /// Counts a frame of `len` bytes, check sequence included, by its size; `first` is the
    /// register of the smallest size.
    pub(super) fn count_size(&mut self, first: u32, len: usize) {
        let class = match len {
            0..=64 => 0,
            65..=127 => 1,
            128..=255 => 2,
            256..=511 => 3,
            512..=1023 => 4,
            _ => 5,
        };
        self.count(first + 4 * class);
    }

    /// Reads a register; `forgets` if what is counted between the two halves of one is lost.
    pub(super) fn read(&mut self, at: u32, forgets: bool) -> u32 {
        let position = |at: u32| WIDE.iter().position(|wide| *wide == at);
        if let Some(index) = position(at) {
            let value = self.wide(at);
            if let Some(shown) = self.shown.get_mut(index) {
                *shown = Some(value);
            }
            return value as u32;
        }
        let Some(index) = position(at.wrapping_sub(4)) else {
            return self.word(at).map_or(0, core::mem::take);
        };
        let value = self.wide(at - 4);
        let shown = self.shown.get_mut(index).and_then(Option::take);
        let read = shown.unwrap_or(value);
        let left = if forgets {
            0
        } else {
            value.saturating_sub(read)
        };
        self.set_wide(at - 4, left);
        (read >> 32) as u32
    }
}

/// Frames by number of fragments; the last entry counts all that had more.
pub const HISTOGRAM: usize = 66;

/// What an [`E1000e82574`](super::E1000e82574) has done since it was made. No reset clears it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Counters {
    /// Frames put on the wire.
    pub frames_sent: u64,
    /// Their bytes, padding included, without the frame check sequence.
    pub bytes_sent: u64,
    /// Frames that were fetched and not put on the wire: too many fragments, or a violation.
    pub frames_dropped: u64,
    /// Of these, dropped silently for having more than 64 fragments.
    pub frames_of_too_many_fragments: u64,
    /// Of these, dropped silently for a header that was cut off
    /// ([`drops_cut_headers`](super::QemuDeviations::drops_cut_headers)).
    pub frames_with_cut_headers: u64,
    /// Frames and requests for segmentation fetched, by number of fragments: entry *n* counts those of *n*, the last one also
    /// all those of more.
    pub fragments: [u64; HISTOGRAM],
    /// The largest number of fragments of a frame.
    pub most_fragments: u32,
    /// Requests that the device segmented.
    pub segmented: u64,
    /// Frames that segmentation made; they are among those sent.
    pub segments_made: u64,
    /// Checksums that the device put into frames, those of segments included.
    pub checksums_inserted: u64,
    /// VLAN tags that the device put on, those of segments included.
    pub tags_inserted: u64,
    /// Frames stored in receive buffers.
    pub frames_received: u64,
    /// Their bytes, padding included, without the frame check sequence, with VLAN tags.
    pub bytes_received: u64,
    /// VLAN tags taken off.
    pub tags_stripped: u64,
    /// Frames lost for want of receive descriptors or bus mastering.
    pub frames_missed: u64,
    /// Write-backs of transmit descriptors.
    pub write_backs: u64,
}

impl Default for Counters {
    /// All zero.
    fn default() -> Self {
        Self {
            frames_sent: 0,
            bytes_sent: 0,
            frames_dropped: 0,
            frames_of_too_many_fragments: 0,
            frames_with_cut_headers: 0,
            fragments: [0; HISTOGRAM],
            most_fragments: 0,
            segmented: 0,
            segments_made: 0,
            checksums_inserted: 0,
            tags_inserted: 0,
            frames_received: 0,
            bytes_received: 0,
            tags_stripped: 0,
            frames_missed: 0,
            write_backs: 0,
        }
    }
}

impl Counters {
    pub(super) fn count_fragments(&mut self, fragments: u32) {
        let index = (fragments as usize).min(HISTOGRAM - 1);
        if let Some(count) = self.fragments.get_mut(index) {
            *count += 1;
        }
        self.most_fragments = self.most_fragments.max(fragments);
    }
}
