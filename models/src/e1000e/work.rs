//! What the two halves of the DMA engine share for the time of a step.

use std::collections::VecDeque;

use super::latitude::Latitude;
use super::pace::{Pace, Random};
use super::registers::RegisterFile;
use super::statistics::{Counters, Statistics};
use super::violations::Violations;
use crate::{Bus, Wire};

/// The rest of the device and its surroundings, as a queue sees it while it works.
pub(super) struct Work<'a> {
    pub(super) bus: &'a mut dyn Bus,
    pub(super) wire: &'a mut dyn Wire,
    /// Where frames go and come from instead of the wire, in loopback.
    pub(super) looped: Option<&'a mut VecDeque<Vec<u8>>>,
    pub(super) pace: Pace,
    pub(super) latitude: Latitude,
    pub(super) registers: &'a RegisterFile,
    pub(super) random: &'a mut Random,
    /// For freedoms that were added later.
    pub(super) late_random: &'a mut Random,
    pub(super) msix: bool,
    pub(super) violations: &'a mut Violations,
    pub(super) statistics: &'a mut Statistics,
    pub(super) counters: &'a mut Counters,
    /// Completions are held back.
    pub(super) hold: bool,
    /// Interrupt causes to raise when the step ends.
    pub(super) causes: u32,
}

/// Frames in loopback that the receiver has not taken yet: more are lost. (The device has a packet
/// buffer for them, which is not modelled.)
const MOST_LOOPED: usize = 1024;

impl Work<'_> {
    /// Sends a frame, or in loopback gives it to the receiver.
    pub(super) fn send(&mut self, frame: &mut Vec<u8>) {
        match &mut self.looped {
            Some(looped) if looped.len() < MOST_LOOPED => looped.push_back(frame.clone()),
            Some(_) => self.counters.frames_missed += 1,
            None if self.latitude.qemu.sends_without_link && !self.wire.carrier() => {}
            None => self.wire.transmit(frame, self.pace.now),
        }
    }

    /// Takes the next frame that has come, in loopback from the transmitter. (What comes by the
    /// wire meanwhile waits there; the sources do not say what becomes of it.)
    pub(super) fn next_frame(&mut self, frame: &mut Vec<u8>) -> bool {
        match &mut self.looped {
            Some(looped) => looped.pop_front().map(|next| *frame = next).is_some(),
            None => self.wire.receive(frame, self.pace.now),
        }
    }

    /// The causes of a write-back: that of its queue, and that of all queues, or as QEMU has it.
    pub(super) fn write_back_causes(&self, queue: u32, all: u32) -> u32 {
        match (self.latitude.qemu.queue_causes_alone, self.msix) {
            (false, _) => queue | all,
            (true, true) => queue,
            (true, false) => all,
        }
    }
}
