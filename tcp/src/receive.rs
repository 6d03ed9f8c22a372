//! The receiving side: a bounded buffer of bytes in order, and the window offered to the peer.
//!
//! This is a sender first: what arrives out of order is not kept, but answered with a duplicate
//! acknowledgment at once, so that the peer sends it again. Every data segment is acknowledged
//! by the next [`poll`](crate::Stack::poll); there is no timer for delayed acknowledgments.

use alloc::boxed::Box;

use crate::seq::SeqNumber;

/// What arrived in order and was not read, and the numbers around it.
#[derive(Debug)]
pub(crate) struct Receiver {
    /// The ring; allocated when the first byte arrives.
    ring: Box<[u8]>,
    /// Place of the first byte in the ring.
    head: usize,
    /// Bytes in the ring.
    len: usize,
    /// Bytes that the ring holds once it is allocated: the largest window.
    capacity: usize,
    /// RCV.NXT.
    next: SeqNumber,
    /// Right edge of the window as last told to the peer.
    edge: SeqNumber,
    /// Shift of the window field.
    scale: u8,
    /// The peer has sent its last byte and everything before.
    finished: bool,
}

impl Receiver {
    /// A window of `capacity` bytes, at most 2^30.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            ring: Box::default(),
            head: 0,
            len: 0,
            capacity: capacity.clamp(1, 1 << 30),
            next: SeqNumber(0),
            edge: SeqNumber(0),
            scale: 0,
            finished: false,
        }
    }

    /// The shift to offer: the smallest with which the field can tell the whole window.
    pub(crate) fn wanted_scale(&self) -> u8 {
        (0..14)
            .find(|shift| self.capacity >> shift <= usize::from(u16::MAX))
            .unwrap_or(14)
    }

    /// The peer's SYN was `irs`; the window field is shifted by `scale` from now on.
    pub(crate) fn start(&mut self, irs: SeqNumber, scale: u8) {
        self.next = irs.add(1);
        self.edge = self.next;
        self.scale = scale;
    }

    /// RCV.NXT.
    #[inline]
    pub(crate) const fn next(&self) -> SeqNumber {
        self.next
    }

    #[inline]
    pub(crate) const fn finished(&self) -> bool {
        self.finished
    }

    /// Bytes that can be read.
    #[inline]
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// RCV.WND: what the peer may send. Never less than what it was told before (RFC 9293
    /// section 3.8.6: no shrinking).
    #[inline]
    pub(crate) fn window(&self) -> u32 {
        let told = self.edge.distance(self.next).max(0).cast_unsigned();
        ((self.capacity - self.len) as u32).max(told)
    }

    /// The window field of a segment that is being sent, which the peer will remember. `scaled`
    /// is false for a SYN.
    #[inline]
    pub(crate) fn offer(&mut self, scaled: bool) -> u16 {
        let shift = if scaled { self.scale } else { 0 };
        let free = (self.capacity - self.len) as u32;
        let told = self.edge.distance(self.next).max(0).cast_unsigned();
        // Receiver's silly window avoidance (RFC 9293 section 3.8.6.2.2): the edge moves by a
        // step worth having, or not at all.
        let window = if free > told && free - told < self.step() {
            told
        } else {
            free.max(told)
        };
        let field = u16::try_from(window >> shift).unwrap_or(u16::MAX);
        let edge = self.next.add(u32::from(field) << shift);
        self.edge = self.edge.max(edge);
        field
    }

    /// Whether the window could be opened by a step worth telling the peer.
    #[inline]
    pub(crate) fn window_update_due(&self) -> bool {
        let told = self.edge.distance(self.next).max(0).cast_unsigned();
        let free = (self.capacity - self.len) as u32;
        free.saturating_sub(told) >= self.step() && told < self.capacity as u32 / 2
    }

    /// The smallest step of the right edge: half the buffer, or a usual segment.
    #[inline]
    fn step(&self) -> u32 {
        (self.capacity as u32 / 2).clamp(1, 1460)
    }

    /// RFC 9293 section 3.10.7.4, first check: whether a segment of `len` sequence numbers from
    /// `seq` touches the window.
    #[inline]
    pub(crate) fn acceptable(&self, seq: SeqNumber, len: u32) -> bool {
        let window = self.window();
        let inside = |at: SeqNumber| {
            let distance = at.distance(self.next);
            distance >= 0 && distance.cast_unsigned() < window
        };
        match (len, window) {
            (0, 0) => seq == self.next,
            (0, _) => inside(seq),
            (_, 0) => false,
            _ => inside(seq) || inside(seq.add(len - 1)),
        }
    }

    /// Keeps the part of `payload` (which begins at `seq`) that is next in order and inside the
    /// window, and notes the FIN behind it. Returns the bytes kept.
    pub(crate) fn keep(&mut self, seq: SeqNumber, payload: &[u8], fin: bool) -> usize {
        let old = self.next.distance(seq);
        if old < 0 || self.finished {
            return 0;
        }
        let Some(new) = payload.get(old.cast_unsigned() as usize..) else {
            return 0;
        };
        let kept = self.write(new);
        self.next = self.next.add(kept as u32);
        if fin && kept == new.len() {
            self.finished = true;
            self.next = self.next.add(1);
        }
        kept
    }

    fn write(&mut self, bytes: &[u8]) -> usize {
        if self.ring.is_empty() && !bytes.is_empty() {
            self.ring = alloc::vec![0; self.capacity].into_boxed_slice();
        }
        let count = bytes.len().min(self.ring.len() - self.len);
        let Some(bytes) = bytes.get(..count) else {
            return 0;
        };
        let mut tail = self.head + self.len;
        if tail >= self.ring.len() {
            tail -= self.ring.len();
        }
        let first = count.min(self.ring.len() - tail);
        let (early, late) = bytes.split_at(first);
        copy(self.ring.get_mut(tail..tail + first), early);
        copy(self.ring.get_mut(..late.len()), late);
        self.len += count;
        count
    }

    /// Moves bytes to `target` and returns how many.
    pub(crate) fn read(&mut self, target: &mut [u8]) -> usize {
        let count = target.len().min(self.len);
        let first = count.min(self.ring.len() - self.head);
        let (early, late) = target.split_at_mut(first);
        let late_len = count - first;
        copy(
            Some(early),
            self.ring
                .get(self.head..self.head + first)
                .unwrap_or_default(),
        );
        copy(
            late.get_mut(..late_len),
            self.ring.get(..late_len).unwrap_or_default(),
        );
        self.len -= count;
        self.head += count;
        if self.head >= self.ring.len() {
            self.head -= self.ring.len();
        }
        count
    }
}

