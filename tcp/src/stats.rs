//! What a connection and the stack have counted.

use core::time::Duration;

use pagewire_hal::Instant;

use crate::lending::CopiedEarly;
use crate::plan::Reason;

/// Segments and the bytes of payload in them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Count {
    /// Segments.
    pub segments: u64,
    /// Bytes of payload.
    pub bytes: u64,
}

impl Count {
    #[inline]
    pub(crate) fn add(&mut self, bytes: usize) {
        self.segments += 1;
        self.bytes += bytes as u64;
    }

    /// Bytes that went in `segments` segments.
    #[inline]
    pub(crate) fn add_segments(&mut self, segments: u64, bytes: usize) {
        self.segments += segments;
        self.bytes += bytes as u64;
    }

    fn join(&mut self, other: &Self) {
        self.segments += other.segments;
        self.bytes += other.bytes;
    }
}

/// Segments that were copied whole, by the reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Copied {
    /// The device takes one fragment per frame.
    pub no_gather: Count,
    /// Too many pieces, and too little left to share.
    pub over_budget: Count,
    /// Frames that had to be padded.
    pub too_short: Count,
    /// Bytes that can change at any moment, which the CPU had to sum.
    pub live: Count,
}

impl Copied {
    #[inline]
    pub(crate) fn add(&mut self, reason: Reason, bytes: usize) {
        match reason {
            Reason::NoGather => self.no_gather.add(bytes),
            Reason::OverBudget => self.over_budget.add(bytes),
            Reason::TooShort => self.too_short.add(bytes),
            Reason::Live => self.live.add(bytes),
        }
    }

    /// All of them.
    #[must_use]
    pub fn total(&self) -> Count {
        let mut total = self.no_gather;
        total.join(&self.over_budget);
        total.join(&self.too_short);
        total.join(&self.live);
        total
    }
}

/// Frames that the device was asked to cut into segments.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Segmented {
    /// Requests posted, of two segments or more each.
    pub requests: u64,
    /// Segments that they make on the wire.
    pub segments: u64,
    /// Bytes of payload in them.
    pub bytes: u64,
    /// Times that the page budget ended what would have been a longer request, also where one
    /// segment was left of it, see [`plan::request`](crate::plan::request).
    pub ended_by_budget: u64,
}

impl Segmented {
    fn join(&mut self, other: &Self) {
        self.requests += other.requests;
        self.segments += other.segments;
        self.bytes += other.bytes;
        self.ended_by_budget += other.ended_by_budget;
    }

    /// Mean payload of a request in bytes, rounded down; `None` if there was none.
    #[must_use]
    pub const fn mean_payload(&self) -> Option<u64> {
        self.bytes.checked_div(self.requests)
    }
}

/// Who computed the checksums of the segments posted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Checksums {
    /// TCP checksums left to the device.
    pub tcp_device: u64,
    /// TCP checksums summed by the CPU.
    pub tcp_cpu: u64,
    /// IPv4 header checksums left to the device.
    pub ipv4_device: u64,
    /// IPv4 header checksums summed by the CPU.
    pub ipv4_cpu: u64,
}

