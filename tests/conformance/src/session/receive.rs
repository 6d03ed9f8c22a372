//! What the NIC hands up of what the far end sends.

use pagewire_hal::{RxChecksum, RxHash, RxQueue};

use super::{FAR_MAC, SHORTEST, Session};
use crate::Bench;
use crate::random::Random;
use crate::verdict::{Verdict, ensure, failed};

/// Longest frame that is looked at.
const LONGEST: usize = 1 << 17;

/// A frame that was received.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Received {
    pub(crate) bytes: Vec<u8>,
    pub(crate) checksum: RxChecksum,
    pub(crate) hash: Option<RxHash>,
    /// The number of the pair that handed it up, of those that were taken.
    pub(crate) queue: u16,
}

impl Received {
    /// Whether this is `sent`, which the wire may have padded with zeros.
    pub(crate) fn is(&self, sent: &[u8]) -> bool {
        let Some((bytes, padding)) = self.bytes.split_at_checked(sent.len()) else {
            return false;
        };
        let padded_to = if padding.is_empty() {
            self.bytes.len()
        } else {
            SHORTEST
        };
        bytes == sent && self.bytes.len() == padded_to && padding.iter().all(|byte| *byte == 0)
    }
}

/// What queue `number` has received by now, appended to `frames`; with a budget of 1, one call.
fn take<Q: RxQueue>(
    (number, queue): (u16, &mut Q),
    random: &mut Random,
    scratch: &mut [u8],
    most: usize,
    frames: &mut Vec<Received>,
) -> Verdict {
    loop {
        let budget = random.within(1, most);
        let before = frames.len();
        let result = queue.receive(budget, &mut |frame| {
            frames.push(Received {
                bytes: frame.copy_to(scratch).to_vec(),
                checksum: frame.checksum(),
                hash: frame.hash(),
                queue: number,
            });
        });
        let count = result.map_err(|error| {
            let what = format!("`receive` failed: {error}");
            failed("nothing that a peer sends makes `receive` fail", what)
        })?;
        let called = frames.len() - before;
        ensure!(
            count == called && count <= budget,
            "`receive` returns how many frames it has handed up, `budget` at most",
            "`receive({budget})` returned {count} and handed up {called}"
        );
        if count < budget || most == 1 {
            return Ok(());
        }
    }
}

impl<B: Bench> Session<'_, B> {
    /// A frame of `len` bytes, at least 14, to `destination` that is like no other.
    pub(crate) fn frame_to(&mut self, destination: [u8; 6], len: usize) -> Vec<u8> {
        let mut frame = self.header(len);
        let addresses = [destination, FAR_MAC].concat();
        if let Some(target) = frame.get_mut(..12) {
            target.copy_from_slice(&addresses);
        }
        frame
    }

    /// Sends a frame from the far end.
    pub(crate) fn deliver(&mut self, frame: &[u8]) {
        self.bench.far_end().send(frame);
    }

    /// What has been received by now.
    pub(crate) fn received(&mut self) -> Verdict<Vec<Received>> {
        self.received_within(40)
    }

    /// The same by calls with a budget of at most `most`; of a single frame, one such call.
    fn received_within(&mut self, most: usize) -> Verdict<Vec<Received>> {
        let mut frames = Vec::new();
        self.scratch.resize(LONGEST, 0);
        let Self {
            rx,
            others,
            random,
            scratch,
            ..
        } = self;
        let queues = std::iter::once(rx).chain(others.iter_mut().map(|(_, rx)| rx));
        for queue in (0..).zip(queues) {
            take(queue, random, scratch, most, &mut frames)?;
        }
        for frame in &frames {
            self.seen.rx_frames += 1;
            self.seen.rx_bytes += frame.bytes.len().max(SHORTEST) as u64 + 4;
        }
        Ok(frames)
    }

    /// Waits for one frame with calls that may hand up no more than one.
    pub(crate) fn receive_single(&mut self) -> Verdict<Option<Received>> {
        let mut frames = Vec::new();
        self.wait(|session| {
            frames.append(&mut session.received_within(1)?);
            Ok(!frames.is_empty())
        })?;
        Ok(frames.pop())
    }

    /// Waits until `count` frames have been received.
    pub(crate) fn receive(&mut self, count: usize) -> Verdict<Vec<Received>> {
        let mut frames = Vec::new();
        self.wait(|session| {
            frames.append(&mut session.received()?);
            Ok(frames.len() >= count)
        })?;
        Ok(frames)
    }

    /// Sends `frames` to the NIC, which must hand up each, in order and nothing else.
    pub(crate) fn must_receive(&mut self, frames: &[Vec<u8>], what: &str) -> Verdict {
        let mut received = Vec::new();
        for few in frames.chunks(self.bench.frames_at_once().max(1)) {
            for frame in few {
                self.deliver(frame);
            }
            received.append(&mut self.receive(few.len())?);
        }
        self.settle();
        received.append(&mut self.received()?);
        const MEND: &str = "which descriptor is looked at next, and is its buffer the one that \
                            was filled? The frame check sequence is not part of a frame";
        ensure!(
            received.len() == frames.len(),
            MEND,
            "{what}: {} frames were sent, {} received",
            frames.len(),
            received.len()
        );
        for (index, (got, sent)) in received.iter().zip(frames).enumerate() {
            ensure!(
                got.is(sent),
                MEND,
                "{what}: frame {index} of {} bytes came as {} bytes: {}",
                sent.len(),
                got.bytes.len(),
                super::transmit::hex(&got.bytes)
            );
        }
        Ok(())
    }
}
