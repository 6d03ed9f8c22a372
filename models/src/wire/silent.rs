//! A wire with nothing at its other end.

use pagewire_hal::Instant;

use crate::Wire;

/// A wire with nobody at its other end: what is put on it is gone, and nothing ever arrives.
#[derive(Clone, Copy, Debug)]
pub struct Silent {
    carrier: bool,
}

impl Silent {
    /// A cable that leads to something that never says a word.
    #[must_use]
    pub const fn new() -> Self {
        Self { carrier: true }
    }

    /// No cable at all.
    #[must_use]
    pub const fn unplugged() -> Self {
        Self { carrier: false }
    }
}

impl Default for Silent {
    /// As [`new`](Self::new).
    fn default() -> Self {
        Self::new()
    }
}

impl Wire for Silent {
    fn transmit(&mut self, _frame: &mut Vec<u8>, _now: Instant) {}

    fn receive(&mut self, _frame: &mut Vec<u8>, _now: Instant) -> bool {
        false
    }

    fn carrier(&self) -> bool {
        self.carrier
    }
}