/// What one connection has counted; for the stack, all of its connections together.
///
/// Retransmissions count as posted in `shared_bytes`, `rescued` and `copied`, so that
/// `shared_bytes` is what the device was told to fetch from the program's pages.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct ConnectionStats {
    /// Segments posted that carry payload, as they are on the wire: a request for segmentation
    /// counts as those that it makes, here and below.
    pub data: Count,
    /// Segments posted without payload: SYN, bare ACK and FIN, probes, RST.
    pub control_segments: u64,
    /// Segments posted whose payload was shared, all of it from the program's pages.
    pub shared_segments: u64,
    /// Bytes posted from the program's pages, those of rescued segments included.
    pub shared_bytes: u64,
    /// Rescued segments, and the bytes copied for them as prefixes.
    pub rescued: Count,
    /// Bytes of rescued segments that were shared: a part of `shared_bytes`.
    pub rescued_shared_bytes: u64,
    /// Segments copied whole.
    pub copied: Copied,
    /// Bytes that were copied to the copy pool instead of lent, before they were sent.
    pub copied_early: CopiedEarly,
    /// Bytes posted from the copy pool: neither shared nor copied once more.
    pub pool_bytes: u64,
    /// Frames that the device was asked to cut into segments.
    pub segmented: Segmented,
    /// Segments sent again in fast recovery.
    pub fast_retransmits: Count,
    /// Segments sent again after a timeout.
    pub timeout_retransmits: Count,
    /// Expiries of the retransmission timer.
    pub timeouts: u64,
    /// Times that a retransmission was put off, as the original was still in the ring.
    pub put_off: u64,
    /// Bytes that the peer acknowledged cumulatively.
    pub bytes_acked: u64,
    /// Zero-window probes sent.
    pub window_probes: u64,
    /// Duplicate acknowledgments received.
    pub duplicate_acks: u64,
    /// Acknowledgments sent in answer to segments that a stranger might have forged (RFC 5961).
    pub challenge_acks: u64,
    /// Times that the ring or the buffers were full.
    pub ring_full: u64,
    /// Frames that the queue refused for another reason: it is down, or the frame is malformed.
    pub refused_posts: u64,
    /// Who computed the checksums.
    pub checksums: Checksums,
    /// Bytes received in order and kept for the program.
    pub bytes_received: u64,
    /// Segments received and not kept: out of order, outside the window, old or unacceptable.
    pub segments_not_kept: u64,
    /// How long pages were lent, from the first post of a frame (a segment, or a request for
    /// segmentation) until it was acknowledged and the device had completed. A request of which
    /// parts were sent again counts once for each part.
    pub lent: LentTimes,
}

impl ConnectionStats {
    /// Adds what others have counted: other connections, or those of another stack, as a program
    /// has that gives each queue its own.
    pub fn join(&mut self, other: &Self) {
        self.data.join(&other.data);
        self.rescued.join(&other.rescued);
        self.copied.no_gather.join(&other.copied.no_gather);
        self.copied.over_budget.join(&other.copied.over_budget);
        self.copied.too_short.join(&other.copied.too_short);
        self.copied.live.join(&other.copied.live);
        self.copied_early.join(&other.copied_early);
        self.pool_bytes += other.pool_bytes;
        self.segmented.join(&other.segmented);
        self.fast_retransmits.join(&other.fast_retransmits);
        self.timeout_retransmits.join(&other.timeout_retransmits);
        self.control_segments += other.control_segments;
        self.shared_segments += other.shared_segments;
        self.shared_bytes += other.shared_bytes;
        self.rescued_shared_bytes += other.rescued_shared_bytes;
        self.timeouts += other.timeouts;
        self.put_off += other.put_off;
        self.bytes_acked += other.bytes_acked;
        self.window_probes += other.window_probes;
        self.duplicate_acks += other.duplicate_acks;
        self.challenge_acks += other.challenge_acks;
        self.ring_full += other.ring_full;
        self.refused_posts += other.refused_posts;
        self.checksums.tcp_device += other.checksums.tcp_device;
        self.checksums.tcp_cpu += other.checksums.tcp_cpu;
        self.checksums.ipv4_device += other.checksums.ipv4_device;
        self.checksums.ipv4_cpu += other.checksums.ipv4_cpu;
        self.bytes_received += other.bytes_received;
        self.segments_not_kept += other.segments_not_kept;
        self.lent.join(&other.lent);
    }

    /// Segments and bytes sent again, for whatever cause.
    #[must_use]
    pub fn retransmits(&self) -> Count {
        let mut total = self.fast_retransmits;
        total.join(&self.timeout_retransmits);
        total
    }
}

/// Frames that were received and led to nothing, by the cause.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Dropped {
    /// No Ethernet header, or another protocol than ARP and IPv4.
    pub not_ours: u64,
    /// For another station or another IPv4 address.
    pub other_destination: u64,
    /// ARP, IPv4 or TCP headers that do not parse.
    pub malformed: u64,
    /// Fragments of IPv4 packets: there is no reassembly.
    pub fragments: u64,
    /// Wrong checksum of the IPv4 header or of the segment.
    pub checksum: u64,
    /// ICMP packets, which are ignored.
    pub icmp: u64,
    /// Other protocols over IPv4.
    pub protocol: u64,
    /// Segments without a connection, most of them answered with RST.
    pub no_connection: u64,
    /// SYNs that came while the backlog of their listener was full.
    pub backlog: u64,
}

