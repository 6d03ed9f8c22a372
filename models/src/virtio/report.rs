//! What the driver did that the specification forbids, and what the device has done.

/// Texts kept until somebody asks; later ones are only counted.
const MOST_KEPT: usize = 256;

/// The reports, oldest first.
#[derive(Debug, Default)]
pub(super) struct Violations {
    kept: Vec<String>,
    unsaid: u64,
    silence: Silence,
}

/// Whether reports mean anything: what a driver does that was lied to is no offence.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Silence {
    #[default]
    None,
    /// The device is hostile.
    Hostile,
    /// It was, and there was no reset since.
    UntilReset,
}

impl Violations {
    /// The device is hostile from now on.
    pub(super) fn mute(&mut self) {
        self.silence = Silence::Hostile;
    }

    /// The device is hostile no more.
    pub(super) fn unmute(&mut self) {
        if self.silence == Silence::Hostile {
            self.silence = Silence::UntilReset;
        }
    }

    /// The device has been reset.
    pub(super) fn note_reset(&mut self) {
        if self.silence == Silence::UntilReset {
            self.silence = Silence::None;
        }
    }

    pub(super) fn report(&mut self, text: String) {
        if self.silence != Silence::None {
            return;
        }
        log::warn!("virtio-net: {text}");
        if self.kept.len() < MOST_KEPT {
            self.kept.push(text);
        } else {
            self.unsaid += 1;
        }
    }

    pub(super) fn take(&mut self) -> Vec<String> {
        let mut taken = core::mem::take(&mut self.kept);
        if self.unsaid > 0 {
            taken.push(format!("and {} more", core::mem::take(&mut self.unsaid)));
        }
        taken
    }
}

/// What a [`VirtioNet`](super::VirtioNet) has done since it was made. No reset clears it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Counters {
    /// Frames put on the wire; those that segmentation made count each.
    pub frames_sent: u64,
    /// Their bytes, without the frame check sequence.
    pub bytes_sent: u64,
    /// Buffers that the driver made available for transmission.
    pub buffers_sent: u64,
    /// Buffers that were fetched and not sent: a violation.
    pub buffers_dropped: u64,
    /// Buffers that the device segmented.
    pub segmented: u64,
    /// Checksums that the device put into frames at the driver's request, one a buffer.
    pub checksums_inserted: u64,
    /// Descriptors of transmit buffers, those in indirect tables included, the descriptor of the
    /// table not.
    pub fragments: u64,
    /// The largest number of descriptors of a transmit buffer, counted the same way.
    pub most_fragments: u32,
    /// Indirect tables read.
    pub indirect_tables: u64,
    /// Frames stored in receive buffers.
    pub frames_received: u64,
    /// Their bytes, without the header of virtio.
    pub bytes_received: u64,
    /// Frames that took more than one receive buffer.
    pub frames_merged: u64,
    /// Frames lost: too long for the buffer or the MTU, or nobody was driving the device.
    pub frames_missed: u64,
    /// Frames that the receive filter kept out.
    pub frames_filtered: u64,
    /// Doorbells.
    pub doorbells: u64,
    /// Doorbells that the device had asked not to get when it last said so.
    pub doorbells_unasked: u64,
    /// Interrupts sent.
    pub interrupts: u64,
    /// Interrupts that were not sent because the driver did not want them.
    pub interrupts_suppressed: u64,
    /// Commands in the control queue that succeeded.
    pub commands: u64,
}