/// Copies between slices of the same length.
fn copy(target: Option<&mut [u8]>, source: &[u8]) {
    if let Some(target) = target.filter(|target| target.len() == source.len()) {
        target.copy_from_slice(source);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn receiver(capacity: usize) -> Receiver {
        let mut receiver = Receiver::new(capacity);
        receiver.start(SeqNumber(u32::MAX - 3), 0);
        let _ = receiver.offer(true);
        receiver
    }

    #[test]
    fn bytes_come_out_in_order_around_the_ring() {
        let mut r = receiver(10);
        let stream: Vec<u8> = (0..100).collect();
        let (mut sent, mut got) = (0, Vec::new());
        while got.len() < stream.len() {
            let end = (sent + 7).min(stream.len());
            let seq = SeqNumber(u32::MAX - 2).add(sent as u32);
            sent += r.keep(seq, &stream[sent..end], false);
            let mut chunk = [0; 4];
            let n = r.read(&mut chunk);
            got.extend_from_slice(&chunk[..n]);
        }
        assert_eq!(got, stream);
    }

    #[test]
    fn overlap_is_cut_and_gaps_are_not_kept() {
        let mut r = receiver(100);
        let start = r.next();
        assert_eq!(r.keep(start, b"abcd", false), 4);
        assert_eq!(r.keep(start.add(2), b"cdef", false), 2);
        assert_eq!(r.keep(start.add(8), b"xx", false), 0);
        assert_eq!(r.keep(start, b"abc", false), 0);
        let mut all = [0; 8];
        assert_eq!(r.read(&mut all), 6);
        assert_eq!(&all[..6], b"abcdef");
    }

    #[test]
    fn a_fin_counts_when_all_before_it_fits() {
        let mut r = receiver(4);
        let start = r.next();
        assert_eq!(r.keep(start, b"abcdef", true), 4);
        assert!(!r.finished());
        let mut out = [0; 4];
        r.read(&mut out);
        assert_eq!(r.keep(start.add(4), b"ef", true), 2);
        assert!(r.finished());
        assert_eq!(r.next(), start.add(7));
    }

    #[test]
    fn the_window_never_shrinks_and_opens_in_steps() {
        let mut r = receiver(3000);
        let start = r.next();
        assert_eq!(r.window(), 3000);
        assert_eq!(r.keep(start, &[0; 3000], false), 3000);
        assert_eq!(r.offer(true), 0);
        let mut few = [0; 100];
        r.read(&mut few);
        assert_eq!(r.offer(true), 0, "100 bytes are not worth telling");
        assert!(!r.window_update_due());
        r.read(&mut [0; 2000]);
        assert!(r.window_update_due());
        assert_eq!(r.offer(true), 2100);
        assert!(!r.window_update_due());
    }

    #[test]
    fn a_shifted_window_is_told_rounded_down() {
        let mut r = Receiver::new(1_000_001);
        assert_eq!(r.wanted_scale(), 4);
        r.start(SeqNumber(5), 4);
        assert_eq!(r.offer(true), (1_000_001u32 >> 4) as u16);
        assert_eq!(r.offer(false), u16::MAX, "a SYN is not scaled");
    }
}