/// What the stack has counted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct StackStats {
    /// All connections, those removed included.
    pub connections: ConnectionStats,
    /// Frames received.
    pub frames_received: u64,
    /// Frames received that led to nothing.
    pub dropped: Dropped,
    /// ARP requests and replies sent.
    pub arp_sent: u64,
    /// RSTs sent to segments without a connection.
    pub resets_sent: u64,
    /// Replies (ARP, RST) that found no room and were not sent.
    pub replies_lost: u64,
}

/// Buckets per power of two.
const STEPS: u32 = 4;
const BUCKETS: usize = 32 * STEPS as usize;

/// A histogram of times of lending: 4 buckets per power of two, from a microsecond to an hour.
#[derive(Clone, PartialEq, Eq)]
pub struct LentTimes {
    buckets: [u32; BUCKETS],
    count: u64,
}

impl Default for LentTimes {
    fn default() -> Self {
        Self {
            buckets: [0; BUCKETS],
            count: 0,
        }
    }
}

impl core::fmt::Debug for LentTimes {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("LentTimes")
            .field("count", &self.count)
            .field("p50", &self.percentile(50))
            .field("p99", &self.percentile(99))
            .finish()
    }
}

impl LentTimes {
    #[inline]
    pub(crate) fn add(&mut self, from: Instant, to: Instant) {
        // All in 64 bits: this is done for every segment.
        let micros = to.as_nanos().saturating_sub(from.as_nanos()) / 1000;
        let micros = u32::try_from(micros).unwrap_or(u32::MAX).max(1);
        // The power of two, and the two bits below the highest.
        let log2 = micros.ilog2();
        let step = if log2 >= 2 {
            micros >> (log2 - 2) & (STEPS - 1)
        } else {
            micros << (2 - log2) & (STEPS - 1)
        };
        if let Some(bucket) = self.buckets.get_mut((log2 * STEPS + step) as usize) {
            *bucket = bucket.saturating_add(1);
        }
        self.count += 1;
    }

    fn join(&mut self, other: &Self) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine = mine.saturating_add(*theirs);
        }
        self.count += other.count;
    }

    /// Frames counted.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The time that `percent` of 100 frames were lent for at most, to within a quarter of it
    /// upwards; `None` if none was counted.
    #[must_use]
    pub fn percentile(&self, percent: u8) -> Option<Duration> {
        let total: u64 = self.buckets.iter().map(|n| u64::from(*n)).sum();
        if total == 0 {
            return None;
        }
        let wanted = (total * u64::from(percent.min(100))).div_ceil(100).max(1);
        let mut seen = 0;
        for (index, n) in self.buckets.iter().enumerate() {
            seen += u64::from(*n);
            if seen >= wanted {
                return Some(upper_bound(index as u32));
            }
        }
        None
    }

    /// Half of all frames were lent for at most this.
    #[must_use]
    pub fn p50(&self) -> Option<Duration> {
        self.percentile(50)
    }

    /// 99 of 100 frames were lent for at most this.
    #[must_use]
    pub fn p99(&self) -> Option<Duration> {
        self.percentile(99)
    }
}

/// Where the bucket ends.
fn upper_bound(index: u32) -> Duration {
    let (log2, step) = (index / STEPS, index % STEPS);
    let quarters = u64::from(STEPS + step + 1) << log2;
    Duration::from_nanos(quarters * 1000 / u64::from(STEPS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_a_quarter() {
        for micros in [1u64, 2, 3, 5, 7, 8, 100, 999, 1000, 65_537, 3_000_000] {
            let mut times = LentTimes::default();
            times.add(Instant::ZERO, Instant::from_nanos(micros * 1000));
            let p50 = times.p50().unwrap().as_nanos();
            let exact = u128::from(micros) * 1000;
            assert!(p50 > exact && p50 <= exact * 5 / 4, "{micros} us: {p50}");
        }
    }

    #[test]
    fn the_median_and_the_tail_differ() {
        let mut times = LentTimes::default();
        assert_eq!(times.p50(), None);
        for _ in 0..98 {
            times.add(Instant::ZERO, Instant::from_nanos(100_000));
        }
        times.add(Instant::ZERO, Instant::from_nanos(50_000_000));
        times.add(Instant::ZERO, Instant::from_nanos(50_000_000));
        assert_eq!(times.count(), 100);
        assert!(times.p50().unwrap() < Duration::from_micros(126));
        assert!(times.p99().unwrap() >= Duration::from_millis(50));
    }
}
