//! What the driver did that the specification forbids, and what the device has done.

use crate::violations::Reporter;

/// The reports of this model.
pub(super) type Violations = crate::violations::Violations<Model>;

/// The name of this model in the log.
#[derive(Debug)]
pub(super) enum Model {}

impl Reporter for Model {
    const NAME: &'static str = "virtio-net";
}

/// What a [`VirtioNet`](super::VirtioNet) has done since it was made. No reset clears it.
///
/// *Buffers* are what the driver makes available: for transmission, one buffer is one frame or one
/// request for segmentation. Bytes of frames are without the frame check sequence and without the
/// header of virtio.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Counters {
    /// Frames put on the wire; those that segmentation made count each.
    pub frames_sent: u64,
    /// Their bytes.
    pub bytes_sent: u64,
    /// Buffers that the driver made available for transmission.
    pub buffers_sent: u64,
    /// Bytes of frames and requests in them, as the driver handed them over.
    pub bytes_requested: u64,
    /// Buffers that were fetched and not sent: a violation.
    pub buffers_dropped: u64,
    /// Buffers that the device segmented.
    pub segmented: u64,
    /// Bytes of TCP payload in them.
    pub segmented_payload: u64,
    /// Frames that segmentation made.
    pub segments_made: u64,
    /// Checksums that the device put into frames at the driver's request, one a buffer.
    pub checksums_inserted: u64,
    /// Descriptors of transmit buffers, those in indirect tables included, the descriptor of the
    /// table not. The header of virtio is in none of its own where it shares the first one with
    /// the head of the frame; else it counts like any other piece.
    pub fragments: u64,
    /// The largest number of descriptors of a transmit buffer, counted the same way.
    pub most_fragments: u32,
    /// The most bytes of a frame or request.
    pub most_bytes: u32,
    /// Indirect tables read.
    pub indirect_tables: u64,
    /// Frames stored in receive buffers.
    pub frames_received: u64,
    /// Their bytes.
    pub bytes_received: u64,
    /// Frames that took more than one receive buffer.
    pub frames_merged: u64,
    /// Frames from the wire that were joined into large ones.
    pub frames_joined: u64,
    /// Large packets stored in receive buffers, with a gso_type.
    pub large_received: u64,
    /// Frames lost: too long for the buffer or the MTU, all receive queues being reset, or nobody
    /// driving the device.
    pub frames_missed: u64,
    /// Frames that the receive filter kept out.
    pub frames_filtered: u64,
    /// Doorbells.
    pub doorbells: u64,
    /// Doorbells of transmit queues.
    pub doorbells_transmit: u64,
    /// Doorbells that the device had asked not to get when it last said so.
    pub doorbells_unasked: u64,
    /// Interrupts sent.
    pub interrupts: u64,
    /// Interrupts that were not sent because the driver did not want them.
    pub interrupts_suppressed: u64,
    /// Commands in the control queue that succeeded.
    pub commands: u64,
}

impl Counters {
    /// Descriptors of a transmit buffer on average; 0 if there was none.
    #[must_use]
    pub fn mean_fragments(&self) -> f64 {
        mean(self.fragments, self.buffers_sent)
    }

    /// Bytes of a frame or request on average, as the driver handed it over; 0 if there was none.
    #[must_use]
    pub fn mean_bytes(&self) -> f64 {
        mean(self.bytes_requested, self.buffers_sent)
    }
}

fn mean(sum: u64, count: u64) -> f64 {
    if count == 0 {
        0.0
    } else {
        sum as f64 / count as f64
    }
}
