//! The control queue, for the one command that is needed: how many pairs are in use (virtio 1.3,
//! section "Automatic receive steering in multiqueue mode" of the control virtqueue).
//!
//! The command is in the ring before the first frame can be: a driver may use the transmit queues
//! of all pairs from then on (driver requirements there), the device those for receive once it has
//! answered. So a restart does not wait for the answer; [`ControlQueue::answer`] looks for it
//! later.

use core::time::Duration;

use pagewire_hal::{DescriptorRing, Instant, NicError, Platform};

use crate::Features;
use crate::regs::Doorbell;
use crate::ring::{self, Direction, Parts, Ring};

/// How long the device may take to answer. The specification sets no limit, and Linux waits for
/// ever.
pub(crate) const ANSWER_LIMIT: Duration = Duration::from_secs(1);
/// Descriptors that the command takes: what is asked, the answer.
pub(crate) const COMMAND_DESCRIPTORS: u16 = 2;
/// Descriptors in the ring, if the device has as many: more than the command takes, as QEMU 11.1
/// never uses, in a packed ring in order, a chain as long as the ring (`virtqueue_ordered_fill`
/// takes its length modulo the ring's).
pub(crate) const DESCRIPTORS: u16 = 4;

/// VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET.
const PAIRS_SET: [u8; 2] = [4, 0];
/// Bytes of class, command and number of pairs; the byte of the answer follows.
const COMMAND_LEN: u32 = 4;
/// VIRTIO_NET_OK.
const OK: u8 = 0;
/// What is in the place of the answer before it: neither OK nor VIRTIO_NET_ERR.
const NO_ANSWER: u8 = 0xFF;

/// What the device has said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    /// Nothing yet, since the first time that somebody looked.
    Waiting(Option<Instant>),
    /// All pairs are in use.
    Accepted,
    /// It refuses, or did not answer in time.
    Refused,
}

/// The control queue.
pub(crate) struct ControlQueue<P: Platform> {
    /// Which of the device's queues it is.
    index: u16,
    pairs: u16,
    ring: Ring<P>,
    command: DescriptorRing<P::Memory, u8>,
    bell: Option<Doorbell<P::Registers>>,
    answer: Answer,
}

impl<P: Platform> ControlQueue<P> {
    /// Queue `index` of `size` descriptors, at least [`COMMAND_DESCRIPTORS`], which asks for
    /// `pairs` pairs. The device has not been told of it.
    pub(crate) fn new(
        platform: &mut P,
        features: Features,
        index: u16,
        size: u16,
        pairs: u16,
    ) -> Result<Self, NicError> {
        Ok(Self {
            index,
            pairs,
            ring: Ring::new(platform, size, features, Direction::Command)?,
            command: ring::memory(platform, COMMAND_LEN + 1)?,
            bell: None,
            answer: Answer::Waiting(None),
        })
    }

    /// Which of the device's queues it is.
    pub(crate) fn index(&self) -> u16 {
        self.index
    }

    /// Descriptors in the ring.
    pub(crate) fn size(&self) -> u32 {
        self.ring.size()
    }

    pub(crate) fn set_bell(&mut self, bell: Doorbell<P::Registers>) {
        self.bell = Some(bell);
    }

    /// Empties the ring, which the device, reset, is to be told of next.
    pub(crate) fn prepare(&mut self) -> Parts {
        // SAFETY: saying "not quiet" only keeps memory longer.
        unsafe { self.command.set_quiet(false) };
        self.answer = Answer::Waiting(None);
        self.ring.prepare()
    }

    /// Lets the memory be freed on drop.
    ///
    /// # Safety
    /// The device is quiet and is not told of the ring again before [`prepare`](Self::prepare).
    pub(crate) unsafe fn set_quiet(&mut self) {
        // SAFETY: the caller's promise.
        unsafe { self.ring.set_quiet(true) };
        // SAFETY: the caller's promise.
        unsafe { self.command.set_quiet(true) };
    }

    /// Puts the command into the ring, of a device that runs.
    pub(crate) fn ask(&mut self) {
        let [low, high] = self.pairs.to_le_bytes();
        let bytes = [PAIRS_SET[0], PAIRS_SET[1], low, high, NO_ANSWER];
        for (at, byte) in (0..).zip(bytes) {
            self.command.write(at, byte);
        }
        let address = self.command.address();
        let answer = address.offset(u64::from(COMMAND_LEN));
        self.ring
            .add([(address, COMMAND_LEN), (answer, 1)].into_iter(), 0);
        if self.ring.publish()
            && let Some(bell) = &self.bell
        {
            // SAFETY: ring and command are in custody as not quiet.
            unsafe { bell.ring() };
        }
    }

    /// Looks whether the device has answered.
    pub(crate) fn answer(&mut self, now: Instant) -> Answer {
        let Answer::Waiting(since) = self.answer else {
            return self.answer;
        };
        let since = since.unwrap_or(now);
        self.answer = match self.ring.take_used() {
            Ok(Some(_)) if self.command.read(COMMAND_LEN) == OK => Answer::Accepted,
            Ok(None) if now.saturating_since(since) < ANSWER_LIMIT => Answer::Waiting(Some(since)),
            Ok(_) | Err(_) => Answer::Refused,
        };
        self.answer
    }

    /// Waits for the answer. Counts its own steps, so that it ends even with a clock that stands
    /// still.
    ///
    /// # Errors
    /// The device refuses, or takes too long.
    pub(crate) fn wait(&mut self, platform: &P) -> Result<(), NicError> {
        const STEP: Duration = Duration::from_millis(1);
        let mut waited = Duration::ZERO;
        loop {
            match self.answer(platform.now()) {
                Answer::Accepted => return Ok(()),
                Answer::Waiting(_) if waited < ANSWER_LIMIT => {}
                _ => {
                    return Err(NicError::NotOffered {
                        what: "use of the queue pairs that it has (its control queue refuses)",
                    });
                }
            }
            platform.wait(STEP);
            waited += STEP;
        }
    }
}
