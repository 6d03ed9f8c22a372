//! What the model counts for the people around it.

/// Frames by number of fragments; the last entry counts all that had more.
pub const HISTOGRAM: usize = 42;

/// What an [`Ixgbe82599`](super::Ixgbe82599) has done since it was made. No reset clears it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Counters {
    /// Frames put on the wire (or looped back); those that segmentation made count each.
    pub frames_sent: u64,
    /// Their bytes, padding and tag included, without the frame check sequence.
    pub bytes_sent: u64,
    /// Frames and requests for segmentation that were fetched.
    pub requests: u64,
    /// Bytes of them, as the driver handed them over.
    pub bytes_requested: u64,
    /// Frames and requests that were fetched and not sent: a violation.
    pub frames_dropped: u64,
    /// Requests fetched, by number of fragments (data descriptors): entry *n* counts those of
    /// *n*, the last one also all those of more.
    pub fragments: [u64; HISTOGRAM],
    /// The largest number of fragments of a frame or request.
    pub most_fragments: u32,
    /// The most bytes of a frame or request.
    pub most_bytes: u32,
    /// Context descriptors.
    pub contexts: u64,
    /// Of these, those that put into a slot what was in it already.
    pub contexts_repeated: u64,
    /// Requests that the device segmented.
    pub segmented: u64,
    /// Bytes of TCP payload in them.
    pub segmented_payload: u64,
    /// Frames that segmentation made.
    pub segments_made: u64,
    /// Checksums that the device put into frames, those of segments included.
    pub checksums_inserted: u64,
    /// VLAN tags that the device put on, those of segments included.
    pub tags_inserted: u64,
    /// Frames stored in receive buffers.
    pub frames_received: u64,
    /// Their bytes as they were on the wire, with padding and tag, without the frame check sequence.
    pub bytes_received: u64,
    /// VLAN tags that the device took off.
    pub tags_stripped: u64,
    /// Of these frames, those that took more than one buffer.
    pub frames_scattered: u64,
    /// Frames lost for want of receive descriptors, packet buffer or a running queue.
    pub frames_missed: u64,
    /// Frames that the address filter kept out.
    pub frames_filtered: u64,
    /// Write-backs of transmit descriptors, or of the head.
    pub write_backs: u64,
    /// Writes to the tail of a transmit queue that moved it.
    pub doorbells: u64,
    /// MSI-X messages sent.
    pub interrupts: u64,
}

impl Default for Counters {
    /// All zero.
    fn default() -> Self {
        Self {
            frames_sent: 0,
            bytes_sent: 0,
            requests: 0,
            bytes_requested: 0,
            frames_dropped: 0,
            fragments: [0; HISTOGRAM],
            most_fragments: 0,
            most_bytes: 0,
            contexts: 0,
            contexts_repeated: 0,
            segmented: 0,
            segmented_payload: 0,
            segments_made: 0,
            checksums_inserted: 0,
            tags_inserted: 0,
            frames_received: 0,
            bytes_received: 0,
            tags_stripped: 0,
            frames_scattered: 0,
            frames_missed: 0,
            frames_filtered: 0,
            write_backs: 0,
            doorbells: 0,
            interrupts: 0,
        }
    }
}

impl Counters {
    pub(super) fn count_request(&mut self, fragments: u32, bytes: usize) {
        let index = (fragments as usize).min(HISTOGRAM - 1);
        if let Some(count) = self.fragments.get_mut(index) {
            *count += 1;
        }
        self.requests += 1;
        self.bytes_requested += bytes as u64;
        self.most_fragments = self.most_fragments.max(fragments);
        self.most_bytes = self.most_bytes.max(bytes as u32);
    }

    /// Fragments of a frame or request on average; 0 if there was none. Those of more than the
    /// last entry of [`fragments`](Self::fragments) count as that many.
    #[must_use]
    pub fn mean_fragments(&self) -> f64 {
        if self.requests == 0 {
            return 0.0;
        }
        let pairs = self.fragments.iter().zip(0u64..);
        let sum: u64 = pairs.map(|(count, fragments)| count * fragments).sum();
        sum as f64 / self.requests as f64
    }
}
