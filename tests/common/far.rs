//! The far end of a wire in memory, for the conformance suite.

use pagewire::hal::Instant;
use pagewire_conformance::FarEnd;
use pagewire_models::Wire;
use pagewire_models::wire::{PairEnd, Plug};

/// The far end, and the plug in between.
pub(crate) struct Far {
    pub(crate) end: PairEnd,
    pub(crate) plug: Plug,
}

impl FarEnd for Far {
    fn send(&mut self, frame: &[u8]) {
        self.end.transmit(&mut frame.to_vec(), Instant::ZERO);
    }

    fn take(&mut self) -> Option<Vec<u8>> {
        let mut frame = Vec::new();
        self.end.receive(&mut frame, Instant::ZERO).then_some(frame)
    }
}
